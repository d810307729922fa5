//! vocab.json and merges.txt as GPT-2 writes them.
//!
//! vocab.json is one object from the text of each token to its id; ids are 0..n without gaps.
//! merges.txt has one merge per line, by rank, its parts separated by a space, optionally after a
//! line that starts with `#version`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::token_texts::{TokenTexts, parts_from_texts};
use crate::tokenizer::parts::{Merge, Parts};
use crate::tokenizer::special;
use crate::whole_file::read_whole;
use crate::{Error, Result};

pub const VOCAB_FILE: &str = "vocab.json";
pub const MERGES_FILE: &str = "merges.txt";

/// Reads a file as text.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, I/O errors, or `ERR_INVALID_TOKENIZER` if it is not UTF-8, not a regular
/// file, or larger than any tokenizer.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read_whole(path, Error::InvalidTokenizer).map_err(|error| match error {
        Error::NotFound { path, .. } => Error::NotFound { what: "tokenizer file", path },
        error => error,
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].split(|b| *b == b'\n').count();
        invalid(path, format_args!("line {line} is not UTF-8"))
    })
}

/// Returns the error that says what is wrong with a file.
pub fn invalid(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::InvalidTokenizer(format!(
        "{}: {what}; pass a vocabulary and merges that were saved together",
        path.display()
    ))
}

/// Reads both files. Special tokens that the vocabulary lacks are appended to it.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, I/O errors, `ERR_INVALID_TOKENIZER` with the line or entry that is
/// wrong, or `ERR_INVALID_ARGUMENT` if a special token is empty, too long or repeated.
pub fn read_vocab_and_merges(
    vocab: &Path,
    merges: &Path,
    special_tokens: &[String],
) -> Result<Parts> {
    special::check(special_tokens.iter().map(String::as_str))?;
    let entries: Map<String, Value> =
        serde_json::from_str(&read_text(vocab)?).map_err(|error| {
            invalid(vocab, format_args!("it is not a JSON object of tokens and ids: {error}"))
        })?;
    let mut ids = entry_ids(&entries).map_err(|what| invalid(vocab, what))?;
    if ids.is_empty() {
        return Err(invalid(vocab, "it has no tokens"));
    }
    for token in special_tokens {
        let next = ids.len() as u32;
        ids.entry(token.clone()).or_insert(next);
    }
    let lines = read_text(merges)?;
    let resolved = merges_of_lines(&lines, &ids).map_err(|what| invalid(merges, what))?;
    let special = special_tokens.iter().map(|token| (token.clone(), ids[token])).collect();
    parts_from_texts(&ids, resolved, special).map_err(|what| invalid(vocab, what))
}

/// Returns the ids of a vocabulary's entries. The error says which entry is wrong.
pub fn entry_ids(entries: &Map<String, Value>) -> Result<HashMap<String, u32>, String> {
    let id_of = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(|id| (token.clone(), id))
            .ok_or_else(|| format!("the id of {token:?} is not a non-negative integer"))
    };
    entries.iter().map(id_of).collect()
}

/// Returns the merges in the lines of merges.txt. The error says which line is wrong.
fn merges_of_lines(text: &str, ids: &HashMap<String, u32>) -> Result<Vec<Merge>, String> {
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

/// Resolves the texts of merges to ids.
pub struct MergeResolver<'a> {
    ids: &'a HashMap<String, u32>,
    seen: HashSet<(u32, u32)>,
    pub merges: Vec<Merge>,
}

impl<'a> MergeResolver<'a> {
    pub fn new(ids: &'a HashMap<String, u32>) -> Self {
        Self { ids, seen: HashSet::new(), merges: Vec::new() }
    }

    /// Adds the merge of two tokens. The error says what is wrong with it.
    pub fn add(&mut self, left: &str, right: &str) -> Result<(), String> {
        let id = |token: &str| {
            self.ids
                .get(token)
                .copied()
                .ok_or_else(|| format!("{token:?} is not in the vocabulary"))
        };
        let merge = (id(left)?, id(right)?, id(&format!("{left}{right}"))?);
        if !self.seen.insert((merge.0, merge.1)) {
            return Err("the merge is repeated".to_owned());
        }
        self.merges.push(merge);
        Ok(())
    }
}

/// Returns vocab.json, byte for byte as Python's `json.dumps` writes it (ASCII only).
pub fn vocab_json(texts: &TokenTexts) -> String {
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

/// Returns merges.txt.
pub fn merges_text(merges: &[Merge], texts: &TokenTexts) -> String {
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

    #[test]
    fn vocab_json_is_ascii_that_reads_back_for_every_character() {
        let texts: Vec<String> = (0..=u32::from(char::MAX))
            .filter_map(char::from_u32)
            .map(|c| if c.is_ascii() { format!("a{c}b") } else { c.to_string() })
            .collect();
        let written = vocab_json(&TokenTexts::of(&texts));
        assert!(written.is_ascii());
        let read: Map<String, Value> = serde_json::from_str(&written).unwrap();
        assert!(read.keys().eq(&texts));
        assert!((0u64..).zip(read.values()).all(|(id, value)| value.as_u64() == Some(id)));
        // The output of Python's `json.dumps`.
        let few =
            ["\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}", "\u{e9}\u{65e5}\u{1f600}"].map(str::to_owned);
        let expected = r#"{"\"\\/\b\t\n\f\r\u0001\u001f": 0, "\u00e9\u65e5\ud83d\ude00": 1}"#;
        assert_eq!(vocab_json(&TokenTexts::of(&few)), expected);
    }
}
