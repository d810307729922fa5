//! SiLU. out = x sigma(x); dx = dout sigma(x) (1 + x (1 - sigma(x))). x, out, dx, dout: any one size.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;
use crate::ops::check;

/// out = x sigma(x).
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when the sizes differ.
pub fn forward(dev: &Device, out: Out, x: In) -> Result<()> {
    check("silu::forward", "out", x.len(), out.len())?;
    let _span = dev.span("silu::forward");
    match dev {
        Device::Cpu(cpu) => cpu::forward(cpu, out.cpu(), x.cpu()),
        Device::Cuda(gpu) => {
            gpu.run(&[cuda::forward(out.dtype(), out.pointer(), x.pointer(), x.len())])?
        }
    }
    Ok(())
}

/// dx = dout times the slope at x.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` when the sizes differ.
pub fn backward(dev: &Device, dx: Out, dout: In, x: In) -> Result<()> {
    check("silu::backward", "dx", x.len(), dx.len())?;
    check("silu::backward", "dout", x.len(), dout.len())?;
    let _span = dev.span("silu::backward");
    match dev {
        Device::Cpu(cpu) => cpu::backward(cpu, dx.cpu(), dout.cpu(), x.cpu()),
        Device::Cuda(gpu) => {
            let (dtype, n) = (dx.dtype(), x.len());
            gpu.run(&[cuda::backward(dtype, dx.pointer(), dout.pointer(), x.pointer(), n)])?;
        }
    }
    Ok(())
}
