//! The model object: configuration, weights, gradients, and the passes over them.

use super::activations::{Activations, Saved};
use super::anomaly::op_of;
use super::forward::CacheUse;
use super::frozen::Frozen;
use super::gradient_norm::GradientNorm;
use super::gradients::Gradients;
use super::memory_plan::{MemoryPlan, PlannedDevice};
use super::params::{Layout, Parameter};
use super::pass::{Pass, PassContext, PendingBatch, Shapes};
use super::{backward, forward, init};
use crate::buffer::Buffer;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::ops::cross_entropy::LossSum;
use crate::ops::{check_ids, check_targets, output_loss, rope};
use crate::{Error, Result, available_memory};

/// A decoder-only Transformer on one device.
///
/// x -> embedding -> blocks of (x + attention(norm(x)), x + ffn(norm(x))) -> norm -> output layer.
#[derive(Debug)]
pub struct Transformer {
    pub(super) config: ModelConfig,
    pub(super) device: Device,
    /// Ranges of the parameters in `weights` and `gradients`.
    pub(super) layout: Layout,
    /// Every parameter (`layout.len`), f32.
    pub(super) weights: Buffer,
    /// On a bf16 device: `weights` rounded to bf16, as matrix products read them (`layout.len`).
    pub(super) weights_bf16: Option<Buffer>,
    /// On the CPU with bf16 products: `weights` rounded to bf16 for decode steps (`layout.len`),
    /// dropped when they change.
    pub(super) decode_weights_bf16: Option<Vec<u16>>,
    /// Gradients of every parameter (`layout.len`), f32.
    pub(super) gradients: Gradients,
    /// Norm of `gradients`, and clipping that has yet to be applied.
    pub(super) norm: GradientNorm,
    /// Cosines of the rotation angles (`max_seq_length`, hs).
    cos: Buffer,
    /// Sines of the rotation angles (`max_seq_length`, hs).
    sin: Buffer,
    /// Buffers of the passes; `None` until the first one.
    pub(super) activations: Option<Activations>,
    /// A block of logits, and the losses that have not been read yet.
    pub(super) scratch: output_loss::Scratch,
    recompute: bool,
    detect_anomaly: bool,
    /// The op whose output stopped the last pass; see `anomaly`.
    non_finite_op: Option<String>,
    pub(super) frozen: Frozen,
    /// The batch of `forward` whose activations wait for `backward`.
    pub(super) pending: Option<PendingBatch>,
}

impl Transformer {
    /// Builds a model with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_CONFIG` if the shape is invalid, `ERR_OUT_OF_MEMORY` if the device has
    /// too little memory.
    pub fn new(config: ModelConfig, device: Device, seed: u64) -> Result<Self> {
        let mut model = Self::allocate(config, device, false)?;
        let (pool, layout) = (&model.device.host().pool, &model.layout);
        model.weights.write(|weights| init::fill(pool, weights, layout, seed))?;
        model.refresh_bf16_weights()?;
        Ok(model)
    }

    /// Builds a model whose weights are about to be loaded: they are zeros, and gradients take
    /// memory when they are first needed.
    ///
    /// # Errors
    /// As `new`.
    pub fn blank(config: ModelConfig, device: Device) -> Result<Self> {
        Self::allocate(config, device, true)
    }

