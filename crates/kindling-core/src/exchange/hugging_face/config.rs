//! Reads a model's configuration from config.json.
//!
//! An absent field has the default of its class in transformers. An option that the engine cannot
//! compute exactly is an error that names it.
//! Source: configuration_{llama,mistral,qwen2,qwen3}.py of transformers 5.

use std::path::Path;

use serde_json::Value;

use crate::config::ModelConfig;
use crate::exchange::architecture::without_default_head_size;
use crate::exchange::tensor_files::damaged;
use crate::ops::rope::Scaling;
use crate::whole_file::read_whole;
use crate::{Error, Result};

/// A supported `model_type`, and the defaults of its class in transformers.
struct Family {
    model_type: &'static str,
    num_kv_heads: Option<usize>,
    head_size: Option<usize>,
    sliding_window: Option<usize>,
    qkv_bias: bool,
    qk_norm: bool,
}

const FAMILIES: [Family; 4] = [
    Family {
        model_type: "llama",
        num_kv_heads: None,
        head_size: None,
        sliding_window: None,
        qkv_bias: false,
        qk_norm: false,
    },
    Family {
        model_type: "mistral",
        num_kv_heads: Some(8),
        head_size: None,
        sliding_window: Some(4096),
        qkv_bias: false,
        qk_norm: false,
    },
    Family {
        model_type: "qwen2",
        num_kv_heads: Some(32),
        head_size: None,
        sliding_window: Some(4096),
        qkv_bias: true,
        qk_norm: false,
    },
    Family {
        model_type: "qwen3",
        num_kv_heads: Some(32),
        head_size: Some(128),
        sliding_window: Some(4096),
        qkv_bias: false,
        qk_norm: true,
    },
];

/// Reads a config.json. Returns the configuration and the name of the architecture.
///
/// # Errors
/// Returns `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if it is not JSON or a field is missing or wrong,
/// `ERR_UNSUPPORTED` for an architecture or option that the engine lacks, `ERR_INVALID_CONFIG` for
/// impossible sizes.
pub fn config_of(path: &Path) -> Result<(ModelConfig, String)> {
    let text = read_whole(path, Error::InvalidModel)?;
    let json: Value = serde_json::from_slice(&text).map_err(|error| damaged(path, error))?;
    let reader = Reader { path, json: &json };
    let model_type = json["model_type"].as_str().unwrap_or("(none)").to_owned();
    let Some(family) = FAMILIES.iter().find(|family| family.model_type == model_type) else {
        return Err(reader.unsupported(&format!(
            "the architecture {model_type:?} is not supported; use a model of type llama, mistral, \
             qwen2 or qwen3"
        )));
    };
    reader.check_options()?;
    let num_heads = reader.size("num_attention_heads")?;
    let head_size = match json.get("head_dim") {
        None | Some(Value::Null) => family.head_size,
        Some(_) => Some(reader.size("head_dim")?),
    };
    let (theta, rope_scaling) = reader.rope()?;
    let config = ModelConfig {
        vocab_size: reader.size("vocab_size")?,
        d_model: reader.size("hidden_size")?,
        num_heads,
        num_kv_heads: match json.get("num_key_value_heads") {
            None => family.num_kv_heads.unwrap_or(num_heads),
            Some(Value::Null) => num_heads,
            Some(_) => reader.size("num_key_value_heads")?,
        },
        d_ff: reader.size("intermediate_size")?,
        num_layers: reader.size("num_hidden_layers")?,
        max_seq_length: reader.context(family)?,
        theta,
        tie_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
        qkv_bias: family.qkv_bias,
        head_size,
        norm_eps: reader.number("rms_norm_eps")?.unwrap_or(1e-6),
        qk_norm: family.qk_norm,
        rope_scaling,
    };
    let config = without_default_head_size(config);
    config.validate()?;
    Ok((config, model_type))
}

