//! Which language a prompt is in, as a category that never changes its number.
//!
//! `whatlang` decides by script, alphabet and trigrams. Its enumeration may be reordered by any release; the table here
//! may not, because its indices are stored in panes and baselines. A language that whatlang learns later is added at the
//! end.

use super::{LANGUAGES, cut};

/// Version of [`CODES`]: rises when a code is added.
pub const VERSION: u32 = 1;
/// The category of what cannot be told: no letters, too short, or two languages that are equally likely.
pub const UNKNOWN: u8 = 0;
/// More of a prompt than this rarely changes the answer. (384 bytes cost more than 512: the table of trigrams is sized by
/// the length of the text, and is fuller.)
const READ: usize = 512;

/// Confidence of whatlang from which its answer counts; its own threshold of 0.9 gives up a quarter of short Spanish.
const CONFIDENCE: f64 = 0.5;

/// ISO 639-3 codes; the index is the category. Index 0 stands for [`UNKNOWN`].
pub const CODES: [&str; 71] = [
    "und", "eng", "cmn", "spa", "fra", "deu", "por", "rus", "jpn", "ita", "ara", "hin", "kor", "tur", "pol", "nld",
    "vie", "ind", "ukr", "pes", "swe", "ces", "ron", "ell", "hun", "dan", "fin", "nob", "heb", "tha", "ben", "urd",
    "tam", "tel", "mar", "guj", "kan", "mal", "pan", "ori", "nep", "sin", "mya", "khm", "amh", "kat", "hye", "aze",
    "uzb", "tuk", "bul", "srp", "hrv", "slv", "slk", "mkd", "bel", "lit", "lav", "est", "cat", "epo", "lat", "afr",
    "tgl", "jav", "cym", "yid", "zul", "sna", "aka",
];

const _: () = assert!(CODES.len() <= LANGUAGES, "every language needs a category");

/// The category of a text's language; [`UNKNOWN`] where whatlang is not sure (below a confidence of 0.5).
#[must_use]
pub fn category(text: &str) -> u8 {
    let Some(info) = whatlang::detect(cut(text, READ)).filter(|info| info.confidence() >= CONFIDENCE) else {
        return UNKNOWN;
    };
    let code = info.lang().code();
    CODES
        .iter()
        .position(|known| *known == code)
        .and_then(|index| u8::try_from(index).ok())
        .unwrap_or(UNKNOWN)
}

/// The ISO 639-3 code of a category, `und` for one that is not in use.
#[must_use]
pub fn code(category: u8) -> &'static str {
    CODES.get(usize::from(category)).copied().unwrap_or(CODES[0])
}

/// The English name of a category's language, for reports.
#[must_use]
pub fn name(category: u8) -> &'static str {
    match whatlang::Lang::from_code(code(category)) {
        Some(language) => language.eng_name(),
        None => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_of_whatlang_has_one_category() {
        let mut codes: Vec<&str> = whatlang::Lang::all().iter().map(|language| language.code()).collect();
        codes.push("und");
        codes.sort_unstable();
        let mut ours = CODES.to_vec();
        ours.sort_unstable();
        assert_eq!(codes, ours);
    }

    #[test]
    fn told_apart() {
        let table = [
            (
                "Please write a short letter to my landlord about the broken heating in the kitchen.",
                "eng",
            ),
            (
                "Bitte schreibe meinem Vermieter einen kurzen Brief über die kaputte Heizung in der Küche.",
                "deu",
            ),
            (
                "Écris une courte lettre à mon propriétaire au sujet du chauffage en panne dans la cuisine.",
                "fra",
            ),
            (
                "Escribe una carta breve a mi casero sobre la calefacción averiada de la cocina, por favor.",
                "spa",
            ),
            ("请给我的房东写一封关于厨房暖气坏了的短信。", "cmn"),
            (
                "台所の暖房が壊れていることについて、大家さんに短い手紙を書いてください。",
                "jpn",
            ),
            ("부엌 난방이 고장 났다고 집주인에게 짧은 편지를 써 주세요.", "kor"),
            (
                "Напиши, пожалуйста, короткое письмо хозяину квартиры о сломанном отоплении на кухне.",
                "rus",
            ),
            ("1 + 1 = ?", "und"),
            ("", "und"),
            ("\0\0\0", "und"),
            ("🙂🙃", "und"),
        ];
        for (text, expected) in table {
            assert_eq!(code(category(text)), expected, "{text}");
        }
        assert_eq!(
            (name(1), name(5), name(0), name(200)),
            ("English", "German", "Unknown", "Unknown")
        );
    }
}
