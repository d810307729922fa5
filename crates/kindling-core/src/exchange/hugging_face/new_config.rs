//! Writes config.json so that transformers 4, transformers 5 and vLLM can read it.

use serde_json::{Map, Value, json};

use crate::config::ModelConfig;
use crate::exchange::architecture::architecture_of;
use crate::exchange::companions::SpecialIds;
use crate::exchange::tensor_type::TensorType;
use crate::{Error, Result};

/// Returns the text of config.json.
///
/// # Errors
/// As `architecture_of`.
pub fn config_json(config: &ModelConfig, kind: TensorType, ids: &SpecialIds) -> Result<String> {
    let (model_type, class) = architecture_of(config)?;
    let dtype = match kind {
        TensorType::F16 => "float16",
        TensorType::Bf16 => "bfloat16",
        _ => "float32",
    };
    let scaling = config.rope_scaling.map(|scaling| {
        let mut scaling = json!(scaling);
        scaling["rope_type"] = json!("llama3");
        // In files of transformers this is an integer.
        let context = &mut scaling["original_max_position_embeddings"];
        if let Some(tokens) = context.as_f64().filter(|tokens| tokens.fract() == 0.0) {
            *context = json!(tokens as u64);
        }
        scaling
    });
    let mut parameters = scaling.clone().unwrap_or_else(|| json!({"rope_type": "default"}));
    parameters["rope_theta"] = json!(config.theta);
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("architectures", json!([class]));
    set("model_type", json!(model_type));
    set("vocab_size", json!(config.vocab_size));
    set("hidden_size", json!(config.d_model));
    set("intermediate_size", json!(config.d_ff));
    set("num_hidden_layers", json!(config.num_layers));
    set("num_attention_heads", json!(config.num_heads));
    set("num_key_value_heads", json!(config.num_kv_heads));
    set("head_dim", json!(config.head_size()));
    set("hidden_act", json!("silu"));
    set("max_position_embeddings", json!(config.max_seq_length));
    set("rms_norm_eps", json!(config.norm_eps));
    set("rope_theta", json!(config.theta));
    set("rope_scaling", json!(scaling));
    set("rope_parameters", parameters);
    set("tie_word_embeddings", json!(config.tie_embeddings));
    if model_type == "llama" {
        set("mlp_bias", json!(false));
    }
    if model_type == "qwen2" {
        set("use_sliding_window", json!(false));
    } else {
        set("attention_bias", json!(false));
    }
    set("attention_dropout", json!(0.0));
    set("bos_token_id", json!(ids.bos));
    set("eos_token_id", json!(ids.eos));
    set("pad_token_id", json!(ids.padding));
    set("use_cache", json!(true));
    set("torch_dtype", json!(dtype));
    set("dtype", json!(dtype));
    let text = serde_json::to_string_pretty(&fields);
    text.map(|text| text + "\n").map_err(|error| Error::Internal(error.to_string()))
}