struct Reader<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl Reader<'_> {
    fn unsupported(&self, what: &str) -> Error {
        Error::Unsupported(format!("{}: {what}", self.path.display()))
    }

    fn size(&self, name: &str) -> Result<usize> {
        let size = self.json[name].as_u64().and_then(|size| u32::try_from(size).ok());
        match size {
            Some(size) if size > 0 => Ok(size as usize),
            _ => Err(damaged(
                self.path,
                format_args!("{name} is {}, not a positive integer", self.json[name]),
            )),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        number_in(self.json, name)
            .map_err(|value| damaged(self.path, format_args!("{name} is {value}, not a number")))
    }

    /// Rejects options that the engine lacks and that change what the model computes.
    fn check_options(&self) -> Result<()> {
        let json = self.json;
        let activation = json["hidden_act"].as_str().unwrap_or("silu");
        if activation != "silu" && activation != "swish" {
            return Err(self.unsupported(&format!(
                "hidden_act {activation:?} is not supported; only silu is"
            )));
        }
        for name in ["attention_bias", "mlp_bias"] {
            if json[name].as_bool() == Some(true) {
                return Err(self.unsupported(&format!("{name} is not supported")));
            }
        }
        if json.get("quantization_config").is_some_and(|value| !value.is_null()) {
            return Err(
                self.unsupported("quantized weights are not supported; use the original model")
            );
        }
        Ok(())
    }

    /// Returns the context in tokens, limited to the sliding window if there is one. Within that
    /// length attention sees all earlier tokens, with or without the window.
    fn context(&self, family: &Family) -> Result<usize> {
        let context = self.size("max_position_embeddings")?;
        let layer_types = self.json["layer_types"].as_array();
        let slides = match (family.model_type, layer_types) {
            ("llama", _) => false,
            (_, Some(types)) => types.iter().any(|kind| kind == "sliding_attention"),
            ("mistral", None) => true,
            _ => self.json["use_sliding_window"].as_bool() == Some(true),
        };
        if !slides {
            return Ok(context);
        }
        Ok(match self.json.get("sliding_window") {
            Some(Value::Null) => context,
            Some(_) => context.min(self.size("sliding_window")?),
            None => family.sliding_window.map_or(context, |window| context.min(window)),
        })
    }

    /// Returns the base of the rotary angles and their scaling. transformers 5 writes
    /// `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`.
    fn rope(&self) -> Result<(f64, Option<Scaling>)> {
        let parameters = [&self.json["rope_parameters"], &self.json["rope_scaling"]];
        let parameters = parameters.into_iter().find(|value| value.is_object());
        let nothing = Value::Null;
        let parameters = parameters.unwrap_or(&nothing);
        let field = |name: &str| {
            number_in(parameters, name).map_err(|value| {
                damaged(
                    self.path,
                    format_args!("{name} of rope_parameters is {value}, not a number"),
                )
            })
        };
        let theta = match field("rope_theta")? {
            Some(theta) => theta,
            None => self.number("rope_theta")?.unwrap_or(10_000.0),
        };
        let kind = [&parameters["rope_type"], &parameters["type"]];
        match kind.into_iter().find_map(Value::as_str).unwrap_or("default") {
            "default" => Ok((theta, None)),
            "llama3" => {
                let required = |name: &str| {
                    field(name)?.ok_or_else(|| {
                        damaged(self.path, format_args!("rope_parameters lacks {name}"))
                    })
                };
                Ok((
                    theta,
                    Some(Scaling {
                        factor: required("factor")?,
                        low_freq_factor: required("low_freq_factor")?,
                        high_freq_factor: required("high_freq_factor")?,
                        original_max_position_embeddings: required(
                            "original_max_position_embeddings",
                        )?,
                    }),
                ))
            }
            other => Err(self.unsupported(&format!(
                "rope scaling of type {other:?} is not supported; only llama3 is"
            ))),
        }
    }
}

/// Returns the number in a field, or `None` if it is absent or null. The error is a value that is
/// not a number.
fn number_in(json: &Value, name: &str) -> std::result::Result<Option<f64>, Value> {
    match json.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| value.clone()),
    }
}
