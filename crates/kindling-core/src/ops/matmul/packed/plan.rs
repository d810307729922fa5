//! Loops 3 to 1 of a packed product: one block of b, its panels, and the tasks that multiply them.

use std::ops::Range;

use super::geometry::{Geometry, PANEL_COLUMNS};
use super::kernel_avx512::{self, RunSums};
use super::operand::Operand;
use super::pack::{PanelPart, pack_panel};
use crate::cpu::MatmulKernel;
use crate::host_memory::as_words_mut;
use crate::ops::{BlocksMut, RowsMut, Tasks, split_grid, split_rows};
use crate::pool::Pool;
use crate::simd::amx::{self, Amx, EmulatedAmx, PanelRun};
use crate::simd::out_tile::{OutElement, OutTile};

/// Most panels of b in a task if each run along k goes through its sums again, and if there is one
/// run.
const MAX_PANELS: usize = 16;
const MAX_PANELS_SINGLE_RUN: usize = 32;
/// Fewest panels of a and of b in a task.
const MIN_PANELS: usize = 4;
/// Words along k that are packed at a time if k is not contiguous.
const PACK_K_WORDS: usize = 32;

/// The tasks of a product of a, (m, k), by one block of b, (k, n).
pub(super) struct BlockPlan {
    kernel: MatmulKernel,
    geometry: Geometry,
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
        let mut down = a_panels.div_ceil(geometry.task_panels());
        let mut across = b_panels.div_ceil(max_panels);
        while down * across < geometry.tasks_per_thread * threads {
            match (a_panels / down > MIN_PANELS, b_panels / across > MIN_PANELS) {
                (true, _) => down *= 2,
                (false, true) => across *= 2,
                (false, false) => break,
            }
        }
        let (down, across) = (Tasks::exactly(a_panels, down), Tasks::exactly(b_panels, across));
        Self { kernel, geometry, n, k_words, k_runs, down, across, b_panels }
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

    /// Returns whether a large output is written past the caches. Only tiles are fast enough to wait
    /// for its stores.
    pub(super) fn streams_output(&self) -> bool {
        matches!(self.kernel, MatmulKernel::Amx | MatmulKernel::EmulatedAmx)
    }

    /// Returns the words in packed b.
    pub(super) fn b_len(&self) -> usize {
        self.b_panels * self.b_panel_len()
    }

    fn b_panel_len(&self) -> usize {
        PANEL_COLUMNS * self.k_words
    }

    /// Returns the words in the panels of a of one task, for one run.
    fn a_len(&self, panels: usize) -> usize {
        panels * self.geometry.rows * self.geometry.run_k_words.min(self.k_words)
    }

    /// Returns the words of scratch memory that a task with so many panels of a and of b takes.
    pub(super) fn task_scratch_len(&self, down: usize, across: usize) -> usize {
        let blocks = if self.k_runs > 1 { down * across } else { 0 };
        self.a_len(down) + blocks * self.geometry.block_sums()
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

    /// Runs a task: multiplies the panels `down` of a by the panels `across` of packed b. `scratch`
    /// has `task_scratch_len` words.
    ///
    /// # Safety
    /// `out` can be written, and has the rows and columns of the panels.
    pub(super) unsafe fn multiply_panels<E: OutElement>(
        &self,
        scratch: &mut [f32],
        a: Operand,
        b_panels: &[u32],
        [down, across]: [Range<usize>; 2],
        out: OutTile<E>,
    ) {
        debug_assert!(out.rows.div_ceil(self.geometry.rows) == down.len());
        let (a_panels, sums) = scratch.split_at_mut(self.a_len(down.len()));
        let a_panels = as_words_mut(a_panels);
        for run in 0..self.k_runs {
            let most = self.geometry.run_k_words;
            let k_words = run * most..self.k_words.min((run + 1) * most);
            self.pack_a(a_panels, a, down.clone(), k_words.clone());
            let run = PanelRun {
                a: a_panels,
                b: &b_panels[across.start * self.b_panel_len() + k_words.start * PANEL_COLUMNS..],
                b_stride: self.b_panel_len(),
                k_words: k_words.len(),
                panels: [down.len(), across.len()],
                is_first: run == 0,
                is_last: run + 1 == self.k_runs,
            };
            // SAFETY: by the caller's promise; a kernel that the machine can run.
            unsafe {
                match self.kernel {
                    MatmulKernel::Amx => amx::multiply_run::<Amx, E>(run, sums, out),
                    MatmulKernel::EmulatedAmx => {
                        amx::multiply_run::<EmulatedAmx, E>(run, sums, out);
                    }
                    MatmulKernel::Avx512 | MatmulKernel::Avx512Bf16 => {
                        self.multiply_run(run, sums, out);
                    }
                }
            }
        }
        if self.kernel == MatmulKernel::Amx {
            amx::release();
        }
    }

    /// Multiplies the panels of a run, block by block, by a kernel of AVX-512.
    ///
    /// # Safety
    /// As for `multiply_panels`.
    unsafe fn multiply_run<E: OutElement>(&self, run: PanelRun, sums: &mut [f32], out: OutTile<E>) {
        let PanelRun { k_words, panels: [down, across], is_first, is_last, .. } = run;
        let (height, block_sums) = (self.geometry.rows, self.geometry.block_sums());
        assert!(is_first && is_last || sums.len() >= down * across * block_sums);
        for right in 0..across {
            let b = &run.b[right * run.b_stride..][..k_words * PANEL_COLUMNS];
            for left in 0..down {
                let a = &run.a[left * k_words * height..][..k_words * height];
                let at = (right * down + left) * block_sums;
                let sums = RunSums { block: sums.as_mut_ptr().wrapping_add(at), is_first, is_last };
                let tile =
                    out.tile([left * height, right * PANEL_COLUMNS], [height, PANEL_COLUMNS]);
                // SAFETY: by the caller's promise; a block of `sums` (asserted).
                unsafe {
                    if self.kernel == MatmulKernel::Avx512 {
                        kernel_avx512::multiply_f32(a, b, sums, tile);
                    } else {
                        kernel_avx512::multiply_bf16(a, b, sums, tile);
                    }
                }
            }
        }
    }
}
