//! tokenizer.json, the format of Hugging Face `tokenizers`: byte-level BPE, or one token per
//! character.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | reading: vocabulary, merges and added tokens |
//! | `pipeline.rs` | the steps around the model: normalizer, pre-tokenizer, post-processor, decoder |
//! | `write.rs` | writing |
//!
//! A setting with which `tokenizers` would produce other ids than Kindling is an error that names
//! the setting. `truncation` and `padding` are ignored, since they are options of a call.
//!
//! Source: <https://huggingface.co/docs/tokenizers/api/tokenizer>

mod pipeline;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::token_texts::parts_from_texts;
use super::vocab_file::{MergeResolver, entry_ids, invalid, read_text};
use crate::Result;
use crate::tokenizer::parts::{AddedFlags, Kind, Merge, Parts, Rules};
use crate::tokenizer::pretokenize::Pattern;
use crate::tokenizer::special;

pub use self::write::to_json;

pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Reads a tokenizer.json.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, or `ERR_INVALID_TOKENIZER` if the file is malformed or Kindling would
/// not produce the ids that `tokenizers` does.
pub fn read(path: &Path) -> Result<Parts> {
    let file: Value = serde_json::from_str(&read_text(path)?)
        .map_err(|error| invalid(path, format_args!("it is not JSON: {error}")))?;
    to_parts(&file).map_err(|what| invalid(path, what))
}

fn to_parts(file: &Value) -> Result<Parts, String> {
    let model = &file["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["vocab"].is_object() {
        return Err(format!("its model {} is not BPE", model["type"]));
    }
    check_model(model)?;
    let mut ids = match &model["vocab"] {
        Value::Object(entries) => entry_ids(entries)?,
        _ => HashMap::new(),
    };
    let Added { special, flags } = added_tokens(&file["added_tokens"], &mut ids)?;
    special::check(special.iter().map(|(token, _)| token.as_str()))
        .map_err(|error| error.to_string())?;
    let merges = merges_of(&model["merges"], &ids)?;
    let characters = file["pre_tokenizer"].is_null() && merges.is_empty();
    let pattern =
        if characters { Pattern::Gpt2 } else { pipeline::pattern(&file["pre_tokenizer"])? };
    let rules = Rules {
        flags,
        nfc: pipeline::is_nfc(&file["normalizer"])?,
        ignore_merges: model["ignore_merges"] == true,
        template: pipeline::template(&file["post_processor"])?,
    };
    let parts = Parts { pattern, rules, ..parts_from_texts(&ids, merges, special)? };
    check_parts(&parts, characters)?;
    if parts.kind == Kind::Bpe {
        pipeline::check_decoder(&file["decoder"])?;
    }
    Ok(parts)
}

/// Checks the parts against each other. `characters` means that there is no pre-tokenizer.
fn check_parts(parts: &Parts, characters: bool) -> Result<(), String> {
    if characters && parts.kind != Kind::Chars {
        return Err("it has no pre-tokenizer; only byte-level BPE is supported".to_owned());
    }
    let Rules { flags, nfc, template, .. } = &parts.rules;
    if *nfc && parts.kind == Kind::Chars {
        return Err("it normalizes single characters, which Kindling does not support".to_owned());
    }
    let is_normalized = |(_, id): &&(String, u32)| flags.get(id).is_some_and(|f| f.normalized);
    if let Some((token, _)) = parts.special.iter().find(is_normalized).filter(|_| *nfc) {
        return Err(format!(
            "added token {token:?} sets normalized, which Kindling does not support together with \
             a normalizer"
        ));
    }
    let known = parts.tokens.len();
    match template.before.iter().chain(&template.after).find(|&&id| id as usize >= known) {
        Some(id) => Err(format!("its post_processor adds the id {id}, but no token has this id")),
        None => Ok(()),
    }
}

fn check_model(model: &Value) -> Result<(), String> {
    let is_set = |field: &&&str| match &model[**field] {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    };
    let unsupported =
        ["dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"];
    match unsupported.iter().find(is_set) {
        Some(field) => Err(format!("its model sets {field}, which Kindling does not support")),
        None => Ok(()),
    }
}

/// Special tokens in the order of the file, and the flags that differ from the default, by id.
struct Added {
    special: Vec<(String, u32)>,
    flags: BTreeMap<u32, AddedFlags>,
}

/// Returns the added tokens, and adds to the vocabulary those that it lacks.
///
/// Like `tokenizers`, numbers the latter in their order; a different id in the file is an error.
fn added_tokens(added: &Value, ids: &mut HashMap<String, u32>) -> Result<Added, String> {
    let mut found = Added { special: Vec::new(), flags: BTreeMap::new() };
    for token in added.as_array().map_or(&[][..], Vec::as_slice) {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let (Some(text), Some(id)) = (token["content"].as_str(), id) else {
            return Err(format!("an added token has no content or no id: {token}"));
        };
        let next = ids.len() as u32;
        let known = *ids.entry(text.to_owned()).or_insert(next);
        if known != id {
            return Err(format!(
                "added token {text:?} has the id {id}, but the vocabulary gives it {known}"
            ));
        }
        let flags = AddedFlags {
            single_word: token["single_word"] == true,
            lstrip: token["lstrip"] == true,
            rstrip: token["rstrip"] == true,
            normalized: token["normalized"] == true,
            special: token["special"] != false,
        };
        if flags != AddedFlags::default() {
            found.flags.insert(id, flags);
        }
        found.special.push((text.to_owned(), id));
    }
    Ok(found)
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
