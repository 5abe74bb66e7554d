//! Takes personal data out of texts. Pure: a text and rules give a text.
//!
//! All rules look at the text as it was, and whatever any of them finds is replaced. One after another they could spoil each
//! other's finds, and leave half of one.

mod card;
mod digits;
mod email;
mod phone;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use perennial_crds::capture::{Builtin, Pattern};
use regex::{Regex, RegexBuilder};

/// Name of the rule for addresses of mail.
pub const EMAIL: &str = "EMAIL";
/// Name of the rule for phone numbers.
pub const PHONE: &str = "PHONE";
/// Name of the rule for numbers of credit cards.
pub const CARD: &str = "CARD";
/// How far behind the end of what is kept a text must go on for the rules, so that what is cut through at that end is found
/// whole. The built-in rules find nothing that is longer.
pub const LOOK_AHEAD: usize = 4 << 10;
/// Largest compiled form of an own pattern, bytes.
const PATTERN_BYTES: usize = 1 << 20;
/// Longest name of an own pattern, bytes.
const NAME_BYTES: usize = 64;

/// Why rules cannot be used. The text of a pattern is not told: it may say what somebody looks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A name that cannot be a placeholder.
    #[error("the name of a pattern must be 1 to {NAME_BYTES} letters, digits, `_` or `-` of ASCII; rename pattern {0}")]
    Name(usize),
    /// Not a regular expression, or too large a one.
    #[error(
        "the pattern `{0}` is no regular expression in RE2's syntax of at most 1 MiB compiled; correct or shorten it"
    )]
    Regex(String),
}

struct Own {
    name: String,
    regex: Regex,
}

/// Rules that are ready for use.
#[derive(Default)]
pub struct Redactor {
    builtin: Vec<Builtin>,
    own: Vec<Own>,
}

/// A text without what the rules found.
#[derive(Debug, PartialEq, Eq)]
pub struct Redacted {
    /// The text.
    pub text: String,
    /// Its end is missing.
    pub truncated: bool,
}

struct Find<'a> {
    range: Range<usize>,
    name: &'a str,
}

impl Redactor {
    /// Rules for these kinds of data and these patterns.
    ///
    /// # Errors
    /// A pattern that cannot be used.
    pub fn new(builtin: &[Builtin], patterns: &[Pattern]) -> Result<Self, PatternError> {
        let own = patterns
            .iter()
            .enumerate()
            .map(|(index, pattern)| compile(index, pattern));
        Ok(Self {
            builtin: builtin.to_vec(),
            own: own.collect::<Result<_, _>>()?,
        })
    }

    /// The first `longest` bytes of a text without what is found in it; finds are counted by name.
    #[must_use]
    pub fn redact(&self, text: &str, longest: usize, counts: &mut BTreeMap<String, u32>) -> Redacted {
        let mut finds = self.finds(text);
        finds.retain(|find| find.range.start < longest);
        finds.sort_by_key(|find| (find.range.start, Reverse(find.range.end)));
        let mut kept = String::with_capacity(text.len().min(longest));
        // What is before has been dealt with.
        let mut done = 0;
        for find in &finds {
            *counts.entry(find.name.to_owned()).or_default() += 1;
            // Finds that overlap vanish together, under the name of the first.
            if find.range.start >= done {
                kept.push_str(&text[done..find.range.start]);
                kept.extend(["[", find.name, "]"]);
            }
            done = done.max(find.range.end);
        }
        let end = text.floor_char_boundary(longest);
        if done < end {
            kept.push_str(&text[done..end]);
        }
        let truncated = text.len() > longest || kept.len() > longest;
        kept.truncate(kept.floor_char_boundary(longest));
        Redacted { text: kept, truncated }
    }

    fn finds(&self, text: &str) -> Vec<Find<'_>> {
        let mut finds = Vec::new();
        let mut add =
            |name, ranges: Vec<Range<usize>>| finds.extend(ranges.into_iter().map(|range| Find { range, name }));
        let has = |kind| self.builtin.contains(&kind);
        if has(Builtin::Email) {
            add(EMAIL, email::find(text));
        }
        if has(Builtin::PhoneNumber) || has(Builtin::CreditCard) {
            let numbers = digits::Numbers::of(text);
            if has(Builtin::CreditCard) {
                add(CARD, card::find(&numbers));
            }
            if has(Builtin::PhoneNumber) {
                add(PHONE, phone::find(&numbers));
            }
        }
        for own in &self.own {
            // A find of nothing takes nothing out.
            let ranges = own.regex.find_iter(text).map(|find| find.range());
            add(&own.name, ranges.filter(|range| !range.is_empty()).collect());
        }
        finds
    }
}

fn compile(index: usize, pattern: &Pattern) -> Result<Own, PatternError> {
    let Pattern { name, regex } = pattern;
    let sensible = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'-');
    if !(1..=NAME_BYTES).contains(&name.len()) || !name.bytes().all(sensible) {
        return Err(PatternError::Name(index));
    }
    let compiled = RegexBuilder::new(regex).size_limit(PATTERN_BYTES).build();
    Ok(Own {
        name: name.clone(),
        regex: compiled.map_err(|_| PatternError::Regex(name.clone()))?,
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
