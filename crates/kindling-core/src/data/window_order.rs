//! The start of each window of a batch, as a pure function of (seed, step, row). So a run can
//! resume from its step alone, and no order is kept in memory, even for a store of billions of
//! tokens.
//!
//! ```text
//! N: starts, the tokens at which a window with its targets can begin;  t: tokens in a window
//!
//! random:      round, i = divmod(row, N / t)           // a round has about N / t windows
//!              key = hash(seed, round);  phase = hash(key) mod N
//!              start = (phase + N * permute(key, i) / (N / t)) mod N
//! epoch:       epoch, i = divmod(row, consecutive windows)
//!              start = t * permute(hash(seed, epoch), i)
//! sequential:  start = t * (row mod consecutive windows)
//! dense:       epoch, i = divmod(row, N);  start = permute(hash(seed, epoch), i)
//!
//! permute(key, i) of 0..n:                             // a Feistel network
//!   left, right = the upper and lower half of the bits of i, in the next power of four >= n
//!   repeat 6 times:  left, right = right, left ^ hash(key, round, right)
//!   until the result is below n
//! ```
//!
//! 1. With independent random starts, a run as long as its corpus would see only 63% of it. A round
//!    of `random` is a grid of windows t apart, shifted by a random phase and visited in random
//!    order. Each start is uniform over all N, as if drawn independently, but hardly any text is
//!    seen twice before nearly all of it has been seen once.
//! 2. A Feistel network is a permutation whatever its round function: `right` is passed on, so each
//!    round can be undone. So every window comes once, without a table of those seen.
//! 3. Its domain is a power of four, since both halves need the same number of bits. Repeating
//!    until the result is below n (cycle walking) makes it a permutation of 0..n. The power of four
//!    is less than 4 n, so that takes fewer than four steps on average.
//! 4. Four rounds already make a strong pseudorandom permutation (Luby and Rackoff, 1988), but the
//!    proof is for wide halves, and those of a small store are narrow, hence six.

use crate::random::{Purpose, below, bits};
use crate::{Error, Result};

/// The order in which a run visits the windows of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WindowOrder {
    /// Random starts, spread evenly.
    #[default]
    Random,
    /// All consecutive windows once, then again in another random order.
    Epoch,
    /// All consecutive windows in order, then again.
    Sequential,
    /// One window per start position, then again in another random order.
    Dense,
}

/// Identifies one batch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpec {
    /// Windows per batch.
    pub batch_size: usize,
    /// Tokens per window. The targets extend one token further.
    pub seq_length: usize,
    /// The seed of the run.
    pub seed: u64,
    /// The step, from 1.
    pub step: u64,
    /// The index among the step's accumulated batches, from 0.
    pub micro_batch: u32,
    /// The number of batches that a step accumulates.
    pub accumulate: u32,
    pub order: WindowOrder,
}

