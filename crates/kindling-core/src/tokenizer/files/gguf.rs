//! The tokenizer of a GGUF file: the values of its `tokenizer.ggml.*` keys, for the model `gpt2`.
//!
//! GGUF only names the pre-tokenizer (`pre`). The rules that go with a name are those of the
//! Hugging Face tokenizer that it was made for:
//!
//! | pre | pattern | rules |
//! |---|---|---|
//! | `gpt-2` | GPT-2's | |
//! | `smollm` | SmolLM's | |
//! | `qwen2` | Qwen 2's | NFC; llama.cpp does not normalize |
//! | `llama-bpe` | Llama 3's | `ignore_merges`; a BOS unless `add_bos` is false |
//!
//! Source: `llm_tokenizer_bpe` and `llama_vocab::impl::load` in
//! <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>

use std::collections::{BTreeMap, HashMap};

use super::token_texts::{TokenTexts, parts_from_texts};
use super::vocab_file::MergeResolver;
use crate::tokenizer::END_OF_TEXT;
use crate::tokenizer::encode::Encoder;
use crate::tokenizer::parts::{AddedFlags, Kind, Parts, Rules, Template};
use crate::tokenizer::pretokenize::Pattern;
use crate::tokenizer::special;
use crate::{Error, Result};

/// Values of `token_types`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The values of the keys `tokenizer.ggml.*`; `None` if the file lacks the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GgufVocab {
    pub pre: String,
    /// Texts as vocab.json writes them; special tokens are written as they are.
    pub tokens: Vec<String>,
    /// Empty if all tokens are normal.
    pub token_types: Vec<i32>,
    /// Two tokens separated by a space, by rank.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub padding: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
}

/// Returns the pattern that `pre` names, and whether it normalizes and ignores merges.
fn pattern_of(pre: &str) -> Option<(Pattern, bool, bool)> {
    match pre {
        "gpt-2" => Some((Pattern::Gpt2, false, false)),
        "smollm" => Some((Pattern::Smollm, false, false)),
        "qwen2" => Some((Pattern::Qwen2, true, false)),
        "llama-bpe" | "llama3" | "llama-v3" => Some((Pattern::Llama3, false, true)),
        _ => None,
    }
}

/// Builds the parts of a tokenizer.
///
/// # Errors
/// Returns `ERR_UNSUPPORTED` if Kindling does not know `pre`, and `ERR_INVALID_TOKENIZER` if the
/// values are inconsistent.
pub fn from_gguf(vocab: &GgufVocab) -> Result<Parts> {
    let (pattern, nfc, ignore_merges) = pattern_of(&vocab.pre).ok_or_else(|| {
        Error::Unsupported(format!(
            "the pre-tokenizer {:?} of the GGUF file (tokenizer.ggml.pre) is not gpt-2, \
             smollm, qwen2 or llama-bpe; import the model from its Hugging Face folder",
            vocab.pre
        ))
    })?;
    let read = || -> Result<Parts, String> {
        let ids = ids_of(&vocab.tokens)?;
        let (special, flags) = special_of(vocab)?;
        let mut resolver = MergeResolver::new(&ids);
        for (rank, merge) in vocab.merges.iter().enumerate() {
            let pair = merge.split_once(' ');
            let (left, right) =
                pair.ok_or_else(|| format!("merge {rank} ({merge:?}) is not two tokens"))?;
            resolver
                .add(left, right)
                .map_err(|what| format!("merge {rank} ({merge:?}): {what}"))?;
        }
        let template = template_of(vocab, ignore_merges)?;
        let rules = Rules { flags, nfc, ignore_merges, template };
        let mut parts =
            Parts { pattern, rules, ..parts_from_texts(&ids, resolver.merges, special)? };
        if parts.kind != Kind::Bpe {
            return Err("it has no merges".to_owned());
        }
        set_unused(vocab, &mut parts);
        Ok(parts)
    };
    read().map_err(|what| {
        Error::InvalidTokenizer(format!(
            "the tokenizer of the GGUF file: {what}; convert the model to GGUF again"
        ))
    })
}

fn ids_of(tokens: &[String]) -> Result<HashMap<String, u32>, String> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, token) in (0..).zip(tokens) {
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(format!("the tokens {first} and {id} are both {token:?}"));
        }
    }
    Ok(ids)
}

type Special = (Vec<(String, u32)>, BTreeMap<u32, AddedFlags>);

/// Returns the special tokens and their flags.
fn special_of(vocab: &GgufVocab) -> Result<Special, String> {
    let GgufVocab { tokens, token_types, .. } = vocab;
    if !token_types.is_empty() && token_types.len() != tokens.len() {
        return Err(format!(
            "it has {} tokens but {} token types",
            tokens.len(),
            token_types.len()
        ));
    }
    let (mut special, mut flags) = (Vec::new(), BTreeMap::new());
    for (id, (token, &kind)) in (0..).zip(tokens.iter().zip(token_types)) {
        match kind {
            NORMAL | UNUSED => continue,
            USER_DEFINED => {
                flags.insert(id, AddedFlags { special: false, ..AddedFlags::default() });
            }
            UNKNOWN | CONTROL => {}
            _ => return Err(format!("token {id} ({token:?}) has the unknown type {kind}")),
        }
        special.push((token.clone(), id));
    }
    special::check(special.iter().map(|(token, _)| token.as_str()))
        .map_err(|error| error.to_string())?;
    Ok((special, flags))
}

