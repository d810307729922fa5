//! Products of small tiles, by broadcasting: no packing beyond what the caller lays out, every piece in the first caches.
//!
//! out (rows, columns) = a b or += a b. b and out are rows of whole vectors; a is read element by element, in any layout.

use std::ops::Range;

use crate::simd::{LANES, Vector, for_vectors, sixteen};

/// Side of a block of queries or keys.
pub(super) const BLOCK: usize = 64;
/// Rows are worked on in runs of this many or a divisor of it; buffers have that much room past the last row.
pub(super) const ROWS: usize = 8;

/// The left operand: element (i, k) lies at `i * row + k * depth`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) slice: &'a [f32],
    pub(super) row: usize,
    pub(super) depth: usize,
}

/// What a tile on the diagonal leaves out because it is zero or never read; rows count from the tile's first.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Causal {
    /// Nothing.
    Whole,
    /// Rows are keys, columns queries: queries before the key.
    QueriesBefore,
    /// Rows are queries, depth keys: keys after the query.
    KeysAfter,
    /// Rows are keys, depth queries: queries before the key.
    DepthBefore,
}

/// out (rows up to a multiple of `ROWS`, columns up to a multiple of `LANES`) = a b, or += where `accumulate`.
#[inline(always)]
pub(super) fn product<V: Vector>(
    out: &mut [f32],
    stride: usize,
    a: Left<'_>,
    b: &[f32],
    [rows, depth, columns]: [usize; 3],
    causal: Causal,
    accumulate: bool,
) {
    if V::REGISTERS >= 32 {
        bands::<V, 8, 2>(out, stride, a, b, [rows, depth, columns], causal, accumulate);
    } else {
        bands::<V, 4, 1>(out, stride, a, b, [rows, depth, columns], causal, accumulate);
    }
}

#[inline(always)]
fn bands<V: Vector, const ROWS: usize, const VECTORS: usize>(
    out: &mut [f32],
    stride: usize,
    a: Left<'_>,
    b: &[f32],
    [rows, depth, columns]: [usize; 3],
    causal: Causal,
    accumulate: bool,
) {
    let (rows, columns) = (rows.next_multiple_of(ROWS), columns.next_multiple_of(LANES));
    if rows == 0 || columns == 0 || depth == 0 {
        return;
    }
    assert!(columns <= stride);
    assert!(rows * stride <= out.len() && depth * stride <= b.len());
    assert!((rows - 1) * a.row + (depth - 1) * a.depth < a.slice.len());
    for row in (0..rows).step_by(ROWS) {
        let first = if causal == Causal::QueriesBefore { row / LANES * LANES } else { 0 };
        let range = match causal {
            Causal::Whole | Causal::QueriesBefore => 0..depth,
            Causal::KeysAfter => 0..depth.min(row + ROWS),
            Causal::DepthBefore => row.min(depth)..depth,
        };
        let mut column = first;
        while column + VECTORS * LANES <= columns {
            // SAFETY: the block lies inside out, its operands inside a and b (asserted above for the whole product).
            unsafe {
                micro::<V, ROWS, VECTORS>(out, stride, a, b, row, column, range.clone(), accumulate)
            };
            column += VECTORS * LANES;
        }
        while column < columns {
            // SAFETY: as above.
            unsafe {
                micro::<V, ROWS, 1>(out, stride, a, b, row, column, range.clone(), accumulate)
            };
            column += LANES;
        }
    }
}

/// ROWS rows by VECTORS vectors of out, kept in registers.
///
/// # Safety
/// Rows `row..row + ROWS` and columns `column..column + VECTORS * LANES` lie inside `out`; so do `depth` in a and b.
#[inline(always)]
unsafe fn micro<V: Vector, const ROWS: usize, const VECTORS: usize>(
    out: &mut [f32],
    stride: usize,
    a: Left<'_>,
    b: &[f32],
    row: usize,
    column: usize,
    depth: Range<usize>,
    accumulate: bool,
) {
    let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
    for k in depth {
        let mut lanes = [V::splat(0.0); VECTORS];
        for (v, lane) in lanes.iter_mut().enumerate() {
            let at = k * stride + column + v * LANES;
            // SAFETY: by the caller's promise.
            *lane = V::load(unsafe { b.get_unchecked(at..at + LANES) });
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: by the caller's promise.
            let factor =
                V::splat(unsafe { *a.slice.get_unchecked((row + r) * a.row + k * a.depth) });
            for (sum, lane) in sums.iter_mut().zip(lanes) {
                *sum = lane.mul_add(factor, *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            let at = (row + r) * stride + column + v * LANES;
            // SAFETY: by the caller's promise.
            let target = unsafe { out.get_unchecked_mut(at..at + LANES) };
            let sum = if accumulate { V::load(target).add(sum) } else { sum };
            sum.store(target);
        }
    }
}

/// Copies `rows` runs of `hs` elements, those that `source` gives, to rows of `width`; the rest of each row, and of the last
/// run of `ROWS` rows, is zero.
#[inline(always)]
pub(super) fn pack<'a, V: Vector>(
    target: &mut [f32],
    width: usize,
    source: impl Fn(usize) -> &'a [f32],
    rows: usize,
    hs: usize,
) {
    // Down the columns: memory is read at one distance, which the processor foresees.
    for_vectors!(at in hs => {
        for row in 0..rows {
            V::load_partial(&source(row)[at.clone()]).store(&mut target[row * width + at.start..]);
        }
    });
    target[rows * width..rows.next_multiple_of(ROWS) * width].fill(0.0);
}

/// Copies `rows` runs of `hs` elements, times `factor`, to the columns of (hs, `BLOCK`); columns up to a multiple of `LANES`
/// are zero.
#[inline(always)]
pub(super) fn pack_transposed<'a, V: Vector>(
    target: &mut [f32],
    source: impl Fn(usize) -> &'a [f32],
    rows: usize,
    hs: usize,
    factor: f32,
) {
    let factor = V::splat(factor);
    for row in (0..rows).step_by(LANES) {
        for_vectors!(at in hs => {
            let square: [V; LANES] = sixteen!(index => if row + index < rows {
                V::load_partial(&source(row + index)[at.clone()]).mul(factor)
            } else {
                V::splat(0.0)
            });
            let columns = V::transposed(square);
            let _: [(); LANES] = sixteen!(line => if at.start + line < at.end {
                columns[line].store(&mut target[(at.start + line) * BLOCK + row..]);
            });
        });
    }
}
