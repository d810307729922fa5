//! Compares the instructions of the processor with their emulation, in the loop that products run.

use super::block_product::{BLOCK_SIDE, BLOCK_SUMS, PanelRun, multiply_run};
use super::tiles::{Amx, EmulatedAmx, TILE_SIDE, Tiles, release};
use crate::simd::bf16;
use crate::simd::out_tile::{OutElement, OutTile, WriteMode};

/// Panels of a and of b, and rows and columns of the output, whose last blocks are partial.
const PANELS: [usize; 2] = [2, 3];
const SIZE: [usize; 2] = [BLOCK_SIDE + 7, 2 * BLOCK_SIDE + 21];
const STRIDE: usize = 3 * BLOCK_SIDE;
const ELEMENTS: usize = PANELS[0] * BLOCK_SIDE * STRIDE;
/// Words along k of each run.
const RUNS: [usize; 2] = [3 * TILE_SIDE, TILE_SIDE];

#[repr(C, align(64))]
struct Output<E>([E; ELEMENTS]);

/// Returns whether all instructions compute what the emulation does, for small integers, whose
/// products and sums are exact.
///
/// The processor must have the instructions.
pub(crate) fn matches_emulation() -> bool {
    let matches = outputs::<Amx>() == outputs::<EmulatedAmx>();
    release();
    matches
}

/// Multiplies in each mode, in one run and in two.
fn outputs<T: Tiles>() -> (Vec<f32>, Vec<u16>) {
    let (mut floats, mut bf16s) = (Vec::new(), Vec::new());
    for runs in [&RUNS[..1], &RUNS[..]] {
        floats.extend(product::<T, f32>(runs, 1.0, WriteMode::Overwrite));
        floats.extend(product::<T, f32>(runs, 1.0, WriteMode::Accumulate));
        floats.extend(product::<T, f32>(runs, 1.0, WriteMode::Stream));
        bf16s.extend(product::<T, u16>(runs, 1, WriteMode::Overwrite));
        bf16s.extend(product::<T, u16>(runs, 1, WriteMode::Stream));
    }
    (floats, bf16s)
}

/// Multiplies some runs. The elements of the output start as `old`.
fn product<T: Tiles, E: OutElement>(runs: &[usize], old: E, mode: WriteMode) -> Vec<E> {
    let word = |i: usize| bf16::pair((i % 7) as f32 - 3.0, (i % 5) as f32 - 2.0);
    let words = |panels: usize| panels * BLOCK_SIDE * RUNS[0];
    let a: Vec<u32> = (0..words(PANELS[0])).map(word).collect();
    let b: Vec<u32> = (0..words(PANELS[1])).map(|i| word(i + i / 11)).collect();
    let mut sums = vec![0.0; PANELS[0] * PANELS[1] * BLOCK_SUMS];
    let mut out = Box::new(Output([old; ELEMENTS]));
    let [rows, cols] = SIZE;
    for (index, &k_words) in runs.iter().enumerate() {
        let run = PanelRun {
            a: &a,
            b: &b,
            b_stride: BLOCK_SIDE * RUNS[0],
            k_words,
            panels: PANELS,
            is_first: index == 0,
            is_last: index + 1 == runs.len(),
        };
        let out = OutTile { ptr: out.0.as_mut_ptr(), stride: STRIDE, rows, cols, mode };
        // SAFETY: the output has the rows and columns; the caller's machine has the instructions.
        unsafe { multiply_run::<T, E>(run, &mut sums, out) };
    }
    out.0.to_vec()
}
