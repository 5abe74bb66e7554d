//! Numbers and times as people write them.

use perennial_drift::effect::{Effect, Measure};
use perennial_drift::signal::{Class, Signal};

/// How times of a run are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As they are.
    Time,
    /// By numbers of requests: so many in a pane of so many seconds.
    Count(u32, u32),
}

impl Clock {
    /// A moment.
    pub fn at(self, seconds: i64) -> String {
        match self {
            Self::Time => time(seconds),
            Self::Count(requests, pane) => {
                let request = seconds * i64::from(requests) / i64::from(pane.max(1));
                format!("request {}", thousands(u64::try_from(request).unwrap_or(0)))
            }
        }
    }

    /// A stretch of time.
    pub fn span(self, seconds: i64) -> String {
        match self {
            Self::Time => duration(seconds),
            Self::Count(requests, pane) => {
                let request = seconds * i64::from(requests) / i64::from(pane.max(1));
                format!("{} requests", thousands(u64::try_from(request).unwrap_or(0)))
            }
        }
    }

    /// A sentence of the core, which tells times as they are.
    pub fn sentence(self, sentence: &str, since: i64) -> String {
        match self {
            Self::Time => sentence.to_owned(),
            Self::Count(..) => sentence.replace(&time(since), &self.at(since)),
        }
    }
}

/// `2026-11-23 09:10 UTC`.
pub fn time(seconds: i64) -> String {
    perennial_drift::explain::time(seconds)
}

/// `7 d`, `1 h 30 min`: the two largest units.
pub fn duration(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        if rest >= size {
            parts.push(format!("{} {name}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.truncate(2);
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, without an exponent where that can be read.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_owned()
    } else if size >= 9_999.5 {
        let whole = thousands(size.round() as u64);
        if value < 0.0 { format!("-{whole}") } else { whole }
    } else if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.995 {
        format!("{value:.2}")
    } else if size >= 0.000_5 {
        format!("{value:.3}")
    } else if size == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.0e}")
    }
}

/// A number as it is written at a tick, where it is round: without zeros at its end.
pub fn round(text: &str) -> String {
    let (number, unit) = text.split_once(' ').map_or((text, ""), |(number, _)| (number, " %"));
    let number = if number.contains('.') && !number.contains('e') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    };
    format!("{number}{unit}")
}

/// A part of one as percent.
pub fn percent(part: f64) -> String {
    format!("{} %", number(100.0 * part))
}

/// What an effect is called beside its number.
pub fn unit(measure: Measure) -> &'static str {
    match measure {
        Measure::Shift => "σ",
        Measure::Psi => "PSI",
        Measure::Increase => "%",
        Measure::Mmd => "MMD",
    }
}

fn amount(measure: Measure, value: f64, signed: bool) -> String {
    let value = if measure == Measure::Increase {
        100.0 * value
    } else {
        value
    };
    let text = match measure {
        // Where there was next to nothing before, a rise has no useful size.
        Measure::Increase if value > 999.0 => ">999".to_owned(),
        Measure::Increase => format!("{value:.0}"),
        Measure::Shift => format!("{value:.2}"),
        Measure::Psi | Measure::Mmd => format!("{value:.3}"),
    };
    if signed && value > 0.0 && !text.starts_with('>') {
        format!("+{text}")
    } else {
        text
    }
}

/// `+0.31 σ [0.24, 0.38]`.
pub fn effect(effect: &Effect) -> String {
    let signed = matches!(effect.measure, Measure::Shift | Measure::Increase);
    let bound = |value| amount(effect.measure, value, effect.measure == Measure::Increase);
    format!(
        "{} {} [{}, {}]",
        amount(effect.measure, effect.estimate, signed),
        unit(effect.measure),
        bound(effect.lower),
        bound(effect.upper)
    )
}

/// `0.20 σ`: from what size on an effect matters.
pub fn least(effect: &Effect, least: f64) -> String {
    format!("{} {}", amount(effect.measure, least, false), unit(effect.measure))
}

/// A class in a table.
pub fn class(class: Class) -> &'static str {
    match class {
        Class::Input => "input",
        Class::Output => "output",
        Class::Quality => "quality",
        Class::Operational => "operational",
    }
}

/// Names of signals in a row.
pub fn names(signals: &[Signal]) -> String {
    let names: Vec<String> = signals.iter().map(|signal| format!("{signal:?}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_can_be_read() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(
            [0.0, 0.034_56, 3.456, 34.56, 345.6, 34_560.0].map(number),
            ["0", "0.035", "3.46", "34.6", "346", "34,560"]
        );
        assert_eq!(
            [59, 90, 5_400, 604_800, 90_000].map(duration),
            ["59 s", "1 min 30 s", "1 h 30 min", "7 d", "1 d 1 h"]
        );
        assert_eq!(Clock::Count(100, 300).at(900), "request 300");
        assert_eq!(
            Clock::Count(100, 300).sentence("x since about 1970-01-01 00:15 UTC.", 900),
            "x since about request 300."
        );
    }
}
