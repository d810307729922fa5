//! Where the windows of a batch start: a pure function of (seed, step, row), so a run continues from its step alone.
//!
//! The places are random and spread evenly: one round of draws takes a grid of places a window apart, moved by a random
//! phase, in a random order; the next round has another phase and another order. So each start is uniform over all
//! places, as an independent draw would be, but no text is seen twice before nearly all of it was seen once. With
//! independent draws a run as long as its corpus would see 63% of it.

use crate::random::{Purpose, below, bits};
use crate::{Error, Result};

/// A batch of random windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpec {
    /// Windows.
    pub batch_size: usize,
    /// Tokens a window; its targets reach one token further.
    pub seq_length: usize,
    /// Seed of the run.
    pub seed: u64,
    /// The step, from 1.
    pub step: u64,
    /// Which of the step's accumulated batches, from 0. No two of a step draw the same numbers.
    pub micro_batch: u32,
}

/// The starts of the windows: each uniform over 0..(length - `seq_length`), so that the shifted target always exists.
/// Accumulated batches of a step are rounds of their own.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for an empty shape, `ERR_STORE_TOO_SHORT` if not one window fits.
pub fn starts(length: u64, spec: &BatchSpec) -> Result<Vec<u64>> {
    let BatchSpec { batch_size, seq_length, seed, step, micro_batch } = *spec;
    if batch_size == 0 || seq_length == 0 {
        return Err(Error::argument("batch_size and seq_length must be at least 1"));
    }
    let bound = window_starts(length, seq_length)?;
    let first = step.checked_mul(batch_size as u64);
    let Some(first) = first.filter(|first| first.checked_add(batch_size as u64).is_some()) else {
        return Err(Error::argument("batch_size times the number of steps must stay below 2^64"));
    };
    let windows = (bound / seq_length as u64).max(1);
    Ok((first..first + batch_size as u64)
        .map(|draw| {
            let key = bits(seed, Purpose::Batch, draw / windows, micro_batch);
            let phase = below(key, Purpose::BatchPhase, 0, 0, bound);
            let window = permuted(key, draw % windows, windows);
            let place = u128::from(window) * u128::from(bound) / u128::from(windows);
            (phase + place as u64) % bound
        })
        .collect())
}

/// Element `index` of a random permutation of 0..count: a Feistel network over the next power of four, walked until it
/// comes back inside.
fn permuted(key: u64, index: u64, count: u64) -> u64 {
    const ROUNDS: u64 = 6;
    let half = (u64::BITS - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1 << half) - 1;
    let mut element = index;
    loop {
        let (mut left, mut right) = (element >> half, element & mask);
        for round in 0..ROUNDS {
            let mixed = bits(key, Purpose::BatchOrder, round, right as u32) & mask;
            (left, right) = (right, left ^ mixed);
        }
        element = left << half | right;
        if element < count {
            return element;
        }
    }
}

/// How many places a window of `seq_length` with its shifted target can start at.
pub(super) fn window_starts(length: u64, seq_length: usize) -> Result<u64> {
    let needed = (seq_length as u64).saturating_add(1);
    match length.checked_sub(seq_length as u64) {
        Some(bound) if bound > 0 => Ok(bound),
        _ => Err(Error::StoreTooShort { length, needed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: BatchSpec = BatchSpec { batch_size: 8, seq_length: 3, seed: 5, step: 2, micro_batch: 0 };

    #[test]
    fn every_start_from_the_first_to_the_last_is_drawn_about_equally_often() {
        let length = 13; // 10 starts
        let mut counts = [0u32; 10];
        for step in 1..=2_000 {
            for start in starts(length, &BatchSpec { step, ..SPEC }).unwrap() {
                counts[start as usize] += 1;
            }
        }
        // 16,000 draws: 1,600 each with a standard deviation of 38.
        assert!(counts.iter().all(|&n| (1_400..1_800).contains(&n)), "{counts:?}");
    }

    #[test]
    fn starts_depend_on_seed_step_and_micro_batch_and_on_nothing_else() {
        let draw = |spec: BatchSpec| starts(1 << 40, &spec).unwrap();
        assert_eq!(draw(SPEC), draw(SPEC));
        for other in [
            BatchSpec { seed: 6, ..SPEC },
            BatchSpec { step: 3, ..SPEC },
            BatchSpec { micro_batch: 1, ..SPEC },
        ] {
            assert!(draw(other).iter().all(|start| !draw(SPEC).contains(start)));
        }
    }

    #[test]
    fn a_round_of_draws_lies_on_a_grid_a_window_apart_and_rounds_differ() {
        // 102 starts: rounds of 34 windows of 3 tokens, two draws a step.
        let spec = BatchSpec { batch_size: 2, ..SPEC };
        let round = |first: u64| -> Vec<u64> {
            (first..first + 17).flat_map(|step| starts(105, &BatchSpec { step, ..spec }).unwrap()).collect()
        };
        let (one, two) = (round(0), round(17));
        for mut places in [one.clone(), two.clone()] {
            assert!(places.iter().zip(&places[1..]).any(|(a, b)| b < a), "in no order: {places:?}");
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] == 3), "{places:?}");
        }
        assert!(one != two);
    }

    #[test]
    fn a_permutation_has_every_element_once_whatever_the_count() {
        for count in [1, 2, 3, 4, 5, 16, 17, 1_000, 4_097] {
            let mut elements: Vec<u64> = (0..count).map(|index| permuted(9, index, count)).collect();
            elements.sort_unstable();
            assert!(elements.iter().copied().eq(0..count), "{count}");
        }
        assert!(permuted(9, u64::MAX - 1, u64::MAX) < u64::MAX);
    }

    #[test]
    fn a_store_of_exactly_one_window_and_its_target_has_one_start() {
        assert_eq!(starts(4, &SPEC).unwrap(), [0; 8]);
        let error = starts(3, &SPEC).unwrap_err();
        assert!(matches!(error, Error::StoreTooShort { length: 3, needed: 4 }));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let spec = BatchSpec { step: u64::MAX, batch_size: 2, ..SPEC };
        assert_eq!(starts(100, &spec).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        let spec = BatchSpec { seq_length: usize::MAX, ..SPEC };
        assert_eq!(starts(100, &spec).unwrap_err().code(), "ERR_STORE_TOO_SHORT");
    }
}
