use perennial_crds::capture::{Builtin, Pattern};
use proptest::prelude::*;

use super::*;
use crate::text::Message as Asked;

fn rules(terms: serde_json::Value) -> Rules {
    let mut all =
        serde_json::json!({"level": "Payload", "samplePerMille": 1000, "collector": "http://c:9091", "token": "t"});
    for (name, value) in terms.as_object().expect("an object") {
        all[name] = value.clone();
    }
    Rules::parse(all.to_string().as_bytes()).expect("rules")
}

fn everything() -> Rules {
    rules(serde_json::json!({
        "redact": [Builtin::Email, Builtin::PhoneNumber, Builtin::CreditCard],
        "patterns": [Pattern { name: "TICKET".to_owned(), regex: r"\bT-\d+\b".to_owned() }],
        "revision": "r7",
    }))
}

fn asked(role: &str, content: &str) -> Asked {
    Asked {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

fn record(texts: Texts<'_>, pieces: &[&str], rules: &Rules) -> ExchangeRecord {
    let mut draft = Draft::new("req-1".to_owned(), Some("me".to_owned()), 4.0, texts);
    for piece in pieces {
        draft.push(piece);
    }
    draft.end(Outcome::Stop, 7, 3, 1_764_547_200).record(rules)
}

#[test]
fn a_record_says_what_was_asked_and_answered() {
    let messages = [
        asked("system", "Be kind."),
        asked("user", "Mail bob@example.com or +49 30 1234567 on T-12."),
    ];
    let told = record(
        Texts::Chat(&messages),
        &["Bob is ", "bob@exam", "ple.com", "."],
        &everything(),
    );
    let contents: Vec<(&str, &str)> = told
        .messages
        .iter()
        .map(|message| (message.role.as_str(), message.content.as_str()))
        .collect();
    assert_eq!(
        contents,
        [("system", "Be kind."), ("user", "Mail [EMAIL] or [PHONE] on [TICKET].")]
    );
    assert_eq!(told.answer, "Bob is [EMAIL].");
    assert_eq!(told.prompt, None);
    let finds: Vec<(&str, u32)> = told
        .redactions
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    assert_eq!(finds, [("EMAIL", 2), ("PHONE", 1), ("TICKET", 1)]);
    assert_eq!(
        (told.request_id.as_str(), told.requester.as_deref()),
        ("req-1", Some("me"))
    );
    assert_eq!(
        (told.revision.as_deref(), told.time, told.sampling_weight),
        (Some("r7"), 1_764_547_200, 4.0)
    );
    assert_eq!(
        (told.finish, told.prompt_tokens, told.output_tokens),
        (Finish::Stop, 7, 3)
    );
    assert!(!told.truncated);
    let told = record(Texts::Prompt("card 4111 1111 1111 1111"), &[], &everything());
    assert_eq!(
        (told.prompt.as_deref(), told.messages.len(), told.answer.as_str()),
        (Some("card [CARD]"), 0, "")
    );
}

#[test]
fn every_end_has_its_word() {
    for (outcome, finish) in [
        (Outcome::Stop, Finish::Stop),
        (Outcome::Length, Finish::Length),
        (Outcome::Abort, Finish::Abort),
        (Outcome::Error, Finish::Error),
    ] {
        let draft = Draft::new(String::new(), None, 1.0, Texts::Prompt(""));
        assert_eq!(draft.end(outcome, 0, 0, 0).record(&Rules::default()).finish, finish);
    }
}

#[test]
fn long_texts_are_cut_and_what_is_cut_through_leaves_no_half() {
    // The address lies across the end of what is kept, at every place.
    for before in MAX_TEXT_BYTES - 30..=MAX_TEXT_BYTES {
        let text = format!(
            "{} bob.miller@example.com {}",
            "x".repeat(before - 1),
            "y ".repeat(4000)
        );
        let pieces: Vec<&str> = text
            .as_bytes()
            .chunks(997)
            .map(|piece| str::from_utf8(piece).expect("ASCII"))
            .collect();
        let told = record(Texts::Prompt(&text), &pieces, &everything());
        for kept in [told.prompt.as_deref().expect("a prompt"), &told.answer] {
            assert!(kept.len() <= MAX_TEXT_BYTES);
            let end = &kept[before.min(kept.len()) - 1..];
            assert!(!end.contains("bob") && !end.contains("mil"), "{end:.30}");
        }
        assert!(told.truncated);
    }
    let fits = "é".repeat(MAX_TEXT_BYTES / 2);
    let told = record(Texts::Prompt(&fits), &[&fits], &everything());
    assert_eq!(
        (told.prompt.as_ref(), &told.answer, told.truncated),
        (Some(&fits), &fits, false)
    );
    let longer = format!("x{fits}");
    let told = record(Texts::Prompt(""), &[&longer, "", "z"], &everything());
    assert_eq!((told.answer.len(), told.truncated), (MAX_TEXT_BYTES - 1, true));
}

#[test]
fn of_an_answer_nothing_is_kept_behind_what_was_cut_off() {
    let mut draft = Draft::new(String::new(), None, 1.0, Texts::Prompt(""));
    draft.push(&"x".repeat(TEXT_BYTES - 1));
    draft.push("é");
    draft.push("y");
    assert_eq!(draft.answer.len(), TEXT_BYTES - 1);
}

#[test]
fn of_a_long_chat_the_latest_messages_are_kept() {
    let long = "x".repeat(MAX_TEXT_BYTES - 100);
    let mut messages = vec![asked("system", "Be kind.")];
    messages.extend((0..6).map(|number| asked("user", &format!("{number} {long}"))));
    messages.push(asked("user", "last"));
    let told = record(Texts::Chat(&messages), &[], &everything());
    let kept: Vec<&str> = told.messages.iter().map(|message| &message.content[..2]).collect();
    assert_eq!(kept, ["2 ", "3 ", "4 ", "5 ", "la"]);
    assert!(told.truncated);
    let told = record(Texts::Chat(&vec![asked("user", ""); 100_000]), &[], &everything());
    assert_eq!(told.messages.len(), CHAT_BYTES / MESSAGE_BYTES);
}

#[test]
fn corrections_are_redacted_too() {
    let feedback = FeedbackRecord {
        request_id: "req-1".to_owned(),
        time: 5,
        score: Some(-0.5),
        corrected_output: Some("Write to bob@example.com, T-1.".to_owned()),
    };
    let (clean, finds) = clean_feedback(feedback, &everything());
    assert_eq!(clean.corrected_output.as_deref(), Some("Write to [EMAIL], [TICKET]."));
    assert_eq!(
        (clean.score, clean.request_id.as_str(), finds.len()),
        (Some(-0.5), "req-1", 2)
    );
}

/// Texts with all that stands around personal data.
fn around() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "\\PC{0,20}",
        "([0-9]{1,4}[ .,:/-]){0,8}",
        "[a-z ]{0,30}\n?"
    ]
}

