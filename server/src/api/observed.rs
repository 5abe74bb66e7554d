//! Whether a request is counted in drift panes and may be kept for retraining, and as whose: its headers say so.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use perennial_crds::capture::Level;

use super::request_id;
use crate::capture::Texts;
use crate::observation::Question;
use crate::shared::Shared;
use crate::text::Asked;

const OBSERVE: HeaderName = HeaderName::from_static("x-perennial-observe");
const TRAFFIC: HeaderName = HeaderName::from_static("x-perennial-traffic");
/// Traffic that does not say what users ask.
const OF_MACHINES: [&str; 4] = ["probe", "evaluation", "shadow", "canary"];

/// The identity of a request that is observed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Observed(pub(super) Option<String>);

impl Observed {
    fn of(headers: &HeaderMap) -> Self {
        let says = |name: &HeaderName, words: &[&str]| {
            let values = headers.get_all(name).iter();
            values
                .filter_map(|value| value.to_str().ok())
                .any(|value| words.iter().any(|word| value.trim().eq_ignore_ascii_case(word)))
        };
        if says(&OBSERVE, &["off"]) || says(&TRAFFIC, &OF_MACHINES) {
            return Self(None);
        }
        let id = headers.get(request_id::NAME).and_then(|id| id.to_str().ok());
        Self(Some(id.unwrap_or_default().to_owned()))
    }

    /// What the panes and the sample are to know of the request. Nothing is copied that is not wanted. `texts` is `None` where
    /// only token ids are known, of which nothing can be learned.
    pub(super) fn asked(
        self,
        shared: &Shared,
        user: Option<String>,
        texts: Option<Texts<'_>>,
        question: impl FnOnce(String, Option<String>) -> Question,
    ) -> Asked {
        let Some(id) = self.0.filter(|_| shared.capture.level() > Level::None) else {
            return Asked::default();
        };
        let draft = texts.and_then(|texts| shared.capture.draft(&id, user.as_deref(), texts));
        Asked {
            draft,
            question: Some(question(id, user)),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Observed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_known_words_keep_a_request_out_of_the_panes() {
        let table = [
            ("x-perennial-observe", "off", false),
            ("x-perennial-observe", "OFF", false),
            ("x-perennial-observe", "on", true),
            ("x-perennial-observe", "no", true),
            ("x-perennial-traffic", "probe", false),
            ("x-perennial-traffic", "Evaluation", false),
            ("x-perennial-traffic", "shadow", false),
            ("x-perennial-traffic", "canary", false),
            ("x-perennial-traffic", "off", true),
            ("x-perennial-traffic", "", true),
            ("x-other", "off", true),
        ];
        for (name, value, observed) in table {
            let headers = HeaderMap::from_iter([
                (HeaderName::from_static(name), HeaderValue::from_static(value)),
                (request_id::NAME, HeaderValue::from_static("mine")),
            ]);
            let expected = observed.then(|| "mine".to_owned());
            assert_eq!(Observed::of(&headers), Observed(expected), "{name}: {value}");
        }
    }
}
