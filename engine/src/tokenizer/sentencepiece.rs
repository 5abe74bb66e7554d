//! SentencePiece models as GGUF carries them: a vocabulary with scores, no merges.

use tokenizers::Tokenizer;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence as NormalizerSequence};

use super::gguf::Tables;
use crate::error::ModelError;

/// Stands for a space.
const SPACE: &str = "\u{2581}";

pub(super) fn build(tables: &Tables) -> Result<Tokenizer, ModelError> {
    let fail = |error: tokenizers::Error| tables.invalid(format!("its tokenizer: {error}"));
    let scores = tables.floats("scores")?;
    if scores.len() != tables.tokens.len() {
        let (tokens, scores) = (tables.tokens.len(), scores.len());
        return Err(tables.invalid(format!("its tokenizer has {tokens} tokens, but {scores} scores")));
    }
    let vocabulary = tables.vocabulary();
    let merges = merges(&tables.tokens, &scores, &vocabulary);
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .unk_token("<unk>".to_owned())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(fail)?;
    let mut tokenizer = Tokenizer::new(model);
    let spaces = Replace::new(" ", SPACE).map_err(fail)?;
    let normalizers = vec![Prepend::new(SPACE.to_owned()).into(), spaces.into()];
    tokenizer
        .with_normalizer(Some(NormalizerSequence::new(normalizers)))
        .map_err(fail)?;
    let decoders: Vec<DecoderWrapper> = vec![
        Replace::new(SPACE, " ").map_err(fail)?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
        Strip::new(' ', 1, 0).into(),
    ];
    tokenizer.with_decoder(Some(DecoderSequence::new(decoders)));
    Ok(tokenizer)
}

/// The merges that make every token from two others, best score first: BPE then merges as SentencePiece does.
fn merges(tokens: &[String], scores: &[f32], vocabulary: &Vocab) -> Merges {
    let mut ranked: Vec<(f32, u32, u32, &str, &str)> = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        for (middle, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(middle);
            if let (Some(&first), Some(&second)) = (vocabulary.get(left), vocabulary.get(right)) {
                ranked.push((score, first, second, left, right));
            }
        }
    }
    ranked.sort_by(|one, other| {
        other
            .0
            .total_cmp(&one.0)
            .then_with(|| (one.1, one.2).cmp(&(other.1, other.2)))
    });
    ranked
        .into_iter()
        .map(|(_, _, _, left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}
