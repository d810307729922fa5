//! The flat gradients: what is known of their norm, and clipping.
//!
//! On the CPU a norm is known at once and clipping scales the gradients. On a CUDA device both are queued: the norm and the
//! factor stay in device memory, the update multiplies by the factor as it reads the gradients, and leaves everything as it
//! is where the norm is not finite. Gradients that are not finite stay so until they are cleared, so a look at the factor at
//! any later time, when the host waits for the device anyhow, finds an update that was not made.

use super::transformer::Transformer;
use crate::buffer::Buffer;
use crate::cuda::Cuda;
use crate::device::Device;
use crate::ops::grad_norm;
use crate::{Error, Result};

/// Words of 32 bits of the state that `grad_norm` keeps on a device.
const STATE_WORDS: usize = grad_norm::cuda::STATE * size_of::<f64>() / size_of::<f32>();

/// What is known of the norm of the gradients.
#[derive(Debug)]
pub(super) struct GradientNorm {
    /// It was taken since the gradients changed: on the CPU it is finite, on a device the state has it.
    known: bool,
    /// The gradients are still to be multiplied by the factor of the state.
    pending: bool,
    /// Step of the last update, for errors found later.
    step: u64,
    /// On a CUDA device: sum of squares, norm, factor as f64.
    state: Option<Buffer>,
}

/// What an update on a CUDA device works on.
pub(crate) struct CudaUpdate<'a> {
    pub gpu: &'a Cuda,
    pub weights: u64,
    /// The weights as bf16, 0 where there are none.
    pub copy: u64,
    pub gradients: u64,
    /// Norm and factor of the gradients.
    pub clip: u64,
}

impl GradientNorm {
    pub(super) fn new(device: &Device) -> Result<Self> {
        let state = match device {
            Device::Cpu(_) => None,
            Device::Cuda(_) => Some(Buffer::zeros(device, STATE_WORDS)?),
        };
        Ok(Self { known: false, pending: false, step: 0, state })
    }

    fn state(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.view().pointer())
    }
}

impl Transformer {
    /// The flat weights and gradients, for an optimizer on the CPU.
    pub fn weights_and_gradients(&mut self) -> (&Device, &mut Buffer, &mut Buffer) {
        self.narrow = None;
        (&self.device, &mut self.weights, &mut self.gradients)
    }

    /// Sets every gradient to zero.
    ///
    /// # Errors
    /// `ERR_DEVICE`.
    pub fn zero_gradients(&mut self) -> Result<()> {
        let _span = self.device.span("model::zero_gradients");
        (self.norm.known, self.norm.pending) = (false, false);
        match &self.device {
            Device::Cpu(cpu) => {
                let pieces = crate::ops::Pieces::of_rows(self.gradients.len(), 1);
                let gradients = crate::ops::Disjoint::new(self.gradients.host_mut());
                // SAFETY: pieces write disjoint ranges.
                cpu.pool.run(pieces.count, |piece| {
                    unsafe { gradients.part(pieces.range(piece)) }.fill(0.0)
                });
                Ok(())
            }
            Device::Cuda(gpu) => {
                gpu.clear(self.norm.state(), STATE_WORDS * size_of::<f32>())?;
                gpu.clear(
                    self.gradients.view_mut().pointer(),
                    self.gradients.len() * size_of::<f32>(),
                )
            }
        }
    }

    /// Scales the gradients so that their norm is at most `max_norm` (0: no clipping); gives the norm before.
    ///
    /// # Errors
    /// `ERR_NON_FINITE` where it is NaN or infinite; the gradients are left as they are. `ERR_DEVICE`.
    pub(crate) fn clip_gradients(&mut self, max_norm: f64, step: u64) -> Result<f64> {
        self.gradients_change()?;
        let norm = match &self.device {
            Device::Cpu(_) => {
                grad_norm::sum_of_squares(&self.device, self.gradients.view())?.sqrt()
            }
            Device::Cuda(gpu) => {
                queue_norm(gpu, &self.gradients, self.norm.state(), max_norm)?;
                let mut state = [0.0f64; grad_norm::cuda::STATE];
                gpu.download(&mut state, self.norm.state())?;
                state[1]
            }
        };
        if !norm.is_finite() {
            return Err(Error::NonFinite { what: "the gradient norm", step });
        }
        match &self.device {
            Device::Cpu(_) => {
                let factor = grad_norm::clip_factor(norm, max_norm);
                if factor < 1.0 {
                    grad_norm::scale(&self.device, self.gradients.view_mut(), factor as f32)?;
                }
            }
            Device::Cuda(_) => self.norm.pending = true,
        }
        (self.norm.known, self.norm.step) = (true, step);
        Ok(norm)
    }

