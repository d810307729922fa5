//! Kernel of AMX-BF16: a tile of 32 rows by 32 columns of the output, as 2 x 2 tile registers of
//! sums, with two of a and two of b.

use super::geometry::{AMX_ROWS, PANEL_COLUMNS};
use super::out_tile::OutTile;
use crate::simd::amx::{TILE_SIDE, TILE_WORDS, Tiles};

/// Computes out = a b (or +=) from a panel of a in the layout of tiles, and one of b, [k
/// word][column].
///
/// # Safety
/// The machine has the instructions of `T`, and the tile may be written.
pub(super) unsafe fn multiply<T: Tiles>(a: &[u32], b: &[u32], out: OutTile) {
    T::configure();
    // Registers hold whole tiles, so a smaller tile of the output is computed in `edge` and copied.
    let is_whole = out.rows == AMX_ROWS && out.cols == PANEL_COLUMNS;
    let mut edge = [0f32; AMX_ROWS * PANEL_COLUMNS];
    let (sums, stride) =
        if is_whole { (out.ptr, out.stride) } else { (edge.as_mut_ptr(), PANEL_COLUMNS) };
    if !is_whole && out.accumulate {
        for (row, edge) in edge.chunks_exact_mut(PANEL_COLUMNS).take(out.rows).enumerate() {
            // SAFETY: a row of the tile.
            let from =
                unsafe { std::slice::from_raw_parts(out.ptr.add(row * out.stride), out.cols) };
            edge[..out.cols].copy_from_slice(from);
        }
    }
    let quarter = |row: usize, column: usize| {
        sums.wrapping_add(row * TILE_SIDE * stride + column * TILE_SIDE).cast::<u32>()
    };
    // SAFETY: quarters of the tile or of `edge`; panels consist of whole tiles.
    unsafe {
        if out.accumulate {
            T::load::<0>(quarter(0, 0), stride);
            T::load::<1>(quarter(0, 1), stride);
            T::load::<2>(quarter(1, 0), stride);
            T::load::<3>(quarter(1, 1), stride);
        } else {
            T::zero::<0>();
            T::zero::<1>();
            T::zero::<2>();
            T::zero::<3>();
        }
        for (a, b) in a.chunks_exact(2 * TILE_WORDS).zip(b.chunks_exact(TILE_SIDE * PANEL_COLUMNS))
        {
            T::load::<4>(a.as_ptr(), TILE_SIDE);
            T::load::<6>(b.as_ptr(), PANEL_COLUMNS);
            T::load::<7>(b.as_ptr().add(TILE_SIDE), PANEL_COLUMNS);
            T::dot::<0, 4, 6>();
            T::dot::<1, 4, 7>();
            T::load::<5>(a.as_ptr().add(TILE_WORDS), TILE_SIDE);
            T::dot::<2, 5, 6>();
            T::dot::<3, 5, 7>();
        }
        T::store::<0>(quarter(0, 0), stride);
        T::store::<1>(quarter(0, 1), stride);
        T::store::<2>(quarter(1, 0), stride);
        T::store::<3>(quarter(1, 1), stride);
    }
    if !is_whole {
        for (row, edge) in edge.chunks_exact(PANEL_COLUMNS).take(out.rows).enumerate() {
            // SAFETY: a row of the tile.
            let to =
                unsafe { std::slice::from_raw_parts_mut(out.ptr.add(row * out.stride), out.cols) };
            to.copy_from_slice(&edge[..out.cols]);
        }
    }
}
