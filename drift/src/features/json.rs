//! Is an answer JSON? Decided by the grammar alone, without building a tree.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// One JSON value and nothing else but white space around it.
///
/// An answer in a Markdown fence is **not** valid: who asked for JSON hands the content to a parser, which fails on the
/// fence. A model that begins to fence its answers is exactly what this signal is for. Nesting deeper than 128 is not
/// valid, either (the limit of `serde_json`, and close to that of other parsers).
#[must_use]
pub fn is_valid(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text.trim()).is_ok()
}

/// One JSON object, which is what the arguments of a tool call must be. No text at all is no object, even for a tool
/// without parameters: clients parse it and fail.
#[must_use]
pub fn is_object(text: &str) -> bool {
    serde_json::from_str::<Object>(text.trim()).is_ok()
}

struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let table = [
            (r#"{"a": [1, 2, {"b": null}]}"#, true, true),
            (" \n{} \n", true, true),
            ("[1, 2]", true, false),
            ("\"text\"", true, false),
            ("12", true, false),
            ("", false, false),
            ("   ", false, false),
            ("null", true, false),
            (r#"{"a": 1"#, false, false),
            (r#"{"a": 1,}"#, false, false),
            (r#"{a: 1}"#, false, false),
            (r#"{'a': 1}"#, false, false),
            (r#"{"a": NaN}"#, false, false),
            (r#"{"a": 1} {"b": 2}"#, false, false),
            (r#"Here you are: {"a": 1}"#, false, false),
            ("```json\n{\"a\": 1}\n```", false, false),
            ("{\"a\": \"\u{0}\"}", false, false),
            (r#"{"emoji": "🙂", "half": "\ud83d\ude42"}"#, true, true),
        ];
        for (text, valid, object) in table {
            assert_eq!((is_valid(text), is_object(text)), (valid, object), "{text}");
        }
    }

    #[test]
    fn depth_ends_in_an_answer() {
        let deep = "[".repeat(100_000);
        assert!(!is_valid(&deep));
        assert!(!is_object(&format!("{{\"a\":{deep}")));
    }
}
