//! Prints the token ids of texts, for `scripts/campaigns/real-tokenizers.py`.
//!
//! ```text
//! tokenizer_ids TOKENIZER TEXTS [SAVED]
//! ```
//!
//! TOKENIZER is a tokenizer.json, or a JSON object with the tokenizer's values from a GGUF file.
//! TEXTS is a JSON array of texts. Each line of the output is a JSON array of ids, without those of
//! a template. SAVED is a folder to which the tokenizer is saved.

use std::error::Error;
use std::io::Write;

use kindling_core::tokenizer::{GgufVocab, Tokenizer};
use serde_json::Value;

fn from_gguf(values: &Value) -> Result<Tokenizer, Box<dyn Error>> {
    let texts = |name: &str| serde_json::from_value::<Vec<String>>(values[name].clone());
    let id = |name: &str| values[name].as_u64().map(|id| id as u32);
    Ok(Tokenizer::from_gguf(&GgufVocab {
        pre: values["pre"].as_str().unwrap_or_default().to_owned(),
        tokens: texts("tokens")?,
        token_types: serde_json::from_value(values["token_types"].clone())?,
        merges: texts("merges")?,
        bos: id("bos"),
        eos: id("eos"),
        padding: id("padding"),
        add_bos: values["add_bos"].as_bool(),
        add_eos: None,
    })?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, tokenizer, texts, saved @ ..] = &arguments[..] else {
        return Err("usage: tokenizer_ids TOKENIZER TEXTS [SAVED]".into());
    };
    let values: Value = serde_json::from_slice(&std::fs::read(tokenizer)?)?;
    let tokenizer =
        if values["pre"].is_string() { from_gguf(&values)? } else { Tokenizer::open(tokenizer)? };
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts)?)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for text in &texts {
        let ids = tokenizer.encode(text)?;
        if tokenizer.decode(&ids)?.is_empty() && !text.is_empty() {
            return Err(format!("{text:?} decodes to nothing").into());
        }
        writeln!(out, "{ids:?}")?;
    }
    if let [folder] = saved {
        tokenizer.save(folder)?;
    }
    Ok(())
}
