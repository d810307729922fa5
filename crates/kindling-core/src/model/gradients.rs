//! The flat gradients of every parameter.
//!
//! A blank model, whose weights are about to be loaded, allocates none until a pass or an update
//! needs them. Decoding and export never do, which saves as much memory as the weights take.

use crate::Result;
use crate::buffer::Buffer;
use crate::device::Device;

/// f32 gradients. Until they are allocated, they count as zeros.
#[derive(Debug)]
pub(super) struct Gradients {
    memory: Option<Buffer>,
    /// Elements.
    len: usize,
}

impl Gradients {
    /// Allocates zeros.
    pub fn zeros(device: &Device, len: usize) -> Result<Self> {
        Ok(Self { memory: Some(Buffer::zeros(device, len)?), len })
    }

    /// Leaves the allocation to `get`.
    pub fn deferred(len: usize) -> Self {
        Self { memory: None, len }
    }

    /// Returns the gradients, allocating them first if necessary.
    ///
    /// # Errors
    /// Returns `ERR_OUT_OF_MEMORY` if the device does not have enough memory.
    pub fn get(&mut self, device: &Device) -> Result<&mut Buffer> {
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => Buffer::zeros(device, self.len)?,
        };
        Ok(self.memory.insert(memory))
    }

    /// Returns the gradients if they are allocated.
    pub fn allocated(&self) -> Option<&Buffer> {
        self.memory.as_ref()
    }

    /// Like `allocated`, but mutable.
    pub fn allocated_mut(&mut self) -> Option<&mut Buffer> {
        self.memory.as_mut()
    }
}
