//! Tests of the loop over emulated tiles against sums in f64, with rows written by vectors and by
//! plain code.

use super::*;
use crate::random::{Purpose, uniform};
use crate::simd::amx::EmulatedAmx;

/// Sizes that are less than, equal to and more than a tile and a block.
const SIZES: [usize; 8] = [1, 15, 16, 17, 31, 32, 33, 70];
/// Words along k of each run.
const RUNS: [&[usize]; 5] = [&[0], &[16], &[48], &[32, 16], &[16, 64, 48]];

/// Values whose sums differ by their order in f32.
fn random(len: usize, major: u64) -> Vec<f32> {
    (0..len).map(|i| (2.0 * uniform(5, Purpose::Benchmark, major, i as u32) - 1.0) as f32).collect()
}

/// Returns the words of panels of 32 rows each, in the order of `index`.
fn packed(
    [rows, k_words]: [usize; 2],
    element: impl Fn(usize, usize) -> f32,
    index: impl Fn(usize, usize) -> usize,
) -> Vec<u32> {
    let panels = rows.div_ceil(BLOCK_SIDE);
    let mut words = vec![0; panels * BLOCK_SIDE * k_words];
    for row in 0..rows {
        for word in 0..k_words {
            let at = row / BLOCK_SIDE * BLOCK_SIDE * k_words + index(row % BLOCK_SIDE, word);
            words[at] = bf16::pair(element(row, 2 * word), element(row, 2 * word + 1));
        }
    }
    words
}

struct Case<'a> {
    rows: usize,
    cols: usize,
    runs: &'a [usize],
    mode: WriteMode,
    vectors: bool,
}

/// An element of the output, to and from f32.
trait Float: OutElement + PartialEq + std::fmt::Debug {
    fn of(value: f32) -> Self;
    fn value(self) -> f32;
}

impl Float for f32 {
    fn of(value: f32) -> Self {
        value
    }
    fn value(self) -> f32 {
        self
    }
}

impl Float for u16 {
    fn of(value: f32) -> Self {
        bf16::round(value)
    }
    fn value(self) -> f32 {
        bf16::widen(self)
    }
}

/// Multiplies and compares. Elements around the output must stay as they were.
fn check<E: Float>(case: &Case, tolerance: f64) {
    let &Case { rows, cols, runs, mode, vectors } = case;
    let what = format!("{rows} x {cols}, runs {runs:?}, {mode:?}, vectors: {vectors}");
    let k = 2 * runs.iter().sum::<usize>();
    let (a, b) = (random(rows * k, 1), random(cols * k, 2));
    let a_element = |row: usize, p: usize| a[row * k + p];
    let b_element = |col: usize, p: usize| b[col * k + p];
    // Whole cache lines for `Stream`, and not for the other modes.
    let stride = if mode == WriteMode::Stream { 128 } else { cols + 3 };
    let old = E::of(0.75);
    let mut memory = vec![old; (rows + 2) * stride + 64];
    let start = stride + memory[stride..].as_ptr().align_offset(64);
    let blocks = rows.div_ceil(BLOCK_SIDE) * cols.div_ceil(BLOCK_SIDE);
    let mut sums = vec![f32::NAN; blocks * BLOCK_SUMS];
    let b_words = packed([cols, k / 2], b_element, |col, word| word * BLOCK_SIDE + col);
    let mut done = 0;
    for (index, &k_words) in runs.iter().enumerate() {
        let a_words = packed(
            [rows, k_words],
            |row, p| a_element(row, 2 * done + p),
            |row, word| {
                let [tile, in_tile] = [row / TILE_SIDE, row % TILE_SIDE];
                let step = word / TILE_SIDE * STEP_WORDS;
                step + tile * TILE_WORDS + in_tile * TILE_SIDE + word % TILE_SIDE
            },
        );
        let run = PanelRun {
            a: &a_words,
            b: &b_words[done * BLOCK_SIDE..],
            b_stride: k / 2 * BLOCK_SIDE,
            k_words,
            panels: [rows.div_ceil(BLOCK_SIDE), cols.div_ceil(BLOCK_SIDE)],
            is_first: index == 0,
            is_last: index + 1 == runs.len(),
        };
        let out = OutTile { ptr: memory[start..].as_mut_ptr(), stride, rows, cols, mode };
        // SAFETY: emulated tiles; the output has the rows and columns.
        unsafe { multiply_run_with::<EmulatedAmx, E>(run, &mut sums, out, vectors) };
        done += k_words;
    }
    for (at, found) in memory.iter().enumerate() {
        let place = at.checked_sub(start).map(|at| (at / stride, at % stride));
        let Some((row, col)) = place.filter(|(row, col)| *row < rows && *col < cols) else {
            assert_eq!(*found, old, "{what}: outside, at {at}");
            continue;
        };
        let exact = |value: f32| f64::from(bf16::widen(bf16::round(value)));
        let product: f64 =
            (0..k).map(|p| exact(a_element(row, p)) * exact(b_element(col, p))).sum();
        let kept = if mode == WriteMode::Accumulate { f64::from(old.value()) } else { 0.0 };
        let error = (f64::from(found.value()) - (product + kept)).abs();
        let bound = tolerance * product.abs().max(1.0) + 1e-5;
        assert!(error <= bound, "{what}: ({row}, {col}) is {found:?}, not {}", product + kept);
    }
}

#[test]
fn blocks_match_sums_in_f64_at_every_edge_and_leave_other_elements_alone() {
    let with_vectors = if bf16::is_available() { &[false, true][..] } else { &[false] };
    for (rows, cols) in SIZES.into_iter().flat_map(|rows| SIZES.map(|cols| (rows, cols))) {
        for &vectors in with_vectors {
            for runs in RUNS {
                use WriteMode::{Accumulate, Overwrite, Stream};
                for mode in [Overwrite, Stream, Accumulate] {
                    let case = Case { rows, cols, runs, mode, vectors };
                    check::<f32>(&case, 1e-6);
                    if mode != Accumulate {
                        check::<u16>(&case, 1.0 / 256.0);
                    }
                }
            }
        }
    }
}
