//! Numbers of credit cards: 13 to 19 digits of which the last fits the others.

use std::ops::Range;

use super::digits::{Group, Link, Numbers};

/// Digits of a card.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Where numbers of cards may be. Where there is more than one way to read it, all of them.
pub(super) fn find(numbers: &Numbers) -> Vec<Range<usize>> {
    let from = |index: usize| {
        // One more than can belong to a card, to know whether others follow.
        let run = numbers.run(index, DIGITS.end() + 1);
        let dots = run.get(1).is_some_and(|next| next.link == Link::Dot);
        let fits = |group: &&Group| match group.link {
            Link::Dot => dots,
            link => !dots && matches!(link, Link::Space | Link::Dash | Link::Gap),
        };
        let most = 1 + run.iter().skip(1).take_while(fits).count();
        let alone = run[0].link == Link::None && most == run.len() && !dots;
        let mut counts = (1..=most).rev();
        let count = counts.find(|count| is_card(numbers, &run[..*count], alone && *count == most))?;
        Some(run[0].range.start..run[count - 1].range.end)
    };
    let mut finds: Vec<Range<usize>> = Vec::new();
    for range in (0..numbers.groups.len()).filter_map(from) {
        match finds.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => finds.push(range),
        }
    }
    finds
}

/// Whether the digits are a card's. In a longer list of numbers only groups as cards have them count.
fn is_card(numbers: &Numbers, groups: &[Group], alone: bool) -> bool {
    let values = numbers.values(groups);
    let before_the_last = &groups[..groups.len() - 1];
    // A number with decimals has one dot.
    let decimals = groups.len() <= 2 && groups[groups.len() - 1].link == Link::Dot;
    DIGITS.contains(&values.len())
        && values[0] != 0
        // Of 13 digits are only those of banks; others are milliseconds since 1970, or books.
        && (values.len() > *DIGITS.start() || matches!(values[0], 4..=6))
        && !decimals
        && (alone || before_the_last.iter().all(|group| group.len() >= 3))
        && luhn(values)
}

/// ISO/IEC 7812-1, annex B: of every second digit, from the last but one, the double is taken, and the digits of that; the sum
/// is a multiple of ten.
fn luhn(values: &[u8]) -> bool {
    let digits = values.iter().rev().enumerate().map(|(index, value)| match value * 2 {
        _ if index % 2 == 0 => u32::from(*value),
        double if double > 9 => u32::from(double - 9),
        double => u32::from(double),
    });
    digits.sum::<u32>().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        find(&Numbers::of(text)).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn cards_are_found_as_people_write_them() {
        for card in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "4111.1111.1111.1111",
            "4111 1111-1111 1111",
            "4111 - 1111 - 1111 - 1111",
            "4111\u{2013}1111\u{2013}1111\u{2013}1111",
            "4111 \u{2013} 1111 \u{2013} 1111 \u{2013} 1111",
            "3782 - 822463 - 10005",
            "4111\u{a0}1111\u{a0}1111\u{a0}1111",
            "4111\u{2011}1111\u{2011}1111\u{2011}1111",
            "5500 0000 0000 0004",
            "2223 0031 2200 3222",
            "3782 822463 10005",
            "378282246310005",
            "3056 930902 5904",
            "4222222222222",
            "6304 0000 0000 0000 000",
            "4 111111111111111",
            "41 11 11 11 11 11 11 11",
            "４１１１ １１１１ １１１１ １１１１",
            "٤١١١ ١١١١ ١١١١ ١١١١",
        ] {
            for (before, after) in [
                ("", ""),
                ("card: ", "."),
                ("x", "y"),
                ("(", ")"),
                ("卡号", "谢谢"),
                ("12, ", ", 7"),
            ] {
                assert_eq!(
                    found(&format!("{before}{card}{after}")),
                    [card],
                    "{before}{card}{after}"
                );
            }
        }
        assert_eq!(found("7 4111 1111 1111 1111 12/27"), ["4111 1111 1111 1111"]);
        let two = ["4111 1111 1111 1111", "5500 0000 0000 0004"];
        assert_eq!(found(&two.join(" ")), two);
    }

    #[test]
    fn other_numbers_are_not() {
        for text in [
            "4111111111111112",
            "4111 1111 1111 1112",
            "411111111111",
            "41111111111111111111",
            "0000000000000000",
            "1700000000004",
            "9783161484102",
            "0.30000000000000004",
            "3.14159265358979",
            "2246.642631031076",
            "0.415926535897933",
            "4111 - 1111 - 1111 - 1112",
            "4111 + 1111 + 1111 + 1111",
            "4111, 1111, 1111, 1111",
            "4111\n1111\n1111\n1111",
            "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
            "12 45 33 78 90 11 22 44 51 60 70 80 91 13 27 98",
            "2024-01-15 10:30:00.123456",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn digits_before_do_not_hide_a_card() {
        assert_eq!(found("1235 4111 1111 1111 1111"), ["4111 1111 1111 1111"]);
        // Here the first 16 digits happen to fit, too.
        let text = "1236 4111 1111 1111 1111";
        assert_eq!(found(text), [text]);
    }

    #[test]
    fn a_wrong_digit_is_always_noticed() {
        let card: Vec<u8> = "5500000000000004".bytes().map(|digit| digit - b'0').collect();
        assert!(luhn(&card));
        for place in 0..card.len() {
            for value in (0..10).filter(|value| *value != card[place]) {
                let mut wrong = card.clone();
                wrong[place] = value;
                assert!(!luhn(&wrong));
            }
        }
    }
}
