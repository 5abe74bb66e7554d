//! Phone numbers: international ones, and the forms that are common in their countries. A number without any separator and
//! without a `+` is taken for a plain number.

use std::ops::Range;

use super::digits::{Group, Link, Numbers};

/// Fewest digits of a phone number.
const FEWEST: usize = 7;
/// Most digits behind the `+` (ITU-T E.164), and one that is written in parentheses: `+49 (0)30`.
const MOST: usize = 16;
/// Most digits with a trunk prefix or an area code.
const MOST_NATIONAL: usize = 13;
/// Most groups of a phone number.
const GROUPS: usize = 17;
/// Groups of numbers without any prefix, and how the first of their digits may be.
const SHAPES: &[(&[usize], &str)] = &[
    (&[3, 4], "23456789"),
    (&[3, 3, 4], "0123456789"),
    (&[1, 3, 3, 4], "178"),
    (&[1, 3, 3, 2, 2], "78"),
    (&[3, 4, 4], "0123456789"),
    (&[3, 3, 3], "123456789"),
    (&[4, 3, 3], "1"),
    (&[4, 4], "123456789"),
    (&[5, 5], "6789"),
    (&[2, 4, 4], "123456789"),
    (&[2, 5, 4], "123456789"),
    (&[3, 2, 3], "123456789"),
    (&[3, 2, 2, 2], "679"),
];

/// Where phone numbers may be.
pub(super) fn find(numbers: &Numbers) -> Vec<Range<usize>> {
    let mut finds: Vec<Range<usize>> = Vec::new();
    for index in 0..numbers.groups.len() {
        let place = Place {
            numbers,
            before: index.checked_sub(1).map(|index| &numbers.groups[index]),
            run: numbers.run(index, GROUPS + 1),
        };
        let Some(count) = place.groups_of_a_phone_number() else {
            continue;
        };
        let range = place.run[0].outer..place.run[count - 1].range.end;
        match finds.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => finds.push(range),
        }
    }
    finds
}

/// A group where a phone number may begin, with those that follow.
struct Place<'a> {
    numbers: &'a Numbers,
    before: Option<&'a Group>,
    run: &'a [Group],
}

