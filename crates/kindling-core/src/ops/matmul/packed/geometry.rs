//! Sizes and layouts of packed panels, which differ by kernel.

use crate::cpu::MatmulKernel;
use crate::simd::amx::{BLOCK_SIDE, TILE_SIDE};
use crate::simd::cache::l2_bytes;
use crate::simd::out_tile::TILE_COLUMNS;

/// Columns in a panel of b: two vectors of AVX-512, or two tiles of AMX.
pub(super) const PANEL_COLUMNS: usize = TILE_COLUMNS;
/// Rows in a panel of a for AVX-512: 14 x 2 vectors of sums, 2 of b and 1 of a take 31 of 32
/// registers.
pub(super) const AVX512_ROWS: usize = 14;
/// Packing starts at a multiple of this many words along k.
const PACK_UNIT: usize = 16;
/// A run of the rows of a may take one `L2_PART`th of L2.
const L2_PART: usize = 4;

/// The order of words in a panel of some rows. A word is one f32, or two bf16 that are neighbours
/// along k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PanelLayout {
    /// One f32 per word: [k][row].
    F32,
    /// Two bf16 per word: [k word][row].
    Bf16,
    /// Two bf16 per word, in tiles of AMX: [16 k words][16 rows][row][k word]. Each row of a tile
    /// is a cache line.
    Bf16Tiles,
}

impl PanelLayout {
    /// Returns the index of a word in a panel of `height` rows.
    pub(super) fn index(self, height: usize, k_word: usize, row: usize) -> usize {
        match self {
            Self::F32 | Self::Bf16 => k_word * height + row,
            Self::Bf16Tiles => {
                k_word / TILE_SIDE * TILE_SIDE * height
                    + row / TILE_SIDE * TILE_SIDE * TILE_SIDE
                    + row % TILE_SIDE * TILE_SIDE
                    + k_word % TILE_SIDE
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Rows in a panel of a.
    pub rows: usize,
    /// Elements along k in a word.
    pub elements_per_word: usize,
    /// Operands are padded with zeros to a multiple of this many words along k.
    pub k_word_multiple: usize,
    /// Maximum number of words along k in a run. They hold 640 elements, so that a product at the
    /// depths of small models (512, 576, 640) takes one run and writes its sums once.
    pub max_run_k_words: usize,
    /// Tasks per thread, if the product is large enough. Tiles gain more from large tasks.
    pub tasks_per_thread: usize,
    pub a_layout: PanelLayout,
    pub b_layout: PanelLayout,
}

impl Geometry {
    pub(super) fn of(kernel: MatmulKernel) -> Self {
        let bf16 = Self {
            rows: AVX512_ROWS,
            elements_per_word: 2,
            k_word_multiple: 1,
            max_run_k_words: 320,
            tasks_per_thread: 8,
            a_layout: PanelLayout::Bf16,
            b_layout: PanelLayout::Bf16,
        };
        match kernel {
            MatmulKernel::Avx512 => Self {
                elements_per_word: 1,
                max_run_k_words: 640,
                a_layout: PanelLayout::F32,
                b_layout: PanelLayout::F32,
                ..bf16
            },
            MatmulKernel::Avx512Bf16 => bf16,
            MatmulKernel::Amx | MatmulKernel::EmulatedAmx => Self {
                rows: BLOCK_SIDE,
                tasks_per_thread: 2,
                k_word_multiple: TILE_SIDE,
                a_layout: PanelLayout::Bf16Tiles,
                ..bf16
            },
        }
    }

    /// Returns the number of words along k in a run, a multiple of 16, if there are `k_words` in
    /// all. Runs are as equal as possible, since a short one spends its time on loading and storing
    /// sums.
    pub(super) fn run_k_words(&self, k_words: usize) -> usize {
        let runs = k_words.div_ceil(self.max_run_k_words).max(1);
        k_words.div_ceil(runs).next_multiple_of(PACK_UNIT)
    }

    /// Returns the maximum number of panels of a in a task. A run of them stays in L2, beside the
    /// sums and b.
    pub(super) fn task_panels(&self, run_k_words: usize) -> usize {
        let panel_bytes = self.rows * run_k_words * size_of::<u32>();
        (l2_bytes() / L2_PART / panel_bytes.max(1)).max(1)
    }

    /// Returns the number of sums in a block, the product of a panel of a and a panel of b.
    pub(super) fn block_sums(&self) -> usize {
        self.rows * PANEL_COLUMNS
    }
}
