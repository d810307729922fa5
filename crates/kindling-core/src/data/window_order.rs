//! Where the windows of a batch start: a pure function of (seed, step, row), so a run continues from its step alone.
//!
//! `random`: places are random and spread evenly: one round of draws takes a grid of places a window apart, moved by a
//! random phase, in a random order; the next round has another phase and another order. So each start is uniform over all
//! places, as an independent draw would be, but no text is seen twice before nearly all of it was seen once. With
//! independent draws a run as long as its corpus would see 63% of it.
//!
//! `epoch`: the consecutive windows, each once before any comes again, in another random order each time. `sequential`: the
//! same in their order. `dense`: as `epoch`, with a window at every place.

use crate::random::{Purpose, below, bits};
use crate::{Error, Result};

/// How places are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sampling {
    /// At random, spread evenly.
    #[default]
    Random,
    /// Every consecutive window once, then again in another order.
    Epoch,
    /// Every consecutive window in order, then again.
    Sequential,
    /// A window at every place once, then again in another order.
    Dense,
}

/// A batch of windows.
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
    /// How many batches a step accumulates.
    pub accumulate: u32,
    /// How places are chosen.
    pub sampling: Sampling,
}

impl BatchSpec {
    /// Which row of the whole run the first one of this batch is, from 0.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` for a step 0, a micro-batch that is not among the accumulated ones, or sizes that overflow.
    pub(super) fn first_row(&self) -> Result<u64> {
        if self.step == 0 || self.micro_batch >= self.accumulate {
            return Err(Error::argument(format!(
                "step {} and micro-batch {} of {}: steps count from 1, micro-batches from 0 to below accumulate",
                self.step, self.micro_batch, self.accumulate
            )));
        }
        let batches = (self.step - 1)
            .checked_mul(u64::from(self.accumulate))
            .and_then(|batches| batches.checked_add(u64::from(self.micro_batch)));
        let first = batches.and_then(|batches| batches.checked_mul(self.batch_size as u64));
        first
            .filter(|first| first.checked_add(self.batch_size as u64).is_some())
            .ok_or_else(too_many)
    }
}

fn too_many() -> Error {
    Error::argument("batch_size times the number of steps must stay below 2^64")
}

/// The starts of the windows, each in 0..(length - `seq_length`), so that the shifted target always exists.
///
/// With `Sampling::Random`, accumulated batches of a step are rounds of their own.
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for an empty shape, `ERR_STORE_TOO_SHORT` if not one window fits.
pub fn starts(length: u64, spec: &BatchSpec) -> Result<Vec<u64>> {
    let BatchSpec { batch_size, seq_length, seed, step, micro_batch, sampling, .. } = *spec;
    check_shape(batch_size, seq_length)?;
    let places = Places::new(length, seq_length, seed)?;
    let (first, round) = match sampling {
        Sampling::Random => {
            (step.checked_mul(batch_size as u64).ok_or_else(too_many)?, micro_batch)
        }
        _ => (spec.first_row()?, 0),
    };
    let end = first.checked_add(batch_size as u64).ok_or_else(too_many)?;
    Ok((first..end).map(|row| places.start(sampling, row, round)).collect())
}

pub(super) fn check_shape(batch_size: usize, seq_length: usize) -> Result<()> {
    if batch_size > 0 && seq_length > 0 {
        return Ok(());
    }
    Err(Error::argument("batch_size and seq_length must be at least 1"))
}

/// The places of one store's windows.
#[derive(Debug)]
pub(super) struct Places {
    /// Places a window can start at.
    bound: u64,
    seq_length: u64,
    seed: u64,
}

impl Places {
    pub fn new(length: u64, seq_length: usize, seed: u64) -> Result<Self> {
        Ok(Self { bound: window_starts(length, seq_length)?, seq_length: seq_length as u64, seed })
    }

    /// Where window `row` of the run starts. Rounds are of `Sampling::Random` alone.
    pub fn start(&self, sampling: Sampling, row: u64, round: u32) -> u64 {
        // Consecutive windows: each needs one token more for its targets, which bound has already taken off.
        let windows = (self.bound - 1) / self.seq_length + 1;
        match sampling {
            Sampling::Random => self.random(row, round),
            Sampling::Epoch => self.once(row, windows) * self.seq_length,
            Sampling::Sequential => row % windows * self.seq_length,
            Sampling::Dense => self.once(row, self.bound),
        }
    }