impl Place<'_> {
    fn groups_of_a_phone_number(&self) -> Option<usize> {
        self.international()
            .or_else(|| self.double_zero())
            .or_else(|| self.trunk_prefix())
            .or_else(|| self.area_code())
            .or_else(|| SHAPES.iter().find_map(|(shape, first)| self.shape(shape, first)))
    }

    /// `+49 30 1234567`, `+49 (0)30/1234567`.
    fn international(&self) -> Option<usize> {
        let (count, digits) = self.greedy(MOST);
        (self.run[0].plus && digits >= FEWEST).then_some(count)
    }

    /// `0049 30 1234567`, `00 49 30 1234567`.
    fn double_zero(&self) -> Option<usize> {
        let next = self.run.get(1)?;
        let prefix = match self.values(0) {
            [0, 0] => self.values(1)[0] != 0,
            [0, 0, third, ..] => *third != 0 && self.values(1)[0] != 0,
            _ => false,
        };
        let (count, digits) = self.greedy(MOST + 1);
        let joined = next.link != Link::Dot;
        (prefix && joined && self.begins() && digits >= FEWEST + 2).then_some(count)
    }

    /// `030 1234567`, `(0171) 12345-67`, `01 23 45 67 89`, `07912 034567`.
    fn trunk_prefix(&self) -> Option<usize> {
        let (first, next) = (self.values(0), self.run.get(1)?);
        // Longer ones are times and ids, but for the usual halves of India.
        let short = first.len() <= 5 || (first.len(), self.run.get(1)?.len()) == (6, 5);
        let prefix = matches!(first, [0, second, ..] if *second != 0) && short;
        if !prefix || !self.begins() {
            return None;
        }
        // What comes behind a slash or a long dash is another number, unless they are between all pairs.
        let held = |link| matches!(link, Link::Space | Link::Dot | Link::Dash) || link == next.link;
        let pair =
            |(index, group): &(usize, &Group)| group.len() == 2 && !group.glued && (*index == 0 || held(group.link));
        let pairs = self.run.iter().enumerate().take_while(pair).count();
        let listed = self.run[0].link == Link::Space && self.before.is_some_and(|group| group.len() == 2);
        if pairs == 5 && !listed {
            return Some(pairs);
        }
        let (count, digits) = self.greedy(MOST_NATIONAL);
        let groups = &self.run[..count];
        let subscriber = self.values(1);
        // Dates, addresses in networks, lists of numbers with leading zeros, postal codes of America.
        let month = matches!(next.link, Link::Dot | Link::Slash) && is_year(subscriber);
        let dots = groups[1..].iter().all(|group| group.link == Link::Dot);
        let network = dots && count == 4 && groups.iter().all(|group| group.len() <= 3);
        let alike = |index: usize| self.values(index)[0] == 0 && self.values(index).len() == first.len();
        let listed = match next.link {
            Link::Space => (1..count).all(alike),
            Link::Dot => subscriber[0] == 0,
            _ => false,
        };
        let postal = (first.len(), subscriber.len(), next.link) == (5, 4, Link::Dash) && count == 2;
        let long_enough = subscriber.len() >= if first.len() == 2 { 3 } else { 2 };
        let glued = groups.iter().any(|group| group.glued);
        let other = month || network || listed || postal || glued;
        (long_enough && !other && digits >= FEWEST).then_some(count)
    }

    /// `(415) 555-2671`.
    fn area_code(&self) -> Option<usize> {
        let code = self.values(0);
        let in_parentheses = self.run[0].open && self.run.get(1)?.link == Link::Close;
        let (count, digits) = self.greedy(MOST_NATIONAL);
        let glued = self.run[..count].iter().any(|group| group.glued);
        let plausible = (2..=5).contains(&code.len()) && !is_year(code) && !glued;
        (in_parentheses && plausible && digits >= FEWEST && digits - code.len() >= 5).then_some(count)
    }

    /// Groups of exactly these lengths, and no others that they are a part of.
    fn shape(&self, shape: &[usize], first: &str) -> Option<usize> {
        let groups = self.run.get(..shape.len())?;
        let alike = groups
            .iter()
            .zip(shape)
            .all(|(group, len)| group.len() == *len && !group.glued);
        if !alike || !first.bytes().any(|digit| digit - b'0' == self.values(0)[0]) {
            return None;
        }
        let links = || groups[1..].iter().map(|group| group.link);
        let (spaced, dashed, gaps) = (
            links().any(|link| link == Link::Space),
            links().any(|link| link == Link::Dash),
            links().all(|link| link == Link::Gap),
        );
        let joined = match shape {
            // Digits that might be anything, unless a hyphen holds them together.
            [3, 4] | [2, ..] => links().all(|link| matches!(link, Link::Space | Link::Dash)) && dashed,
            [3, 2, 3] => links().all(|link| link == Link::Space),
            // Spaced or long dashes are between what is subtracted, too, and say from where to where.
            [3, 3, 4] | [1, 3, 3, 4] | [3, 4, 4] if gaps => self.is_of_america_or_china(shape),
            [.., 4] if shape.len() > 2 && !spaced && !dashed => links().all(|link| link == Link::Dot),
            _ => links().all(|link| matches!(link, Link::Space | Link::Dash)),
        };
        // In a row of numbers, such as 100 200 300 400, nothing is a phone number.
        let row = |link, neighbour: Option<&Group>| match link {
            Link::Dash | Link::Dot => true,
            Link::Gap => gaps,
            Link::Space => {
                spaced && neighbour.is_some_and(|group| group.len() >= if shape == [3, 2, 2, 2] { 1 } else { 3 })
            }
            _ => false,
        };
        let behind = self.run.get(shape.len());
        let begins = !row(groups[0].link, self.before) && groups[0].link != Link::Close;
        let ends = !behind.is_some_and(|group| row(group.link, Some(group)));
        let values = || (0..shape.len()).map(|index| self.values(index));
        let ordinary = !values().all(is_round) && !values().all(is_year);
        (joined && begins && ends && ordinary).then_some(shape.len())
    }

    /// Whether groups of such a shape are more likely a phone number than a sum: area code and exchange of America begin with 2 to 9,
    /// and people who make up sums like round numbers.
    fn is_of_america_or_china(&self, shape: &[usize]) -> bool {
        let last = shape.len() - 1;
        let begins_high = |index: usize| self.values(index)[0] >= 2;
        let american = shape[last - 1] == 3;
        !is_round(self.values(last)) && (!american || (begins_high(last - 2) && begins_high(last - 1)))
    }

    /// Whether nothing before belongs to it.
    fn begins(&self) -> bool {
        let link = self.run[0].link;
        !self.run[0].glued && !matches!(link, Link::Dash | Link::Dot | Link::Close)
    }

    /// As many groups as have together at most so many digits, and their digits.
    fn greedy(&self, most: usize) -> (usize, usize) {
        let (mut count, mut digits) = (0, 0);
        for group in self.run.iter().take(GROUPS) {
            if digits + group.len() > most {
                break;
            }
            digits += group.len();
            count += 1;
        }
        (count, if count == 0 { 0 } else { digits })
    }

    fn values(&self, index: usize) -> &[u8] {
        self.numbers.values(&self.run[index..=index])
    }
}

fn value(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| 10 * value + u64::from(*digit))
}

fn is_year(digits: &[u8]) -> bool {
    digits.len() == 4 && (1900..2100).contains(&value(digits))
}

/// Numbers that people make up, not exchanges.
fn is_round(digits: &[u8]) -> bool {
    digits.len() <= 5 && value(digits).is_multiple_of(50)
}

#[cfg(test)]
#[path = "phone_tests.rs"]
mod tests;
