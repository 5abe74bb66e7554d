//! What a registry says when it does not take what is pushed, and what follows from it. Pure.

use serde::Deserialize;

/// What a registry says when it refuses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) code: String,
    message: String,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

impl Said {
    pub(crate) fn read(body: &[u8]) -> Self {
        let errors = serde_json::from_slice::<Errors>(body).map(|body| body.errors);
        errors.unwrap_or_default().into_iter().next().unwrap_or_default()
    }

    /// To be put behind a status.
    pub(crate) fn text(&self) -> String {
        match (self.code.is_empty(), self.message.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!(": {}", self.code),
            (true, false) => format!(": {}", self.message),
            (false, false) => format!(": {}: {}", self.code, self.message),
        }
    }
}

/// What to do about a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Again,
    Unauthorized,
    NotFound,
    Refused,
}

/// Sorts a refusal. An upload that was lost, or came damaged, is begun anew.
pub(crate) fn verdict(status: u16, code: &str) -> Verdict {
    match (status, code) {
        (401 | 403, _) => Verdict::Unauthorized,
        (
            _,
            "BLOB_UPLOAD_UNKNOWN"
            | "BLOB_UPLOAD_INVALID"
            | "DIGEST_INVALID"
            | "SIZE_INVALID"
            | "MANIFEST_BLOB_UNKNOWN"
            | "TOOMANYREQUESTS",
        )
        | (408 | 416 | 425 | 429 | 500.., _) => Verdict::Again,
        (404, _) => Verdict::NotFound,
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sorted() {
        for (status, code, expected) in [
            (401, "UNAUTHORIZED", Verdict::Unauthorized),
            (403, "DENIED", Verdict::Unauthorized),
            (404, "NAME_UNKNOWN", Verdict::NotFound),
            (404, "BLOB_UPLOAD_UNKNOWN", Verdict::Again),
            (400, "DIGEST_INVALID", Verdict::Again),
            (429, "", Verdict::Again),
            (503, "", Verdict::Again),
            (413, "", Verdict::Refused),
            (307, "", Verdict::Refused),
        ] {
            assert_eq!(verdict(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn a_registry_is_quoted() {
        let said = Said::read(br#"{"errors": [{"code": "DENIED", "message": "no quota", "detail": {}}]}"#);
        assert_eq!(said.text(), ": DENIED: no quota");
        assert_eq!(Said::read(b"<html>").text(), "");
    }
}
