//! Counter-based random numbers (Philox4x32-10).
//!
//! A number is a pure function of (seed, purpose, major, minor), so a run resumes from its seed and
//! its step, without any generator state. Callers choose what `major` and `minor` count, such as
//! step and row.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// What random numbers are for. Different purposes never share a counter.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights.
    Init = 1,
    /// Key of the order of the windows in a round.
    Batch = 2,
    /// Tokens sampled while decoding.
    Sampling = 3,
    /// Documents sampled for tokenizer experiments.
    Documents = 4,
    /// Random inputs of benchmarks and tests.
    Benchmark = 5,
    /// Offset of the grid of a round of windows.
    BatchPhase = 6,
    /// Order of the windows in a round.
    BatchOrder = 7,
    /// Key of the order of the windows in an epoch.
    Epoch = 8,
    /// Choice of the store that a window of a mixture comes from.
    Mixture = 9,
}

/// Returns four random 32-bit words.
pub fn words(seed: u64, purpose: Purpose, major: u64, minor: u32) -> [u32; 4] {
    let counter = [minor, major as u32, (major >> 32) as u32, purpose as u32];
    philox(counter, [seed as u32, (seed >> 32) as u32])
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Returns 64 random bits.
pub fn bits(seed: u64, purpose: Purpose, major: u64, minor: u32) -> u64 {
    let w = words(seed, purpose, major, minor);
    u64::from(w[0]) | u64::from(w[1]) << 32
}

/// Returns a uniform number in [0, 1) with 53 random bits.
pub fn uniform(seed: u64, purpose: Purpose, major: u64, minor: u32) -> f64 {
    (bits(seed, purpose, major, minor) >> 11) as f64 / (1u64 << 53) as f64
}

/// Returns a uniform integer in `0..bound`, by a 128-bit product. Its bias is below `bound` / 2^64.
pub fn below(seed: u64, purpose: Purpose, major: u64, minor: u32, bound: u64) -> u64 {
    ((u128::from(bits(seed, purpose, major, minor)) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_of_zero_key_and_counter_matches_the_published_vector() {
        // Known-answer test of Random123 1.14 (kat_vectors): philox4x32, 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn uniform_draws_cover_the_unit_interval_evenly() {
        let n = 10_000u32;
        let mean = (0..n).map(|i| uniform(7, Purpose::Batch, 3, i)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
        assert!((0..n).all(|i| below(7, Purpose::Batch, 3, i, 10) < 10));
    }
}
