//! The global L2 norm of the gradients, and clipping by it.
//!
//! g: any length. Partial sums of a fixed length are f32; they are added in order, in f64.

mod cpu;
pub mod cuda;
pub mod reference;

use crate::Result;
use crate::buffer::{In, Out};
use crate::device::Device;

/// Returns the sum of squares of g.
///
/// # Errors
/// Returns `ERR_DEVICE` if a CUDA device fails.
pub fn sum_of_squares(dev: &Device, g: In) -> Result<f64> {
    let _span = dev.span("grad_norm::sum_of_squares");
    match dev {
        Device::Cpu(cpu) => Ok(cpu::sum_of_squares(cpu, g.cpu())),
        Device::Cuda(gpu) => {
            let partial = cuda::partial_len(g.len()) * size_of::<f64>();
            let [partial, state] = gpu.scratch([partial, cuda::STATE * size_of::<f64>()])?;
            gpu.run(&[
                cuda::squares(partial, g.pointer(), g.len()),
                cuda::clip_factor(state, partial, g.len(), 0.0),
            ])?;
            let mut sum = [0.0];
            gpu.download(&mut sum, state)?;
            Ok(sum[0])
        }
    }
}

/// Multiplies g by `factor`, a clip factor. A CUDA device leaves g unchanged unless it is below 1.
///
/// # Errors
/// Returns `ERR_DEVICE` if a CUDA device fails.
pub fn scale(dev: &Device, g: Out, factor: f32) -> Result<()> {
    let _span = dev.span("grad_norm::scale");
    match dev {
        Device::Cpu(cpu) => cpu::scale(cpu, g.cpu(), factor),
        Device::Cuda(gpu) => {
            let state = gpu.staged(&[0.0, 0.0, f64::from(factor)])?;
            gpu.run(&[cuda::scale(g.pointer(), state, g.len())])?;
        }
    }
    Ok(())
}

/// Returns the factor that clips gradients of norm `norm`: `max_norm` / (norm + 1e-6) if the norm
/// exceeds `max_norm`, else 1. A `max_norm` of 0 disables clipping.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 && norm > max_norm { max_norm / (norm + 1e-6) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_are_clipped_by_their_norm_unless_max_norm_is_0() {
        let dev = Device::cpu(2);
        let mut g = vec![1.0f32; 125];
        let norm = sum_of_squares(&dev, In::from(&g[..])).unwrap().sqrt();
        assert!((norm - 11.18).abs() < 0.001);
        scale(&dev, Out::from(&mut g[..]), clip_factor(norm, 0.01) as f32).unwrap();
        assert!(g.iter().all(|x| (x - 0.000_894).abs() < 0.000_001));
        assert_eq!(clip_factor(norm, 0.0), 1.0);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
    }

    #[test]
    fn sum_of_squares_matches_the_reference_at_any_length() {
        let dev = Device::cpu(3);
        for len in [0, 1, 15, 17, 4096, 100_003] {
            let g: Vec<f32> = (0..len).map(|i| (i % 17) as f32 * 0.25 - 2.0).collect();
            let expected =
                reference::sum_of_squares(&g.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
            let sum = sum_of_squares(&dev, In::from(&g[..])).unwrap();
            assert!((sum - expected).abs() <= 1e-6 * expected.max(1.0), "{len}");
        }
    }
}
