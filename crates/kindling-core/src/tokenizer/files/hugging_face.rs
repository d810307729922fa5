//! tokenizer.json, the format of Hugging Face `tokenizers`: byte-level BPE, or one token per
//! character.
//!
//! Source: <https://huggingface.co/docs/tokenizers/api/tokenizer>

use std::collections::HashMap;
use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::token_texts::{TokenTexts, parts_from_texts};
use super::vocab_file::{MergeResolver, entry_ids, invalid, read_text};
use crate::tokenizer::parts::{Kind, Merge, Parts};
use crate::tokenizer::pretokenize::Pattern;
use crate::tokenizer::special;
use crate::{Error, Result};

pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Reads a tokenizer.json.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, or `ERR_INVALID_TOKENIZER` if the file is malformed or Kindling would
/// not produce the ids that `tokenizers` does.
pub fn read(path: &Path) -> Result<Parts> {
    let file: Value = serde_json::from_str(&read_text(path)?)
        .map_err(|error| invalid(path, format_args!("not JSON: {error}")))?;
    to_parts(&file).map_err(|what| invalid(path, what))
}

fn to_parts(file: &Value) -> Result<Parts, String> {
    let model = &file["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["vocab"].is_object() {
        return Err(format!("its model {} is not BPE", model["type"]));
    }
    check_model(model)?;
    if !file["normalizer"].is_null() {
        return Err("it has a normalizer, which Kindling does not support".to_owned());
    }
    let mut ids = match &model["vocab"] {
        Value::Object(entries) => entry_ids(entries)?,
        _ => HashMap::new(),
    };
    let special = added_tokens(&file["added_tokens"], &mut ids)?;
    special::check(special.iter().map(|(token, _)| token.as_str()))
        .map_err(|error| error.to_string())?;
    let merges = merges_of(&model["merges"], &ids)?;
    let characters = file["pre_tokenizer"].is_null() && merges.is_empty();
    let pattern = if characters { Pattern::Gpt2 } else { pattern_of(&file["pre_tokenizer"])? };
    let parts = Parts { pattern, ..parts_from_texts(&ids, merges, special)? };
    if characters && parts.kind != Kind::Chars {
        return Err("it has no pre-tokenizer; only byte-level BPE is supported".to_owned());
    }
    Ok(parts)
}

fn check_model(model: &Value) -> Result<(), String> {
    let is_set = |field: &&&str| match &model[**field] {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    };
    let unsupported = [
        "dropout",
        "byte_fallback",
        "ignore_merges",
        "continuing_subword_prefix",
        "end_of_word_suffix",
    ];
    match unsupported.iter().find(is_set) {
        Some(field) => Err(format!("its model sets {field}, which Kindling does not support")),
        None => Ok(()),
    }
}

/// Returns the pattern of a byte-level pre-tokenizer: GPT-2's, or that of a split before it.
fn pattern_of(pre: &Value) -> Result<Pattern, String> {
    let unsupported = || {
        Err(format!("its pre-tokenizer is neither ByteLevel nor a Split before ByteLevel: {pre}"))
    };
    let byte_level = |step: &Value, regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"].as_bool() == Some(false)
            && step["use_regex"].as_bool().unwrap_or(true) == regex
    };
    if byte_level(pre, true) {
        return Ok(Pattern::Gpt2);
    }
    let Some([split, level]) = pre["pretokenizers"].as_array().map(Vec::as_slice) else {
        return unsupported();
    };
    let splits =
        split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] != true;
    match split["pattern"]["Regex"].as_str() {
        Some(regex) if splits && byte_level(level, false) => {
            Pattern::from_tokenizer_json(regex).map_err(|error| error.to_string())
        }
        _ => unsupported(),
    }
}

/// Returns the added tokens, and adds those to the vocabulary that it lacks.
fn added_tokens(
    added: &Value,
    ids: &mut HashMap<String, u32>,
) -> Result<Vec<(String, u32)>, String> {
    let mut special = Vec::new();
    for token in added.as_array().map_or(&[][..], Vec::as_slice) {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let (Some(text), Some(id)) = (token["content"].as_str(), id) else {
            return Err(format!("an added token has no content or no id: {token}"));
        };
        if let Some(field) =
            ["lstrip", "rstrip", "single_word"].iter().find(|&&field| token[field] == true)
        {
            return Err(format!(
                "added token {text:?} sets {field}, which Kindling does not support"
            ));
        }
        let known = *ids.entry(text.to_owned()).or_insert(id);
        if known != id {
            return Err(format!(
                "added token {text:?} has the id {id}, but {known} in the vocabulary"
            ));
        }
        special.push((text.to_owned(), id));
    }
    Ok(special)
}

fn merges_of(merges: &Value, ids: &HashMap<String, u32>) -> Result<Vec<Merge>, String> {
    let mut resolver = MergeResolver::new(ids);
    for (index, merge) in merges.as_array().map_or(&[][..], Vec::as_slice).iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(parts) => {
                parts.first().zip(parts.get(1)).and_then(|(a, b)| a.as_str().zip(b.as_str()))
            }
            _ => None,
        };
        let (left, right) =
            pair.ok_or_else(|| format!("merge {index} ({merge}) is not two tokens"))?;
        resolver.add(left, right).map_err(|what| format!("merge {index} ({merge}): {what}"))?;
    }
    Ok(resolver.merges)
}

/// Approximate size of a merge in the file, in bytes.
const MERGE_BYTES: usize = 64;

/// tokenizer.json as it is written. Vocabulary and merges serialize without a `Value` per token.
#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Value>,
    normalizer: (),
    pre_tokenizer: Value,
    post_processor: (),
    decoder: Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocab<'a>,
    merges: Merges<'a>,
}

/// An object from text to id, in the order of the ids.
struct Vocab<'a>(&'a TokenTexts);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(0u32..))
    }
}

/// An array of pairs of texts, by rank.
struct Merges<'a>(&'a [Merge], &'a TokenTexts);

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(merges, texts) = self;
        serializer
            .collect_seq(merges.iter().map(|&(left, right, _)| [texts.get(left), texts.get(right)]))
    }
}

/// Returns the tokenizer.json of `parts`, the texts of whose tokens are `texts`.
///
/// # Errors
/// Returns `ERR_INTERNAL` if serializing fails, which no tokenizer should cause.
pub fn to_json(parts: &Parts, texts: &TokenTexts) -> Result<String> {
    let mut special = parts.special.clone();
    special.sort_unstable_by_key(|&(_, id)| id);
    let added_tokens = special
        .iter()
        .map(|(token, id)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = |regex| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": regex})
    };
    let (pre_tokenizer, decoder) = match parts.kind {
        Kind::Bpe if parts.pattern == Pattern::Gpt2 => (byte_level(true), byte_level(true)),
        Kind::Bpe => (
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": parts.pattern.portable_source()},
                    "behavior": "Isolated", "invert": false},
                byte_level(false)
            ]}),
            byte_level(true),
        ),
        Kind::Chars => (Value::Null, json!({"type": "Fuse"})),
    };
    let model = Model {
        r#type: "BPE",
        dropout: (),
        unk_token: (),
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Vocab(texts),
        merges: Merges(&parts.merges, texts),
    };
    let file = File {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens,
        normalizer: (),
        pre_tokenizer,
        post_processor: (),
        decoder,
        model,
    };
    let mut bytes = Vec::with_capacity(texts.json_bytes() + MERGE_BYTES * parts.merges.len());
    let written = serde_json::to_writer_pretty(&mut bytes, &file);
    written.map_err(|error| Error::Internal(error.to_string()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| Error::Internal(error.to_string()))
}
