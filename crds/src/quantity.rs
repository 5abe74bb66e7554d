//! An amount of CPU or memory as Kubernetes writes it, taken as a string or as a whole number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// What the API server accepts for a [`Quantity`]: digits, an optional fraction, an optional unit.
pub const PATTERN: &str = r"^([0-9]+(\.[0-9]{1,3})?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";

/// An amount of CPU or memory, such as `500m`, `4` or `16Gi`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Quantity {
    /// The whole number of bytes that it stands for, if it does: no fractions, no `m`. Whatever is too large is the largest.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, unit) = self.0.split_at(end);
        let factor: u64 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "P" => 1_000_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            "Pi" => 1 << 50,
            _ => return None,
        };
        let digits = digits.trim_start_matches('0');
        let number = if digits.is_empty() {
            0
        } else {
            digits.parse().unwrap_or(u64::MAX)
        };
        (end > 0).then(|| number.saturating_mul(factor))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a quantity such as 500m, 4 or 16Gi")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Quantity, E> {
                Ok(Quantity(value.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity(value.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_as_kubernetes_does() {
        let bytes = |text: &str| Quantity(text.to_owned()).bytes();
        for (text, expected) in [
            ("0", 0),
            ("7", 7),
            ("007", 7),
            ("1k", 1000),
            ("1Ki", 1024),
            ("3M", 3_000_000),
            ("10Gi", 10_737_418_240),
            ("2T", 2_000_000_000_000),
            ("1Pi", 1 << 50),
            ("99999999999999999999", u64::MAX),
            ("999999999999P", u64::MAX),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "Gi", "500m", "1.5Gi", "1 Gi", "1gi", "-1"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
