//! Loops 3 to 1 of a packed product: one block of b, its panels, and the tasks that multiply them.

use std::ops::Range;

use super::geometry::{Geometry, PANEL_COLUMNS};
use super::operand::Operand;
use super::out_tile::OutTile;
use super::pack::{PanelPart, pack_panel};
use super::{kernel_amx, kernel_avx512};
use crate::cpu::MatmulKernel;
use crate::ops::{BlocksMut, RowsMut, Tasks, split_grid, split_rows};
use crate::pool::Pool;
use crate::simd::amx::{self, Amx, EmulatedAmx};

/// Most panels of b in a task if each run along k goes through its sums again, and if there is one
/// run.
const MAX_PANELS: usize = 16;
const MAX_PANELS_SINGLE_RUN: usize = 32;
/// Fewest panels of a and of b in a task.
const MIN_PANELS: usize = 4;
/// Tasks per thread, if the product is large enough.
const TASKS_PER_THREAD: usize = 8;
/// Words along k that are packed at a time if k is not contiguous.
const PACK_K_WORDS: usize = 32;

/// The tasks of a product of a, (m, k), by one block of b, (k, n).
pub(super) struct BlockPlan {
    kernel: MatmulKernel,
    geometry: Geometry,
    m: usize,
    n: usize,
    /// Words along k, padded.
    k_words: usize,
    /// Runs of words along k.
    k_runs: usize,
    /// Tasks, in panels of a.
    pub down: Tasks,
    /// Tasks, in panels of b.
    pub across: Tasks,
    b_panels: usize,
}

impl BlockPlan {
    pub(super) fn new(kernel: MatmulKernel, threads: usize, [m, k, n]: [usize; 3]) -> Self {
        let geometry = Geometry::of(kernel);
        let k_words =
            k.div_ceil(geometry.elements_per_word).next_multiple_of(geometry.k_word_multiple);
        let k_runs = k_words.div_ceil(geometry.run_k_words).max(1);
        let (a_panels, b_panels) = (m.div_ceil(geometry.rows), n.div_ceil(PANEL_COLUMNS));
        let max_panels = if k_runs == 1 { MAX_PANELS_SINGLE_RUN } else { MAX_PANELS };
        let mut down = a_panels.div_ceil(geometry.task_rows / geometry.rows);
        let mut across = b_panels.div_ceil(max_panels);
        while down * across < TASKS_PER_THREAD * threads {
            match (a_panels / down > MIN_PANELS, b_panels / across > MIN_PANELS) {
                (true, _) => down *= 2,
                (false, true) => across *= 2,
                (false, false) => break,
            }
        }
        let (down, across) = (Tasks::exactly(a_panels, down), Tasks::exactly(b_panels, across));
        Self { kernel, geometry, m, n, k_words, k_runs, down, across, b_panels }
    }

