//! Sizes and options of the model, a decoder-only Transformer of the Llama family.

use serde::{Deserialize, Serialize};

use crate::ops::rope::{Angles, Scaling};
use crate::{Error, Result};

/// Limits that keep every product of sizes within 64 bits. 2^44 parameters take 64 TiB.
const MAX_PARAMETERS: u128 = 1 << 44;
const MAX_POSITIONS: usize = 1 << 24;
/// A limit of its own, since every block takes some memory, whatever its sizes.
const MAX_LAYERS: usize = 1 << 14;

/// Sizes and options of a model. The defaults are in the TypeScript schema of options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads, a divisor of `num_heads`.
    pub num_kv_heads: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Longest context, in tokens.
    pub max_seq_length: usize,
    /// Base of the angles of rotary position embeddings.
    pub theta: f64,
    /// Uses the embedding matrix as the output layer.
    pub tie_embeddings: bool,
    /// Gives the query, key and value projections a bias.
    pub qkv_bias: bool,
    /// Width of a head, even; `d_model / num_heads` if absent.
    #[serde(default)]
    pub head_size: Option<usize>,
    /// Added to the mean square in every `RMSNorm`.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f64,
    /// Norms each query and key over its head, before the rotation.
    #[serde(default)]
    pub qk_norm: bool,
    /// Scales the rotary angles for contexts longer than those of pretraining.
    #[serde(default)]
    pub rope_scaling: Option<Scaling>,
}

fn default_norm_eps() -> f64 {
    ModelConfig::PLAIN.norm_eps
}

impl ModelConfig {
    /// A configuration without options and with all sizes 0, as the base of a struct update.
    pub const PLAIN: Self = Self {
        vocab_size: 0,
        d_model: 0,
        num_heads: 0,
        num_kv_heads: 0,
        d_ff: 0,
        num_layers: 0,
        max_seq_length: 0,
        theta: 100_000.0,
        tie_embeddings: false,
        qkv_bias: false,
        head_size: None,
        norm_eps: 1e-5,
        qk_norm: false,
        rope_scaling: None,
    };

    pub fn head_size(&self) -> usize {
        let even_share = || self.d_model.checked_div(self.num_heads).unwrap_or(0);
        self.head_size.unwrap_or_else(even_share)
    }

    /// Returns the angles of the rotary position embeddings.
    pub fn angles(&self) -> Angles {
        Angles { head_size: self.head_size(), theta: self.theta, scaling: self.rope_scaling }
    }

    /// Returns the width of the heads' outputs, `num_heads` `head_size`.
    pub fn heads_width(&self) -> usize {
        self.num_heads * self.head_size()
    }

    /// Returns the width of queries and keys, (`num_heads` + `num_kv_heads`) `head_size`.
    pub fn qk_width(&self) -> usize {
        (self.num_heads + self.num_kv_heads) * self.head_size()
    }

    /// Returns the rows of the fused query, key and value matrix: (`num_heads` + 2 `num_kv_heads`)
    /// `head_size`.
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_size()
    }

    /// Returns the number of elements of all matrices, with an untied output layer. 128 bits cannot
    /// overflow.
    fn matrix_elements(&self) -> u128 {
        let [v, c, f, l] =
            [self.vocab_size, self.d_model, self.d_ff, self.num_layers].map(|size| size as u128);
        let [heads, head_size] = [self.num_heads, self.head_size()].map(|size| size as u128);
        2 * v * c + l * (4 * c * heads.saturating_mul(head_size) + 3 * c * f)
    }

    /// Checks that a model of these sizes can be built.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_CONFIG` naming the field, its value and the requirement.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::InvalidConfig(message));
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("num_heads", self.num_heads),
            ("num_kv_heads", self.num_kv_heads),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("max_seq_length", self.max_seq_length),
        ] {
            if value == 0 {
                return fail(format!("{name} must be at least 1"));
            }
        }
        self.check_head_size()?;
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return fail(format!(
                "num_heads {} is not divisible by num_kv_heads {}; choose a divisor",
                self.num_heads, self.num_kv_heads
            ));
        }
        if self.num_layers > MAX_LAYERS {
            return fail(format!(
                "num_layers is {}; it must be at most {MAX_LAYERS}",
                self.num_layers
            ));
        }
        if self.matrix_elements() > MAX_PARAMETERS || self.max_seq_length > MAX_POSITIONS {
            return fail(format!(
                "the model is too large: {} parameters, max_seq_length {}; choose smaller sizes",
                self.matrix_elements(),
                self.max_seq_length
            ));
        }
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return fail(format!("theta is {}; it must be a positive number", self.theta));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return fail(format!("norm_eps is {}; it must be a positive number", self.norm_eps));
        }
        match &self.rope_scaling {
            Some(scaling) => scaling.check().map_err(Error::InvalidConfig),
            None => Ok(()),
        }
    }

    fn check_head_size(&self) -> Result<()> {
        let fail = |message: String| Err(Error::InvalidConfig(message));
        if self.head_size.is_none() && !self.d_model.is_multiple_of(self.num_heads) {
            return fail(format!(
                "d_model {} is not divisible by num_heads {}; choose a multiple, or give head_size",
                self.d_model, self.num_heads
            ));
        }
        let size = self.head_size();
        if size == 0 || !size.is_multiple_of(2) {
            let from = if self.head_size.is_none() { " (d_model / num_heads)" } else { "" };
            return fail(format!(
                "head size {size}{from} is 0 or odd; rotary embeddings need an even one"
            ));
        }
        Ok(())
    }
}
