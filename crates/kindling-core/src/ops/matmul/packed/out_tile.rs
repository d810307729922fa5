//! The part of the output that a kernel writes.

use crate::ops::BlockMut;

/// A rectangle of an f32 matrix: `rows` rows of `cols` elements, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct OutTile {
    pub ptr: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
    /// Added to, rather than overwritten.
    pub accumulate: bool,
}

impl OutTile {
    /// Describes a block, to be added to or overwritten.
    pub(super) fn of_block(block: &mut BlockMut<'_, f32>, accumulate: bool) -> Self {
        let (rows, cols) = (block.rows(), block.columns());
        Self { ptr: block.as_mut_ptr(), stride: block.stride(), rows, cols, accumulate }
    }

    /// Describes whole rows of `cols` elements, to be overwritten.
    pub(super) fn of_rows(rows: &mut [f32], cols: usize) -> Self {
        let (ptr, rows) = (rows.as_mut_ptr(), rows.len() / cols);
        Self { ptr, stride: cols, rows, cols, accumulate: false }
    }

    /// Returns the tile of at most `rows` by `cols` elements that starts at (row, col).
    pub(super) fn tile(self, [row, col]: [usize; 2], [rows, cols]: [usize; 2]) -> Self {
        debug_assert!(row < self.rows && col < self.cols);
        Self {
            ptr: self.ptr.wrapping_add(row * self.stride + col),
            rows: rows.min(self.rows - row),
            cols: cols.min(self.cols - col),
            ..self
        }
    }
}
