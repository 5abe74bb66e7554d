//! Addresses of mail. Rather too much around an `@` than too little: what is lost is a word, what is left is somebody's name.

use std::ops::Range;

/// What stands between the two parts, also as it is written in URLs and HTML.
const AT: [&str; 4] = ["@", "＠", "%40", "&#64;"];
/// Longest part on either side, characters; no address has longer ones.
const LONGEST: usize = 255;
/// Where scripts begin that are written without spaces between words. An address in Latin letters ends where they begin.
const EAST_ASIAN: char = '\u{2e80}';

/// Where addresses are.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let signs = AT.iter().flat_map(|sign| text.match_indices(sign));
    signs
        .filter_map(|(at, sign)| {
            let behind = at + sign.len();
            let start = at - local(&text[..at])?;
            Some(start..behind + domain(&text[behind..])?)
        })
        .collect()
}

/// Whether the letters that follow each other may include East Asian ones: only if the one beside the sign is.
#[derive(Default)]
struct Script(Option<bool>);

impl Script {
    fn takes(&mut self, letter: char) -> bool {
        let east_asian = letter >= EAST_ASIAN;
        *self.0.get_or_insert(east_asian) || !east_asian
    }
}

/// Bytes of the part that ends where the text ends.
fn local(before: &str) -> Option<usize> {
    let mut script = Script::default();
    let part = before.chars().rev().take(LONGEST).take_while(|letter| {
        if is_letter(*letter) {
            script.takes(*letter)
        } else {
            matches!(letter, '!' | '#'..='\'' | '*' | '+' | '-'..='/' | '=' | '?' | '^'..='`' | '{'..='~' | '．')
        }
    });
    let (mut bytes, mut letters) = (0, 0);
    for letter in part {
        bytes += letter.len_utf8();
        letters += usize::from(is_letter(letter));
    }
    (letters > 0).then_some(bytes)
}

/// Bytes of the domain that the text begins with: names with dots between them, the last of at least two letters.
fn domain(behind: &str) -> Option<usize> {
    let mut script = Script::default();
    let part = behind
        .char_indices()
        .take(LONGEST)
        .take_while(|(_, letter)| *letter == '-' || is_dot(*letter) || is_letter(*letter) && script.takes(*letter));
    // Where the present name began, whether a dot was before it, and where the last good one ended.
    let (mut began, mut dotted, mut good) = (0, false, None);
    let mut end = 0;
    for (at, letter) in part {
        if is_dot(letter) {
            good = if dotted && is_top(&behind[began..at]) {
                Some(at)
            } else {
                good
            };
            if at == began {
                // No name between two dots.
                return good;
            }
            (began, dotted) = (at + letter.len_utf8(), true);
        }
        end = at + letter.len_utf8();
    }
    if dotted && is_top(&behind[began..end]) {
        Some(end)
    } else {
        good
    }
}

fn is_top(name: &str) -> bool {
    name.chars().next().is_some_and(char::is_alphabetic) && name.chars().nth(1).is_some()
}

fn is_dot(letter: char) -> bool {
    matches!(letter, '.' | '．' | '。' | '｡')
}

/// A letter or digit of any script, or an accent that stands by itself.
fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut ranges = find(text);
        ranges.sort_by_key(|range| range.start);
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn addresses_are_found_whole() {
        for address in [
            "alice@example.com",
            "Alice.B+news@mail.example.co.uk",
            "o'brien@example.org",
            "a@b.io",
            "x_y-z%w@sub-domain.example.museum",
            "bounce+alice=example.org@lists.example.com",
            "1234567@qq.com",
            "jörg.müller@müller.de",
            "jose\u{301}@example.com",
            "пётр@пример.рф",
            "田中@例え.日本",
            "ａｌｉｃｅ＠ｅｘａｍｐｌｅ．ｃｏｍ",
            "bob@xn--bcher-kva.example",
            "bob@example.xn--p1ai",
            "alice%40example.com",
            "alice&#64;example.com",
        ] {
            assert_eq!(found(address), [address]);
            for (before, after) in [
                ("", "."),
                ("to <", ">"),
                ("mailto:", "\n"),
                ("(", "), and"),
                ("\"", "\":"),
                ("to ", " "),
                ("[", "]"),
                ("：", "，"),
            ] {
                assert_eq!(
                    found(&format!("{before}{address}{after}")),
                    [address],
                    "{before:?} {after:?}"
                );
            }
        }
        assert_eq!(found("a@b.com;c@d.org, e@f.net"), ["a@b.com", "c@d.org", "e@f.net"]);
        assert_eq!(found("我的邮箱是alice@example.com请回复"), ["alice@example.com"]);
        assert_eq!(found("alice@example.com..."), ["alice@example.com"]);
        assert_eq!(found("alice@example.com.1"), ["alice@example.com"]);
        assert_eq!(
            found("see https://x.org/?mail=alice@example.com&x=1"),
            ["//x.org/?mail=alice@example.com"]
        );
    }

    #[test]
    fn an_at_alone_is_no_address() {
        for text in [
            "@alice",
            "alice@",
            "alice @ example.com",
            "meet @ 5.30",
            "react@18.2.0",
            "root@localhost",
            "A @ B.T",
            "a@b.c",
            "a@.com",
            "a@b..com",
            "100%40",
            "\"@example.com",
            "user@192.168.0.1",
            "@dataclass\nclass A:",
            "@media.screen",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn long_texts_of_signs_take_no_time() {
        // Each sign looks at no more than its own neighbourhood; quadratic, this would take minutes.
        let text = "%40".repeat(40_000) + &"a".repeat(200_000) + "@" + &"b.".repeat(100_000);
        assert_eq!(find(&text).len(), 0);
    }
}
