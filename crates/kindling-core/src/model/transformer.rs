//! The model object: configuration, weights, gradients, and the passes over them.

use super::activations::{Activations, Kept};
use super::forward::CacheUse;
use super::gradient_norm::GradientNorm;
use super::params::{Layout, Parameter};
use super::{forward, init};
use crate::buffer::{Buffer, In};
use crate::config::ModelConfig;
use crate::decode::{CacheStep, KvCache};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::LossSum;
use crate::ops::matmul::packed;
use crate::ops::{check_ids, check_targets, linear, output_loss, rope};
use crate::{Error, Result};

/// A decoder-only Transformer on one device.
///
/// x -> embedding -> blocks of (x + attention(norm(x)), x + ffn(norm(x))) -> norm -> output layer.
#[derive(Debug)]
pub struct Transformer {
    pub(super) config: ModelConfig,
    pub(super) device: Device,
    pub(super) layout: Layout,
    pub(super) weights: Buffer,
    /// The weights as products take them, on a device where that is not f32.
    pub(super) operands: Option<Buffer>,
    /// The weights as bf16 on the CPU, while tokens are decoded one at a time with such products.
    pub(super) narrow: Option<Vec<u16>>,
    pub(super) gradients: Buffer,
    pub(super) cos: Buffer,
    pub(super) sin: Buffer,
    pub(super) activations: Option<Activations>,
    pub(super) scratch: output_loss::Scratch,
    recompute: bool,
    pub(super) norm: GradientNorm,
}

/// Sizes of one pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub batch: usize,
    pub positions: usize,
}

impl Pass {
    pub(crate) fn rows(self) -> usize {
        self.batch * self.positions
    }
}

impl Transformer {
    /// A model with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` when the shape cannot be built, `ERR_OUT_OF_MEMORY`.
    pub fn new(config: ModelConfig, device: Device, seed: u64) -> Result<Self> {
        config.validate()?;
        let layout = Layout::new(&config);
        let mut weights = Buffer::zeros(&device, layout.len)?;
        weights.write(|weights| init::fill(&device.host().pool, weights, &layout, seed))?;
        let operands = match &device {
            Device::Cuda(gpu) if gpu.arithmetic.dtype != Dtype::F32 => {
                Some(Buffer::zeros_of(&device, layout.len, gpu.arithmetic.dtype)?)
            }
            _ => None,
        };
        let gradients = Buffer::zeros(&device, layout.len)?;
        let (cos, sin) = rope::tables(config.max_seq_length, config.head_size(), config.theta);
        let (cos, sin) = (Buffer::of(&device, &cos)?, Buffer::of(&device, &sin)?);
        let norm = GradientNorm::new(&device)?;
        let scratch = output_loss::Scratch::default();
        let mut model = Self {
            config,
            device,
            layout,
            weights,
            operands,
            narrow: None,
            gradients,
            cos,
            sin,
            activations: None,
            scratch,
            recompute: false,
            norm,
        };
        model.round_weights()?;
        Ok(model)
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Keeps only the residual stream on entry of each block for the backward pass, which runs each block's forward pass
    /// again: the same gradients, bit for bit, in less memory and more time.
    pub fn set_recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
        self.activations = None;
    }

