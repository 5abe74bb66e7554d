//! What the features of one exchange cost: 4 kB of prompt and 4 kB of answer, about 1,000 tokens each.

#![expect(clippy::expect_used, reason = "a measurement, not a program")]

use criterion::{Criterion, criterion_group, criterion_main};
use perennial_drift::features::{
    Encoder, Exchange, Extractor, FinishReason, embedding, fourier, language, refusal, repetition,
};
use std::hint::black_box;

/// Source code with its comments: more marks and shorter words than prose, so rather dearer.
const CODE: &str = include_str!("../src/features/numbers.rs");

fn features(criterion: &mut Criterion) {
    let words: String = CODE
        .chars()
        .filter(|character| !matches!(character, '/' | '|'))
        .collect();
    let (prompt, answer) = (&words[..4096], &words[4096..8192]);
    let chinese = "请给我的房东写一封关于厨房暖气坏了的短信，并说明已经坏了多久。".repeat(43);
    let ids: Vec<u32> = (0..1000).collect();
    let exchange = |prompt, output| Exchange {
        id: "chatcmpl-0b1c",
        requester: Some("team"),
        prompt: Some(prompt),
        prompt_tokens: Some(1000),
        prompt_token_ids: Some(&ids),
        output: Some(output),
        output_tokens: Some(1000),
        finish_reason: Some(FinishReason::Stop),
        json_requested: true,
        ..Exchange::default()
    };
    let extractor = Extractor::new(Encoder::Ngrams).expect("the lists are well formed");
    let refusals = refusal::Refusals::new().expect("the lists are well formed");
    let projection = fourier::Projection::new(embedding::DIMENSION, embedding::BANDWIDTH, 1);
    let vector = embedding::embed(prompt);
    let mut group = criterion.benchmark_group("features");
    group.bench_function("exchange", |bencher| {
        bencher.iter(|| extractor.features(black_box(&exchange(prompt, answer))))
    });
    group.bench_function("exchange in Chinese", |bencher| {
        bencher.iter(|| extractor.features(black_box(&exchange(&chinese, &chinese))))
    });
    group.bench_function("language", |bencher| {
        bencher.iter(|| language::category(black_box(prompt)))
    });
    group.bench_function("embedding", |bencher| {
        bencher.iter(|| embedding::embed(black_box(prompt)))
    });
    group.bench_function("fourier", |bencher| {
        bencher.iter(|| projection.features(black_box(&vector)))
    });
    group.bench_function("repetition", |bencher| {
        bencher.iter(|| repetition::is_loop(black_box(answer)))
    });
    group.bench_function("refusal", |bencher| {
        bencher.iter(|| refusals.refuses(black_box(answer)))
    });
    group.bench_function("prepare", |bencher| {
        bencher.iter(|| Extractor::new(black_box(Encoder::Ngrams)))
    });
    group.finish();
}

criterion_group!(benches, features);
criterion_main!(benches);
