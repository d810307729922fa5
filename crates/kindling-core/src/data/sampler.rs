//! Where the windows of a batch start: a pure function of (seed, step, row), so a run continues from its step alone.

use crate::random::{Purpose, below};
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
///
/// # Errors
/// `ERR_INVALID_ARGUMENT` for an empty shape, `ERR_STORE_TOO_SHORT` if not one window fits.
pub fn starts(length: u64, spec: &BatchSpec) -> Result<Vec<u64>> {
    let BatchSpec { batch_size, seq_length, seed, step, micro_batch } = *spec;
    if batch_size == 0 || seq_length == 0 {
        return Err(Error::argument("batch_size and seq_length must be at least 1"));
    }
    let bound = window_starts(length, seq_length)?;
    let rows = u32::try_from(batch_size).ok();
    let first = rows.and_then(|rows| micro_batch.checked_mul(rows));
    let Some((first, rows)) = first.zip(rows).filter(|(first, rows)| first.checked_add(*rows).is_some())
    else {
        return Err(Error::argument("batch_size times the micro-batches of a step must stay below 2^32"));
    };
    Ok((first..first + rows).map(|minor| below(seed, Purpose::Batch, step, minor, bound)).collect())
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
        for step in 0..2_000 {
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
    fn two_micro_batches_are_the_rows_of_one_twice_as_large() {
        let whole = starts(1 << 40, &BatchSpec { batch_size: 16, ..SPEC }).unwrap();
        let mut parts = starts(1 << 40, &SPEC).unwrap();
        parts.extend(starts(1 << 40, &BatchSpec { micro_batch: 1, ..SPEC }).unwrap());
        assert_eq!(parts, whole);
    }

    #[test]
    fn a_store_of_exactly_one_window_and_its_target_has_one_start() {
        assert_eq!(starts(4, &SPEC).unwrap(), [0; 8]);
        let error = starts(3, &SPEC).unwrap_err();
        assert!(matches!(error, Error::StoreTooShort { length: 3, needed: 4 }));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let spec = BatchSpec { batch_size: 1 << 31, micro_batch: 2, ..SPEC };
        assert_eq!(starts(100, &spec).unwrap_err().code(), "ERR_INVALID_ARGUMENT");
        let spec = BatchSpec { seq_length: usize::MAX, ..SPEC };
        assert_eq!(starts(100, &spec).unwrap_err().code(), "ERR_STORE_TOO_SHORT");
    }
}
