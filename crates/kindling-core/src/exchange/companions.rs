//! The text files that accompany a model, such as `tokenizer_config.json` with the chat template
//! and `generation_config.json`. An import keeps them unchanged, next to the tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::gguf::GgufFile;
use crate::tokenizer::{END_OF_TEXT, Tokenizer};
use crate::whole_file::read_whole;
use crate::{Error, Result};

/// The texts of files, by name.
pub type Companions = BTreeMap<String, String>;

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const FILES: [&str; 4] =
    [TOKENIZER_CONFIG, GENERATION_CONFIG, CHAT_TEMPLATE, "special_tokens_map.json"];

/// Reads those of the files that a folder has.
///
/// # Errors
/// Returns `ERR_INVALID_MODEL` for a file that is not UTF-8, and I/O errors.
pub fn read_companions(folder: &Path) -> Result<Companions> {
    let mut companions = Companions::new();
    for name in FILES {
        let path = folder.join(name);
        if path.exists() {
            let text = String::from_utf8(read_whole(&path, Error::InvalidModel)?)
                .map_err(|_| Error::InvalidModel(format!("{} is not UTF-8", path.display())))?;
            companions.insert(name.to_owned(), text);
        }
    }
    Ok(companions)
}

/// Ids of the tokens with a special role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// The token that ends a text or a turn.
    pub eos: Option<u32>,
    /// The token that fills up a row of a batch.
    pub padding: Option<u32>,
}

impl SpecialIds {
    /// Finds the ids in `tokenizer_config.json`, else in `generation_config.json`. If neither names
    /// a BOS or EOS, both are `<|endoftext|>`, which starts and ends the texts of a model trained
    /// here.
    pub fn of(companions: &Companions, tokenizer: Option<&Tokenizer>) -> Self {
        let [tokens, ids] =
            [TOKENIZER_CONFIG, GENERATION_CONFIG].map(|name| json_of(companions, name));
        let id_of = |role: &str| {
            let token = &tokens[format!("{role}_token")];
            let text = token.as_str().or_else(|| token["content"].as_str());
            let by_text = || tokenizer?.token_id(text?);
            let id = &ids[format!("{role}_token_id")];
            let by_id = || id.as_u64().or_else(|| id[0].as_u64()).and_then(|id| id.try_into().ok());
            by_text().or_else(by_id)
        };
        let end_of_text = || {
            let special = tokenizer?.special_tokens().iter();
            special.filter(|(text, _)| text == END_OF_TEXT).map(|(_, id)| *id).next()
        };
        let ids = Self { bos: id_of("bos"), eos: id_of("eos"), padding: id_of("pad") };
        if ids.eos.is_some() || ids.bos.is_some() {
            return ids;
        }
        Self { bos: end_of_text(), eos: end_of_text(), ..ids }
    }
}

/// Returns a file parsed as JSON, or null if there is none or it is not JSON.
fn json_of(companions: &Companions, name: &str) -> Value {
    companions.get(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Returns the chat template, or the one named `default` if there are several.
pub fn chat_template(companions: &Companions) -> Option<String> {
    if let Some(text) = companions.get(CHAT_TEMPLATE) {
        return Some(text.clone());
    }
    let template = &json_of(companions, TOKENIZER_CONFIG)["chat_template"];
    let default = || {
        let named = template.as_array()?.iter().find(|t| t["name"] == "default")?;
        named["template"].as_str()
    };
    template.as_str().or_else(default).map(str::to_owned)
}

/// Returns whether the tokenizer of an imported model puts the BOS before each text; `None` if its
/// files do not say.
pub fn adds_bos(companions: &Companions) -> Option<bool> {
    json_of(companions, TOKENIZER_CONFIG)["add_bos_token"].as_bool()
}

/// Makes the files of a model from the metadata of its GGUF file. `context` is the context in
/// tokens.
pub(super) fn companions_of_gguf(gguf: &GgufFile, context: usize) -> Companions {
    let tokens = gguf.texts("tokenizer.ggml.tokens").unwrap_or_default();
    let id_of = |role: &str| {
        let id = gguf.integer(&format!("tokenizer.ggml.{role}_token_id"))?;
        u32::try_from(id).ok().filter(|id| (*id as usize) < tokens.len())
    };
    let roles = [("bos", id_of("bos")), ("eos", id_of("eos")), ("pad", id_of("padding"))];
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
    });
    let mut generation = json!({});
    for (role, id) in roles {
        if let Some(id) = id {
            config[format!("{role}_token")] = json!(tokens[id as usize]);
            generation[format!("{role}_token_id")] = json!(id);
        }
    }
    if let Some(adds) = gguf.boolean("tokenizer.ggml.add_bos_token") {
        config["add_bos_token"] = json!(adds);
    }
    if let Some(template) = gguf.text("tokenizer.chat_template") {
        config["chat_template"] = json!(template);
    }
    let text = |value: &Value| format!("{value:#}\n");
    [(TOKENIZER_CONFIG, text(&config)), (GENERATION_CONFIG, text(&generation))]
        .map(|(name, text)| (name.to_owned(), text))
        .into()
}

/// Adds the files that transformers expects and a model trained here lacks.
pub(super) fn completed(
    companions: &Companions,
    tokenizer: &Tokenizer,
    ids: &SpecialIds,
    context: usize,
) -> Companions {
    let mut completed = companions.clone();
    let text_of = |id: Option<u32>| {
        let token = tokenizer.special_tokens().iter().find(|(_, special)| Some(*special) == id);
        token.map(|(text, _)| text)
    };
    completed.entry(TOKENIZER_CONFIG.to_owned()).or_insert_with(|| {
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": text_of(ids.bos),
            "eos_token": text_of(ids.eos),
            "pad_token": text_of(ids.padding),
            "model_max_length": context,
            "clean_up_tokenization_spaces": false,
        });
        format!("{config:#}\n")
    });
    completed.entry(GENERATION_CONFIG.to_owned()).or_insert_with(|| {
        let config = json!({
            "bos_token_id": ids.bos,
            "eos_token_id": ids.eos,
            "pad_token_id": ids.padding,
        });
        format!("{config:#}\n")
    });
    completed
}
