//! Reading what a Job is told.

use serde::de::DeserializeOwned;

/// Reads a variable that holds JSON.
///
/// # Errors
/// What is wrong with it and where, without quoting it.
pub fn parse_json<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    if text.trim().is_empty() {
        return Err(format!(
            "{name} is empty; it holds JSON as docs/reference/contracts.md describes it"
        ));
    }
    serde_json::from_str(text).map_err(|error| {
        // The parser's own words may quote what it read.
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or of a wrong type",
            _ => "it is no JSON",
        };
        let (line, column) = (error.line(), error.column());
        format!("{name} cannot be read: {what} (line {line}, column {column})")
    })
}

#[cfg(test)]
mod tests {
    use perennial_crds::retrain::PrepareSettings;

    use super::*;

    #[test]
    fn errors_say_where_and_quote_nothing() {
        let read = |text: &str| parse_json::<PrepareSettings>("PREPARE_SETTINGS", text).expect_err("wrong");
        assert!(read(" ").contains("is empty"));
        assert!(read("{").contains("no JSON (line 1, column 1)"), "{}", read("{"));
        let typed = read(r#"{"cycleId": "c", "from": "secret"}"#);
        assert!(
            typed.contains("wrong type (line 1") && !typed.contains("secret"),
            "{typed}"
        );
    }
}
