//! Stop strings, found wherever the borders between pieces of text lie.

/// Looks for stop strings in a text that comes in pieces.
///
/// Text that may be the begin of a stop string is held back until it is certain.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Looks for any of `stops`; empty ones are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Takes a piece; returns the text that is certain, and whether a stop string ended it. The stop string itself is
    /// never returned.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (piece.to_owned(), false);
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.possible_begin();
        let certain = self.held.len() - keep;
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that was held back, if the answer ends here.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn possible_begin(&self) -> usize {
        let begins = |end: &str| self.stops.iter().any(|stop| stop.starts_with(end));
        let starts = self.held.char_indices().map(|(at, _)| at);
        starts
            .map(|at| &self.held[at..])
            .find(|end| begins(end))
            .map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pieces: &[&str], stops: &[&str]) -> (String, bool) {
        let mut strings = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            let (certain, stopped) = strings.push(piece);
            text.push_str(&certain);
            if stopped {
                return (text, true);
            }
        }
        text.push_str(&strings.finish());
        (text, false)
    }

    #[test]
    fn a_stop_string_is_found_whatever_the_borders() {
        let text = "one ÄÖÜ\n\nUser: two";
        let borders: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for &first in &borders {
            for &second in borders.iter().filter(|&&second| second >= first) {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(
                    run(&pieces, &["\n\nUser:", "zzz"]),
                    ("one ÄÖÜ".to_owned(), true),
                    "{pieces:?}"
                );
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_stop_string_is_returned() {
        assert_eq!(run(&["aa", "ab"], &["aaac"]), ("aaab".to_owned(), false));
        assert_eq!(
            run(&["<|im", "_start"], &["<|im_end|>"]),
            ("<|im_start".to_owned(), false)
        );
        assert_eq!(run(&["x"], &[""]), ("x".to_owned(), false));
    }

    #[test]
    fn the_first_of_several_wins() {
        assert_eq!(run(&["abcdef"], &["de", "bc"]), ("a".to_owned(), true));
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(text in "[abü]{0,24}", stop in "[abü]{1,4}", cut in 0_usize..24) {
            let middle = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            let expected = match text.find(&stop) {
                Some(at) => (text[..at].to_owned(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&text[..middle], &text[middle..]], &[&stop]), expected);
        }
    }
}