fn address() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9_+-]{0,12}(\\.[a-z0-9]{1,8}){0,2}@[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]{2,5}){1,2}"
}

/// A number with a valid check digit, written with or without separators.
fn card() -> impl Strategy<Value = String> {
    let digits = prop::collection::vec(0_u8..10, 15);
    (digits, prop_oneof![Just(""), Just(" "), Just("-")]).prop_map(|(mut digits, separator)| {
        digits[0] = 4 + digits[0] % 3;
        let sum: u32 = digits
            .iter()
            .rev()
            .enumerate()
            .map(|(index, digit)| match u32::from(*digit) {
                digit if index % 2 == 1 => digit,
                digit if digit > 4 => 2 * digit - 9,
                digit => 2 * digit,
            })
            .sum();
        digits.push(u8::try_from((10 - sum % 10) % 10).expect("a digit"));
        let groups: Vec<String> = digits
            .chunks(4)
            .map(|group| group.iter().map(|digit| char::from(b'0' + digit)).collect())
            .collect();
        groups.join(separator)
    })
}

fn survives(planted: &str, record: &ExchangeRecord) -> bool {
    let texts = record.messages.iter().map(|message| &message.content);
    let mut texts = texts.chain(record.prompt.as_ref()).chain([&record.answer]);
    texts.any(|text| text.contains(planted))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn nothing_of_a_planted_address_or_card_survives(
        before in around(), behind in around(), planted in prop_oneof![address(), card()], piece in 1_usize..9,
    ) {
        let text = format!("{before}\n{planted}\n{behind}");
        let messages = [asked("system", &text), asked("user", &text)];
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (first, others) = rest.split_at(rest.ceil_char_boundary(piece.min(rest.len())));
            pieces.push(first);
            rest = others;
        }
        for texts in [Texts::Chat(&messages), Texts::Prompt(&text)] {
            let record = record(texts, &pieces, &everything());
            prop_assert!(!survives(&planted, &record));
            for part in planted.split(['@', ' ']).filter(|part| part.len() > 3) {
                let elsewhere = format!("{before}\n{behind}").contains(part);
                prop_assert!(elsewhere || !survives(part, &record), "{part} of {planted}");
            }
            prop_assert!(record.redactions.values().sum::<u32>() > 0);
        }
        let feedback = FeedbackRecord { request_id: "r".to_owned(), time: 0, score: None, corrected_output: Some(text) };
        let (feedback, _) = clean_feedback(feedback, &everything());
        prop_assert!(!feedback.corrected_output.expect("a text").contains(&planted));
    }
}
