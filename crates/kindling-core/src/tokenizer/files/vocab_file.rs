//! vocab.json and merges.txt as GPT-2 writes them.
//!
//! vocab.json: one object from a token's text (bytes as `byte_chars` writes them) to its id, ids 0..n without gaps.
//! merges.txt: a pair a line, the parts separated by a space, in the order of their ranks; `#version` may head it.

use std::collections::HashMap;
use std::path::Path;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::byte_chars;
use crate::error::IoAction;
use crate::tokenizer::parts::{Parts, PartsRef};
use crate::tokenizer::{Kind, special};
use crate::{Error, Result};

/// A file's text.
///
/// # Errors
/// `ERR_NOT_FOUND` and the system's errors; `ERR_INVALID_TOKENIZER` where it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotFound { what: "tokenizer file", path: path.to_path_buf() }
        }
        _ => Error::io(IoAction::Read, path, error),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].split(|b| *b == b'\n').count();
        invalid(path, format_args!("line {line} is not UTF-8"))
    })
}

pub(super) fn invalid(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::InvalidTokenizer(format!(
        "{}: {what}; give the vocabulary and merges that were saved together",
        path.display()
    ))
}

/// Reads both files. A special token that the vocabulary lacks is appended to it.
///
/// # Errors
/// `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER` naming the line or entry, `ERR_INVALID_ARGUMENT` for empty or repeated special
/// tokens, the system's errors.
pub fn read(vocab: &Path, merges: &Path, special_tokens: &[String]) -> Result<Parts> {
    special::check(special_tokens.iter().map(String::as_str))?;
    let entries: Map<String, Value> =
        serde_json::from_str(&read_text(vocab)?).map_err(|error| {
            invalid(vocab, format_args!("not a JSON object of tokens and ids: {error}"))
        })?;
    let mut ids = entry_ids(&entries).map_err(|what| invalid(vocab, what))?;
    if ids.is_empty() {
        return Err(invalid(vocab, "it has no tokens"));
    }
    for token in special_tokens {
        let next = ids.len() as u32;
        ids.entry(token.clone()).or_insert(next);
    }
    let merges_text = read_text(merges)?;
    let merges_of = merge_lines(&merges_text, &ids).map_err(|what| invalid(merges, what))?;
    let special = special_tokens.iter().map(|token| (token.clone(), ids[token])).collect();
    Parts::from_texts(&ids, merges_of, special).map_err(|what| invalid(vocab, what))
}

/// Ids of a vocabulary's entries; the error says which entry is wrong.
pub(super) fn entry_ids(entries: &Map<String, Value>) -> Result<HashMap<String, u32>, String> {
    let id_of = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(|id| (token.clone(), id))
            .ok_or_else(|| format!("the id of {token:?} is not a whole number from 0"))
    };
    entries.iter().map(id_of).collect()
}

/// Merges (left, right, result) of the lines of merges.txt; the error says which line is wrong.
fn merge_lines(text: &str, ids: &HashMap<String, u32>) -> Result<Vec<(u32, u32, u32)>, String> {
    let mut resolver = MergeResolver::new(ids);
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || (number == 1 && line.starts_with("#version")) {
            continue;
        }
        let pair = line
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
        let (left, right) = pair.ok_or_else(|| {
            format!("line {number} ({line:?}) is not two tokens separated by a space")
        })?;
        resolver.add(left, right).map_err(|what| format!("line {number} ({line:?}): {what}"))?;
    }
    Ok(resolver.merges)
}

/// Turns the texts of merges into ids.
pub(super) struct MergeResolver<'a> {
    ids: &'a HashMap<String, u32>,
    seen: std::collections::HashSet<(u32, u32)>,
    pub(super) merges: Vec<(u32, u32, u32)>,
}

impl<'a> MergeResolver<'a> {
    pub(super) fn new(ids: &'a HashMap<String, u32>) -> Self {
        Self { ids, seen: std::collections::HashSet::new(), merges: Vec::new() }
    }

    pub(super) fn add(&mut self, left: &str, right: &str) -> Result<(), String> {
        let id = |token: &str| {
            self.ids
                .get(token)
                .copied()
                .ok_or_else(|| format!("{token:?} is not in the vocabulary"))
        };
        let merge = (id(left)?, id(right)?, id(&format!("{left}{right}"))?);
        if !self.seen.insert((merge.0, merge.1)) {
            return Err("this merge stands in an earlier line too".to_owned());
        }
        self.merges.push(merge);
        Ok(())
    }
}

