//! Products of tiles that fit the L1 cache, and the packing of their operands.
//!
//! out (rows, columns) = a b, or += a b. Rows of out and b are whole vectors; a is read element by
//! element, in any layout, and broadcast. Nothing is packed beyond what the caller has laid out.

use std::ops::Range;

use crate::simd::{LANES, Vector, for_vectors, sixteen};

/// Queries or keys of a tile.
pub(super) const BLOCK: usize = 64;
/// Elements of a tile of scores.
pub(super) const TILE: usize = BLOCK * BLOCK;
/// Products compute this many rows at once, or a divisor of it. Buffers are padded to a multiple of
/// it.
const ROWS: usize = 8;

/// The left operand: element (i, k) is `elements[i * row + k * depth]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) elements: &'a [f32],
    pub(super) row: usize,
    pub(super) depth: usize,
}

/// Which part of a product on the causal diagonal is skipped, because it is zero or never read.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Causal {
    /// None: the tile is below the diagonal.
    Full,
    /// Rows are keys, columns are queries: skips the queries before each key.
    RowsAreKeys,
    /// Rows are queries, the depth is keys: skips the keys after each query.
    DepthIsKeys,
    /// Rows are keys, the depth is queries: skips the queries before each key.
    DepthIsQueries,
}

/// A product of tiles.
pub(super) struct TileMatmul<'a> {
    /// (rows, columns), rounded up to multiples of `ROWS` and `LANES`.
    pub(super) out: &'a mut [f32],
    /// (rows, depth).
    pub(super) a: Left<'a>,
    /// (depth, columns).
    pub(super) b: &'a [f32],
    /// Elements from one row of out, or of b, to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) causal: Causal,
    /// Adds to out if set; otherwise overwrites it.
    pub(super) accumulate: bool,
}

impl TileMatmul<'_> {
    /// Computes the product, in blocks of out that fill the registers.
    #[inline(always)]
    pub(super) fn run<V: Vector>(self) {
        if V::REGISTERS >= 32 {
            self.bands::<V, 8, 2>();
        } else {
            self.bands::<V, 4, 1>();
        }
    }

    #[inline(always)]
    fn bands<V: Vector, const ROWS: usize, const VECTORS: usize>(mut self) {
        let Self { a, stride, depth, causal, .. } = self;
        let (rows, columns) =
            (self.rows.next_multiple_of(ROWS), self.columns.next_multiple_of(LANES));
        if rows == 0 || columns == 0 || depth == 0 {
            return;
        }
        assert!(columns <= stride);
        assert!(rows * stride <= self.out.len() && depth * stride <= self.b.len());
        assert!((rows - 1) * a.row + (depth - 1) * a.depth < a.elements.len());
        for row in (0..rows).step_by(ROWS) {
            let first = if causal == Causal::RowsAreKeys { row / LANES * LANES } else { 0 };
            let range = match causal {
                Causal::Full | Causal::RowsAreKeys => 0..depth,
                Causal::DepthIsKeys => 0..depth.min(row + ROWS),
                Causal::DepthIsQueries => row.min(depth)..depth,
            };
            let mut column = first;
            while column + VECTORS * LANES <= columns {
                // SAFETY: the block is inside out, and its operands are inside a and b, by the
                // assertions above.
                unsafe { self.block::<V, ROWS, VECTORS>(row, column, range.clone()) };
                column += VECTORS * LANES;
            }
            while column < columns {
                // SAFETY: as above.
                unsafe { self.block::<V, ROWS, 1>(row, column, range.clone()) };
                column += LANES;
            }
        }
    }

    /// Computes ROWS rows by VECTORS vectors of out in registers, over the given part of the depth.
    ///
    /// # Safety
    /// Rows `row..row + ROWS` and columns `column..column + VECTORS * LANES` are inside out, and
    /// these with `depth` are inside a and b.
    #[inline(always)]
    unsafe fn block<V: Vector, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        row: usize,
        column: usize,
        depth: Range<usize>,
    ) {
        let Self { a, b, stride, accumulate, .. } = *self;
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for k in depth {
            let mut right = [V::splat(0.0); VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                let at = k * stride + column + v * LANES;
                // SAFETY: by the caller's promise.
                *right = V::load(unsafe { b.get_unchecked(at..at + LANES) });
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let at = (row + r) * a.row + k * a.depth;
                // SAFETY: by the caller's promise.
                let factor = V::splat(unsafe { *a.elements.get_unchecked(at) });
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = right.mul_add(factor, *sum);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let at = (row + r) * stride + column + v * LANES;
                // SAFETY: by the caller's promise.
                let target = unsafe { self.out.get_unchecked_mut(at..at + LANES) };
                let sum = if accumulate { V::load(target).add(sum) } else { sum };
                sum.store(target);
            }
        }
    }
}

/// Copies `rows` rows of `hs` elements to rows of `width` elements, padded with zeros. Zero rows
/// fill up the last `ROWS`.
#[inline(always)]
pub(super) fn pack<'a, V: Vector>(
    target: &mut [f32],
    width: usize,
    source: impl Fn(usize) -> &'a [f32],
    rows: usize,
    hs: usize,
) {
    // Goes down the columns: reads are a constant stride apart, which the hardware prefetches.
    for_vectors!(at in hs => {
        for row in 0..rows {
            V::load_partial(&source(row)[at.clone()]).store(&mut target[row * width + at.start..]);
        }
    });
    target[rows * width..rows.next_multiple_of(ROWS) * width].fill(0.0);
}

/// Copies `rows` rows of `hs` elements, times `factor`, to the columns of (hs, `BLOCK`). Zero
/// columns fill up the last vector.
#[inline(always)]
pub(super) fn pack_columns<'a, V: Vector>(
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

/// Returns the sum of a[i] b[i].
#[inline(always)]
pub(super) fn dot<V: Vector>(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = V::splat(0.0);
    let mut start = 0;
    while start < a.len() {
        let end = (start + LANES).min(a.len());
        sum = V::load_partial(&a[start..end]).mul_add(V::load_partial(&b[start..end]), sum);
        start = end;
    }
    sum.sum()
}
