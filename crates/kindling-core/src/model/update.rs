//! The optimizer's view of the model: the flat weights and gradients, which of them are frozen,
//! clipping, and the operands of an update.

use super::frozen::Frozen;
use super::transformer::Transformer;
use crate::Result;
use crate::buffer::Buffer;
use crate::cuda::Cuda;
use crate::device::Device;

/// Inputs of an update besides the weights and gradients.
pub(crate) enum Update<'a> {
    /// The factor by which clipping scales the gradients.
    Cpu { grad_scale: f32 },
    /// The operands. The update must clear the gradients.
    Cuda(CudaUpdate<'a>),
}

/// Device addresses that an update on a CUDA device reads and writes.
pub(crate) struct CudaUpdate<'a> {
    pub gpu: &'a Cuda,
    pub weights: u64,
    /// The bf16 copy of the weights; 0 if there is none.
    pub weights_bf16: u64,
    pub gradients: u64,
    /// Norm and clip factor of the gradients.
    pub clip: u64,
}

impl Transformer {
    /// Freezes the parameters with these names, and no others. Sets their gradients to zero.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn set_frozen(&mut self, names: &[String]) -> Result<()> {
        self.frozen =
            Frozen::new(&self.layout.parameters, |parameter| names.contains(&parameter.name));
        let Some(gradients) = self.gradients.allocated_mut() else { return Ok(()) };
        self.norm.gradients_change(&self.device, gradients)?;
        self.frozen.clear(&self.device, gradients)
    }

    /// Returns the parameters that training leaves as they are.
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    /// Returns the device, the flat weights and the flat gradients, for an optimizer on the CPU.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the gradients have to be allocated and memory does not
    /// suffice; `ERR_DEVICE`.
    pub fn weights_and_gradients(&mut self) -> Result<(&Device, &mut Buffer, &mut Buffer)> {
        self.weights_change();
        let gradients = self.gradients.get(&self.device)?;
        self.norm.apply_pending_clip(&self.device, gradients)?;
        Ok((&self.device, &mut self.weights, gradients))
    }

    /// Sets every gradient to zero.
    ///
    /// # Errors
    /// Returns `ERR_DEVICE` if the device failed.
    pub fn zero_gradients(&mut self) -> Result<()> {
        let _span = self.device.span("model::zero_gradients");
        let Some(gradients) = self.gradients.allocated_mut() else { return Ok(()) };
        self.norm.zero(&self.device, gradients)
    }

    /// Scales the gradients so that their norm is at most `max_norm` (0: no clipping). Returns the
    /// norm before scaling.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` if the norm is NaN or infinite, with the gradients unchanged;
    /// `ERR_DEVICE`.
    pub(crate) fn clip_gradients(&mut self, max_norm: f64, step: u64) -> Result<f64> {
        self.norm.clip(&self.device, self.gradients.get(&self.device)?, max_norm, step)
    }

    /// Like `clip_gradients`, but does not wait for a device: a later read reports a non-finite
    /// norm.
    pub(crate) fn queue_clip(&mut self, max_norm: f64, step: u64) -> Result<()> {
        self.norm.queue_clip(&self.device, self.gradients.get(&self.device)?, max_norm, step)
    }

    /// Prepares for an update, and returns its inputs.
    ///
    /// # Errors
    /// Returns `ERR_NON_FINITE` on the CPU if the norm is NaN or infinite; `ERR_DEVICE`.
    pub(crate) fn begin_update(&mut self, step: u64) -> Result<Update<'_>> {
        let gradients = self.gradients.get(&self.device)?;
        let grad_scale = self.norm.begin_update(&self.device, gradients, step)?;
        self.weights_change();
        Ok(match &self.device {
            Device::Cpu(_) => Update::Cpu { grad_scale },
            Device::Cuda(gpu) => Update::Cuda(CudaUpdate {
                gpu,
                weights: self.weights.view_mut().pointer(),
                weights_bf16: self.weights_bf16.as_mut().map_or(0, |w| w.view_mut().pointer()),
                gradients: self.gradients.get(&self.device)?.view_mut().pointer(),
                clip: self.norm.state(),
            }),
        })
    }
}
