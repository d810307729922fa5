//! Anomaly detection: naming the first op of a pass whose output holds a NaN or an infinity.
//!
//! A pass calls `PassContext::check_*` after each op. While detection is off, a check reads one
//! flag. While it is on, a check reads the whole output, so a pass waits for the GPU after each op.

use std::ops::Range;

use super::pass::PassContext;
use crate::buffer::{Buffer, In, zeroed_vec};
use crate::device::Device;
use crate::dtype::Dtype;
use crate::simd::bf16::widen;
use crate::{Error, Result};

impl PassContext<'_> {
    /// Checks an output outside the blocks. `what` names it, for example `token_embedding output`.
    pub(super) fn check(&self, what: &str, output: In) -> Result<()> {
        if self.detect_anomaly {
            self.require_finite(output, || what.to_owned())?;
        }
        Ok(())
    }

    /// Checks an output of a block. `what` names it, for example `Feed_Forward silu output`.
    pub(super) fn check_block(&self, layer: usize, what: &str, output: In) -> Result<()> {
        if self.detect_anomaly {
            self.require_finite(output, || format!("transformer_blocks.{layer}.{what}"))?;
        }
        Ok(())
    }

    /// Checks the gradients of the parameters that lie within `range` of the flat buffers.
    pub(super) fn check_gradient(&self, range: &Range<usize>, gradients: &Buffer) -> Result<()> {
        if !self.detect_anomaly {
            return Ok(());
        }
        for parameter in &self.layout.parameters {
            let Range { start, end } = parameter.range;
            if start >= range.start && end <= range.end {
                let gradient = gradients.slice(start..end);
                self.require_finite(gradient, || format!("{} gradient", parameter.name))?;
            }
        }
        Ok(())
    }

    fn require_finite(&self, values: In, output: impl FnOnce() -> String) -> Result<()> {
        let Some(found) = non_finite(self.device, values)? else { return Ok(()) };
        let NonFiniteValues { first, count, len } = found;
        let values = format!("{count} of {len} values, the first is {first}");
        Err(Error::NonFiniteOutput { output: output(), values })
    }
}

/// The values of an output that are NaN or infinite.
#[derive(Debug, PartialEq)]
struct NonFiniteValues {
    first: f32,
    count: usize,
    len: usize,
}

/// Reads `values`; returns those that are NaN or infinite, if any.
fn non_finite(device: &Device, values: In) -> Result<Option<NonFiniteValues>> {
    match (values, device) {
        (In::Cpu(floats), _) => Ok(among(floats.iter().copied())),
        (In::CpuBf16(bits), _) => Ok(among(bits.iter().copied().map(widen))),
        (In::Cuda(_), Device::Cuda(gpu)) if values.dtype() == Dtype::Bf16 => {
            let mut bits = zeroed_vec::<u16>(values.len())?;
            gpu.download(&mut bits, values.pointer())?;
            Ok(among(bits.into_iter().map(widen)))
        }
        (In::Cuda(_), Device::Cuda(gpu)) => {
            let mut floats = zeroed_vec::<f32>(values.len())?;
            gpu.download(&mut floats, values.pointer())?;
            Ok(among(floats.into_iter()))
        }
        (In::Cuda(_), Device::Cpu(_)) => {
            Err(Error::Internal("device memory in a pass on the CPU".to_owned()))
        }
    }
}

fn among(values: impl ExactSizeIterator<Item = f32>) -> Option<NonFiniteValues> {
    let len = values.len();
    let mut found = values.filter(|value| !value.is_finite());
    let first = found.next()?;
    Some(NonFiniteValues { first, count: 1 + found.count(), len })
}

/// Returns the op that the error of a pass names, if it stopped at an output that is not finite.
pub(super) fn op_of<T>(result: &Result<T>) -> Option<&str> {
    match result {
        Err(Error::NonFiniteOutput { output, .. }) => Some(output),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_values_are_counted_in_both_dtypes() {
        let floats = [1.0, f32::INFINITY, f32::MAX, f32::NAN];
        let bits = floats.map(|value| half::bf16::from_f32(value).to_bits());
        let found = Some(NonFiniteValues { first: f32::INFINITY, count: 2, len: 4 });
        let device = Device::cpu(1);
        assert_eq!(non_finite(&device, In::Cpu(&floats)).unwrap(), found);
        // The largest f32 rounds up to infinity.
        let found = Some(NonFiniteValues { first: f32::INFINITY, count: 3, len: 4 });
        assert_eq!(non_finite(&device, In::CpuBf16(&bits)).unwrap(), found);
        assert_eq!(non_finite(&device, In::Cpu(&[0.0, f32::MIN, 1e-45])).unwrap(), None);
        assert_eq!(non_finite(&device, In::CpuBf16(&bits[..1])).unwrap(), None);
    }
}
