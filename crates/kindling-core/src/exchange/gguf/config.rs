//! Converts between a model's configuration and the metadata of a GGUF file.
//!
//! The metadata does not hold the parameters of Llama 3's rotary scaling. Instead the file has the
//! tensor `rope_freqs.weight` (hs / 2), by which the frequencies are divided.
//! Source: `convert_hf_to_gguf.py` of llama.cpp.

use super::read::GgufFile;
use super::value::Value;
use crate::config::ModelConfig;
use crate::exchange::architecture::{architecture_of, without_default_head_size};
use crate::exchange::names::Naming;
use crate::exchange::tensor_files::damaged;
use crate::ops::rope::{Angles, Scaling};
use crate::{Error, Result};

/// The tensor of divisors of the rotary frequencies.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Relative tolerance when factors of a file, which are f32, are compared with those of a scaling.
const FACTOR_TOLERANCE: f64 = 1e-3;

/// Reads the configuration, the architecture, and the naming of the tensors.
///
/// # Errors
/// Returns `ERR_UNSUPPORTED` for an architecture or option that the engine lacks,
/// `ERR_INVALID_MODEL` if a value is missing, `ERR_INVALID_CONFIG` for impossible sizes.
pub fn config_of(gguf: &mut GgufFile) -> Result<(ModelConfig, String, Naming)> {
    let architecture = gguf.text("general.architecture").unwrap_or("(none)").to_owned();
    let naming = match architecture.as_str() {
        "llama" => Naming::GgufPairs,
        "qwen2" | "qwen3" => Naming::GgufHalves,
        other => {
            return Err(unsupported(
                gguf,
                &format!(
                    "the architecture {other:?} is not supported; use a llama (including Mistral \
                     and SmolLM), qwen2 or qwen3 model"
                ),
            ));
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| {
        let value = gguf.integer(&key(name)).and_then(|size| u32::try_from(size).ok());
        value.filter(|size| *size > 0).map(|size| size as usize)
    };
    let required = |name: &str| {
        let missing = format!("{} is missing or not a positive integer", key(name));
        size(name).ok_or_else(|| damaged(gguf.tensors.file(0).0, missing))
    };
    let shape = |name: &str| gguf.tensors.get(name).map(|entry| entry.shape.clone());
    let has = |name: &str| gguf.tensors.get(name).is_some();
    let num_heads = required("attention.head_count")?;
    let head_size = size("attention.key_length");
    let context = required("context_length")?;
    let config = ModelConfig {
        vocab_size: shape("token_embd.weight")
            .and_then(|shape| shape.first().copied())
            .ok_or_else(|| damaged(gguf.tensors.file(0).0, "it has no token_embd.weight"))?,
        d_model: required("embedding_length")?,
        num_heads,
        num_kv_heads: size("attention.head_count_kv").unwrap_or(num_heads),
        d_ff: required("feed_forward_length")?,
        num_layers: required("block_count")?,
        max_seq_length: size("attention.sliding_window").map_or(context, |w| w.min(context)),
        theta: gguf.float(&key("rope.freq_base")).unwrap_or(10_000.0),
        tie_embeddings: !has("output.weight"),
        qkv_bias: has("blk.0.attn_q.bias"),
        head_size,
        norm_eps: gguf.float(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-6),
        qk_norm: has("blk.0.attn_q_norm.weight"),
        rope_scaling: None,
    };
    let config = without_default_head_size(config);
    config.validate()?;
    check_options(gguf, &architecture, &config)?;
    let rope_scaling = scaling_of(gguf, &config)?;
    Ok((ModelConfig { rope_scaling, ..config }, architecture, naming))
}

fn unsupported(gguf: &GgufFile, what: &str) -> Error {
    Error::Unsupported(format!("{}: {what}", gguf.tensors.file(0).0.display()))
}

/// Rejects options that the engine lacks and that change what the model computes.
fn check_options(gguf: &GgufFile, architecture: &str, config: &ModelConfig) -> Result<()> {
    let key = |name: &str| format!("{architecture}.{name}");
    for name in ["attention.value_length", "rope.dimension_count"] {
        let size = gguf.integer(&key(name));
        if size.is_some_and(|size| size != config.head_size() as i64) {
            return Err(unsupported(
                gguf,
                &format!("{name} differs from the head size, which is not supported"),
            ));
        }
    }
    let scaling = gguf.text(&key("rope.scaling.type")).unwrap_or("none");
    if scaling != "none" {
        return Err(unsupported(
            gguf,
            &format!("rope scaling of type {scaling:?} is not supported"),
        ));
    }
    if gguf.integer(&key("expert_count")).is_some_and(|experts| experts > 0) {
        return Err(unsupported(gguf, "mixture-of-experts models are not supported"));
    }
    Ok(())
}

/// Finds the rotary scaling that yields the file's factors: that of Llama 3.1 and 3.2, by any
/// factor.
fn scaling_of(gguf: &mut GgufFile, config: &ModelConfig) -> Result<Option<Scaling>> {
    if gguf.tensors.get(ROPE_FACTORS).is_none() {
        return Ok(None);
    }
    let factors = gguf.tensors.read(ROPE_FACTORS)?;
    if factors.iter().all(|factor| *factor == 1.0) {
        return Ok(None);
    }
    let scaling = Scaling {
        factor: factors.iter().fold(0.0, |largest: f64, factor| largest.max(f64::from(*factor))),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192.0,
    };
    let expected = rope_factors(&ModelConfig { rope_scaling: Some(scaling), ..config.clone() });
    let is_same = factors.len() == expected.len()
        && factors.iter().zip(&expected).all(|(factor, expected)| {
            (f64::from(*factor) / f64::from(*expected) - 1.0).abs() < FACTOR_TOLERANCE
        });
    if is_same {
        return Ok(Some(scaling));
    }
    Err(unsupported(
        gguf,
        "rope_freqs.weight does not match the RoPE scaling of Llama 3.1 or 3.2; import the Hugging \
         Face folder",
    ))
}

/// Returns the divisors of the rotary frequencies of a scaled model (hs / 2).
pub fn rope_factors(config: &ModelConfig) -> Vec<f32> {
    let scaled = config.angles().frequencies();
    let plain = Angles { scaling: None, ..config.angles() }.frequencies();
    let factors = plain.iter().zip(&scaled).map(|(plain, scaled)| (plain / scaled) as f32);
    factors.step_by(2).collect()
}

/// The metadata that describes a model.
pub struct ModelMetadata {
    pub architecture: &'static str,
    pub naming: Naming,
    pub sizes: Vec<(String, Value)>,
}

/// Returns the metadata that describes a model.
///
/// # Errors
/// Returns `ERR_UNSUPPORTED` for a combination of options that no architecture has.
pub fn metadata_of(config: &ModelConfig) -> Result<ModelMetadata> {
    let (architecture, _) = architecture_of(config)?;
    let naming = if architecture == "llama" { Naming::GgufPairs } else { Naming::GgufHalves };
    let size = |value: usize| Value::Integer(value as i128);
    let values = [
        ("vocab_size", size(config.vocab_size)),
        ("context_length", size(config.max_seq_length)),
        ("embedding_length", size(config.d_model)),
        ("block_count", size(config.num_layers)),
        ("feed_forward_length", size(config.d_ff)),
        ("attention.head_count", size(config.num_heads)),
        ("attention.head_count_kv", size(config.num_kv_heads)),
        ("attention.key_length", size(config.head_size())),
        ("attention.value_length", size(config.head_size())),
        ("rope.dimension_count", size(config.head_size())),
        ("attention.layer_norm_rms_epsilon", Value::Float(config.norm_eps)),
        ("rope.freq_base", Value::Float(config.theta)),
    ];
    let named = values.into_iter().map(|(name, value)| (format!("{architecture}.{name}"), value));
    Ok(ModelMetadata { architecture, naming, sizes: named.collect() })
}
