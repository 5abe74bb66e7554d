//! Digits in a text: groups of them, and what is between two groups. Cards and phone numbers are made of groups.

use std::ops::Range;

/// Zeros of scripts whose digits are read; the other nine follow each.
const ZEROS: [char; 7] = ['0', '٠', '۰', '०', '০', '๐', '０'];
/// Where scripts begin that are written without spaces, so that a number beside a letter of them is no part of a word.
const EAST_ASIAN: char = '\u{2e80}';

/// What joins a group with the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing: another number begins.
    None,
    Space,
    /// A hyphen.
    Dash,
    /// A hyphen between spaces, or a long dash: may as well be between two numbers.
    Gap,
    Dot,
    Slash,
    /// A parenthesis that opens.
    Open,
    /// A parenthesis that closes.
    Close,
}

/// Digits without anything between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Where they are in the text.
    pub(super) range: Range<usize>,
    /// Where they begin with the sign before.
    pub(super) outer: usize,
    /// There is a `+` before.
    pub(super) plus: bool,
    /// There is a parenthesis before that opens, and no word that it would belong to.
    pub(super) open: bool,
    pub(super) link: Link,
    /// They are a part of a word.
    pub(super) glued: bool,
    values: Range<usize>,
}

impl Group {
    /// How many digits.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// All groups of a text.
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) groups: Vec<Group>,
    values: Vec<u8>,
}

impl Numbers {
    /// Those of this text.
    pub(super) fn of(text: &str) -> Self {
        let mut numbers = Self::default();
        let mut letters = text.char_indices().peekable();
        while let Some((start, letter)) = letters.next() {
            let Some(value) = digit(letter) else { continue };
            let from = numbers.values.len();
            numbers.values.push(value);
            let mut end = start + letter.len_utf8();
            while let Some((at, value)) = letters.peek().and_then(|(at, next)| Some((*at, digit(*next)?))) {
                numbers.values.push(value);
                end = at + text[at..].chars().next().map_or(0, char::len_utf8);
                letters.next();
            }
            numbers.add(text, start..end, from);
        }
        numbers
    }

    fn add(&mut self, text: &str, range: Range<usize>, from: usize) {
        let (before, behind) = (&text[..range.start], &text[range.end..]);
        let sign = Sign::of(before);
        let group = Group {
            outer: range.start - sign.bytes,
            plus: sign.plus,
            open: sign.open,
            link: self
                .groups
                .last()
                .map_or(Link::None, |last| link(&text[last.range.end..range.start])),
            glued: before.chars().next_back().is_some_and(is_word) || goes_on(behind),
            values: from..self.values.len(),
            range,
        };
        self.groups.push(group);
    }

    /// Values of the digits of neighbouring groups.
    pub(super) fn values(&self, groups: &[Group]) -> &[u8] {
        match (groups.first(), groups.last()) {
            (Some(first), Some(last)) => &self.values[first.values.start..last.values.end],
            _ => &[],
        }
    }

    /// The group of this index and those that are joined to it, at most `most`.
    pub(super) fn run(&self, index: usize, most: usize) -> &[Group] {
        let groups = &self.groups[index..];
        let joined = groups
            .iter()
            .skip(1)
            .take(most - 1)
            .take_while(|group| group.link != Link::None);
        let count = 1 + joined.count();
        &groups[..count]
    }
}

/// What is right before a group.
#[derive(Default)]
struct Sign {
    plus: bool,
    open: bool,
    bytes: usize,
}

impl Sign {
    fn of(before: &str) -> Self {
        let mut sign = Self::default();
        let mut letters = before.chars().rev().peekable();
        let mut take = |wanted: fn(char) -> bool| {
            let taken = letters.next_if(|letter| wanted(*letter));
            sign.bytes += taken.map_or(0, char::len_utf8);
            taken.is_some()
        };
        sign.open = take(|letter| matches!(letter, '(' | '（'));
        sign.plus = take(|letter| matches!(letter, '+' | '＋'));
        // A call of a function, a sum.
        let of_a_word = |letter: char| is_word(letter) || digit(letter).is_some() && (sign.plus || !sign.open);
        if letters.peek().copied().is_some_and(of_a_word) {
            return Self::default();
        }
        sign
    }
}

fn digit(letter: char) -> Option<u8> {
    if letter.is_ascii() {
        return letter.is_ascii_digit().then(|| letter as u8 - b'0');
    }
    let value = |zero: &char| {
        u32::from(letter)
            .checked_sub(u32::from(*zero))
            .filter(|value| *value < 10)
    };
    ZEROS.iter().find_map(value).and_then(|value| u8::try_from(value).ok())
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter < EAST_ASIAN && letter.is_alphabetic()
}

/// Whether digits go on as a word. An `x` before other digits is that of an extension.
fn goes_on(behind: &str) -> bool {
    let mut letters = behind.chars();
    match letters.next() {
        Some('x' | 'X') => letters.next().and_then(digit).is_none(),
        Some(letter) => is_word(letter),
        None => false,
    }
}

fn link(between: &str) -> Link {
    let mut letters = between.chars().map(plain);
    let first = letters.next();
    match (first, letters.next(), letters.next(), letters.next()) {
        (Some(' '), None, ..) | (Some(' '), Some(' '), None, _) => Link::Space,
        (Some('-'), None, ..) => Link::Dash,
        (Some('–'), None, ..) | (Some(' '), Some('-' | '–'), Some(' '), None) => Link::Gap,
        (Some('.'), None, ..) => Link::Dot,
        (Some('/'), None, ..) | (Some(' '), Some('/'), Some(' '), None) => Link::Slash,
        (Some('('), None, ..) | (Some(' '), Some('('), None, _) => Link::Open,
        (Some(')'), None, ..) | (Some(')'), Some(' ' | '-' | '/' | '.'), None, _) => Link::Close,
        _ => Link::None,
    }
}

/// One form of each kind of separator.
fn plain(letter: char) -> char {
    match letter {
        '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => ' ',
        '\u{2010}' | '\u{2011}' | '\u{2212}' | '－' => '-',
        '\u{2012}'..='\u{2015}' => '–',
        '．' => '.',
        '／' => '/',
        '（' => '(',
        '）' => ')',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_know_what_is_around_them() {
        let numbers = Numbers::of("+49 (0)30-12.v3 a7_ １٢ — f(5) 1+2 (8) 9x9 9xx");
        let told: Vec<(Link, bool, bool, bool)> = numbers
            .groups
            .iter()
            .map(|group| (group.link, group.plus, group.open, group.glued))
            .collect();
        let (none, no, yes) = (Link::None, false, true);
        let expected = [
            (none, yes, no, no),
            (Link::Open, no, yes, no),
            (Link::Close, no, no, no),
            (Link::Dash, no, no, no),
            (none, no, no, yes),
            (none, no, no, yes),
            (none, no, no, no),
            (none, no, no, no),
            (Link::Close, no, no, no),
            (none, no, no, no),
            (Link::Open, no, yes, no),
            (Link::Close, no, no, no),
            (none, no, no, yes),
            (Link::Space, no, no, yes),
        ];
        assert_eq!(told, expected);
        assert_eq!(numbers.values(&numbers.groups[..4]), [4, 9, 0, 3, 0, 1, 2]);
        assert_eq!(numbers.values(&numbers.groups[6..7]), [1, 2]);
        assert_eq!(numbers.groups[0].outer, 0);
        assert_eq!(numbers.run(0, 3).len(), 3);
        assert_eq!(numbers.run(0, 9).len(), 4);
        assert_eq!(numbers.values(&[]), [0; 0]);
    }
}
