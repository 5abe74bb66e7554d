//! A tokenizer for the simulated engine: one token per byte, and ChatML's markers.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::{ModelTokenizer, SpecialTokens, TokenizerError};

/// The chat template that goes with [`simulated`].
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
     {{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The tokenizer.
///
/// # Errors
/// Never with the tables it is built from; the library's signature allows it.
pub fn simulated() -> Result<ModelTokenizer, TokenizerError> {
    let fail = |error: tokenizers::Error| TokenizerError(error.to_string());
    let vocabulary = (0_u32..256).map(|byte| (symbol(byte as u8).to_string(), byte));
    let model = BPE::builder().vocab_and_merges(vocabulary.collect::<Vocab>(), Vec::new());
    let mut tokenizer = Tokenizer::new(model.build().map_err(fail)?);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let markers = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];
    tokenizer
        .add_special_tokens(markers.map(|text| AddedToken::from(text, true)))
        .map_err(fail)?;
    let special = SpecialTokens {
        begin: None,
        end: Some("<|im_end|>".to_owned()),
    };
    Ok(ModelTokenizer::new(tokenizer, None, special))
}

/// The character that stands for a byte in byte-level vocabularies (GPT-2's table).
fn symbol(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&lower| !printable(lower)).count() as u32;
    char::from_u32(256 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}