    /// Returns the output of the product, to be cut into tasks: the columns from `left` of a matrix
    /// of rows of `stride` elements.
    pub(super) fn blocks<'a, T>(
        &self,
        out: &'a mut [T],
        stride: usize,
        left: usize,
    ) -> BlocksMut<'a, T> {
        let (_, from_left) = BlocksMut::new(out, stride).split_columns(left);
        from_left.split_columns(self.n).0.in_units(self.geometry.rows, PANEL_COLUMNS)
    }

    /// Returns the words in packed b.
    pub(super) fn b_len(&self) -> usize {
        self.b_panels * self.b_panel_len()
    }

    fn b_panel_len(&self) -> usize {
        PANEL_COLUMNS * self.k_words
    }

    /// Returns the words in the panels of a of one task, for one run.
    pub(super) fn a_len(&self, panels: usize) -> usize {
        panels * self.geometry.rows * self.geometry.run_k_words
    }

    /// Returns the elements along k in some words.
    fn depth(&self, k_words: Range<usize>) -> Range<usize> {
        let elements = self.geometry.elements_per_word;
        k_words.start * elements..k_words.end * elements
    }

    /// Packs b on all threads. Each task reads contiguous memory: whole panels, or if columns of b
    /// are not contiguous, runs along k of all panels.
    pub(super) fn pack_b(&self, pool: &Pool, packed: &mut [u32], b: Operand) {
        if self.k_words == 0 {
            return;
        }
        let rows = b.transposed();
        let part = |panel: usize, k_words: Range<usize>| PanelPart {
            first_row: panel * PANEL_COLUMNS,
            height: PANEL_COLUMNS,
            k_words,
            layout: self.geometry.b_layout,
        };
        if rows.has_contiguous_rows() {
            let tasks = Tasks::new(self.b_panels, 1);
            let output = RowsMut::new(packed, self.b_panel_len());
            split_rows(pool, tasks, output, |panels, packed| {
                for (panel, packed) in panels.zip(packed.chunks_exact_mut(self.b_panel_len())) {
                    let first = panel * PANEL_COLUMNS;
                    rows.prefetch(first..first + PANEL_COLUMNS, self.depth(0..self.k_words));
                    pack_panel(packed, rows, &part(panel, 0..self.k_words));
                }
            });
            return;
        }
        let tasks = Tasks::new(self.k_words.div_ceil(PACK_K_WORDS), 1);
        let output = BlocksMut::new(packed, self.b_panel_len())
            .in_units(self.b_panels, PACK_K_WORDS * PANEL_COLUMNS);
        split_grid(pool, Tasks::exactly(1, 1), tasks, output, |_, runs, mut packed| {
            let first = runs.start * PACK_K_WORDS;
            for run in runs {
                let start = run * PACK_K_WORDS;
                let k_words = start..self.k_words.min(start + PACK_K_WORDS);
                let place = (start - first) * PANEL_COLUMNS..(k_words.end - first) * PANEL_COLUMNS;
                rows.prefetch(0..self.n, self.depth(k_words.clone()));
                for panel in 0..self.b_panels {
                    let packed = &mut packed.row_mut(panel)[place.clone()];
                    pack_panel(packed, rows, &part(panel, k_words.clone()));
                }
            }
        });
    }

    /// Packs some panels of a, for a run of words along k.
    fn pack_a(&self, packed: &mut [u32], a: Operand, panels: Range<usize>, run: Range<usize>) {
        let height = self.geometry.rows;
        let step = if a.has_contiguous_rows() { run.len().max(1) } else { PACK_K_WORDS };
        for start in run.clone().step_by(step) {
            let k_words = start..run.end.min(start + step);
            let rows = panels.start * height..panels.end * height;
            a.prefetch(rows, self.depth(k_words.clone()));
            for (index, panel) in panels.clone().enumerate() {
                let at = (index * run.len() + start - run.start) * height;
                let part = PanelPart {
                    first_row: panel * height,
                    height,
                    k_words: k_words.clone(),
                    layout: self.geometry.a_layout,
                };
                pack_panel(&mut packed[at..at + k_words.len() * height], a, &part);
            }
        }
    }

    /// Runs a task: multiplies the panels `down` of a by the panels `across` of packed b.
    /// `a_panels` is scratch memory of `a_len` words.
    ///
    /// # Safety
    /// `out` can be written, and has the rows and columns of the panels.
    pub(super) unsafe fn multiply_panels(
        &self,
        a_panels: &mut [u32],
        a: Operand,
        b_panels: &[u32],
        [down, across]: [Range<usize>; 2],
        out: OutTile,
    ) {
        let height = self.geometry.rows;
        debug_assert!(out.rows == self.m.min(down.end * height) - down.start * height);
        for run in 0..self.k_runs {
            let most = self.geometry.run_k_words;
            let k_words = run * most..self.k_words.min((run + 1) * most);
            self.pack_a(a_panels, a, down.clone(), k_words.clone());
            let out = OutTile { accumulate: out.accumulate || run > 0, ..out };
            for (right, panel) in across.clone().enumerate() {
                let start = panel * self.b_panel_len();
                let b_run =
                    start + k_words.start * PANEL_COLUMNS..start + k_words.end * PANEL_COLUMNS;
                let b_panel = &b_panels[b_run];
                let a_len = k_words.len() * height;
                for index in 0..down.len() {
                    let a_panel = &a_panels[index * a_len..(index + 1) * a_len];
                    let at = [index * height, right * PANEL_COLUMNS];
                    let tile = out.tile(at, [height, PANEL_COLUMNS]);
                    // SAFETY: a tile of `out`, and a kernel that the machine can run.
                    unsafe {
                        match self.kernel {
                            MatmulKernel::Avx512 => {
                                kernel_avx512::multiply_f32(a_panel, b_panel, tile);
                            }
                            MatmulKernel::Avx512Bf16 => {
                                kernel_avx512::multiply_bf16(a_panel, b_panel, tile);
                            }
                            MatmulKernel::Amx => {
                                kernel_amx::multiply::<Amx>(a_panel, b_panel, tile);
                            }
                            MatmulKernel::EmulatedAmx => {
                                kernel_amx::multiply::<EmulatedAmx>(a_panel, b_panel, tile);
                            }
                        }
                    }
                }
            }
        }
        if self.kernel == MatmulKernel::Amx {
            amx::release();
        }
    }
}
