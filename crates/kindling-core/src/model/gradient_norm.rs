//! Norm and clipping of the flat gradients, and whether an update may use them.
//!
//! Clipping is left to the update, which multiplies by the clip factor as it reads the gradients.
//! Anything that reads or changes the gradients before that scales them first
//! (`apply_pending_clip`). On the CPU the norm is known at once.
//!
//! On a CUDA device the norm and the clip factor are queued and stay in device memory, and the
//! update changes nothing if the norm is not finite. Non-finite gradients stay until they are
//! cleared. So the host may check the factor later, when it waits for the device anyway, and still
//! finds that an update was skipped.

use crate::buffer::Buffer;
use crate::cuda::Cuda;
use crate::device::Device;
use crate::ops::{RowsMut, Tasks, grad_norm, split_rows};
use crate::{Error, Result};

/// 32-bit words of the device state: sum of squares, norm and clip factor, each f64.
const STATE_WORDS: usize = grad_norm::cuda::STATE * size_of::<f64>() / size_of::<f32>();

/// State of the gradients' norm, and of clipping that has yet to be applied.
#[derive(Debug)]
pub(super) struct GradientNorm {
    /// The norm has been computed since the gradients last changed. On the CPU it is finite; on a
    /// CUDA device it is in `state`.
    known: bool,
    /// The gradients have yet to be multiplied by the clip factor.
    pending: bool,
    /// On the CPU: the clip factor. On a CUDA device it is in `state`.
    factor: f32,
    /// Step of the last clip or update, for errors found later.
    step: u64,
    /// On a CUDA device: sum of squares, norm, factor as f64.
    state: Option<Buffer>,
}

impl GradientNorm {
    pub(super) fn new(device: &Device) -> Result<Self> {
        let state = match device {
            Device::Cpu(_) => None,
            Device::Cuda(_) => Some(Buffer::zeros(device, STATE_WORDS)?),
        };
        Ok(Self { known: false, pending: false, factor: 1.0, step: 0, state })
    }

    /// Returns the address of the device state, 0 on the CPU.
    pub(super) fn state(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.view().pointer())
    }

    /// Sets every gradient to zero.
    pub(super) fn zero(&mut self, device: &Device, gradients: &mut Buffer) -> Result<()> {
        (self.known, self.pending) = (false, false);
        match device {
            Device::Cpu(cpu) => {
                let tasks = Tasks::of_rows(gradients.len(), 1);
                let gradients = RowsMut::new(gradients.host_mut(), 1);
                split_rows(&cpu.pool, tasks, gradients, |_, gradients| gradients.fill(0.0));
                Ok(())
            }
            Device::Cuda(gpu) => {
                gpu.clear(self.state(), STATE_WORDS * size_of::<f32>())?;
                let bytes = gradients.len() * size_of::<f32>();
                gpu.clear(gradients.view_mut().pointer(), bytes)
            }
        }
    }

    /// Scales the gradients, in the update at the latest, so that their norm is at most `max_norm`
    /// (0: no clipping). Returns the norm before scaling.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if the norm is NaN or infinite, with the gradients unchanged;
    /// `ERR_DEVICE`.
    pub(super) fn clip(
        &mut self,
        device: &Device,
        gradients: &mut Buffer,
        max_norm: f64,
        step: u64,
    ) -> Result<f64> {
        self.gradients_change(device, gradients)?;
        let norm = match device {
            Device::Cpu(_) => grad_norm::sum_of_squares(device, gradients.view())?.sqrt(),
            Device::Cuda(gpu) => {
                self.queue_norm(gpu, gradients, max_norm)?;
                let mut state = [0.0f64; grad_norm::cuda::STATE];
                gpu.download(&mut state, self.state())?;
                state[1]
            }
        };
        if !norm.is_finite() {
            return Err(Error::NonFinite { what: "the gradient norm", step });
        }
        match device {
            Device::Cpu(_) => {
                self.factor = grad_norm::clip_factor(norm, max_norm) as f32;
                self.pending = self.factor < 1.0;
            }
            Device::Cuda(_) => self.pending = true,
        }
        (self.known, self.step) = (true, step);
        Ok(norm)
    }

    /// Like `clip`, but does not wait for a device: `check_updates` finds a non-finite norm later.
    pub(super) fn queue_clip(
        &mut self,
        device: &Device,
        gradients: &mut Buffer,
        max_norm: f64,
        step: u64,
    ) -> Result<()> {
        let Device::Cuda(gpu) = device else {
            return self.clip(device, gradients, max_norm, step).map(drop);
        };
        self.apply_pending_clip(device, gradients)?;
        self.queue_norm(gpu, gradients, max_norm)?;
        (self.known, self.pending, self.step) = (true, true, step);
        Ok(())
    }

    /// Makes sure that the norm is known before an update, and hands a pending clip over to the
    /// update. On the CPU, returns the clip factor.
    pub(super) fn begin_update(
        &mut self,
        device: &Device,
        gradients: &mut Buffer,
        step: u64,
    ) -> Result<f32> {
        if !self.known {
            self.queue_clip(device, gradients, 0.0, step)?;
        }
        let factor = if self.pending { self.factor } else { 1.0 };
        (self.known, self.pending, self.step) = (false, false, step);
        Ok(factor)
    }

    /// Checks that no queued update was skipped. Waits for the device.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if a norm was not finite; `ERR_DEVICE`.
    pub(super) fn check_updates(&self, device: &Device) -> Result<()> {
        let Device::Cuda(gpu) = device else { return Ok(()) };
        let mut state = [0.0f64; grad_norm::cuda::STATE];
        gpu.download(&mut state, self.state())?;
        if state[2].is_nan() {
            return Err(Error::NonFinite { what: "the gradient norm", step: self.step });
        }
        Ok(())
    }

    /// Prepares for a change of the gradients: applies a pending clip and forgets the norm.
    pub(super) fn gradients_change(
        &mut self,
        device: &Device,
        gradients: &mut Buffer,
    ) -> Result<()> {
        self.apply_pending_clip(device, gradients)?;
        self.known = false;
        Ok(())
    }

    /// Scales the gradients now, if that was left to the update.
    pub(super) fn apply_pending_clip(
        &mut self,
        device: &Device,
        gradients: &mut Buffer,
    ) -> Result<()> {
        if !std::mem::take(&mut self.pending) {
            return Ok(());
        }
        let Device::Cuda(gpu) = device else {
            return grad_norm::scale(device, gradients.view_mut(), self.factor);
        };
        let (gradients, n) = (gradients.view_mut().pointer(), gradients.len());
        gpu.run(&[grad_norm::cuda::scale(gradients, self.state(), n)])?;
        // The update must not scale them again.
        self.known = false;
        Ok(())
    }

    /// Queues the computation of the gradients' norm and of the clip factor.
    fn queue_norm(&self, gpu: &Cuda, gradients: &Buffer, max_norm: f64) -> Result<()> {
        let (g, n) = (gradients.view().pointer(), gradients.len());
        let [partial] = gpu.scratch([grad_norm::cuda::partial_len(n) * size_of::<f64>()])?;
        gpu.run(&[
            grad_norm::cuda::squares(partial, g, n),
            grad_norm::cuda::clip_factor(self.state(), partial, n, max_norm as f32),
        ])
    }
}
