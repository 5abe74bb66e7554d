use perennial_crds::retrain::SuiteItem;

use super::*;

fn answer(body: &str, chat: bool) -> Option<String> {
    match read(body.as_bytes(), chat) {
        Ok(fingerprint) => Some(fingerprint),
        Err(Failure::Again { problem, .. }) => {
            assert!(!problem.contains("secret"), "{problem}");
            None
        }
        Err(Failure::Refused(status)) => panic!("{status}"),
    }
}

#[test]
fn a_fingerprint_is_the_beginning_of_a_known_hash() {
    // printf 'abc\0stop' | sha256sum
    assert_eq!(fingerprint("abc", "stop"), "6828a5dc");
    let all = [
        ("abc", "length"),
        ("abd", "stop"),
        ("abc\0", "stop"),
        ("", "stop"),
        ("abc", ""),
    ];
    for (text, reason) in all {
        let other = fingerprint(text, reason);
        assert!(other != fingerprint("abc", "stop") && other.len() == 8, "{other}");
    }
}

#[test]
fn answers_of_both_kinds_are_read_and_others_never_quoted() {
    let chat =
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"abc"},"finish_reason":"stop"}],"usage":{}}"#;
    let completion = r#"{"choices":[{"text":"abc","finish_reason":"stop","logprobs":null}]}"#;
    let expected = Some(fingerprint("abc", "stop"));
    assert_eq!(
        (answer(chat, true), answer(completion, false)),
        (expected.clone(), expected)
    );
    let empty = r#"{"choices":[{"message":{"content":null},"finish_reason":null}]}"#;
    assert_eq!(answer(empty, true), Some(fingerprint("", "")));
    assert_eq!((answer(chat, false), answer(completion, true)), (None, None));
    for wrong in [
        "",
        "secret",
        r#"{"choices":[]}"#,
        r#"{"choices":"secret"}"#,
        r#"{"choices":[{"text":["secret"]}]}"#,
    ] {
        assert_eq!((answer(wrong, true), answer(wrong, false)), (None, None), "{wrong}");
    }
}

#[test]
fn a_status_says_whether_another_try_may_help() {
    let judged = |status: u16, after: Option<&'static str>| {
        let headers = after.map(|after| (RETRY_AFTER, HeaderValue::from_static(after)));
        judge(
            StatusCode::from_u16(status).expect("a status"),
            &headers.into_iter().collect(),
        )
    };
    assert!(judged(200, None).is_ok());
    for status in [302, 408, 429, 500, 502, 503, 504] {
        assert!(
            matches!(judged(status, None), Err(Failure::Again { after: None, .. })),
            "{status}"
        );
    }
    for status in [400, 401, 404, 413, 422] {
        assert!(
            matches!(judged(status, Some("1")), Err(Failure::Refused(_))),
            "{status}"
        );
    }
    let seconds = |after: &'static str| match judged(503, Some(after)) {
        Err(Failure::Again { after, .. }) => after,
        _ => panic!("{after}"),
    };
    assert_eq!(seconds("7"), Some(Duration::from_secs(7)));
    assert_eq!(seconds("Wed, 21 Oct 2026 07:28:00 GMT"), None);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_asked_again_and_then_left_alone() {
    let prompt = Prompt {
        file: "golden.jsonl".to_owned(),
        line: 3,
        item: SuiteItem {
            messages: Vec::new(),
            prompt: Some("secret".to_owned()),
            answer: None,
            exact: None,
            regex: None,
            max_tokens: None,
        },
        max_tokens: 1,
    };
    // Nobody listens there, with or without TLS.
    for url in ["http://127.0.0.1:1", "https://127.0.0.1:1/"] {
        let asker = Asker::new(&Arguments {
            url: url.parse().expect("an address"),
            model: "secret".to_owned(),
            prompts_directory: "/does/not/exist".into(),
            max_tokens: 1,
            timeout_seconds: 10,
            pause_milliseconds: 1,
            termination_path: "/does/not/exist".into(),
        })
        .expect("a client");
        assert_eq!(asker.base, url.trim_end_matches('/'));
        let error = asker
            .fingerprint(&prompt, &CancellationToken::new())
            .await
            .expect_err("nobody");
        assert!(matches!(error, ProbeError::Unanswered(_)), "{error}");
        let why = error.to_string();
        assert!(why.starts_with("the model server did not answer the prompt in line 3 of golden.jsonl in 6 tries: "));
        assert!(why.contains("refused") && !why.contains("secret"), "{why}");
    }
}