/// Returns the template. If the file lacks `add_bos`, llama.cpp's default for the pre-tokenizer
/// applies.
fn template_of(vocab: &GgufVocab, adds_bos: bool) -> Result<Template, String> {
    let added = |adds: bool, name: &str, id: Option<u32>| match id.filter(|_| adds) {
        Some(id) if id as usize >= vocab.tokens.len() => Err(format!(
            "the {name} token is {id}, but there are only {} tokens",
            vocab.tokens.len()
        )),
        None if adds => Err(format!("it adds a {name} token, but does not say which one")),
        id => Ok(id.into_iter().collect()),
    };
    Ok(Template {
        before: added(vocab.add_bos.unwrap_or(adds_bos), "bos", vocab.bos)?,
        after: added(vocab.add_eos.unwrap_or(false), "eos", vocab.eos)?,
    })
}

/// Marks the texts of unused tokens as raw, so that no text encodes to them.
fn set_unused(vocab: &GgufVocab, parts: &mut Parts) {
    let unused = (0..).zip(vocab.tokens.iter().zip(&vocab.token_types));
    for (id, (text, _)) in unused.filter(|(_, (_, kind))| **kind == UNUSED) {
        parts.tokens[id as usize] = text.as_bytes().into();
        parts.raw_texts.push((id, text.clone()));
    }
    parts.raw_texts.sort_unstable_by_key(|&(id, _)| id);
    parts.raw_texts.dedup_by_key(|&mut (id, _)| id);
}

/// Returns the values with which llama.cpp produces the ids of `parts`, whose encoder is `encoder`.
///
/// # Errors
/// Returns `ERR_UNSUPPORTED` with the part that has no counterpart in llama.cpp.
pub fn to_gguf(parts: &Parts, encoder: &Encoder) -> Result<GgufVocab> {
    let pre = check_writable(parts, encoder).map_err(|what| {
        Error::Unsupported(format!(
            "llama.cpp cannot reproduce this tokenizer: {what}; export to safetensors or hf instead"
        ))
    })?;
    let texts = TokenTexts::new(parts);
    let mut token_types = vec![NORMAL; parts.tokens.len()];
    for &(id, _) in &parts.raw_texts {
        token_types[id as usize] = UNUSED;
    }
    for &(_, id) in &parts.special {
        let is_control = parts.rules.flags_of(id).special;
        token_types[id as usize] = if is_control { CONTROL } else { USER_DEFINED };
    }
    let merge = |&(left, right, _): &(u32, u32, u32)| [texts.get(left), texts.get(right)].join(" ");
    let Template { before, after } = &parts.rules.template;
    let end_of_text = parts.special.iter().find(|(token, _)| token == END_OF_TEXT);
    Ok(GgufVocab {
        pre: pre.to_owned(),
        tokens: texts.iter().map(str::to_owned).collect(),
        token_types,
        merges: parts.merges.iter().map(merge).collect(),
        bos: before.first().copied(),
        eos: after.first().copied().or(end_of_text.map(|&(_, id)| id)),
        padding: None,
        add_bos: Some(!before.is_empty()),
        add_eos: Some(!after.is_empty()),
    })
}

/// Returns the name of the pre-tokenizer. The error says what llama.cpp lacks.
fn check_writable(parts: &Parts, encoder: &Encoder) -> Result<&'static str, String> {
    let pre = match parts.pattern {
        _ if parts.kind == Kind::Chars => return Err("it has one token per character".to_owned()),
        Pattern::Gpt2 => "gpt-2",
        Pattern::Smollm => "smollm",
        Pattern::Qwen2 => "qwen2",
        Pattern::Llama3 => "llama-bpe",
        Pattern::Cl100k | Pattern::Regex(_) => {
            return Err(format!(
                "llama.cpp has no pre-tokenizer with the pattern {} (for GGUF, train a tokenizer \
                 with the pattern gpt2, smollm, llama3 or qwen2)",
                parts.pattern.source()
            ));
        }
    };
    let Rules { flags, nfc, ignore_merges, template } = &parts.rules;
    let is_plain = |(id, flags): &(&u32, &AddedFlags)| {
        !(flags.single_word || flags.lstrip || flags.rstrip)
            || !parts.special.iter().any(|(_, special)| special == *id)
    };
    if let Some((id, _)) = flags.iter().find(|entry| !is_plain(entry)) {
        return Err(format!("its special token {id} sets single_word, lstrip or rstrip"));
    }
    if *nfc && pre != "qwen2" {
        return Err(format!("it normalizes text (NFC), which {pre} does not"));
    }
    if template.before.len() > 1 || template.after.len() > 1 {
        return Err("it adds more than one token before or after a text".to_owned());
    }
    let is_ordinary = |id: &u32| {
        let is_special = parts.special.iter().any(|(_, special)| special == id);
        let is_raw = parts.raw_texts.binary_search_by_key(id, |&(id, _)| id).is_ok();
        !is_special && !is_raw
    };
    // With or without `ignore_merges`, the ids are the same if the bytes of every token merge to
    // it.
    if *ignore_merges != (pre == "llama-bpe") {
        let ordinary = (0..parts.tokens.len() as u32).filter(is_ordinary);
        if let Some(id) = encoder.first_unmerged(ordinary) {
            return Err(format!(
                "{pre} {} merges, and merging the bytes of token {id} results in other tokens",
                if *ignore_merges { "does not ignore" } else { "ignores" }
            ));
        }
    }
    Ok(pre)
}