    /// As `clip_gradients`, but nothing waits for a device: a norm that is not finite is found later.
    pub(crate) fn queue_clip(&mut self, max_norm: f64, step: u64) -> Result<()> {
        if matches!(self.device, Device::Cpu(_)) {
            return self.clip_gradients(max_norm, step).map(drop);
        }
        self.apply_clip()?;
        if let Device::Cuda(gpu) = &self.device {
            queue_norm(gpu, &self.gradients, self.norm.state(), max_norm)?;
        }
        (self.norm.known, self.norm.pending, self.norm.step) = (true, true, step);
        Ok(())
    }

    /// Makes sure that an update may use the gradients. On a CUDA device gives what the update works on; it has to clear
    /// the gradients.
    ///
    /// # Errors
    /// `ERR_NON_FINITE`, on the CPU; `ERR_DEVICE`.
    pub(crate) fn begin_update(&mut self, step: u64) -> Result<Option<CudaUpdate<'_>>> {
        if !self.norm.known {
            self.queue_clip(0.0, step)?;
        }
        (self.norm.known, self.norm.pending, self.norm.step) = (false, false, step);
        Ok(match &self.device {
            Device::Cpu(_) => None,
            Device::Cuda(gpu) => Some(CudaUpdate {
                gpu,
                weights: self.weights.view_mut().pointer(),
                copy: self.operands.as_mut().map_or(0, |operands| operands.view_mut().pointer()),
                gradients: self.gradients.view_mut().pointer(),
                clip: self.norm.state(),
            }),
        })
    }

    /// Says whether all updates that were queued were made. Waits for the device.
    ///
    /// # Errors
    /// `ERR_NON_FINITE`, `ERR_DEVICE`.
    pub(super) fn check_updates(&self) -> Result<()> {
        let Device::Cuda(gpu) = &self.device else { return Ok(()) };
        let mut state = [0.0f64; grad_norm::cuda::STATE];
        gpu.download(&mut state, self.norm.state())?;
        if state[2].is_nan() {
            return Err(Error::NonFinite { what: "the gradient norm", step: self.norm.step });
        }
        Ok(())
    }

    /// The gradients are about to change.
    pub(super) fn gradients_change(&mut self) -> Result<()> {
        self.apply_clip()?;
        self.norm.known = false;
        Ok(())
    }

    /// Scales the gradients now, where that was left to the update.
    pub(super) fn apply_clip(&mut self) -> Result<()> {
        if let (true, Device::Cuda(gpu)) = (std::mem::take(&mut self.norm.pending), &self.device) {
            let (gradients, n) = (self.gradients.view_mut().pointer(), self.gradients.len());
            gpu.run(&[grad_norm::cuda::scale(gradients, self.norm.state(), n)])?;
            // The update must not scale them again.
            self.norm.known = false;
        }
        Ok(())
    }
}

/// Queues the norm of the gradients and the factor that clips it.
fn queue_norm(gpu: &Cuda, gradients: &Buffer, state: u64, max_norm: f64) -> Result<()> {
    let (g, n) = (gradients.view().pointer(), gradients.len());
    let [partial] = gpu.scratch([grad_norm::cuda::partial_len(n) * size_of::<f64>()])?;
    gpu.run(&[
        grad_norm::cuda::squares(partial, g, n),
        grad_norm::cuda::clip_factor(state, partial, n, max_norm as f32),
    ])
}