    fn random(&self, draw: u64, round: u32) -> u64 {
        let windows = (self.bound / self.seq_length).max(1);
        let key = bits(self.seed, Purpose::Batch, draw / windows, round);
        let phase = below(key, Purpose::BatchPhase, 0, 0, self.bound);
        let window = permuted(key, draw % windows, windows);
        let place = u128::from(window) * u128::from(self.bound) / u128::from(windows);
        (phase + place as u64) % self.bound
    }

    /// Element `row` of the orders of 0..count one after the other.
    fn once(&self, row: u64, count: u64) -> u64 {
        permuted(bits(self.seed, Purpose::Epoch, row / count, 0), row % count, count)
    }
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

    const SPEC: BatchSpec = BatchSpec {
        batch_size: 8,
        seq_length: 3,
        seed: 5,
        step: 2,
        micro_batch: 0,
        accumulate: 1,
        sampling: Sampling::Random,
    };

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
            (first..first + 17)
                .flat_map(|step| starts(105, &BatchSpec { step, ..spec }).unwrap())
                .collect()
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
            let mut elements: Vec<u64> =
                (0..count).map(|index| permuted(9, index, count)).collect();
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

    /// The starts of rows 0.. of a run, `rows` of them, in batches of 8.
    fn rows(length: u64, rows: u64, spec: BatchSpec) -> Vec<u64> {
        let batches = rows.div_ceil(8) as u32;
        let accumulate = spec.accumulate;
        let of = |n: u32| BatchSpec {
            step: u64::from(n / accumulate) + 1,
            micro_batch: n % accumulate,
            ..spec
        };
        (0..batches).flat_map(|n| starts(length, &of(n)).unwrap()).take(rows as usize).collect()
    }

    #[test]
    fn an_epoch_has_every_window_once_and_the_next_has_another_order() {
        for length in [4, 7, 100, 1_000, 3_001, 3_002, 3_003] {
            let windows = (length - 1) / 3;
            let spec = BatchSpec { sampling: Sampling::Epoch, ..SPEC };
            let drawn = rows(length, 3 * windows, spec);
            for epoch in drawn.chunks(windows as usize) {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq((0..windows).map(|i| 3 * i)), "{length}");
            }
            let (one, two) = drawn.split_at(windows as usize);
            assert!(windows < 10 || (one != &two[..one.len()] && !one.is_sorted()));
            assert!(
                windows < 10 || one != &rows(length, windows, BatchSpec { seed: 6, ..spec })[..]
            );
        }
    }

    #[test]
    fn dense_has_every_place_once_and_sequential_every_window_in_order() {
        for length in [4, 7, 100, 1_003] {
            let mut dense =
                rows(length, length - 3, BatchSpec { sampling: Sampling::Dense, ..SPEC });
            assert!(length < 10 || !dense.is_sorted());
            dense.sort_unstable();
            assert!(dense.into_iter().eq(0..length - 3));
            let windows = (length - 1) / 3;
            let twice =
                rows(length, 2 * windows, BatchSpec { sampling: Sampling::Sequential, ..SPEC });
            assert!(twice.into_iter().eq((0..2 * windows).map(|i| i % windows * 3)));
        }
    }

    #[test]
    fn accumulated_batches_are_the_rows_between() {
        for sampling in [Sampling::Epoch, Sampling::Sequential, Sampling::Dense] {
            let spec = BatchSpec { sampling, ..SPEC };
            let three = BatchSpec { accumulate: 3, ..spec };
            assert_eq!(rows(5_000, 2_000, three), rows(5_000, 2_000, spec), "{sampling:?}");
        }
        let beyond = BatchSpec { sampling: Sampling::Epoch, micro_batch: 1, ..SPEC };
        assert_eq!(starts(100, &beyond).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        let before = BatchSpec { sampling: Sampling::Epoch, step: 0, ..SPEC };
        assert_eq!(starts(100, &before).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }

    #[test]
    fn random_places_are_those_of_the_runs_made_so_far() {
        // Resuming a run draws what it would have drawn: these starts must never change.
        let spec = BatchSpec { batch_size: 4, seq_length: 64, step: 100, ..SPEC };
        assert_eq!(starts(1_000_000, &spec).unwrap(), [584_243, 668_531, 620_339, 874_227]);
        assert_eq!(
            starts(1_000_000, &BatchSpec { micro_batch: 3, ..spec }).unwrap(),
            [830_571, 42_795, 649_195, 430_699]
        );
    }
}
