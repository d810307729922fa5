//! Writing tokenizer.json.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::pipeline;
use crate::tokenizer::files::token_texts::TokenTexts;
use crate::tokenizer::parts::{Merge, Parts};
use crate::{Error, Result};

/// Approximate size of a merge in the file, in bytes.
const MERGE_BYTES: usize = 64;

/// The contents of tokenizer.json. Vocabulary and merges are serialized without a `Value` per
/// token.
#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
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

/// Returns the tokenizer.json of `parts`, whose tokens have the texts `texts`.
///
/// # Errors
/// Returns `ERR_INTERNAL` if serializing fails, which no tokenizer should cause.
pub fn to_json(parts: &Parts, texts: &TokenTexts) -> Result<String> {
    let mut special = parts.special.clone();
    special.sort_unstable_by_key(|&(_, id)| id);
    let added_tokens = special
        .iter()
        .map(|(token, id)| {
            let flags = parts.rules.flags_of(*id);
            json!({"id": id, "content": token, "single_word": flags.single_word,
                "lstrip": flags.lstrip, "rstrip": flags.rstrip, "normalized": flags.normalized,
                "special": flags.special})
        })
        .collect();
    let model = Model {
        r#type: "BPE",
        dropout: (),
        unk_token: (),
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: parts.rules.ignore_merges,
        vocab: Vocab(texts),
        merges: Merges(&parts.merges, texts),
    };
    let file = File {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens,
        normalizer: pipeline::write_normalizer(parts),
        pre_tokenizer: pipeline::write_pre_tokenizer(parts),
        post_processor: pipeline::write_post_processor(parts, |id| texts.get(id)),
        decoder: pipeline::write_decoder(parts),
        model,
    };
    let mut bytes = Vec::with_capacity(texts.json_bytes() + MERGE_BYTES * parts.merges.len());
    let written = serde_json::to_writer_pretty(&mut bytes, &file);
    written.map_err(|error| Error::Internal(error.to_string()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| Error::Internal(error.to_string()))
}
