//! What is to be kept, checked and ready for use.

use perennial_crds::capture::{Level, RECORDS_PATH, Terms};
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::redact::{PatternError, Redactor};
use super::sample;

/// Why terms cannot be used. Says where to look and repeats nothing, for terms hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// Not the JSON that is expected, perhaps of a newer operator.
    #[error("not understood at line {line}, column {column}; is this server older than the operator?")]
    Json {
        /// Counts from 1.
        line: usize,
        /// Counts from 1.
        column: usize,
    },
    /// An impossible rate.
    #[error("samplePerMille is {0}, but at most 1000")]
    Sample(u32),
    /// Nowhere to send records to.
    #[error("collector must be http://HOST:PORT")]
    Collector,
    /// Nothing that the collector could know the server by.
    #[error("token is missing, or holds characters that no token has")]
    Token,
    /// A pattern that cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Where records go.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) url: Url,
    pub(super) authorization: HeaderValue,
}

/// What is to be kept.
#[derive(Default)]
pub struct Rules {
    level: Level,
    per_mille: u32,
    pub(super) redactor: Redactor,
    pub(super) revision: Option<String>,
    pub(super) destination: Option<Destination>,
    /// How often less than texts was to be kept before.
    pub(super) lowered: u64,
}

impl Rules {
    /// The rules of these terms; the default where nothing is said.
    ///
    /// # Errors
    /// Terms that cannot be used. What only matters for a higher level is not looked at, so that a level can always be lowered.
    pub fn parse(terms: &[u8]) -> Result<Self, TermsError> {
        let terms = terms.trim_ascii();
        if terms.is_empty() {
            return Ok(Self::default());
        }
        let terms: Terms = serde_json::from_slice(terms).map_err(|error| TermsError::Json {
            line: error.line(),
            column: error.column(),
        })?;
        Self::of(terms)
    }

    fn of(terms: Terms) -> Result<Self, TermsError> {
        let level = terms.level;
        if level < Level::Payload {
            return Ok(Self {
                level,
                ..Self::default()
            });
        }
        if terms.sample_per_mille > sample::ALL {
            return Err(TermsError::Sample(terms.sample_per_mille));
        }
        let destination = Destination {
            url: url(terms.collector.as_deref()).ok_or(TermsError::Collector)?,
            authorization: authorization(terms.token.as_deref()).ok_or(TermsError::Token)?,
        };
        Ok(Self {
            level,
            per_mille: terms.sample_per_mille,
            redactor: Redactor::new(&terms.redact, &terms.patterns)?,
            revision: terms.revision,
            destination: Some(destination),
            lowered: 0,
        })
    }

    /// These, when those were in force until now.
    pub(super) fn after(mut self, before: &Self) -> Self {
        self.lowered = before.lowered + u64::from(self.level < Level::Payload);
        self
    }

    /// Whether texts are kept that began when the level had been lowered so often: not if it was lowered since, even if it has
    /// been raised again.
    pub(super) fn keep(&self, lowered: u64) -> bool {
        self.level == Level::Payload && self.lowered == lowered
    }

    /// How much may be kept.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// For how many requests the one of this id stands, if it is kept.
    #[must_use]
    pub fn weight(&self, id: &str) -> Option<f64> {
        let kept = self.level == Level::Payload && sample::is_sampled(id, self.per_mille);
        kept.then(|| sample::weight(self.per_mille))
    }
}

fn url(collector: Option<&str>) -> Option<Url> {
    let base = Url::parse(collector?).ok()?;
    let plain = base.path() == "/" && base.query().is_none() && base.fragment().is_none();
    let fine = base.scheme() == "http" && base.username().is_empty() && base.password().is_none() && plain;
    base.join(RECORDS_PATH).ok().filter(|_| fine)
}

