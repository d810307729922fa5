//! Frozen parameters: they get no gradient and no update.

use std::ops::Range;

use super::params::Parameter;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::{Error, Result};

/// The parameters that training leaves as they are.
#[derive(Debug, Default)]
pub struct Frozen {
    /// Their ranges in the flat buffers, in ascending order; adjacent ranges are merged.
    ranges: Vec<Range<usize>>,
}

impl Frozen {
    pub(super) fn new(parameters: &[Parameter], is_frozen: impl Fn(&Parameter) -> bool) -> Self {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for parameter in parameters.iter().filter(|parameter| is_frozen(parameter)) {
            match ranges.last_mut() {
                Some(last) if last.end == parameter.range.start => last.end = parameter.range.end,
                _ => ranges.push(parameter.range.clone()),
            }
        }
        Self { ranges }
    }

    /// Returns whether all of `range` is frozen.
    pub fn covers(&self, range: &Range<usize>) -> bool {
        self.ranges.iter().any(|frozen| frozen.start <= range.start && range.end <= frozen.end)
    }

    /// Returns the parts of `range` that are not frozen.
    pub fn trained_parts(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        let (mut parts, mut start) = (Vec::new(), range.start);
        for frozen in &self.ranges {
            if frozen.start < range.end && frozen.end > start {
                if frozen.start > start {
                    parts.push(start..frozen.start);
                }
                start = frozen.end;
            }
        }
        if start < range.end {
            parts.push(start..range.end);
        }
        parts
    }

    /// Sets the gradients of frozen parameters to zero.
    pub(super) fn clear(&self, device: &Device, gradients: &mut Buffer) -> Result<()> {
        self.ranges.iter().try_for_each(|range| match device {
            Device::Cpu(_) => {
                gradients.host_mut()[range.clone()].fill(0.0);
                Ok(())
            }
            Device::Cuda(gpu) => {
                let bytes = range.len() * size_of::<f32>();
                gpu.clear(gradients.slice_mut(range.clone()).pointer(), bytes)
            }
        })
    }
}

/// Returns the names of the parameters that `pattern` matches. `*` matches any characters; the
/// pattern `matrices` matches every matrix.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` if it matches none.
pub fn matching(parameters: &[Parameter], pattern: &str) -> Result<Vec<String>> {
    let matches = parameters.iter().filter(|parameter| parameter.matches(pattern));
    let names: Vec<_> = matches.map(|parameter| parameter.name.clone()).collect();
    if names.is_empty() {
        return Err(Error::argument(format!(
            "the pattern \"{pattern}\" matches no parameter; names look like {}",
            parameters[0].name
        )));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_parts_and_frozen_ranges_cover_a_range_once() {
        let frozen = Frozen { ranges: vec![2..4, 6..9, 12..20] };
        for (range, parts) in [
            (0..14, vec![0..2, 4..6, 9..12]),
            (3..10, vec![4..6, 9..10]),
            (5..12, vec![5..6, 9..12]),
            (6..9, Vec::new()),
        ] {
            assert_eq!(frozen.trained_parts(&range), parts, "{range:?}");
        }
        assert!(frozen.covers(&(7..9)) && !frozen.covers(&(7..10)));
        assert_eq!(Frozen::default().trained_parts(&(0..5)).len(), 1);
    }
}
