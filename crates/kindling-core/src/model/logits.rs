//! Passes that return logits: whole sequences, prompts and decode steps.

use super::activations::Saved;
use super::forward::CacheUse;
use super::kv_cache::{CacheStep, KvCache};
use super::pass::{Pass, PassContext};
use super::transformer::{Transformer, no_activations};
use crate::Result;
use crate::buffer::{Buffer, In, zeroed_vec};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::linear;
use crate::ops::matmul::packed;

impl Transformer {
    /// Returns the logits of every position of one sequence: (positions, `vocab_size`).
    ///
    /// # Errors
    /// Returns `ERR_TOKEN_OUT_OF_RANGE`, or `ERR_INVALID_ARGUMENT` (no token, or more than
    /// `max_seq_length`).
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.all_logits(ids, Pass { batch: 1, positions: ids.len() }, Saved::Nothing)
    }

    /// Returns the logits of every token (n, v), and leaves the activations that `saved` names in
    /// memory.
    pub(super) fn all_logits(&mut self, ids: &[u32], pass: Pass, saved: Saved) -> Result<Vec<f32>> {
        self.prepare(ids, pass, saved)?;
        self.run_forward(ids, pass, CacheUse::None)?;
        let mut logits = zeroed_vec(ids.len() * self.config.vocab_size)?;
        let activations = self.activations.as_ref().ok_or_else(no_activations)?;
        let hidden = activations.normed.slice(0..ids.len() * self.config.d_model);
        self.output_layer(&self.context(false), &mut logits, hidden)?;
        Ok(logits)
    }

    /// Runs a whole pass over the one sequence `ids`, and writes the logits after its last token
    /// (v).
    ///
    /// The keys and values go to the given row of the cache, if any.
    pub(crate) fn prefill(
        &mut self,
        ids: &[u32],
        logits: &mut [f32],
        cache: Option<(&mut KvCache, usize)>,
    ) -> Result<()> {
        let pass = Pass { batch: 1, positions: ids.len() };
        self.prepare(ids, pass, Saved::Nothing)?;
        self.reserve_decode_weights();
        self.run_forward(ids, pass, CacheUse::Prefill(cache))?;
        let activations = self.activations.as_ref().ok_or_else(no_activations)?;
        let last = activations.normed.slice(0..self.config.d_model);
        self.output_layer(&self.context(true), logits, last)
    }

    /// Runs one decode step: `ids` are the next tokens of the rows of `step`. Writes the logits
    /// after each (number of ids, v).
    pub(crate) fn decode_step(
        &mut self,
        ids: &[u32],
        logits: &mut [f32],
        step: CacheStep,
    ) -> Result<()> {
        let pass = Pass { batch: ids.len(), positions: 1 };
        self.prepare(ids, pass, Saved::Nothing)?;
        self.reserve_decode_weights();
        self.run_forward(ids, pass, CacheUse::Step(step))?;
        let activations = self.activations.as_ref().ok_or_else(no_activations)?;
        let hidden = activations.normed.slice(0..ids.len() * self.config.d_model);
        self.output_layer(&self.context(true), logits, hidden)
    }

    /// Computes logits (rows, v) = hidden (rows, c) W^T, where W is the output layer's weight.
    fn output_layer(&self, context: &PassContext, logits: &mut [f32], hidden: In) -> Result<()> {
        let (inputs, outputs) = (self.config.d_model, self.config.vocab_size);
        let shape = linear::Shape { rows: hidden.len() / inputs, inputs, outputs };
        let range = &self.layout.output;
        match &self.device {
            Device::Cpu(_) => context.linear(logits.into(), hidden, range, None, shape),
            Device::Cuda(gpu) => {
                // Logits are f32, whatever dtype the product reads.
                let mut scores = Buffer::zeros(&self.device, logits.len())?;
                context.linear(scores.view_mut(), hidden, range, None, shape)?;
                gpu.download(logits, scores.view().pointer())
            }
        }
    }

    /// Rounds the weights to bf16 for decode steps, if the CPU's products are in bf16.
    fn reserve_decode_weights(&mut self) {
        let Device::Cpu(cpu) = &self.device else { return };
        if self.decode_weights_bf16.is_none() && cpu.matmul.dtype() != Dtype::F32 {
            self.decode_weights_bf16 = Some(packed::round_to_bf16(&cpu.pool, self.weights.host()));
        }
    }
}
