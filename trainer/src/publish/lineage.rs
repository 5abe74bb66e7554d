//! Where a model comes from, as text. Pure.

use perennial_crds::publish::MAX_LINEAGE_BYTES;
use serde_json::{Map, Value};

use crate::contract::parse_json;

/// Reads a lineage. `name` is what messages call it; they quote nothing of it.
///
/// # Errors
/// When it is no JSON object, or too long for last words as it is or as it would be written again.
pub fn read(name: &str, text: &str) -> Result<Value, String> {
    if text.len() > MAX_LINEAGE_BYTES {
        return Err(too_long(name, text.len()));
    }
    let object: Map<String, Value> = parse_json(name, text)?;
    let value = Value::Object(object);
    // A short number may be a long one when it is written again.
    match value.to_string().len() {
        long if long > MAX_LINEAGE_BYTES => Err(too_long(name, long)),
        _ => Ok(value),
    }
}

fn too_long(name: &str, bytes: usize) -> String {
    format!("{name} has {bytes} bytes, and at most {MAX_LINEAGE_BYTES} are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_is_a_short_object() {
        let value = read("L", r#"{"cycle": "c1", "base": {"digest": "sha256:00"}}"#).expect("a lineage");
        assert_eq!(value["base"]["digest"], "sha256:00");
        assert!(read("L", "{}").is_ok());
        let long = format!(r#"{{"a": "{}"}}"#, "b".repeat(MAX_LINEAGE_BYTES));
        let grows = format!(r#"{{"a": [{}1]}}"#, "1e15,".repeat(500));
        assert!(grows.len() <= MAX_LINEAGE_BYTES);
        for wrong in ["", "[]", "null", "\"secret\"", "{\"a\": ", &long, &grows] {
            let said = read("L", wrong).expect_err("refused");
            assert!(said.starts_with("L ") && !said.contains("secret"), "{said}");
        }
    }
}
