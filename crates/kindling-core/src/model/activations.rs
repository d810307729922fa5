//! Memory of one pass, allocated for the largest batch seen and kept: what the backward pass needs of each block, and the
//! gradients that all blocks share. n = b t rows.

use crate::Result;
use crate::buffer::Buffer;
use crate::config::ModelConfig;
use crate::device::Device;

/// What one block keeps for its backward pass.
#[derive(Debug)]
pub struct BlockActivations {
    /// The residual stream on entry (n, c).
    pub input: Buffer,
    /// Inverse root mean square before attention (n).
    pub rstd_attn: Buffer,
    /// Normed input (n, c).
    pub normed_attn: Buffer,
    /// Queries, keys, values after rotation (n, (nh + 2 nkv) hs).
    pub qkv: Buffer,
    /// Log-sum-exp of each query (b, nh, t).
    pub lse: Buffer,
    /// Heads' outputs (n, nh hs).
    pub attention: Buffer,
    /// The residual stream after attention (n, c).
    pub middle: Buffer,
    /// Inverse root mean square before the feed-forward layer (n).
    pub rstd_ff: Buffer,
    /// Normed middle (n, c).
    pub normed_ff: Buffer,
    /// w1 x | w3 x (n, 2 f).
    pub gate_up: Buffer,
    /// Gated (n, f).
    pub hidden: Buffer,
}

/// Memory of one pass through the model.
#[derive(Debug)]
pub struct Activations {
    /// Rows there is room for.
    pub rows: usize,
    /// The blocks'.
    pub blocks: Vec<BlockActivations>,
    /// A layer's output before it joins the residual stream (n, c).
    pub branch: Buffer,
    /// The residual stream on leaving the last block (n, c).
    pub last: Buffer,
    /// Its inverse root mean square (n).
    pub rstd_last: Buffer,
    /// Its norm, input of the output layer (n, c).
    pub normed_last: Buffer,
    /// Memory only the backward pass needs.
    pub gradients: Option<GradientActivations>,
}

/// Gradients of activations, shared by all blocks.
#[derive(Debug)]
pub struct GradientActivations {
    /// Of the residual stream (n, c).
    pub stream: Buffer,
    /// Of the residual stream in the middle of a block (n, c).
    pub middle: Buffer,
    /// Of a normed input (n, c).
    pub normed: Buffer,
    /// Of the heads' outputs (n, nh hs).
    pub attention: Buffer,
    /// Of queries, keys and values (n, (nh + 2 nkv) hs).
    pub qkv: Buffer,
    /// Of w1 x | w3 x (n, 2 f).
    pub gate_up: Buffer,
    /// Of the gated (n, f).
    pub hidden: Buffer,
}

impl Activations {
    /// Memory for `rows` rows.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn new(device: &Device, config: &ModelConfig, rows: usize) -> Result<Self> {
        let zeros = |width: usize| Buffer::zeros(device, rows * width);
        let (c, f) = (config.d_model, config.d_ff);
        let blocks = (0..config.num_layers)
            .map(|_| {
                Ok(BlockActivations {
                    input: zeros(c)?,
                    rstd_attn: zeros(1)?,
                    normed_attn: zeros(c)?,
                    qkv: zeros(config.qkv_width())?,
                    lse: zeros(config.num_heads)?,
                    attention: zeros(c)?,
                    middle: zeros(c)?,
                    rstd_ff: zeros(1)?,
                    normed_ff: zeros(c)?,
                    gate_up: zeros(2 * f)?,
                    hidden: zeros(f)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            rows,
            blocks,
            branch: zeros(c)?,
            last: zeros(c)?,
            rstd_last: zeros(1)?,
            normed_last: zeros(c)?,
            gradients: None,
        })
    }

    /// Makes sure that the backward pass has its memory.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`.
    pub fn reserve_gradients(&mut self, device: &Device, config: &ModelConfig) -> Result<()> {
        if self.gradients.is_some() {
            return Ok(());
        }
        let rows = self.rows;
        let zeros = |width: usize| Buffer::zeros(device, rows * width);
        let (c, f) = (config.d_model, config.d_ff);
        self.gradients = Some(GradientActivations {
            stream: zeros(c)?,
            middle: zeros(c)?,
            normed: zeros(c)?,
            attention: zeros(c)?,
            qkv: zeros(config.qkv_width())?,
            gate_up: zeros(2 * f)?,
            hidden: zeros(f)?,
        });
        Ok(())
    }
}
