//! From tokens to the texts of a vocabulary, and back.
//!
//! A vocabulary writes special tokens and characters as they are, and the bytes of other tokens in
//! GPT-2's characters (`byte_chars.rs`).

use std::collections::{HashMap, HashSet};

use rustc_hash::FxHashMap;

use super::byte_chars;
use crate::tokenizer::parts::{Kind, Merge, Parts, Rules};
use crate::tokenizer::pretokenize::Pattern;

/// The texts of all tokens in one buffer.
pub struct TokenTexts {
    text: String,
    /// End of each text, by id.
    ends: Vec<usize>,
}

impl TokenTexts {
    pub fn new(parts: &Parts) -> Self {
        let mut raw: FxHashMap<u32, &str> =
            parts.special.iter().map(|(token, id)| (*id, token.as_str())).collect();
        raw.extend(parts.raw_texts.iter().map(|(id, text)| (*id, text.as_str())));
        let bytes: usize = parts.tokens.iter().map(|token| token.len()).sum();
        let (mut text, mut ends) =
            (String::with_capacity(2 * bytes), Vec::with_capacity(parts.tokens.len()));
        for (id, token) in (0..).zip(&parts.tokens) {
            match (raw.get(&id), parts.kind) {
                (Some(raw), _) => text.push_str(raw),
                (None, Kind::Bpe) => {
                    text.extend(token.iter().map(|&byte| byte_chars::to_char(byte)));
                }
                (None, Kind::Chars) => text.push_str(&String::from_utf8_lossy(token)),
            }
            ends.push(text.len());
        }
        Self { text, ends }
    }

    /// Returns the text of token `id`.
    pub fn get(&self, id: u32) -> &str {
        let id = id as usize;
        &self.text[id.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[id]]
    }

    /// Returns the approximate size in bytes of a JSON object from texts to ids.
    pub fn json_bytes(&self) -> usize {
        2 * self.text.len() + 16 * self.ends.len()
    }

    /// Iterates over the texts in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len() as u32).map(|id| self.get(id))
    }

    /// Builds the texts from a list of them, for tests.
    #[cfg(test)]
    pub fn of(texts: &[String]) -> Self {
        let end = |end: &mut usize, text: &String| {
            *end += text.len();
            Some(*end)
        };
        Self { text: texts.concat(), ends: texts.iter().scan(0, end).collect() }
    }
}

/// Builds a tokenizer, with GPT-2's pattern, from the texts of a vocabulary.
///
/// It is a tokenizer of characters if it has no merges, some byte has no token, and every entry
/// that is not special is one character. The error says what is wrong with the vocabulary.
pub fn parts_from_texts(
    ids: &HashMap<String, u32>,
    merges: Vec<Merge>,
    special: Vec<(String, u32)>,
) -> Result<Parts, String> {
    let texts = by_id(ids)?;
    let is_special: HashMap<u32, &str> =
        special.iter().map(|(token, id)| (*id, token.as_str())).collect();
    let lacks_bytes =
        byte_chars::BYTE_ORDER.iter().any(|&byte| !ids.contains_key(&byte_chars::to_text(&[byte])));
    let is_character =
        |(id, text): (u32, &&str)| is_special.contains_key(&id) || text.chars().count() == 1;
    let kind = if merges.is_empty() && lacks_bytes && (0..).zip(&texts).all(is_character) {
        Kind::Chars
    } else {
        Kind::Bpe
    };
    check_special(&merges, &is_special, kind)?;
    let mut raw_texts = Vec::new();
    let mut tokens: Vec<Box<[u8]>> = Vec::with_capacity(texts.len());
    for (id, text) in (0..).zip(&texts) {
        let bytes = if kind == Kind::Chars || is_special.contains_key(&id) {
            None
        } else {
            byte_chars::to_bytes(text)
        };
        if bytes.is_none() && kind == Kind::Bpe && !is_special.contains_key(&id) {
            raw_texts.push((id, (*text).to_owned()));
        }
        tokens.push(bytes.unwrap_or_else(|| text.as_bytes().to_vec()).into());
    }
    let (pattern, rules) = (Pattern::Gpt2, Rules::default());
    Ok(Parts { kind, pattern, tokens, merges, special, raw_texts, rules })
}

/// Returns the texts in the order of their ids, which must be 0..n without gaps.
fn by_id(ids: &HashMap<String, u32>) -> Result<Vec<&str>, String> {
    let mut sorted: Vec<(u32, &str)> = ids.iter().map(|(text, &id)| (id, text.as_str())).collect();
    sorted.sort_unstable();
    for (expected, pair) in (0..).zip(sorted.windows(2)) {
        if pair[0].0 == pair[1].0 {
            return Err(format!(
                "{:?} and {:?} both have the id {}",
                pair[0].1, pair[1].1, pair[0].0
            ));
        }
        if pair[0].0 != expected {
            return Err(format!("no token has the id {expected}"));
        }
    }
    match sorted.last() {
        Some(&(last, _)) if last as usize + 1 != sorted.len() => {
            Err(format!("no token has the id {}", sorted.len() - 1))
        }
        None => Err("it has no tokens".to_owned()),
        _ => Ok(sorted.into_iter().map(|(_, text)| text).collect()),
    }
}

/// Checks that no special token is also how the vocabulary writes other bytes, as a byte or in a
/// merge.
fn check_special(merges: &[Merge], special: &HashMap<u32, &str>, kind: Kind) -> Result<(), String> {
    if kind == Kind::Chars {
        return Ok(());
    }
    let mut merged = HashSet::new();
    for &(left, right, result) in merges {
        merged.extend([left, right, result]);
    }
    for (id, text) in special {
        let foreign = !text.is_ascii() && byte_chars::to_bytes(text).is_some();
        if foreign && (merged.contains(id) || text.chars().count() == 1) {
            return Err(format!(
                "special token {text:?} is also the vocabulary's notation for other bytes"
            ));
        }
    }
    Ok(())
}
