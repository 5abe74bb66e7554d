//! Times in their many forms.

use serde_json::Value;

/// Beyond this a number cannot be seconds of our century: it is milli-, micro- or nanoseconds.
const LATEST: f64 = 1e11;

/// Seconds since 1970 from a JSON number or string.
pub fn from_value(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64().and_then(from_number),
        Value::String(text) => from_text(text),
        _ => None,
    }
}

/// Seconds since 1970 from a number of seconds, milli-, micro- or nanoseconds.
pub fn from_number(number: f64) -> Option<f64> {
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    let mut seconds = number;
    while seconds >= LATEST {
        seconds /= 1_000.0;
    }
    Some(seconds)
}

/// Seconds since 1970 from RFC 3339, from the same without a zone (taken as UTC; a space may stand for the T), or from
/// a number in text.
pub fn from_text(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number);
    }
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    })?;
    let seconds = timestamp.as_second() as f64 + f64::from(timestamp.subsec_nanosecond()) / 1e9;
    (seconds >= 0.0).then_some(seconds)
}

/// A time on the command line.
pub fn parse_argument(text: &str) -> Result<f64, String> {
    from_text(text)
        .ok_or_else(|| "give a time as 2026-11-23T09:00:00Z, as 2026-11-23, or in seconds since 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_many_forms() {
        for text in [
            "2026-11-23T09:10:00Z",
            "2026-11-23 09:10:00.0000000",
            "2026-11-23T10:10:00+01:00",
            "1795425000",
            "1795425000000",
        ] {
            assert_eq!(from_text(text), Some(1_795_425_000.0), "{text}");
        }
        assert_eq!(from_text("2026-11-23"), Some(1_795_392_000.0));
        assert_eq!(from_text("2023-11-16 18:15:46.6805900"), Some(1_700_158_546.680_59));
        assert_eq!(from_text("yesterday"), None);
        assert_eq!(from_number(-1.0), None);
    }
}
