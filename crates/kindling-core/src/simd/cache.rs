//! The size of the machine's L2 cache.

use std::sync::OnceLock;

/// Size assumed if the machine reports none, or none that is plausible.
const DEFAULT_L2: usize = 1 << 20;
/// Sizes that the kernels are designed for. A hypervisor may report anything.
const PLAUSIBLE_L2: std::ops::RangeInclusive<usize> = 256 << 10..=8 << 20;

/// Returns the size of a core's L2 cache in bytes. Read once per process.
pub(crate) fn l2_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| plausible(reported_l2()))
}

fn plausible(bytes: usize) -> usize {
    if PLAUSIBLE_L2.contains(&bytes) { bytes } else { DEFAULT_L2 }
}

/// Reads CPUID leaf `8000_0006`. On Intel and AMD, bits 16 to 31 of ECX are the size in KiB.
#[cfg(target_arch = "x86_64")]
fn reported_l2() -> usize {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0006;
    if __cpuid(0x8000_0000).eax < LEAF { 0 } else { (__cpuid(LEAF).ecx as usize >> 16) << 10 }
}

#[cfg(not(target_arch = "x86_64"))]
fn reported_l2() -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_make_no_sense_are_replaced() {
        assert_eq!(plausible(0), DEFAULT_L2);
        assert_eq!(plausible(1 << 40), DEFAULT_L2);
        assert_eq!(plausible(2 << 20), 2 << 20);
        assert!(PLAUSIBLE_L2.contains(&l2_bytes()));
    }
}