    /// Every named tensor, in memory order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.layout.parameters
    }

    /// Number of parameters; a tied output layer counts once.
    pub fn num_parameters(&self) -> usize {
        self.layout.len
    }

    /// Makes what products read of the weights anew.
    pub(super) fn round_weights(&mut self) -> Result<()> {
        if let (Some(operands), Device::Cuda(gpu)) = (&mut self.operands, &self.device) {
            let (to, from) = (operands.view_mut().pointer(), self.weights.view().pointer());
            gpu.cast(gpu.arithmetic.dtype, to, from, self.layout.len)?;
        }
        Ok(())
    }

    /// Adds the gradients of scale x (mean loss of the batch) to the gradients; gives the losses.
    ///
    /// x: token ids (batch x positions); targets: the tokens that follow, -100 where ignored.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH`, `ERR_TOKEN_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT` (more positions than `max_seq_length`), all
    /// before anything is changed.
    pub fn forward_backward(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
        scale: f32,
    ) -> Result<LossSum> {
        let losses = self.both_passes(x, targets, batch, positions, scale, true)?;
        self.check_updates()?;
        losses.ok_or_else(no_pass)
    }

    /// As `forward_backward`, but the losses are added to those that `take_losses` gives, so that nothing waits for a
    /// device.
    ///
    /// # Errors
    /// As `forward_backward`.
    pub fn accumulate(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
        scale: f32,
    ) -> Result<()> {
        self.both_passes(x, targets, batch, positions, scale, false).map(drop)
    }

    /// The losses that `accumulate` has added up since they were last taken. Waits for the device.
    ///
    /// # Errors
    /// `ERR_DEVICE`; `ERR_NON_FINITE` where an update that nobody waited for was not made for that.
    pub fn take_losses(&mut self) -> Result<LossSum> {
        self.check_updates()?;
        self.scratch.take_unread(&self.device)
    }

    fn both_passes(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
        scale: f32,
        read: bool,
    ) -> Result<Option<LossSum>> {
        let kept = if self.recompute { Kept::Streams } else { Kept::Blocks };
        let pass = self.prepare(x, batch, positions, kept)?;
        self.check_targets(targets, pass)?;
        self.gradients_change()?;
        self.forward_hidden(x, pass, CacheUse::None)?;
        self.backward(x, targets, pass, scale, read)
    }

    /// The losses of a batch; nothing is kept for a backward pass.
    ///
    /// # Errors
    /// As `forward_backward`.
    pub fn loss(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
    ) -> Result<LossSum> {
        let pass = self.prepare(x, batch, positions, Kept::Nothing)?;
        self.check_targets(targets, pass)?;
        self.forward_hidden(x, pass, CacheUse::None)?;
        let c = self.config.d_model;
        let s = output_loss::Shape {
            rows: pass.rows(),
            d_model: c,
            vocab_size: self.config.vocab_size,
        };
        let activations = self.activations.as_ref().ok_or_else(no_pass)?;
        let x = activations.normed.slice(0..pass.rows() * c);
        let weight =
            self.operands.as_ref().unwrap_or(&self.weights).slice(self.layout.output.clone());
        output_loss::forward(&self.device, x, weight, targets, s, &mut self.scratch)
    }

    /// Scores of every position of one sequence: (positions, `vocab_size`).
    ///
    /// # Errors
    /// `ERR_TOKEN_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT` (no token, or more than `max_seq_length`).
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let pass = self.prepare(ids, 1, ids.len(), Kept::Nothing)?;
        self.forward_hidden(ids, pass, CacheUse::None)?;
        let c = self.config.d_model;
        let mut logits = vec![0.0; ids.len() * self.config.vocab_size];
        let activations = self.activations.as_ref().ok_or_else(no_pass)?;
        let hidden = activations.normed.slice(0..ids.len() * c);
        self.output_layer(&mut logits, hidden, ids.len(), false)?;
        Ok(logits)
    }

    /// Scores of `rows` rows of normed hidden states (rows, c).
    fn output_layer(
        &self,
        logits: &mut [f32],
        hidden: In,
        rows: usize,
        narrow: bool,
    ) -> Result<()> {
        let s =
            linear::Shape { rows, inputs: self.config.d_model, outputs: self.config.vocab_size };
        let range = &self.layout.output;
        match &self.device {
            Device::Cpu(_) => self.context(narrow).linear(logits.into(), hidden, range, None, s),
            Device::Cuda(gpu) => {
                // Sums are f32, whatever the operands.
                let mut scores = Buffer::zeros(&self.device, logits.len())?;
                self.context(false).linear(scores.view_mut(), hidden, range, None, s)?;
                gpu.download(logits, scores.view().pointer())
            }
        }
    }

    /// What a pass reads, with the bf16 weights where it is `narrow` and there are any.
    fn context(&self, narrow: bool) -> forward::Context<'_> {
        forward::Context {
            device: &self.device,
            config: &self.config,
            layout: &self.layout,
            weights: &self.weights,
            operands: self.operands.as_ref(),
            narrow: self.narrow.as_deref().filter(|_| narrow),
            cos: &self.cos,
            sin: &self.sin,
        }
    }

    /// Scores after the last of `ids`, one sequence: `logits` (v). Its keys and values go to a row of `cache`.
    pub(crate) fn last_scores(
        &mut self,
        ids: &[u32],
        logits: &mut [f32],
        cache: Option<(&mut KvCache, usize)>,
    ) -> Result<()> {
        let pass = self.prepare(ids, 1, ids.len(), Kept::Nothing)?;
        self.forward_hidden(
            ids,
            pass,
            cache.map_or(CacheUse::None, |(cache, row)| CacheUse::Fill(cache, row)),
        )?;
        let activations = self.activations.as_ref().ok_or_else(no_pass)?;
        let c = self.config.d_model;
        self.output_layer(
            logits,
            activations.normed.slice((ids.len() - 1) * c..ids.len() * c),
            1,
            true,
        )
    }

    /// Scores after each of `ids`, the next tokens of the rows of `step`: `logits` (ids, v).
    pub(crate) fn cached_scores(
        &mut self,
        ids: &[u32],
        logits: &mut [f32],
        step: CacheStep,
    ) -> Result<()> {
        let pass = self.prepare(ids, ids.len(), 1, Kept::Nothing)?;
        self.reserve_narrow();
        self.forward_hidden(ids, pass, CacheUse::Step(step))?;
        let activations = self.activations.as_ref().ok_or_else(no_pass)?;
        let hidden = activations.normed.slice(0..ids.len() * self.config.d_model);
        self.output_layer(logits, hidden, ids.len(), true)
    }

    /// Runs the blocks; the norm of the last stream is left in the activations.
    fn forward_hidden(&mut self, x: &[u32], pass: Pass, cache: CacheUse) -> Result<()> {
        let mut activations = self.activations.take().ok_or_else(no_pass)?;
        let narrow = matches!(cache, CacheUse::Step(_));
        let result = forward::run(&self.context(narrow), &mut activations, x, pass, cache);
        self.activations = Some(activations);
        result
    }

    /// Keeps the weights as bf16 too, where products are in bf16, until they change.
    fn reserve_narrow(&mut self) {
        let Device::Cpu(cpu) = &self.device else { return };
        if self.narrow.is_none() && cpu.matmul.dtype() != Dtype::F32 {
            self.narrow = Some(packed::rounded(&cpu.pool, self.weights.host()));
        }
    }

    /// Checks the ids and makes room for the pass.
    fn prepare(&mut self, x: &[u32], batch: usize, positions: usize, kept: Kept) -> Result<Pass> {
        let pass = Pass { batch, positions };
        if pass.rows() == 0 {
            return Err(Error::argument("a pass needs at least one token"));
        }
        if positions > self.config.max_seq_length {
            return Err(Error::argument(format!(
                "{positions} positions are more than the model's max_seq_length {}",
                self.config.max_seq_length
            )));
        }
        crate::ops::check("Transformer", "x", pass.rows(), x.len())?;
        check_ids(x, self.config.vocab_size)?;
        if self.activations.as_ref().is_none_or(|a| a.rows < pass.rows() || a.kept < kept) {
            // The old memory goes first, so that both are never held at once.
            self.activations = None;
            self.activations =
                Some(Activations::new(&self.device, &self.config, pass.rows(), kept)?);
        }
        Ok(pass)
    }

    fn check_targets(&self, targets: &[i32], pass: Pass) -> Result<()> {
        crate::ops::check("Transformer", "targets", pass.rows(), targets.len())?;
        check_targets(targets, self.config.vocab_size).map(|_| ())
    }
}

pub(super) fn no_pass() -> Error {
    Error::Internal("a pass began without its memory".to_owned())
}
