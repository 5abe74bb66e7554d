use super::*;

fn feedback(number: u64) -> Line {
    Line::Feedback(FeedbackRecord {
        request_id: format!("req-{number}"),
        time: 5,
        score: Some(0.5),
        corrected_output: None,
    })
}

fn batch(first: u64, records: u64) -> Vec<Line> {
    let head = BatchHead {
        boot_id: "a".to_owned(),
        first,
        records,
        dropped: 3,
        time: 9,
    };
    std::iter::once(Line::Batch(head))
        .chain((first..first + records).map(feedback))
        .collect()
}

fn bytes(lines: impl IntoIterator<Item = Line>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        push(&mut bytes, &line).expect("written");
    }
    bytes
}

fn head() -> Line {
    let earlier = Position {
        next: 7,
        dropped: 1,
        seen: 2,
    };
    Line::Segment(Head {
        version: VERSION,
        opened: 4,
        boots: [("b".to_owned(), earlier)].into(),
    })
}

#[test]
fn names_are_read_as_they_are_written() {
    let name = Name {
        sequence: 42,
        opened: 1_796_000_461,
    };
    assert_eq!(name.day(), "2026-11-30");
    assert_eq!(name.file(State::Closed), "010101-00000042.jsonl");
    assert_eq!(name.listing(), "010101-00000042.jsonl.sha256");
    for state in [State::Open, State::Closed] {
        assert_eq!(Name::parse(&name.day(), &name.file(state)), Some((name, state)));
    }
    for (day, file) in [
        ("2026-11-30", "010101-42.jsonl"),
        ("2026-11-30", "010101-00000042.jsonl.sha256"),
        ("2026-11-31", "010101-00000042.jsonl"),
        ("2026-11-30", "notes.jsonl"),
        ("lost+found", "010101-00000042.open"),
    ] {
        assert_eq!(Name::parse(day, file), None, "{day}/{file}");
    }
}

#[test]
fn what_is_cut_off_anywhere_counts_up_to_the_last_whole_batch() {
    let ends = [
        bytes([head()]).len(),
        bytes(std::iter::once(head()).chain(batch(0, 3))).len(),
        bytes(std::iter::once(head()).chain(batch(0, 3)).chain(batch(3, 2))).len(),
    ];
    let all = bytes(std::iter::once(head()).chain(batch(0, 3)).chain(batch(3, 2)));
    for end in 0..=all.len() {
        let content = Content::read(&all[..end]);
        let (whole, records) = match end {
            end if end >= ends[2] => (ends[2], 5),
            end if end >= ends[1] => (ends[1], 3),
            _ => (0, 0),
        };
        assert_eq!((content.whole, content.records.len()), (whole, records), "cut at {end}");
        let next = content.boots.get("a").map(|position| position.next);
        assert_eq!(next, (records > 0).then_some(records as u64));
        assert_eq!(content.boots.contains_key("b"), end >= ends[0]);
    }
}

#[test]
fn damage_in_the_middle_ends_what_is_whole() {
    let mut all = bytes(std::iter::once(head()).chain(batch(0, 1)).chain(batch(1, 1)));
    let first = bytes(std::iter::once(head()).chain(batch(0, 1))).len();
    all[first + 20..first + 40].fill(0);
    all.extend(bytes(batch(2, 1)));
    let content = Content::read(&all);
    assert_eq!((content.whole, content.records.len()), (first, 1));
}

#[test]
fn a_batch_must_have_the_records_that_it_says() {
    let mut lines = vec![head()];
    lines.extend(batch(0, 2));
    lines.remove(2);
    lines.extend(batch(2, 1));
    assert_eq!(Content::read(&bytes(lines)).records, []);
    let unknown = Line::Segment(Head {
        version: VERSION + 1,
        opened: 4,
        boots: BTreeMap::new(),
    });
    let content = Content::read(&bytes(std::iter::once(unknown).chain(batch(0, 1))));
    assert_eq!(content, Content::default());
}
