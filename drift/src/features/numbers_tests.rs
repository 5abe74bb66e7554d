use super::*;

fn answered(output: &str) -> Exchange<'_> {
    Exchange {
        id: "1",
        output: Some(output),
        finish_reason: Some(FinishReason::Stop),
        ..Exchange::default()
    }
}

fn event(exchange: &Exchange<'_>, signal: Signal) -> Option<bool> {
    let index = RATES.iter().position(|known| *known == signal).unwrap();
    events(exchange, |answer| answer.contains("refuse"))[index]
}

#[test]
fn each_signal_is_in_one_list() {
    use crate::signal::Kind;
    let of = |wanted: fn(&Kind) -> bool| {
        Signal::ALL
            .into_iter()
            .filter(|s| wanted(&s.kind()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(|kind| matches!(kind, Kind::Numeric(_))), NUMERIC);
    assert_eq!(of(|kind| matches!(kind, Kind::Rate)), RATES);
}

#[test]
fn what_cannot_be_is_missing() {
    let exchange = Exchange {
        prompt_tokens: Some(0),
        prompt: Some("text"),
        prompt_perplexity: Some(-1.0),
        output_tokens: Some(0),
        output_logprob: Some(0.5),
        output_entropy: Some(f64::NAN),
        time_to_first_token: Some(f64::INFINITY),
        inter_token_latency: Some(0.0),
        ..Exchange::default()
    };
    assert_eq!(
        numbers(&exchange),
        [Some(0.0), None, None, Some(0.0), None, None, None, None]
    );
    assert_eq!(numbers(&Exchange::default()), [None; 8]);
}

#[test]
fn numbers_pass_as_they_are() {
    let exchange = Exchange {
        prompt_tokens: Some(12),
        prompt: Some("中文中文"),
        prompt_perplexity: Some(2.5),
        output_tokens: Some(7),
        output_logprob: Some(-0.25),
        output_entropy: Some(-1e-9),
        time_to_first_token: Some(0.2),
        inter_token_latency: Some(0.01),
        ..Exchange::default()
    };
    let all = [
        Some(12.0),
        Some(3.0),
        Some(2.5),
        Some(7.0),
        Some(-0.25),
        Some(0.0),
        Some(0.2),
        Some(0.01),
    ];
    assert_eq!(numbers(&exchange), all);
    let failed = Exchange {
        failed: true,
        ..exchange.clone()
    };
    let without_answer = [
        Some(12.0),
        Some(3.0),
        Some(2.5),
        None,
        None,
        None,
        Some(0.2),
        Some(0.01),
    ];
    assert_eq!(numbers(&failed), without_answer);
    let conversation = Exchange {
        prompt_characters: Some(24),
        ..exchange
    };
    assert_eq!(numbers(&conversation)[1], Some(0.5));
}

#[test]
fn trials_and_events() {
    use FinishReason::{ContentFilter, Length, Stop, ToolCalls};
    use Signal::{EmptyRate, ErrorRate, FinishReasonLength, InvalidJSONRate, RefusalRate, RepetitionRate};
    let with = |output, finish_reason, json_requested| Exchange {
        output,
        finish_reason,
        json_requested,
        ..Exchange::default()
    };
    let table = [
        (with(Some("fine"), Some(Stop), false), FinishReasonLength, Some(false)),
        (with(Some("fine"), Some(Length), false), FinishReasonLength, Some(true)),
        (with(Some("fine"), None, false), FinishReasonLength, None),
        (with(Some("I refuse"), Some(Stop), false), RefusalRate, Some(true)),
        (with(Some("I refuse"), Some(ToolCalls), false), RefusalRate, None),
        (with(None, Some(Stop), false), RefusalRate, None),
        (with(Some(" \n\u{200B}"), Some(Stop), false), EmptyRate, Some(true)),
        (with(Some("."), Some(Stop), false), EmptyRate, Some(false)),
        (with(Some(""), Some(ToolCalls), false), EmptyRate, Some(false)),
        (with(None, Some(Stop), false), EmptyRate, None),
        (with(Some("x"), None, false), RepetitionRate, Some(false)),
        (with(Some("{}"), Some(Stop), true), InvalidJSONRate, Some(false)),
        (with(Some("{"), Some(Stop), true), InvalidJSONRate, Some(true)),
        (with(Some(""), Some(Stop), true), InvalidJSONRate, Some(true)),
        (with(Some("{"), None, true), InvalidJSONRate, Some(true)),
        (with(Some("{"), Some(Length), true), InvalidJSONRate, None),
        (with(Some("{"), Some(ContentFilter), true), InvalidJSONRate, None),
        (with(Some(""), Some(ToolCalls), true), InvalidJSONRate, None),
        (with(Some("{"), Some(Stop), false), InvalidJSONRate, None),
        (with(None, None, false), ErrorRate, Some(false)),
    ];
    for (exchange, signal, expected) in table {
        assert_eq!(event(&exchange, signal), expected, "{signal:?} of {exchange:?}");
    }
}

#[test]
fn tool_calls() {
    let calls = |arguments: &[&'static str]| Exchange {
        tool_arguments: arguments.to_vec(),
        ..answered("")
    };
    let table: [(&[&str], Option<bool>); 5] = [
        (&[], None),
        (&["{}"], Some(false)),
        (&["{\"a\": 1}", "[1]"], Some(true)),
        (&[""], Some(true)),
        (&["{\"a\": "], Some(true)),
    ];
    for (arguments, expected) in table {
        assert_eq!(
            event(&calls(arguments), Signal::ToolCallFailureRate),
            expected,
            "{arguments:?}"
        );
    }
    let cut_off = Exchange {
        finish_reason: Some(FinishReason::Length),
        ..calls(&["{\"a\": "])
    };
    assert_eq!(event(&cut_off, Signal::ToolCallFailureRate), None);
    assert_eq!(event(&calls(&["{}"]), Signal::EmptyRate), Some(false));
    assert_eq!(event(&calls(&["{}"]), Signal::RefusalRate), None);
}

#[test]
fn a_failed_request_has_no_answer() {
    let failed = Exchange {
        failed: true,
        json_requested: true,
        tool_arguments: vec!["x"],
        negative_feedback: Some(true),
        ..answered("")
    };
    let mut expected = [None; 8];
    (expected[6], expected[7]) = (Some(true), Some(true));
    assert_eq!(events(&failed, |_| true), expected);
}

#[test]
fn samples_depend_on_the_identity_alone() {
    let ids: Vec<u32> = (0..500).collect();
    let sample = |id, ids| {
        token_bucket(&Exchange {
            id,
            prompt_token_ids: Some(ids),
            ..Exchange::default()
        })
    };
    assert_eq!(sample("a", &ids), sample("a", &ids));
    let names: Vec<String> = (0..200).map(|n| format!("request-{n}")).collect();
    let mut buckets: Vec<_> = names.iter().map(|name| sample(name, &ids)).collect();
    buckets.sort_unstable();
    buckets.dedup();
    assert!(buckets.len() > 120, "{} different tokens of 200", buckets.len());
    assert_eq!(sample("a", &[]), None);
    assert!(sample("", &ids).is_some());
}

#[test]
fn words_are_found_around_any_place() {
    let text = "  Hello, wörld! 中文 x ";
    let mut found: Vec<&str> = (0..4000u64).filter_map(|n| word(text, hash::mix(n))).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, ["Hello", "wörld", "x", "中", "文"]);
    assert_eq!(word("...", 1 << 63), None);
    assert_eq!(word("", 5), None);
    assert_eq!(word("end  ", u64::MAX), Some("end"));
}

#[test]
fn hashes_tell_prompts_and_requesters_apart() {
    let of = |requester, prompt, ids| Exchange {
        requester,
        prompt,
        prompt_token_ids: ids,
        ..Exchange::default()
    };
    let (one, two) = (of(Some("a"), Some("a"), None), of(None, None, Some(&[1u32, 2][..])));
    assert_ne!(requester(&one), prompt_hash(&one));
    assert!(prompt_hash(&two).is_some());
    assert_ne!(prompt_hash(&two), prompt_hash(&of(None, None, Some(&[2, 1]))));
    assert_eq!((requester(&two), prompt_hash(&Exchange::default())), (None, None));
}
