//! Is an answer caught in a loop? Linear in what is read, which is the end of the answer: loops never end by themselves.
//!
//! On 74,000 pieces of 100 to 4,000 characters of Debian's texts (prose in six languages, poems, manual pages, source
//! code, licences) 16 were taken for a loop: 13 of 2,872 pieces of licence files, which do repeat themselves, one of
//! 3,231 of source code, a song and a tongue twister. `examples/texts.rs` counts them.

use super::cut_end;
use super::hash::{GOLDEN, below, fold, hash};

/// Version of what counts as a loop.
pub const VERSION: u32 = 1;
/// Bytes of the answer's end that are read.
const READ: usize = 4096;
/// How often a period must be repeated.
const REPEATS: usize = 4;
/// Characters that the repetition must cover.
const COVERED: usize = 60;
/// The same for a period without letters, such as a rule or a row of zeros in a table.
const COVERED_WITHOUT_LETTERS: usize = 256;
/// Words of the n-grams that are compared.
const WORDS: usize = 6;
/// Fewer n-grams than this say nothing.
const LEAST_NGRAMS: usize = 120;
/// Share of n-grams seen before, from which an answer is a loop.
const SHARE: f64 = 0.65;

/// Does the answer end in a loop?
///
/// Either its end is a short text repeated at least four times over at least 60 characters (256 where the text has no
/// letters), or at least 65 % of the runs of six words in its last 4 kB were there before. Numbers are no words:
/// "Step 12" repeats "Step 11", and the rows of a table of numbers do not repeat each other.
#[must_use]
pub fn is_loop(answer: &str) -> bool {
    let end = cut_end(answer, READ);
    let trimmed = end.trim_end();
    // A loop of line breaks.
    if end.len() - trimmed.len() >= COVERED_WITHOUT_LETTERS {
        return true;
    }
    ends_in_period(trimmed) || repeated_share(trimmed) >= SHARE
}

/// Knuth, Morris and Pratt's failure function over the reversed text gives, for each suffix, its shortest period.
fn ends_in_period(text: &str) -> bool {
    let reversed: Vec<char> = text.chars().rev().collect();
    let mut failure = vec![0u32; reversed.len()];
    let mut matched = 0usize;
    // Letters seen in the first so many characters of the reversed text.
    let letters = reversed
        .iter()
        .position(|character| character.is_alphabetic())
        .unwrap_or(usize::MAX);
    for (index, character) in reversed.iter().enumerate().skip(1) {
        while matched > 0 && reversed.get(matched) != Some(character) {
            matched = failure.get(matched - 1).map_or(0, |&length| length as usize);
        }
        if reversed.get(matched) == Some(character) {
            matched += 1;
        }
        if let Some(slot) = failure.get_mut(index) {
            *slot = matched as u32;
        }
        let (length, period) = (index + 1, index + 1 - matched);
        let least = if letters < period {
            COVERED
        } else {
            COVERED_WITHOUT_LETTERS
        };
        if length >= least && length >= REPEATS * period {
            return true;
        }
    }
    false
}

/// Share of the runs of [`WORDS`] words that stood in the text before; 0 where there are too few.
fn repeated_share(text: &str) -> f64 {
    let mut recent = [0u64; WORDS];
    let mut seen = Seen { slots: vec![0; READ] };
    let (mut count, mut total, mut repeated) = (0usize, 0usize, 0usize);
    for word in words(text) {
        recent.rotate_left(1);
        recent[WORDS - 1] = hash(word.as_bytes(), 0);
        count += 1;
        if count >= WORDS {
            total += 1;
            repeated += usize::from(!seen.insert(recent.iter().fold(0, |state, &word| fold(state ^ word, GOLDEN))));
        }
    }
    if total < LEAST_NGRAMS {
        0.0
    } else {
        repeated as f64 / total as f64
    }
}

/// A set of hashes by open addressing. No more words than half of [`READ`] fit into what is read, so it is never full.
struct Seen {
    slots: Vec<u64>,
}

impl Seen {
    /// Adds a hash; `false` if it was there.
    fn insert(&mut self, hash: u64) -> bool {
        // Zero is a free slot.
        let hash = hash | 1;
        let start = below(hash, self.slots.len());
        let (before, after) = self.slots.split_at_mut(start);
        for slot in after.iter_mut().chain(before) {
            if *slot == hash {
                return false;
            }
            if *slot == 0 {
                *slot = hash;
                return true;
            }
        }
        false
    }
}

/// Runs of letters and digits that hold a letter; a character of a script without spaces is a word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric())
        .flat_map(|run| {
            let ideographs = run.chars().next().is_some_and(|first| first >= '\u{2E80}');
            let step = if ideographs { 1 } else { usize::MAX };
            Pieces { rest: run, step }
        })
        .filter(|word| word.chars().any(char::is_alphabetic))
}

struct Pieces<'a> {
    rest: &'a str,
    step: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = if self.step == usize::MAX {
            self.rest.len()
        } else {
            self.rest.chars().next()?.len_utf8()
        };
        let (piece, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops() {
        let loops = [
            "I think that this is right. ".repeat(10),
            format!("The answer is {}", "the the ".repeat(20)),
            format!("Well: {}", "ha".repeat(40)),
            format!("{}I think th", "I think that this is right. ".repeat(6)),
            format!("答案是{}", "我不知道该怎么说。".repeat(12)),
            "!".repeat(400),
            format!("Done.{}", "\n".repeat(500)),
            "🙂".repeat(300),
            (1..80)
                .map(|n| format!("Step {n}: check the cable and then restart the device again.\n"))
                .collect(),
            format!(
                "{} And so it ended, at last.",
                "We then go to the next one and look at what it is. ".repeat(40)
            ),
        ];
        for text in loops {
            assert!(is_loop(&text), "{text}");
        }
    }

    #[test]
    fn not_loops() {
        let texts = [
            String::new(),
            "no no no no".to_owned(),
            format!("A rule:\n{}\n", "-".repeat(80)),
            format!("| a | b |\n{}", "|---|---|\n".repeat(3)),
            (0..60).map(|n| format!("| {} | {} | {} |\n", n * 37 % 101, n * n % 97, n)).collect(),
            (0..60).map(|n| format!("- item {0:x}a costs {0} marks and weighs {0} grams\n", 7 * n + 11)).collect(),
            "fn main() {\n        }\n    }\n}\n}\n".to_owned(),
            "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.\n".repeat(3),
            "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]".to_owned(),
        ];
        for text in texts {
            assert!(!is_loop(&text), "{text}");
        }
    }

    #[test]
    fn only_the_end_is_read() {
        let text = format!(
            "{}{}",
            "again and again ".repeat(400),
            (0..900).map(|n| format!("w{n} ")).collect::<String>()
        );
        assert!(!is_loop(&text));
    }
}