    /// Allocates a model whose weights are all zero, with its gradients unless they are deferred.
    fn allocate(config: ModelConfig, device: Device, defers_gradients: bool) -> Result<Self> {
        config.validate()?;
        let layout = Layout::new(&config);
        if let Device::Cpu(_) = &device {
            // Required as one sum before any memory is touched: weights, gradients, two rotation
            // tables.
            let copies = if defers_gradients { 1 } else { 2 };
            let tables = 2 * (config.max_seq_length * config.head_size()) as u64;
            let elements = copies * layout.len as u64 + tables;
            available_memory::require(size_of::<f32>() as u64 * elements)?;
        }
        let weights = Buffer::zeros(&device, layout.len)?;
        let weights_bf16 = match &device {
            Device::Cuda(gpu) if gpu.arithmetic.dtype != Dtype::F32 => {
                Some(Buffer::zeros_of(&device, layout.len, gpu.arithmetic.dtype)?)
            }
            _ => None,
        };
        let gradients = if defers_gradients {
            Gradients::deferred(layout.len)
        } else {
            Gradients::zeros(&device, layout.len)?
        };
        let table = |of| {
            let mut table = Buffer::zeros(&device, config.max_seq_length * config.head_size())?;
            table.write(|table| {
                rope::fill_table(table, &config.angles(), of);
            })?;
            Ok::<_, Error>(table)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let norm = GradientNorm::new(&device)?;
        Ok(Self {
            config,
            device,
            layout,
            weights,
            weights_bf16,
            decode_weights_bf16: None,
            gradients,
            norm,
            cos,
            sin,
            activations: None,
            scratch: output_loss::Scratch::default(),
            recompute: false,
            detect_anomaly: false,
            non_finite_op: None,
            frozen: Frozen::default(),
            pending: None,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sets whether the backward pass recomputes each block's forward pass from the residual stream
    /// at its entry.
    ///
    /// This saves memory and costs time. The gradients are the same, bit for bit.
    pub fn set_recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
        self.activations = None;
        self.pending = None;
    }

    /// Sets whether passes stop at the first op whose output is NaN or infinite, with an error that
    /// names it. Every output is read, so passes take longer; their results are the same.
    pub fn set_detect_anomaly(&mut self, detect_anomaly: bool) {
        self.detect_anomaly = detect_anomaly;
    }

    /// Returns the op whose output stopped the last pass, with `set_detect_anomaly`.
    pub fn non_finite_op(&self) -> Option<&str> {
        self.non_finite_op.as_deref()
    }

    /// Returns every named parameter, in memory order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.layout.parameters
    }

    /// Returns the number of parameters. A tied output layer counts once.
    pub fn num_parameters(&self) -> usize {
        self.layout.len
    }

    /// Rounds the weights to bf16 again, on a bf16 device.
    pub(super) fn refresh_bf16_weights(&mut self) -> Result<()> {
        if let (Some(weights), Device::Cuda(gpu)) = (&mut self.weights_bf16, &self.device) {
            let (to, from) = (weights.view_mut().pointer(), self.weights.view().pointer());
            crate::ops::cast(gpu, gpu.arithmetic.dtype, to, from, self.layout.len)?;
        }
        Ok(())
    }

    /// Adds the gradients of `scale` times the batch's mean loss to the parameters' gradients.
    /// Returns the losses.
    ///
    /// `x` holds token ids (batch, positions), `targets` the token that follows each, or -100 to
    /// ignore the position.
    ///
    /// # Errors
    /// Returns `ERR_SHAPE_MISMATCH`, `ERR_TOKEN_OUT_OF_RANGE`, or `ERR_INVALID_ARGUMENT` (more
    /// positions than `max_seq_length`), all before anything is changed; `ERR_NON_FINITE` if a
    /// queued update was skipped.
    pub fn forward_backward(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
        scale: f32,
    ) -> Result<LossSum> {
        let pass = Pass { batch, positions };
        let batch = backward::Batch { x, targets, scale, read_losses: true };
        let losses = self.run_forward_backward(batch, pass)?;
        self.norm.check_updates(&self.device)?;
        losses.ok_or_else(|| Error::Internal("the losses were not read".to_owned()))
    }

    /// Like `forward_backward`, but adds the losses to a sum that `take_losses` returns, and does
    /// not wait for the device.
    ///
    /// # Errors
    /// As `forward_backward`, except `ERR_NON_FINITE`.
    pub fn accumulate(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
        scale: f32,
    ) -> Result<()> {
        let pass = Pass { batch, positions };
        let batch = backward::Batch { x, targets, scale, read_losses: false };
        self.run_forward_backward(batch, pass).map(drop)
    }

    /// Returns the losses that `accumulate` has added up since the last call. Waits for the device.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a queued update was skipped; `ERR_DEVICE`.
    pub fn take_losses(&mut self) -> Result<LossSum> {
        self.norm.check_updates(&self.device)?;
        self.scratch.take_accumulated(&self.device)
    }

    pub(super) fn run_forward_backward(
        &mut self,
        batch: backward::Batch,
        pass: Pass,
    ) -> Result<Option<LossSum>> {
        self.prepare(batch.x, pass, self.saved())?;
        self.check_targets(batch.targets, pass)?;
        self.norm.gradients_change(&self.device, self.gradients.get(&self.device)?)?;
        // A recorded pass runs only once all of it is queued, so nothing can be read in its middle.
        if batch.read_losses || self.detect_anomaly {
            return self.run_both_passes(batch, pass);
        }
        let device = self.device.clone();
        device.recorded(|| self.run_both_passes(batch, pass))
    }

    fn run_both_passes(&mut self, batch: backward::Batch, pass: Pass) -> Result<Option<LossSum>> {
        self.run_forward(batch.x, pass, CacheUse::None)?;
        self.run_backward(|context, buffers| backward::run(context, buffers, batch, pass))
    }

    /// Runs `pass` over the buffers of a backward pass, then zeroes the gradients of frozen
    /// parameters.
    pub(super) fn run_backward<T>(
        &mut self,
        pass: impl FnOnce(&PassContext, backward::Buffers) -> Result<T>,
    ) -> Result<T> {
        let context = PassContext {
            device: &self.device,
            config: &self.config,
            layout: &self.layout,
            weights: &self.weights,
            weights_bf16: self.weights_bf16.as_ref(),
            decode_weights_bf16: None,
            detect_anomaly: self.detect_anomaly,
            frozen: &self.frozen,
            cos: &self.cos,
            sin: &self.sin,
        };
        let buffers = backward::Buffers {
            activations: self.activations.as_mut().ok_or_else(no_activations)?,
            gradients: self.gradients.get(&self.device)?,
            scratch: &mut self.scratch,
        };
        let result = pass(&context, buffers);
        self.non_finite_op = op_of(&result).map(str::to_owned);
        let result = result?;
        self.frozen.clear(&self.device, self.gradients.get(&self.device)?)?;
        Ok(result)
    }

    /// Returns which activations a training pass saves for its backward pass.
    pub(super) fn saved(&self) -> Saved {
        if self.recompute { Saved::Residuals } else { Saved::Blocks }
    }

    /// Drops what was derived from the weights, which are about to change.
    pub(super) fn weights_change(&mut self) {
        self.decode_weights_bf16 = None;
        self.pending = None;
    }

    /// Returns the losses of a batch, without gradients.
    ///
    /// # Errors
    /// Returns `ERR_SHAPE_MISMATCH`, `ERR_TOKEN_OUT_OF_RANGE`, or `ERR_INVALID_ARGUMENT` (more
    /// positions than `max_seq_length`), all before anything is changed.
    pub fn loss(
        &mut self,
        x: &[u32],
        targets: &[i32],
        batch: usize,
        positions: usize,
    ) -> Result<LossSum> {
        let pass = Pass { batch, positions };
        self.prepare(x, pass, Saved::Nothing)?;
        self.check_targets(targets, pass)?;
        self.run_forward(x, pass, CacheUse::None)?;
        let s = Shapes::new(&self.config, pass);
        let activations = self.activations.as_ref().ok_or_else(no_activations)?;
        let weights = self.weights_bf16.as_ref().unwrap_or(&self.weights);
        let args = output_loss::Forward {
            x: activations.normed.slice(0..s.residual_len()),
            weight: weights.slice(self.layout.output.clone()),
            targets,
            shape: s.output_loss,
        };
        output_loss::forward(&self.device, args, &mut self.scratch)
    }

    /// Borrows what a pass reads. With `decoding`, that includes the bf16 weights of decode steps,
    /// if any.
    pub(super) fn context(&self, decoding: bool) -> PassContext<'_> {
        PassContext {
            device: &self.device,
            config: &self.config,
            layout: &self.layout,
            weights: &self.weights,
            weights_bf16: self.weights_bf16.as_ref(),
            decode_weights_bf16: self.decode_weights_bf16.as_deref().filter(|_| decoding),
            detect_anomaly: self.detect_anomaly,
            frozen: &self.frozen,
            cos: &self.cos,
            sin: &self.sin,
        }
    }

    /// Runs the forward pass, and leaves the output of the last norm in the activations.
    pub(super) fn run_forward(&mut self, x: &[u32], pass: Pass, cache: CacheUse) -> Result<()> {
        let mut activations = self.activations.take().ok_or_else(no_activations)?;
        let decoding = !matches!(cache, CacheUse::None);
        let result = forward::run(&self.context(decoding), &mut activations, x, pass, cache);
        self.activations = Some(activations);
        self.non_finite_op = op_of(&result).map(str::to_owned);
        result
    }

    /// Checks the token ids, and allocates memory for the pass if the present buffers do not
    /// suffice.
    pub(super) fn prepare(&mut self, x: &[u32], pass: Pass, saved: Saved) -> Result<()> {
        self.pending = None;
        if pass.rows() == 0 {
            return Err(Error::argument("the batch is empty; a pass needs at least one token"));
        }
        if pass.positions > self.config.max_seq_length {
            return Err(Error::argument(format!(
                "{} positions are more than the model's max_seq_length {}",
                pass.positions, self.config.max_seq_length
            )));
        }
        crate::ops::check("Transformer", "x", pass.rows(), x.len())?;
        check_ids(x, self.config.vocab_size)?;
        if self.activations.as_ref().is_none_or(|a| a.rows < pass.rows() || a.saved < saved) {
            // Free the old buffers first, so that both are never held at once.
            self.activations = None;
            let keep_hidden = saved != Saved::Nothing && self.keeps_hidden(pass)?;
            let (device, config) = (&self.device, &self.config);
            MemoryPlan::require(device, config, pass, saved)?;
            self.activations =
                Some(Activations::new(device, config, pass.rows(), saved, keep_hidden)?);
        }
        Ok(())
    }

    /// Returns whether the device has enough memory to keep every block's gated product.
    fn keeps_hidden(&self, pass: Pass) -> Result<bool> {
        let Device::Cuda(gpu) = &self.device else { return Ok(false) };
        let planned = PlannedDevice::of(gpu);
        let plan = MemoryPlan::new(self.config.clone(), planned, self.recompute)?;
        plan.keeps_hidden(pass.batch, pass.positions)
    }

    fn check_targets(&self, targets: &[i32], pass: Pass) -> Result<()> {
        crate::ops::check("Transformer", "targets", pass.rows(), targets.len())?;
        check_targets(targets, self.config.vocab_size).map(drop)
    }
}

pub(super) fn no_activations() -> Error {
    Error::Internal("the activations are missing after an earlier error".to_owned())
}
