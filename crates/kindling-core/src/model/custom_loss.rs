//! Losses computed outside the engine: `forward` returns the logits, `backward` takes their
//! gradient.

use super::backward;
use super::pass::{Pass, PendingBatch};
use super::transformer::Transformer;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::dtype::Dtype;
use crate::{Error, Result};

impl Transformer {
    /// Returns the logits of every token of a batch (batch, positions, v), and keeps the
    /// activations for `backward`.
    ///
    /// # Errors
    /// Returns `ERR_SHAPE_MISMATCH`, `ERR_TOKEN_OUT_OF_RANGE`, or `ERR_INVALID_ARGUMENT` (more
    /// positions than `max_seq_length`), all before anything is changed.
    pub fn forward(&mut self, x: &[u32], batch: usize, positions: usize) -> Result<Vec<f32>> {
        let pass = Pass { batch, positions };
        let logits = self.all_logits(x, pass, self.saved())?;
        self.pending = Some(PendingBatch { x: x.to_vec(), pass });
        Ok(logits)
    }

    /// Adds to the gradients of the parameters, given the gradient of the logits that `forward`
    /// returned.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` if the last call on the model that computed anything, or
    /// changed the weights, was not `forward`; `ERR_SHAPE_MISMATCH` if `dlogits` has another length
    /// than the logits.
    pub fn backward(&mut self, dlogits: &[f32]) -> Result<()> {
        let Some(PendingBatch { x, pass }) = self.pending.take() else {
            return Err(Error::argument(
                "backward needs the activations of forward; call forward first, once for each \
                 backward, with no other pass or update in between",
            ));
        };
        let expected = pass.rows() * self.config.vocab_size;
        if dlogits.len() != expected {
            self.pending = Some(PendingBatch { x, pass });
            return crate::ops::check("Transformer::backward", "dlogits", expected, dlogits.len());
        }
        self.norm.gradients_change(&self.device, self.gradients.get(&self.device)?)?;
        if let Device::Cpu(_) = self.device {
            return self.run_backward(|context, buffers| {
                backward::run_from_logits(context, buffers, dlogits.into(), &x, pass)
            });
        }
        let dlogits = self.on_device(dlogits)?;
        self.run_backward(|context, buffers| {
            backward::run_from_logits(context, buffers, dlogits.view(), &x, pass)
        })
    }

    /// Copies values to the device, in the dtype of its activations.
    fn on_device(&self, values: &[f32]) -> Result<Buffer> {
        let mut wide = Buffer::of(&self.device, values)?;
        let (Device::Cuda(gpu), dtype) = (&self.device, self.device.activation_dtype()) else {
            return Ok(wide);
        };
        if dtype == Dtype::F32 {
            return Ok(wide);
        }
        let mut rounded = Buffer::zeros_of(&self.device, values.len(), dtype)?;
        let (to, from) = (rounded.view_mut().pointer(), wide.view_mut().pointer());
        crate::ops::cast(gpu, dtype, to, from, values.len())?;
        Ok(rounded)
    }
}
