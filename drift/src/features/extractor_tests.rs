use super::super::{FinishReason, LANGUAGES, ONE, TOKEN_BUCKETS};
use super::*;
use crate::pane::layout::Layout;
use crate::signal::Signal;
use proptest::prelude::*;

fn extractor() -> &'static Extractor {
    static SHARED: std::sync::LazyLock<Extractor> =
        std::sync::LazyLock::new(|| Extractor::new(Encoder::Ngrams).unwrap());
    &SHARED
}

#[test]
fn it_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    shared(extractor());
    assert!(Arc::ptr_eq(&extractor().prepared, &extractor().clone().prepared));
}

#[test]
fn encoders_are_never_mixed() {
    let exchange = Exchange {
        prompt: Some("Hello"),
        embedding: Some(&[1.0, 0.0]),
        ..Exchange::default()
    };
    let external = Extractor::new(Encoder::External {
        dimension: 2,
        bandwidth: 0.5,
        identity: 7,
    })
    .unwrap();
    let without = Exchange {
        embedding: None,
        ..exchange.clone()
    };
    assert!(external.features(&exchange).fourier.is_some());
    assert!(external.features(&without).fourier.is_none());
    assert_eq!(
        extractor().features(&exchange).fourier,
        extractor().features(&without).fourier
    );
    assert_ne!(external.recipe(), extractor().recipe());
}

#[test]
fn panes_of_two_encoders_do_not_add_and_those_of_n_grams_are_what_they_were() {
    let layout = |encoder| Layout::of(Extractor::new(encoder).unwrap().recipe()).fingerprint();
    let external = |dimension, bandwidth, identity| {
        layout(Encoder::External {
            dimension,
            bandwidth,
            identity,
        })
    };
    let all = [
        layout(Encoder::Ngrams),
        external(2, 1.0, 1),
        external(2, 1.0, 2),
        external(3, 1.0, 1),
        external(2, 0.5, 1),
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    // Baselines that were learned in this layout stay valid only as long as it is this one.
    assert_eq!(format!("{:016x}", all[0]), "8d12c3074d2e2348");
}

#[test]
fn signals_of_another_kind_have_no_value() {
    let features = extractor().features(&Exchange {
        prompt_tokens: Some(3),
        ..Exchange::default()
    });
    assert_eq!(features.number(Signal::PromptTokens), Some(3.0));
    assert_eq!(features.number(Signal::ErrorRate), None);
    assert_eq!(features.event(Signal::ErrorRate), Some(false));
    assert_eq!(features.event(Signal::PromptTokens), None);
    assert_eq!(
        (features.language, features.token_bucket, features.fourier),
        (None, None, None)
    );
}

#[test]
fn megabytes_and_odd_characters() {
    let texts = [
        "\0".repeat(1 << 20),
        "中".repeat(400_000),
        "e\u{301}\u{302}\u{303}".repeat(150_000),
        "👩‍👩‍👧‍👦".repeat(50_000),
        " ".repeat(1 << 20),
        "a".repeat(1 << 20),
        "{\"a\":[".repeat(1 << 18),
        "i can't i can't ".repeat(1 << 16),
    ];
    for text in &texts {
        let exchange = Exchange {
            id: "1",
            prompt: Some(text),
            output: Some(text),
            json_requested: true,
            finish_reason: Some(FinishReason::Stop),
            tool_arguments: vec![text],
            ..Exchange::default()
        };
        assert_eq!(extractor().features(&exchange), extractor().features(&exchange));
    }
}

/// Strings with more than their share of what breaks programs.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[a-z ]{0,40}",
        Just("I can\u{2019}t help with that ".to_owned()),
        Just("中文字符，".to_owned()),
        Just("\u{301}\0\u{FEFF}🙂".to_owned()),
        Just("{\"a\":".to_owned()),
    ];
    (proptest::collection::vec(piece, 0..6), 1usize..200).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_exchange_has_features(
        id in ".{0,12}", prompt in text(), output in text(), ids in proptest::collection::vec(any::<u32>(), 0..40),
        number in any::<f64>(), failed in any::<bool>(), with_ids in any::<bool>(),
    ) {
        let exchange = Exchange {
            id: &id,
            prompt: Some(&prompt),
            output: Some(&output),
            prompt_tokens: Some(ids.len() as u32),
            prompt_token_ids: with_ids.then_some(&ids[..]),
            prompt_perplexity: Some(number),
            output_logprob: Some(number),
            output_entropy: Some(number),
            time_to_first_token: Some(number),
            json_requested: true,
            failed,
            ..Exchange::default()
        };
        let features = extractor().features(&exchange);
        // Retries and other replicas see the same request and another answer.
        let retry = Exchange { output: None, time_to_first_token: None, failed: !failed, ..exchange.clone() };
        let retried = Extractor::new(Encoder::Ngrams).unwrap().features(&retry);
        prop_assert_eq!(&extractor().features(&exchange), &features);
        prop_assert_eq!(features.token_bucket, retried.token_bucket);
        prop_assert_eq!(features.prompt_hash, retried.prompt_hash);
        prop_assert_eq!(features.language, retried.language);
        prop_assert_eq!(&features.fourier, &retried.fourier);
        prop_assert!(features.numbers.iter().flatten().all(|value| value.is_finite()));
        prop_assert!(features.language.is_some_and(|category| usize::from(category) < LANGUAGES));
        prop_assert!(features.token_bucket.is_none_or(|bucket| usize::from(bucket) < TOKEN_BUCKETS));
        if let Some(fourier) = features.fourier {
            let norm: f64 = fourier.iter().map(|&x| (f64::from(x) / ONE).powi(2)).sum();
            prop_assert!((norm.sqrt() - 1.0).abs() < 1e-6);
        }
    }
}