fn authorization(token: Option<&str>) -> Option<HeaderValue> {
    let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use perennial_crds::capture::Builtin;
    use serde_json::{Value, json};

    use super::*;

    fn payload(changes: Value) -> Result<Rules, TermsError> {
        let mut terms =
            json!({"level": "Payload", "samplePerMille": 1000, "collector": "http://c.ns.svc:9091", "token": "t"});
        for (name, value) in changes.as_object().expect("an object") {
            terms[name] = value.clone();
        }
        Rules::parse(terms.to_string().as_bytes())
    }

    fn error(rules: Result<Rules, TermsError>) -> TermsError {
        rules.err().expect("refused")
    }

    #[test]
    fn nothing_said_is_counts_only() {
        for nothing in ["", " \n"] {
            let rules = Rules::parse(nothing.as_bytes()).expect("rules");
            assert_eq!((rules.level(), rules.weight("a")), (Level::Features, None));
        }
    }

    #[test]
    fn payload_says_where_records_go_and_how_many() {
        let rules = payload(json!({"samplePerMille": 250, "revision": "r1", "newer": true})).expect("rules");
        let destination = rules.destination.as_ref().expect("a destination");
        assert_eq!(destination.url.as_str(), "http://c.ns.svc:9091/records");
        assert_eq!(destination.authorization, "Bearer t");
        assert!(destination.authorization.is_sensitive());
        assert_eq!(rules.revision.as_deref(), Some("r1"));
        let weights: Vec<Option<f64>> = (0..100).map(|id| rules.weight(&id.to_string())).collect();
        assert!(weights.contains(&None) && weights.contains(&Some(4.0)));
        assert!(
            payload(json!({"samplePerMille": 0}))
                .expect("rules")
                .weight("a")
                .is_none()
        );
    }

    #[test]
    fn wrong_terms_are_refused_and_not_repeated() {
        for (changes, expected) in [
            (json!({"samplePerMille": 1001}), TermsError::Sample(1001)),
            (json!({"collector": null}), TermsError::Collector),
            (json!({"collector": "https://c:9091"}), TermsError::Collector),
            (json!({"collector": "c:9091"}), TermsError::Collector),
            (json!({"collector": "http://u:p@c:9091"}), TermsError::Collector),
            (json!({"collector": "http://c:9091/x"}), TermsError::Collector),
            (json!({"collector": "http://c:9091?x"}), TermsError::Collector),
            (json!({"token": null}), TermsError::Token),
            (json!({"token": ""}), TermsError::Token),
            (json!({"token": "a\nb"}), TermsError::Token),
            (
                json!({"patterns": [{"name": "A", "regex": "("}]}),
                PatternError::Regex("A".to_owned()).into(),
            ),
            (
                json!({"patterns": [{"name": "A", "regex": r"\w{5000}"}]}),
                PatternError::Regex("A".to_owned()).into(),
            ),
            (
                json!({"patterns": [{"name": "A", "regex": "(?=x)"}]}),
                PatternError::Regex("A".to_owned()).into(),
            ),
            (
                json!({"patterns": [{"name": "A", "regex": "x"}, {"name": "", "regex": "x"}]}),
                PatternError::Name(1).into(),
            ),
            (
                json!({"patterns": [{"name": "a b", "regex": "x"}]}),
                PatternError::Name(0).into(),
            ),
        ] {
            assert_eq!(error(payload(changes.clone())), expected, "{changes}");
        }
        let secret = "hunter2";
        for terms in [
            format!(r#"{{"level": "{secret}"}}"#),
            format!(r#"{{"level": "Payload", "token": ["{secret}"]}}"#),
            format!(r#"{{"level": "Payload", "redact": ["{secret}"]}}"#),
            secret.to_owned(),
            "{}".to_owned(),
        ] {
            let told = error(Rules::parse(terms.as_bytes())).to_string();
            assert!(
                told.starts_with("not understood at line 1") && !told.contains(secret),
                "{told}"
            );
        }
    }

    #[test]
    fn a_level_can_be_lowered_whatever_else_is_wrong() {
        for (level, expected) in [("None", Level::None), ("Features", Level::Features)] {
            let rules = payload(json!({
                "level": level, "collector": "nowhere", "patterns": [{"name": "A", "regex": "("}], "samplePerMille": 5000
            }))
            .expect("rules");
            assert_eq!((rules.level(), rules.weight("a")), (expected, None));
            assert!(rules.destination.is_none());
        }
    }

    #[test]
    fn all_kinds_of_data_have_a_name_in_terms() {
        for (name, kind) in [
            ("Email", Builtin::Email),
            ("PhoneNumber", Builtin::PhoneNumber),
            ("CreditCard", Builtin::CreditCard),
        ] {
            assert!(payload(json!({"redact": [name]})).is_ok());
            assert_eq!(serde_json::to_value(kind).expect("JSON"), name);
        }
    }
}
