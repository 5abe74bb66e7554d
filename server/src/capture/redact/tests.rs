use proptest::prelude::*;

use super::*;

fn redactor(builtin: &[Builtin], patterns: &[(&str, &str)]) -> Redactor {
    let patterns: Vec<Pattern> = patterns
        .iter()
        .map(|(name, regex)| Pattern {
            name: (*name).to_owned(),
            regex: (*regex).to_owned(),
        })
        .collect();
    Redactor::new(builtin, &patterns).expect("rules")
}

const ALL: [Builtin; 3] = [Builtin::Email, Builtin::PhoneNumber, Builtin::CreditCard];

fn clean(redactor: &Redactor, text: &str) -> (String, Vec<(String, u32)>) {
    let mut counts = BTreeMap::new();
    let redacted = redactor.redact(text, 1 << 16, &mut counts);
    assert!(!redacted.truncated);
    (redacted.text, counts.into_iter().collect())
}

#[test]
fn only_what_was_asked_for_is_taken_out() {
    let text = "bob@example.com, +49 30 1234567, 4111 1111 1111 1111, T-12";
    let own = [("TICKET", r"T-\d+")];
    for (redactor, expected) in [
        (redactor(&[], &[]), text),
        (
            redactor(&[Builtin::Email], &[]),
            "[EMAIL], +49 30 1234567, 4111 1111 1111 1111, T-12",
        ),
        (
            redactor(&[Builtin::PhoneNumber], &[]),
            "bob@example.com, [PHONE], 4111 1111 1111 1111, T-12",
        ),
        (
            redactor(&[Builtin::CreditCard], &[]),
            "bob@example.com, +49 30 1234567, [CARD], T-12",
        ),
        (
            redactor(&[], &own),
            "bob@example.com, +49 30 1234567, 4111 1111 1111 1111, [TICKET]",
        ),
        (redactor(&ALL, &own), "[EMAIL], [PHONE], [CARD], [TICKET]"),
    ] {
        assert_eq!(clean(&redactor, text).0, expected);
    }
}

#[test]
fn finds_that_overlap_vanish_together() {
    let rules = redactor(
        &ALL,
        &[("SECRET", r"key \S+ of \S+"), ("WORD", "of"), ("NOTHING", "z*")],
    );
    let (text, counts) = clean(&rules, "a key 12 of bob@example.com! zz");
    assert_eq!(text, "a [SECRET] [NOTHING]");
    let counts: Vec<(&str, u32)> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts, [("EMAIL", 1), ("NOTHING", 1), ("SECRET", 1), ("WORD", 1)]);
    assert_eq!(clean(&rules, "x@y.org,+49 30 1234567").0, "[EMAIL],[PHONE]");
}

#[test]
fn a_placeholder_that_is_longer_than_its_find_does_not_lengthen_the_text() {
    let rules = redactor(&[], &[("A_LONG_NAME", "a")]);
    let mut counts = BTreeMap::new();
    let redacted = rules.redact("aaaa", 4, &mut counts);
    assert_eq!((redacted.text.as_str(), redacted.truncated), ("[A_L", true));
    let redacted = rules.redact("éé", 3, &mut counts);
    assert_eq!((redacted.text.as_str(), redacted.truncated), ("é", true));
    assert_eq!(counts.values().sum::<u32>(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn texts_of_any_kind_are_taken(text in "(\\PC|[0-9+()@. -]){0,80}", longest in 0_usize..200) {
        let mut counts = BTreeMap::new();
        let redacted = redactor(&ALL, &[]).redact(&text, longest, &mut counts);
        prop_assert!(redacted.text.len() <= longest);
        if counts.is_empty() && text.len() <= longest {
            prop_assert_eq!(redacted, Redacted { text, truncated: false });
        }
    }

    #[test]
    fn plain_words_stay_as_they_are(text in "[a-zA-Zéß中 ,;:!?\n\"'()#*_-]{0,200}") {
        prop_assert_eq!(clean(&redactor(&ALL, &[]), &text), (text, Vec::new()));
    }
}