impl BatchSpec {
    /// Returns the number of rows of the run before this batch.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for step 0, a micro-batch that is not below `accumulate`, or
    /// sizes that overflow.
    pub(super) fn first_row(&self) -> Result<u64> {
        if self.step == 0 || self.micro_batch >= self.accumulate {
            return Err(Error::argument(format!(
                "step {}, micro-batch {} does not exist; steps count from 1, and micro-batches from \
                 0 to accumulate - 1, where accumulate is {}",
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
    Error::argument("batch_size times the number of steps must be below 2^64")
}

/// Returns the starts of a batch's windows, each in 0..(length - `seq_length`), so that every
/// shifted target exists.
///
/// With `WindowOrder::Random`, each micro-batch of a step has its own rounds.
///
/// # Errors
/// Returns `ERR_INVALID_ARGUMENT` for an empty shape, and `ERR_STORE_TOO_SHORT` if no window fits.
pub fn starts(length: u64, spec: &BatchSpec) -> Result<Vec<u64>> {
    let BatchSpec { batch_size, seq_length, seed, step, micro_batch, order, .. } = *spec;
    check_shape(batch_size, seq_length)?;
    let starts = WindowStarts::new(length, seq_length, seed)?;
    let (first, stream) = match order {
        WindowOrder::Random => {
            (step.checked_mul(batch_size as u64).ok_or_else(too_many)?, micro_batch)
        }
        _ => (spec.first_row()?, 0),
    };
    let end = first.checked_add(batch_size as u64).ok_or_else(too_many)?;
    Ok((first..end).map(|row| starts.start(order, row, stream)).collect())
}

pub(super) fn check_shape(batch_size: usize, seq_length: usize) -> Result<()> {
    if batch_size > 0 && seq_length > 0 {
        return Ok(());
    }
    Err(Error::argument("batch_size and seq_length must be at least 1"))
}

/// The positions at which windows of one store can start.
#[derive(Debug)]
pub(super) struct WindowStarts {
    /// N above. All starts are below it.
    count: u64,
    seq_length: u64,
    seed: u64,
}

impl WindowStarts {
    pub fn new(length: u64, seq_length: usize, seed: u64) -> Result<Self> {
        Ok(Self { count: count_starts(length, seq_length)?, seq_length: seq_length as u64, seed })
    }

    /// Returns the start of window `row` of the run. `stream` selects independent rounds of
    /// `WindowOrder::Random`; the other orders ignore it.
    pub fn start(&self, order: WindowOrder, row: u64, stream: u32) -> u64 {
        let consecutive = (self.count - 1) / self.seq_length + 1;
        match order {
            WindowOrder::Random => self.random(row, stream),
            WindowOrder::Epoch => self.shuffled(row, consecutive) * self.seq_length,
            WindowOrder::Sequential => row % consecutive * self.seq_length,
            WindowOrder::Dense => self.shuffled(row, self.count),
        }
    }

    fn random(&self, row: u64, stream: u32) -> u64 {
        let windows = (self.count / self.seq_length).max(1);
        let key = bits(self.seed, Purpose::Batch, row / windows, stream);
        let phase = below(key, Purpose::BatchPhase, 0, 0, self.count);
        let window = permute(key, row % windows, windows);
        let offset = u128::from(window) * u128::from(self.count) / u128::from(windows);
        (phase + offset as u64) % self.count
    }

    /// Returns element `row` of the concatenation of one random order of 0..count per epoch.
    fn shuffled(&self, row: u64, count: u64) -> u64 {
        permute(bits(self.seed, Purpose::Epoch, row / count, 0), row % count, count)
    }
}

/// Returns element `index` of a random permutation of 0..count; see the top of the file.
fn permute(key: u64, index: u64, count: u64) -> u64 {
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

/// Returns the number of positions at which a window of `seq_length` tokens with its shifted
/// targets can start.
pub(super) fn count_starts(length: u64, seq_length: usize) -> Result<u64> {
    let needed = (seq_length as u64).saturating_add(1);
    match length.checked_sub(seq_length as u64) {
        Some(count) if count > 0 => Ok(count),
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
        order: WindowOrder::Random,
    };

    #[test]
    fn random_starts_are_uniform() {
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
    fn starts_depend_on_seed_step_and_micro_batch() {
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
    fn random_rounds_are_shifted_grids_in_different_orders() {
        // 102 starts: rounds of 34 windows of 3 tokens, two draws a step.
        let spec = BatchSpec { batch_size: 2, ..SPEC };
        let round = |first: u64| -> Vec<u64> {
            (first..first + 17)
                .flat_map(|step| starts(105, &BatchSpec { step, ..spec }).unwrap())
                .collect()
        };
        let (one, two) = (round(0), round(17));
        for mut places in [one.clone(), two.clone()] {
            assert!(places.iter().zip(&places[1..]).any(|(a, b)| b < a), "sorted: {places:?}");
            places.sort_unstable();
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] == 3), "{places:?}");
        }
        assert!(one != two);
    }

    #[test]
    fn permutations_of_any_count_hold_every_element_once() {
        for count in [1, 2, 3, 4, 5, 16, 17, 1_000, 4_097] {
            let mut elements: Vec<u64> = (0..count).map(|index| permute(9, index, count)).collect();
            elements.sort_unstable();
            assert!(elements.iter().copied().eq(0..count), "{count}");
        }
        assert!(permute(9, u64::MAX - 1, u64::MAX) < u64::MAX);
    }

    #[test]
    fn a_store_of_one_window_and_its_target_has_one_start() {
        assert_eq!(starts(4, &SPEC).unwrap(), [0; 8]);
        let error = starts(3, &SPEC).unwrap_err();
        assert!(matches!(error, Error::StoreTooShort { length: 3, needed: 4 }));
    }

    #[test]
    fn sizes_that_overflow_are_errors() {
        let spec = BatchSpec { step: u64::MAX, batch_size: 2, ..SPEC };
        assert_eq!(starts(100, &spec).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        let spec = BatchSpec { seq_length: usize::MAX, ..SPEC };
        assert_eq!(starts(100, &spec).unwrap_err().code(), "ERR_STORE_TOO_SHORT");
    }

    /// Returns the starts of the first `rows` rows of a run with batches of 8.
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
    fn epochs_visit_every_window_once_in_different_orders() {
        for length in [4, 7, 100, 1_000, 3_001, 3_002, 3_003] {
            let windows = (length - 1) / 3;
            let spec = BatchSpec { order: WindowOrder::Epoch, ..SPEC };
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
    fn dense_visits_every_start_and_sequential_keeps_the_order() {
        for length in [4, 7, 100, 1_003] {
            let mut dense =
                rows(length, length - 3, BatchSpec { order: WindowOrder::Dense, ..SPEC });
            assert!(length < 10 || !dense.is_sorted());
            dense.sort_unstable();
            assert!(dense.into_iter().eq(0..length - 3));
            let windows = (length - 1) / 3;
            let twice =
                rows(length, 2 * windows, BatchSpec { order: WindowOrder::Sequential, ..SPEC });
            assert!(twice.into_iter().eq((0..2 * windows).map(|i| i % windows * 3)));
        }
    }

    #[test]
    fn micro_batches_are_consecutive_rows() {
        for order in [WindowOrder::Epoch, WindowOrder::Sequential, WindowOrder::Dense] {
            let spec = BatchSpec { order, ..SPEC };
            let three = BatchSpec { accumulate: 3, ..spec };
            assert_eq!(rows(5_000, 2_000, three), rows(5_000, 2_000, spec), "{order:?}");
        }
        let beyond = BatchSpec { order: WindowOrder::Epoch, micro_batch: 1, ..SPEC };
        assert_eq!(starts(100, &beyond).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        let before = BatchSpec { order: WindowOrder::Epoch, step: 0, ..SPEC };
        assert_eq!(starts(100, &before).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
    }

    #[test]
    fn random_starts_never_change_between_releases() {
        // A resumed run must draw what it would have drawn without the interruption.
        let spec = BatchSpec { batch_size: 4, seq_length: 64, step: 100, ..SPEC };
        assert_eq!(starts(1_000_000, &spec).unwrap(), [584_243, 668_531, 620_339, 874_227]);
        assert_eq!(
            starts(1_000_000, &BatchSpec { micro_batch: 3, ..spec }).unwrap(),
            [830_571, 42_795, 649_195, 430_699]
        );
    }
}
