//! `X-Request-Id`: echoed if the client sent a sensible one, made otherwise.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");
const MAX_BYTES: usize = 128;

/// The request carries from here on the id that its answer will carry.
pub(super) async fn assign(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(&NAME).filter(|id| is_sensible(id)).cloned();
    let id = sent.or_else(|| HeaderValue::from_str(&unique("req-")).ok());
    if let Some(id) = &id {
        request.headers_mut().insert(NAME, id.clone());
    }
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(NAME, id);
    }
    response
}

fn is_sensible(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty() && bytes.len() <= MAX_BYTES && bytes.iter().all(u8::is_ascii_graphic)
}

/// A name that this server never gives again, and others hardly.
pub(super) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Each RandomState has keys of its own from the system's randomness.
    let random = RandomState::new();
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{prefix}{:016x}{:016x}",
        random.hash_one(count),
        random.hash_one(!count)
    )
}

/// A number that nobody can foresee.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_printable_ids_are_echoed() {
        assert!(is_sensible(&HeaderValue::from_static("abc-123")));
        assert!(!is_sensible(&HeaderValue::from_static("a b")));
        assert!(!is_sensible(&HeaderValue::from_static("")));
        assert!(!is_sensible(
            &HeaderValue::from_str(&"x".repeat(129)).expect("a header")
        ));
        assert_ne!(unique("a"), unique("a"));
    }
}
