//! Options of a model, as JavaScript gives them.

use kindling_core::Result;
use kindling_core::config::ModelConfig;
use kindling_core::ops::rope::Scaling;

use crate::options::size;

/// Scaling of the rotary angles, as documented in `src/transformer-options.ts`.
#[napi(object)]
pub struct RopeScaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: f64,
}

impl From<&RopeScaling> for Scaling {
    fn from(scaling: &RopeScaling) -> Self {
        Self {
            factor: scaling.factor,
            low_freq_factor: scaling.low_freq_factor,
            high_freq_factor: scaling.high_freq_factor,
            original_max_position_embeddings: scaling.original_max_position_embeddings,
        }
    }
}

/// Sizes and options of a model, as documented in `src/transformer-options.ts`, with the defaults
/// filled in.
#[allow(clippy::struct_excessive_bools, reason = "independent options of the JavaScript API")]
#[napi(object)]
pub struct TransformerOptions {
    pub vocab_size: f64,
    pub d_model: f64,
    pub num_heads: f64,
    pub d_ff: f64,
    pub num_layers: f64,
    pub max_seq_length: f64,
    pub theta: f64,
    pub num_kv_heads: f64,
    pub tie_embeddings: bool,
    pub qkv_bias: bool,
    pub head_size: Option<f64>,
    pub norm_eps: f64,
    pub qk_norm: bool,
    pub rope_scaling: Option<RopeScaling>,
    pub device: String,
    pub seed: f64,
    pub dtype: String,
    pub tf32: bool,
    pub threads: f64,
    pub recompute: bool,
    pub detect_anomaly: bool,
}

impl TransformerOptions {
    pub fn config(&self) -> Result<ModelConfig> {
        let config = ModelConfig {
            vocab_size: size("vocabSize", self.vocab_size)?,
            d_model: size("dModel", self.d_model)?,
            num_heads: size("numHeads", self.num_heads)?,
            num_kv_heads: size("numKvHeads", self.num_kv_heads)?,
            d_ff: size("dFf", self.d_ff)?,
            num_layers: size("numLayers", self.num_layers)?,
            max_seq_length: size("maxSeqLength", self.max_seq_length)?,
            theta: self.theta,
            tie_embeddings: self.tie_embeddings,
            qkv_bias: self.qkv_bias,
            head_size: self.head_size.map(|value| size("headSize", value)).transpose()?,
            norm_eps: self.norm_eps,
            qk_norm: self.qk_norm,
            rope_scaling: self.rope_scaling.as_ref().map(Scaling::from),
        };
        config.validate()?;
        Ok(config)
    }
}
