//! What a tokenizer consists of, whichever way it came: read from files or trained.

use std::collections::HashMap;

use super::files::byte_chars;
use super::{Kind, Pattern};

/// Tokens, merges and special tokens with their ids.
#[derive(Debug, Clone)]
pub struct Parts {
    /// How text becomes tokens.
    pub kind: Kind,
    /// Cuts text into pre-tokens; not used by characters.
    pub pattern: Pattern,
    /// Bytes of each token, by id.
    pub tokens: Vec<Box<[u8]>>,
    /// (left, right, result) in the order of their ranks.
    pub merges: Vec<(u32, u32, u32)>,
    /// Special tokens in the order given, with their ids.
    pub special: Vec<(String, u32)>,
    /// Entries of the vocabulary that are neither special nor written in GPT-2's characters, by id.
    pub odd_texts: Vec<(u32, String)>,
}

/// The same, where they lie.
#[derive(Debug, Clone, Copy)]
pub struct PartsRef<'a> {
    pub kind: Kind,
    pub pattern: &'a Pattern,
    pub tokens: &'a [Box<[u8]>],
    pub merges: &'a [(u32, u32, u32)],
    pub special: &'a [(String, u32)],
    pub odd_texts: &'a [(u32, String)],
}

impl Parts {
    /// Parts of a vocabulary's texts, with GPT-2's pattern. It is one of characters where it has no merges, lacks a byte's token, and every entry
    /// that is not special is one character. The error says what does not fit.
    pub(super) fn from_texts(
        ids: &HashMap<String, u32>,
        merges: Vec<(u32, u32, u32)>,
        special: Vec<(String, u32)>,
    ) -> Result<Self, String> {
        let texts = by_id(ids)?;
        let is_special: HashMap<u32, &str> =
            special.iter().map(|(token, id)| (*id, token.as_str())).collect();
        let lacks_bytes = byte_chars::BYTE_ORDER
            .iter()
            .any(|&byte| !ids.contains_key(&byte_chars::to_text(&[byte])));
        let single =
            |(id, text): (u32, &&str)| is_special.contains_key(&id) || text.chars().count() == 1;
        let kind = if merges.is_empty() && lacks_bytes && (0..).zip(&texts).all(single) {
            Kind::Chars
        } else {
            Kind::Bpe
        };
        check_special(&merges, &is_special, kind)?;
        let mut odd_texts = Vec::new();
        let mut tokens: Vec<Box<[u8]>> = Vec::with_capacity(texts.len());
        for (id, text) in (0..).zip(&texts) {
            let bytes = if kind == Kind::Chars || is_special.contains_key(&id) {
                None
            } else {
                byte_chars::to_bytes(text)
            };
            if bytes.is_none() && kind == Kind::Bpe && !is_special.contains_key(&id) {
                odd_texts.push((id, (*text).to_owned()));
            }
            tokens.push(bytes.unwrap_or_else(|| text.as_bytes().to_vec()).into());
        }
        Ok(Self { kind, pattern: Pattern::Gpt2, tokens, merges, special, odd_texts })
    }
}

/// Texts in the order of their ids, which must be 0..n.
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

/// A special token takes part in no merge, and does not stand for other bytes than its own.
fn check_special(
    merges: &[(u32, u32, u32)],
    special: &HashMap<u32, &str>,
    kind: Kind,
) -> Result<(), String> {
    if kind == Kind::Chars {
        return Ok(());
    }
    let mut merged = std::collections::HashSet::new();
    for &(left, right, result) in merges {
        merged.extend([left, right, result]);
    }
    for (id, text) in special {
        let foreign = !text.is_ascii() && byte_chars::to_bytes(text).is_some();
        if foreign && (merged.contains(id) || text.chars().count() == 1) {
            return Err(format!(
                "special token {text:?} is also how the vocabulary writes other bytes"
            ));
        }
    }
    Ok(())
}
