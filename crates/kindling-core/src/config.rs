//! Shape of the model: a decoder-only Transformer of the Llama family.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Limits that keep every product of sizes inside 64 bits. 2^44 parameters take 64 TiB.
const MAX_PARAMETERS: u128 = 1 << 44;
const MAX_POSITIONS: usize = 1 << 24;
/// Every block has some memory of its own, whatever its sizes.
const MAX_LAYERS: usize = 1 << 14;

/// Sizes of the model. The defaults are in the TypeScript schema of options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads; the head size is `d_model / num_heads`.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
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
}

impl ModelConfig {
    pub fn head_size(&self) -> usize {
        self.d_model / self.num_heads
    }

    /// Returns the rows of the fused query, key and value matrix: (`num_heads` + 2 `num_kv_heads`)
    /// `head_size`.
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_size()
    }

    /// Returns the number of elements of all matrices, untied, in an integer that cannot overflow.
    fn matrix_elements(&self) -> u128 {
        let [v, c, f, l] =
            [self.vocab_size, self.d_model, self.d_ff, self.num_layers].map(|size| size as u128);
        2 * v * c + l * (4 * c * c + 3 * c * f)
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
        if !self.d_model.is_multiple_of(self.num_heads) {
            return fail(format!(
                "d_model {} is not divisible by num_heads {}; choose a multiple",
                self.d_model, self.num_heads
            ));
        }
        if !self.head_size().is_multiple_of(2) {
            return fail(format!(
                "head size {} (d_model / num_heads) is odd; rotary embeddings need an even one",
                self.head_size()
            ));
        }
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
        Ok(())
    }
}
