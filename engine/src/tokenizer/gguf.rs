//! Tokenizers from GGUF metadata.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use super::{ModelTokenizer, SpecialTokens, sentencepiece};
use crate::error::ModelError;

const CONTRACTIONS: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";

// Token types of the format.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// What the metadata says about tokens.
pub(super) struct Tables<'a> {
    path: &'a Path,
    metadata: &'a HashMap<String, Value>,
    pub(super) tokens: Vec<String>,
}

/// The tokenizer, and the ids that end an answer.
pub(crate) fn build(path: &Path, metadata: &HashMap<String, Value>) -> Result<(ModelTokenizer, Vec<u32>), ModelError> {
    let tables = Tables::read(path, metadata)?;
    let (mut tokenizer, begins) = match tables.text("model").unwrap_or("missing") {
        "gpt2" => (byte_level(&tables)?, false),
        "llama" => (sentencepiece::build(&tables)?, true),
        other => {
            return Err(ModelError::Unsupported(format!(
                "the GGUF file's tokenizer is of kind {other}, which is not supported; gpt2 (byte-level BPE) and \
                 llama (SentencePiece) are"
            )));
        }
    };
    tables.add_special(&mut tokenizer)?;
    let begin = tables.id("bos_token_id");
    let end = tables.id("eos_token_id");
    let special = SpecialTokens {
        begin: tables.name(begin),
        end: tables.name(end),
    };
    let begin = begin.filter(|_| tables.flag("add_bos_token").unwrap_or(begins));
    Ok((ModelTokenizer::new(tokenizer, begin, special), tables.end_tokens(end)))
}

impl<'a> Tables<'a> {
    fn read(path: &'a Path, metadata: &'a HashMap<String, Value>) -> Result<Self, ModelError> {
        let mut tables = Self {
            path,
            metadata,
            tokens: Vec::new(),
        };
        tables.tokens = tables.strings("tokens")?;
        Ok(tables)
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("tokenizer.ggml.{name}"))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.value(name)?.to_string().ok().map(String::as_str)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.value(name)?.to_bool().ok()
    }

    fn id(&self, name: &str) -> Option<u32> {
        let id = self.value(name)?.to_u64().ok()? as u32;
        self.tokens.get(id as usize).map(|_| id)
    }

    fn name(&self, id: Option<u32>) -> Option<String> {
        self.tokens.get(id? as usize).cloned()
    }

    pub(super) fn invalid(&self, problem: impl Into<String>) -> ModelError {
        ModelError::invalid(self.path, problem)
    }

    pub(super) fn strings(&self, name: &str) -> Result<Vec<String>, ModelError> {
        let missing = || self.invalid(format!("its metadata has no list of strings tokenizer.ggml.{name}"));
        let Some(Value::Array(values)) = self.value(name) else {
            return Err(missing());
        };
        values
            .iter()
            .map(|value| value.to_string().cloned().map_err(|_| missing()))
            .collect()
    }

    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let missing = || self.invalid(format!("its metadata has no list of numbers tokenizer.ggml.{name}"));
        let Some(Value::Array(values)) = self.value(name) else {
            return Err(missing());
        };
        values
            .iter()
            .map(|value| value.to_f32().map_err(|_| missing()))
            .collect()
    }

    pub(super) fn vocabulary(&self) -> Vocab {
        self.tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id as u32))
            .collect()
    }

    fn kinds(&self) -> Vec<u64> {
        let Some(Value::Array(values)) = self.value("token_type") else {
            return Vec::new();
        };
        values
            .iter()
            .map(|value| value.to_i32().map_or(0, |kind| kind as u64))
            .collect()
    }

    /// Tokens that are found in a text before anything else.
    fn add_special(&self, tokenizer: &mut Tokenizer) -> Result<(), ModelError> {
        let fail = |error: tokenizers::Error| self.invalid(format!("its special tokens: {error}"));
        let kinds = self.kinds();
        let of = |kind: u64, special: bool| {
            let with_kind = self.tokens.iter().zip(&kinds).filter(move |(_, found)| **found == kind);
            with_kind.map(move |(token, _)| AddedToken::from(token.clone(), special).normalized(false))
        };
        tokenizer.add_special_tokens(of(CONTROL, true)).map_err(fail)?;
        tokenizer.add_tokens(of(USER_DEFINED, false)).map_err(fail)?;
        Ok(())
    }

    /// The declared end, and the end of a message where the model has one: a chat model's answer stops at either.
    fn end_tokens(&self, end: Option<u32>) -> Vec<u32> {
        const ENDS: [&str; 6] = [
            "<|im_end|>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|end_of_text|>",
            "<|endoftext|>",
            "<|end|>",
        ];
        let kinds = self.kinds();
        let named = self.tokens.iter().enumerate().filter(|(id, token)| {
            kinds.get(*id).is_some_and(|kind| *kind == CONTROL) && ENDS.contains(&token.as_str())
        });
        let mut ends: Vec<u32> = named
            .map(|(id, _)| id as u32)
            .chain(end)
            .chain(self.id("eot_token_id"))
            .collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

fn byte_level(tables: &Tables) -> Result<Tokenizer, ModelError> {
    let merges: Option<Vec<(String, String)>> = tables
        .strings("merges")?
        .iter()
        .map(|merge| {
            merge
                .split_once(' ')
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
        })
        .collect();
    let merges = merges.ok_or_else(|| tables.invalid("a tokenizer merge is not two words"))?;
    let pre = tables.text("pre").unwrap_or("default");
    let model = BPE::builder()
        .vocab_and_merges(tables.vocabulary(), merges)
        .ignore_merges(is_llama(pre))
        .build();
    let mut tokenizer = Tokenizer::new(model.map_err(|error| tables.invalid(format!("its tokenizer: {error}")))?);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(pre)?));
    if pre == "qwen2" || pre == "deepseek-r1-qwen" {
        tokenizer
            .with_normalizer(Some(NFC))
            .map_err(|error| tables.invalid(error.to_string()))?;
    }
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

fn is_llama(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe")
}

/// How a text is cut before merging; names are llama.cpp's.
fn pre_tokenizer(pre: &str) -> Result<PreTokenizerWrapper, ModelError> {
    let words = |digits: &str| {
        let regex = format!(
            r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        let split = Split::new(SplitPattern::Regex(regex), SplitDelimiterBehavior::Isolated, false);
        split.map_err(|error| ModelError::Unsupported(format!("the tokenizer's pattern: {error}")))
    };
    let gpt2 = ByteLevel::new(false, true, true);
    let bytes = ByteLevel::new(false, true, false);
    Ok(match pre {
        "default" | "gpt-2" | "gpt2" => gpt2.into(),
        "smollm" | "starcoder" | "refact" | "command-r" => {
            Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into()
        }
        "qwen2" | "deepseek-r1-qwen" => Sequence::new(vec![words(r"\p{N}")?.into(), bytes.into()]).into(),
        llama if is_llama(llama) => Sequence::new(vec![words(r"\p{N}{1,3}")?.into(), bytes.into()]).into(),
        other => {
            return Err(ModelError::Unsupported(format!(
                "the GGUF file's pre-tokenizer {other} is not known; known are default, gpt-2, smollm, starcoder, \
                 refact, command-r, llama-bpe, smaug-bpe, qwen2 and deepseek-r1-qwen. The same model as safetensors \
                 brings its own tokenizer.json"
            )));
        }
    })
}
