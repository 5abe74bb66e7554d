use perennial_crds::capture::{FeedbackRecord, Finish, Message};
use proptest::prelude::*;

use super::*;
use crate::prepare::prompt::normalised;

fn settings() -> PrepareSettings {
    PrepareSettings {
        cycle_id: "c1".to_owned(),
        from: 0,
        to: 1000,
        drifted_since: 500,
        max_records: 1000,
        max_percent_per_requester: 100,
        include: vec![Include::CorrectedOutputs, Include::RatedGood],
        hold_out: 10,
        recent_suites: vec!["recent".to_owned()],
        own_suites: vec!["own".to_owned()],
        excluded_sets: Vec::new(),
        min_records: 2,
        min_items: 0,
        seed: 7,
        ended: Vec::new(),
    }
}

fn message(role: &str, content: &str) -> Message {
    Message {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

fn exchange(id: u32, time: i64, prompt: &str) -> ExchangeRecord {
    ExchangeRecord {
        request_id: format!("req-{id}"),
        time,
        revision: Some("r1".to_owned()),
        requester: None,
        messages: vec![message("user", prompt)],
        prompt: None,
        answer: format!("own answer {id}"),
        finish: Finish::Stop,
        prompt_tokens: 1,
        output_tokens: 1,
        sampling_weight: 2.0,
        redactions: BTreeMap::new(),
        truncated: false,
    }
}

fn think(records: &mut Records, id: u32, score: Option<f64>, corrected: Option<&str>) {
    let feedback = FeedbackRecord {
        request_id: format!("req-{id}"),
        time: 600,
        score,
        corrected_output: corrected.map(str::to_owned),
    };
    records
        .opinions
        .entry(feedback.request_id.clone())
        .or_default()
        .add(feedback);
}

fn item(prompt: &str) -> SuiteItem {
    SuiteItem {
        messages: Vec::new(),
        prompt: Some(prompt.to_owned()),
        answer: Some("right".to_owned()),
        exact: None,
        regex: None,
        max_tokens: None,
    }
}

/// `count` corrected records with prompts of their own, all in the changed traffic.
fn corrected(count: u32) -> Records {
    let mut records = Records::default();
    for id in 0..count {
        records
            .exchanges
            .push(exchange(id, 500 + i64::from(id), &format!("question {id}")));
        think(&mut records, id, None, Some(&format!("corrected {id}")));
    }
    records
}

fn all(prepared: &Prepared) -> Vec<&TrainingRow> {
    prepared.train.iter().chain(&prepared.validation).collect()
}

fn answers(prepared: &Prepared) -> Vec<&str> {
    let mut answers: Vec<&str> = all(prepared)
        .into_iter()
        .filter_map(|row| row.answer.as_deref())
        .collect();
    answers.sort_unstable();
    answers
}

#[test]
fn held_out_items_have_the_corrected_answer_and_are_not_trained_on() {
    let mut records = corrected(40);
    // The same question, in the chat of somebody else, before the change.
    for id in 0..40 {
        let mut other = exchange(100 + id, 10, "something else");
        other.messages.insert(0, message("user", &format!(" Question  {id} ")));
        records.exchanges.push(other);
        think(&mut records, 100 + id, Some(1.0), None);
    }
    let prepared = plan(records, &settings()).expect("enough");
    assert_eq!(prepared.held_out.len(), 10);
    assert_eq!(prepared.excluded.held_out, 20);
    for item in &prepared.held_out {
        let answer = item.answer.as_deref().expect("an answer");
        assert!(answer.starts_with("corrected"), "{answer}");
        assert!(!answers(&prepared).contains(&answer));
    }
    assert_eq!(all(&prepared).len(), 60);
}

#[test]
fn half_of_what_there_is_is_left_to_learn_from() {
    let mut few = settings();
    few.hold_out = 1000;
    let prepared = plan(corrected(9), &few).expect("enough");
    assert_eq!((prepared.held_out.len(), all(&prepared).len()), (4, 5));
    // One prompt that is asked by most would take all others with it.
    let mut records = corrected(30);
    for exchange in &mut records.exchanges[..20] {
        exchange.messages = vec![message("user", "always the same")];
    }
    let prepared = plan(records, &few).expect("enough");
    assert_eq!((prepared.held_out.len(), all(&prepared).len()), (10, 20));
}

#[test]
fn corrected_records_are_held_out_before_those_rated_good() {
    let mut records = corrected(8);
    for id in 10..40 {
        records.exchanges.push(exchange(id, 700, &format!("question {id}")));
        think(&mut records, id, Some(0.5), None);
    }
    let prepared = plan(records, &settings()).expect("enough");
    let of_model = |item: &&SuiteItem| item.answer.as_deref().is_some_and(|answer| answer.starts_with("own"));
    assert_eq!(prepared.held_out.iter().filter(of_model).count(), 2);
    assert_eq!(prepared.held_out.len(), 10);
}

#[test]
fn nothing_from_before_the_change_is_held_out() {
    let mut late = settings();
    late.drifted_since = 990;
    let Rejected(why) = plan(corrected(40), &late).expect_err("nothing to hold out");
    assert!(why.contains("nothing can be held out"), "{why}");
    late.recent_suites.clear();
    let prepared = plan(corrected(40), &late).expect("nothing has to be");
    assert_eq!((prepared.held_out.len(), all(&prepared).len()), (0, 40));
}

#[test]
fn a_suite_with_too_few_items_is_told_before_anything_is_frozen() {
    let told = PrepareSettings {
        min_items: 5,
        ..settings()
    };
    let why = |records: Records| plan(records, &told).map(|_| ()).map_err(|Rejected(why)| why);
    // Half of them are left to learn from, so four are held out of nine and five of ten.
    let few = why(corrected(9)).expect_err("too few");
    assert!(
        few.starts_with("the suite recent has 4 items and 5 are needed") && few.contains("lower gate.minItems"),
        "{few}"
    );
    assert_eq!(why(corrected(10)), Ok(()));
    let with_own = |count: usize| {
        let mut records = corrected(40);
        let items = (0..count).map(|number| item(&format!("golden {number}")));
        records.own.insert("own".to_owned(), items.collect());
        why(records)
    };
    let few = with_own(4).expect_err("too few");
    assert_eq!(
        few,
        "the suite own has 4 items and 5 are needed; add items to its ConfigMap, or lower gate.minItems"
    );
    assert_eq!(with_own(5), Ok(()));
}

#[test]
fn prompts_of_own_suites_are_never_trained_on() {
    let mut records = corrected(40);
    records.own.insert(
        "own".to_owned(),
        vec![item("QUESTION  3"), item("question 4"), item("question 99")],
    );
    let prepared = plan(records, &settings()).expect("enough");
    assert_eq!(prepared.excluded.own_suites, 2);
    let held: Vec<&str> = prepared
        .held_out
        .iter()
        .filter_map(|item| item.answer.as_deref())
        .collect();
    for answer in ["corrected 3", "corrected 4"] {
        assert!(!answers(&prepared).contains(&answer) && !held.contains(&answer));
    }
}

#[test]
fn prompts_of_probes_are_neither_trained_on_nor_judged_by() {
    let probe = |prompt: &str| SuiteItem {
        answer: None,
        ..item(prompt)
    };
    let without = plan(corrected(40), &settings()).expect("enough");
    let mut records = corrected(40);
    // All that would be held out, but for a letter and a space; and one that is learned.
    let mut asked: Vec<String> = without
        .held_out
        .iter()
        .map(|item| format!(" {}", item.messages[0].content.to_uppercase()))
        .collect();
    asked.push(all(&without)[0].messages[0].content.clone());
    records.excluded = asked.iter().map(|prompt| probe(prompt)).collect();
    let prepared = plan(records.clone(), &settings()).expect("enough");
    assert_eq!(prepared.excluded.own_suites, 11);
    assert_eq!((prepared.held_out.len(), all(&prepared).len()), (10, 19));
    let forbidden: BTreeSet<String> = asked.iter().map(|prompt| normalised(prompt)).collect();
    let held = prepared.held_out.iter().map(|item| &item.messages);
    for messages in held.chain(all(&prepared).into_iter().map(|row| &row.messages)) {
        assert!(!forbidden.contains(&normalised(&messages[0].content)));
    }
    // In suites of the user or asked as probes: it is the same for what is learned, and the hash says what is forbidden.
    let mut other = corrected(40);
    other
        .own
        .insert("own".to_owned(), std::mem::take(&mut records.excluded));
    assert_eq!(plan(other, &settings()).expect("enough"), prepared);
    let mut more = corrected(40);
    more.excluded = vec![probe("never asked by anybody")];
    let more = plan(more, &settings()).expect("enough");
    assert_ne!(more.evaluation_hash, without.evaluation_hash);
    assert_eq!((more.train, more.held_out), (without.train, without.held_out));
}

#[test]
fn only_what_is_asked_for_is_trained_on() {
    let mut records = corrected(10);
    for id in 10..30 {
        records.exchanges.push(exchange(id, 100, &format!("question {id}")));
    }
    think(&mut records, 10, Some(1.0), None);
    think(&mut records, 11, Some(-1.0), None);
    records.unlabelled = 5;
    let mut told = settings();
    told.recent_suites.clear();
    let with = |include: &[Include]| {
        let told = PrepareSettings {
            include: include.to_vec(),
            ..told.clone()
        };
        plan(records.clone(), &told)
    };
    let labels = |prepared: &Prepared| labels(&[prepared.train.clone(), prepared.validation.clone()].concat());
    let both = with(&[Include::CorrectedOutputs, Include::RatedGood]).expect("enough");
    assert_eq!(
        labels(&both),
        [(Include::CorrectedOutputs, 10), (Include::RatedGood, 1)].into()
    );
    assert_eq!(both.excluded.no_label, 19 + 5);
    assert!(answers(&both).contains(&"own answer 10"));
    let Rejected(why) = with(&[Include::RatedGood]).expect_err("one is too few");
    assert!(why.starts_with("1 records may be trained on and 2 are needed"), "{why}");
    let prompts = with(&[Include::UserPrompts]).expect("enough");
    assert_eq!(labels(&prompts), [(Include::UserPrompts, 30)].into());
    for row in all(&prompts) {
        assert!(row.answer.is_none() && row.messages.is_empty());
        assert!(
            row.prompt
                .as_deref()
                .is_some_and(|prompt| prompt.starts_with("question"))
        );
    }
}

#[test]
fn of_a_chat_only_what_the_user_said_is_text() {
    let mut records = Records::default();
    for id in 0..3 {
        let mut chat = exchange(id, 600, &format!("question {id}"));
        chat.messages.insert(0, message("assistant", "what the model said"));
        records.exchanges.push(chat);
    }
    let told = PrepareSettings {
        include: vec![Include::UserPrompts],
        recent_suites: Vec::new(),
        ..settings()
    };
    let prepared = plan(records, &told).expect("enough");
    let text = serde_json::to_string(&all(&prepared)).expect("JSON");
    assert!(!text.contains("what the model said"), "{text}");
}

#[test]
fn the_same_is_learned_once_and_a_record_that_came_twice_is_one() {
    let mut records = corrected(20);
    for id in 20..25 {
        records.exchanges.push(exchange(id, 400, "question 19"));
        think(&mut records, id, None, Some("corrected 19"));
    }
    let again = records.exchanges[3].clone();
    records.exchanges.push(again);
    let told = PrepareSettings {
        recent_suites: Vec::new(),
        ..settings()
    };
    let prepared = plan(records, &told).expect("enough");
    assert_eq!((prepared.excluded.duplicates, all(&prepared).len()), (5, 20));
}

#[test]
fn records_that_share_an_id_are_not_used_because_feedback_may_be_about_either() {
    let mut records = corrected(20);
    records.exchanges.push(exchange(3, 700, "another question"));
    let told = PrepareSettings {
        recent_suites: Vec::new(),
        ..settings()
    };
    let prepared = plan(records, &told).expect("enough");
    assert_eq!((all(&prepared).len(), prepared.excluded.no_label), (19, 2));
    assert!(!answers(&prepared).contains(&"corrected 3"));
}

#[test]
fn the_newest_of_the_changed_traffic_come_first() {
    let mut records = corrected(40);
    for id in 100..200 {
        records.exchanges.push(exchange(id, 100, &format!("question {id}")));
        think(&mut records, id, None, Some(&format!("corrected {id}")));
    }
    let told = PrepareSettings {
        recent_suites: Vec::new(),
        max_records: 30,
        ..settings()
    };
    let prepared = plan(records.clone(), &told).expect("enough");
    let mut expected: Vec<String> = (10..40).map(|id| format!("corrected {id}")).collect();
    expected.sort_unstable();
    assert_eq!(
        (answers(&prepared), prepared.excluded.surplus),
        (expected.iter().map(String::as_str).collect(), 110)
    );
    let more = PrepareSettings {
        max_records: 60,
        ..told
    };
    let sampled = |seed| {
        let prepared = plan(records.clone(), &PrepareSettings { seed, ..more.clone() }).expect("enough");
        answers(&prepared).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sampled(1).len(), 60);
    assert_ne!(sampled(1), sampled(2));
}

#[test]
fn a_twentieth_is_measured_with_and_never_a_prompt_on_both_sides() {
    let mut records = corrected(100);
    for (exchange, number) in records.exchanges.iter_mut().zip(0..) {
        exchange.messages = vec![message("user", &format!("question {}", number % 50))];
    }
    let told = PrepareSettings {
        recent_suites: Vec::new(),
        ..settings()
    };
    let prepared = plan(records, &told).expect("enough");
    assert_eq!((prepared.train.len(), prepared.validation.len()), (94, 6));
    let prompts = |rows: &[TrainingRow]| {
        rows.iter()
            .map(|row| row.messages[0].content.clone())
            .collect::<BTreeSet<_>>()
    };
    assert!(prompts(&prepared.train).is_disjoint(&prompts(&prepared.validation)));
    let mut same = corrected(4);
    for exchange in &mut same.exchanges {
        exchange.messages = vec![message("user", "the same")];
    }
    let prepared = plan(same, &told).expect("enough");
    assert_eq!((prepared.train.len(), prepared.validation.len()), (3, 1));
    let Rejected(why) = plan(corrected(1), &PrepareSettings { min_records: 1, ..told }).expect_err("one is too few");
    assert!(why.contains("2 are needed"), "{why}");
}

#[test]
fn what_is_outside_the_window_is_not_there() {
    let mut records = corrected(10);
    records.exchanges.push(exchange(50, 1000, "question 50"));
    records.exchanges.push(exchange(51, -1, "question 51"));
    think(&mut records, 50, None, Some("corrected 50"));
    think(&mut records, 51, None, Some("corrected 51"));
    let told = PrepareSettings {
        recent_suites: Vec::new(),
        ..settings()
    };
    let prepared = plan(records, &told).expect("enough");
    assert_eq!(all(&prepared).len(), 10);
    assert_eq!(prepared.excluded, Excluded::default());
}

#[derive(Clone, Debug)]
struct Made {
    prompt: u8,
    earlier: Option<u8>,
    time: i64,
    owner: Option<u8>,
    score: Option<f64>,
    corrected: Option<u8>,
    finish: Finish,
}

fn made() -> impl Strategy<Value = Made> {
    let finish = prop_oneof![Just(Finish::Stop), Just(Finish::Length), Just(Finish::Error)];
    let score = proptest::option::of(-1.0..1.0_f64);
    let (owner, corrected) = (proptest::option::of(0_u8..6), proptest::option::of(0_u8..5));
    let earlier = proptest::option::weighted(0.2, 0_u8..30);
    (0_u8..30, earlier, 0_i64..1000, owner, score, corrected, finish).prop_map(
        |(prompt, earlier, time, owner, score, corrected, finish)| Made {
            prompt,
            earlier,
            time,
            owner,
            score,
            corrected,
            finish,
        },
    )
}

fn records(made: &[Made], own: &[u8]) -> Records {
    let mut records = Records::default();
    for (made, id) in made.iter().zip(0..) {
        let mut record = exchange(id, made.time, &format!(" Prompt {}", made.prompt));
        if let Some(earlier) = made.earlier {
            record
                .messages
                .insert(0, message("user", &format!("prompt  {earlier}")));
        }
        record.requester = made.owner.map(|owner| format!("owner-{owner}"));
        record.finish = made.finish;
        records.exchanges.push(record);
        if made.score.is_some() || made.corrected.is_some() {
            let corrected = made.corrected.map(|corrected| format!("corrected {corrected}"));
            think(&mut records, id, made.score, corrected.as_deref());
        }
    }
    let own = own.iter().map(|prompt| item(&format!("PROMPT {prompt}"))).collect();
    records.own.insert("own".to_owned(), own);
    records
}

fn asked(settings: (u32, u32, u32, u64, u8)) -> PrepareSettings {
    let (percent, hold_out, max_records, seed, include) = settings;
    let kinds = [Include::CorrectedOutputs, Include::RatedGood, Include::UserPrompts];
    PrepareSettings {
        max_percent_per_requester: percent,
        hold_out,
        max_records,
        seed,
        include: (0..3)
            .filter(|bit| include & (1 << bit) != 0)
            .map(|bit| kinds[bit])
            .collect(),
        ..self::settings()
    }
}

fn any_settings() -> impl Strategy<Value = (u32, u32, u32, u64, u8)> {
    (1_u32..=100, 0_u32..30, 2_u32..200, any::<u64>(), 1_u8..8)
}

fn question(messages: &[Message]) -> Vec<String> {
    let users = messages.iter().filter(|message| message.role == "user");
    users.map(|message| normalised(&message.content)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_test_is_never_trained_on(
        made in proptest::collection::vec(made(), 0..120), own in proptest::collection::vec(0_u8..30, 0..4), told in any_settings(),
    ) {
        let (records, settings) = (records(&made, &own), asked(told));
        let Ok(prepared) = plan(records, &settings) else { return Ok(()) };
        let mut forbidden: BTreeSet<String> = own.iter().map(|prompt| format!("prompt {prompt}")).collect();
        for item in &prepared.held_out {
            // What was held out is not in a suite of the user either.
            let said = question(&item.messages);
            prop_assert!(said.iter().all(|said| !forbidden.contains(said)));
        }
        for item in &prepared.held_out {
            forbidden.extend(question(&item.messages).pop());
        }
        for row in all(&prepared) {
            let mut said = question(&row.messages);
            said.extend(row.prompt.as_deref().map(normalised));
            prop_assert!(said.iter().all(|said| !forbidden.contains(said)), "{:?}", said);
        }
    }

    #[test]
    fn every_answer_was_corrected_or_rated_good(
        made in proptest::collection::vec(made(), 0..120), told in any_settings(),
    ) {
        let (records, settings) = (records(&made, &[]), asked(told));
        let Ok(prepared) = plan(records, &settings) else { return Ok(()) };
        let held = prepared.held_out.iter().filter_map(|item| item.answer.as_deref());
        for answer in held.chain(answers(&prepared)) {
            if let Some(id) = answer.strip_prefix("own answer ") {
                let made = &made[id.parse::<usize>().expect("a number")];
                prop_assert!(made.corrected.is_none() && made.finish == Finish::Stop);
                prop_assert!(made.score.is_some_and(|score| score > 0.0));
            }
        }
        for row in all(&prepared) {
            prop_assert!(settings.include.contains(&row.label));
            prop_assert_eq!(row.answer.is_none(), row.label == Include::UserPrompts);
            let own = row.answer.as_deref().is_some_and(|answer| answer.starts_with("own"));
            prop_assert_eq!(own, row.label == Include::RatedGood);
        }
    }

    #[test]
    fn nobody_gives_more_than_its_share_and_nothing_is_lost_from_the_count(
        made in proptest::collection::vec(made(), 0..120), told in any_settings(),
    ) {
        let (mut records, settings) = (records(&made, &[]), asked(told));
        // So that a row tells who asked.
        for (record, made) in records.exchanges.iter_mut().zip(&made) {
            record.revision = made.owner.map(|owner| format!("owner-{owner}"));
        }
        let Ok(prepared) = plan(records, &settings) else { return Ok(()) };
        let rows = all(&prepared);
        prop_assert!(rows.len() <= settings.max_records as usize && !prepared.validation.is_empty() && !prepared.train.is_empty());
        for owner in 0..6 {
            let owner = format!("owner-{owner}");
            let share = rows.iter().filter(|row| row.served_revision.as_ref() == Some(&owner)).count();
            prop_assert!(share <= 1 || share * 100 <= rows.len() * settings.max_percent_per_requester as usize);
        }
        let excluded = &prepared.excluded;
        let left = excluded.own_suites + excluded.held_out + excluded.requester_cap + excluded.duplicates
            + excluded.no_label + excluded.surplus;
        prop_assert_eq!(rows.len() as u64 + left, made.len() as u64);
        prop_assert!(prepared.held_out.len() <= settings.hold_out as usize);
    }

    #[test]
    fn the_same_records_in_any_order_give_the_same(
        made in proptest::collection::vec(made(), 0..120), own in proptest::collection::vec(0_u8..30, 0..4), told in any_settings(),
    ) {
        let settings = asked(told);
        let forwards = records(&made, &own);
        let mut backwards = forwards.clone();
        backwards.exchanges.reverse();
        prop_assert_eq!(plan(forwards, &settings), plan(backwards, &settings));
    }
}