/// Text of each token in vocab.json, one behind the other.
pub(super) struct TokenTexts {
    text: String,
    /// Where each ends, by id.
    ends: Vec<usize>,
}

impl TokenTexts {
    pub(super) fn new(parts: PartsRef<'_>) -> Self {
        let mut own: FxHashMap<u32, &str> =
            parts.special.iter().map(|(token, id)| (*id, token.as_str())).collect();
        own.extend(parts.odd_texts.iter().map(|(id, text)| (*id, text.as_str())));
        let bytes: usize = parts.tokens.iter().map(|token| token.len()).sum();
        let (mut text, mut ends) =
            (String::with_capacity(2 * bytes), Vec::with_capacity(parts.tokens.len()));
        for (id, token) in (0..).zip(parts.tokens) {
            match (own.get(&id), parts.kind) {
                (Some(own), _) => text.push_str(own),
                (None, Kind::Bpe) => {
                    text.extend(token.iter().map(|&byte| byte_chars::to_char(byte)))
                }
                (None, Kind::Chars) => text.push_str(&String::from_utf8_lossy(token)),
            }
            ends.push(text.len());
        }
        Self { text, ends }
    }

    /// That of token `id`.
    pub(super) fn get(&self, id: u32) -> &str {
        let id = id as usize;
        &self.text[id.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[id]]
    }

    /// About what all of them take in a file of JSON with their ids, in bytes.
    pub(super) fn json_bytes(&self) -> usize {
        2 * self.text.len() + 16 * self.ends.len()
    }

    /// All, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len() as u32).map(|id| self.get(id))
    }
}

/// vocab.json, byte for byte as Python's `json.dumps` writes it (ASCII only).
pub(super) fn vocab_json(texts: &TokenTexts) -> String {
    let mut out = String::with_capacity(texts.json_bytes());
    out.push('{');
    for (id, text) in texts.iter().enumerate() {
        out.push_str(if id == 0 { "" } else { ", " });
        push_json_string(&mut out, text);
        out.push_str(": ");
        push_decimal(&mut out, id);
    }
    out.push('}');
    out
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            ' '..='\u{7f}' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| push_escape(out, *unit)),
        }
    }
    out.push('"');
}

fn push_decimal(out: &mut String, number: usize) {
    if number >= 10 {
        push_decimal(out, number / 10);
    }
    out.push(char::from(b'0' + (number % 10) as u8));
}

fn push_escape(out: &mut String, unit: u16) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from(b"0123456789abcdef"[usize::from(unit >> shift & 0xF)]));
    }
}

/// merges.txt.
pub(super) fn merges_text(merges: &[(u32, u32, u32)], texts: &TokenTexts) -> String {
    let mut out = String::with_capacity(texts.json_bytes());
    out.push_str("#version: 0.2\n");
    for &(left, right, _) in merges {
        out.push_str(texts.get(left));
        out.push(' ');
        out.push_str(texts.get(right));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[String]) -> TokenTexts {
        let end = |end: &mut usize, text: &String| {
            *end += text.len();
            Some(*end)
        };
        TokenTexts { text: texts.concat(), ends: texts.iter().scan(0, end).collect() }
    }

    #[test]
    fn every_character_is_written_as_ascii_that_json_reads_back() {
        let texts: Vec<String> = (0..=u32::from(char::MAX))
            .filter_map(char::from_u32)
            .map(|c| if c.is_ascii() { format!("a{c}b") } else { c.to_string() })
            .collect();
        let written = vocab_json(&of(&texts));
        assert!(written.is_ascii());
        let read: Map<String, Value> = serde_json::from_str(&written).unwrap();
        assert!(read.keys().eq(&texts));
        assert!((0u64..).zip(read.values()).all(|(id, value)| value.as_u64() == Some(id)));
        // As json.dumps of Python writes them.
        let few =
            ["\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}", "\u{e9}\u{65e5}\u{1f600}"].map(str::to_owned);
        let expected = r#"{"\"\\/\b\t\n\f\r\u0001\u001f": 0, "\u00e9\u65e5\ud83d\ude00": 1}"#;
        assert_eq!(vocab_json(&of(&few)), expected);
    }
}
