//! The inner loops of a packed product: one block of b, its panels, and the tasks that multiply
//! them.

use std::ops::Range;

use super::geometry::{Geometry, PANEL_COLUMNS, PanelLayout};
use super::kernel_avx512::{self, RunSums};
use super::operand::Operand;
use super::pack::{PanelPart, pack_panel};
use crate::cpu::MatmulKernel;
use crate::host_memory::as_words_mut;
use crate::ops::{BlocksMut, RowsMut, Tasks, split_grid, split_rows};
use crate::pool::Pool;
use crate::simd::amx::{self, Amx, EmulatedAmx, PanelRun};
use crate::simd::out_tile::{OutElement, OutTile, WriteMode, finish_streaming};

/// Maximum number of panels of b in a task: if several runs along k go through its sums again, and
/// if there is a single run.
const MAX_PANELS: usize = 16;
const MAX_PANELS_SINGLE_RUN: usize = 32;
/// A task with at most this many panels of a, or of b, is not cut further in that direction.
const MIN_PANELS: usize = 4;
/// Words along k that are packed at a time if k is not contiguous.
const PACK_K_WORDS: usize = 32;

/// Maximum number of words of a that are packed for all tasks: 4 MiB, which stay in a shared cache.
const MAX_SHARED_WORDS: usize = 1 << 20;

/// The tasks of a product of a, (m, k), by one block of b, (k, n).
pub(super) struct BlockPlan {
    kernel: MatmulKernel,
    geometry: Geometry,
    n: usize,
    /// Words along k, padded.
    k_words: usize,
    /// Words along k in a run. The last one may have fewer.
    run_k_words: usize,
    /// Runs of words along k.
    k_runs: usize,
    /// Tasks down the output, in panels of a.
    pub down: Tasks,
    /// Tasks across the output, in panels of b.
    pub across: Tasks,
    a_panels: usize,
    b_panels: usize,
    /// Whether a is packed once, for all tasks.
    pub shares_a: bool,
}

/// The rows of a, as a task gets them.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// To be packed by the task.
    Unpacked(Operand<'a>),
    /// Packed for all tasks by `BlockPlan::pack_a`.
    Packed(&'a [u32]),
}

/// Panels of one operand.
#[derive(Clone, Copy)]
struct Panels {
    count: usize,
    /// Rows of a, or columns of b, in a panel.
    height: usize,
    layout: PanelLayout,
}

impl BlockPlan {
    /// Plans the product of a and one of `blocks` blocks of columns of b.
    pub(super) fn new(
        kernel: MatmulKernel,
        threads: usize,
        [m, k, n]: [usize; 3],
        blocks: usize,
    ) -> Self {
        let geometry = Geometry::of(kernel);
        let k_words =
            k.div_ceil(geometry.elements_per_word).next_multiple_of(geometry.k_word_multiple);
        let run_k_words = geometry.run_k_words(k_words);
        let k_runs = k_words.div_ceil(run_k_words.max(1)).max(1);
        let (a_panels, b_panels) = (m.div_ceil(geometry.rows), n.div_ceil(PANEL_COLUMNS));
        let max_panels = if k_runs == 1 { MAX_PANELS_SINGLE_RUN } else { MAX_PANELS };
        let mut down = a_panels.div_ceil(geometry.task_panels(run_k_words));
        let mut across = b_panels.div_ceil(max_panels);
        while down * across < geometry.tasks_per_thread * threads {
            match (a_panels / down > MIN_PANELS, b_panels / across > MIN_PANELS) {
                (true, _) => down *= 2,
                (false, true) => across *= 2,
                (false, false) => break,
            }
        }
        let (down, across) = (Tasks::exactly(a_panels, down), Tasks::exactly(b_panels, across));
        let shares_a =
            blocks * across.count > 1 && a_panels * geometry.rows * k_words <= MAX_SHARED_WORDS;
        Self {
            kernel,
            geometry,
            n,
            k_words,
            run_k_words,
            k_runs,
            down,
            across,
            a_panels,
            b_panels,
            shares_a,
        }
    }

    /// Returns the output of the product, to be cut into tasks: the block's columns from `left` on
    /// of a matrix whose rows have `stride` elements.
    pub(super) fn blocks<'a, T>(
        &self,
        out: &'a mut [T],
        stride: usize,
        left: usize,
    ) -> BlocksMut<'a, T> {
        let (_, from_left) = BlocksMut::new(out, stride).split_columns(left);
        from_left.split_columns(self.n).0.in_units(self.geometry.rows, PANEL_COLUMNS)
    }

    /// Returns the number of words in packed b.
    pub(super) fn b_len(&self) -> usize {
        self.b_panels * self.b_panel_len()
    }

    /// Returns how many words of scratch memory packed b and shared a take.
    pub(super) fn scratch_len(&self) -> usize {
        self.b_len() + self.shared_a_len()
    }

    fn b_panel_len(&self) -> usize {
        PANEL_COLUMNS * self.k_words
    }

    /// Returns the number of words in packed a, or 0 if it is not shared.
    pub(super) fn shared_a_len(&self) -> usize {
        if self.shares_a { self.a_panels * self.geometry.rows * self.k_words } else { 0 }
    }

    /// Returns the number of words in the panels of a that one task packs for one run.
    fn a_len(&self, panels: usize) -> usize {
        if self.shares_a { 0 } else { panels * self.geometry.rows * self.run_k_words }
    }

    /// Returns how many words of scratch memory a task of `down` panels of a and `across` panels of
    /// b takes.
    pub(super) fn task_scratch_len(&self, down: usize, across: usize) -> usize {
        let blocks = if self.k_runs > 1 { down * across } else { 0 };
        self.a_len(down) + blocks * self.geometry.block_sums()
    }

    /// Returns the elements along k that some words hold.
    fn depth(&self, k_words: Range<usize>) -> Range<usize> {
        let elements = self.geometry.elements_per_word;
        k_words.start * elements..k_words.end * elements
    }

    /// Returns the runs of words along k.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        let (k_words, most) = (self.k_words, self.run_k_words);
        (0..self.k_runs).map(move |run| run * most..k_words.min((run + 1) * most))
    }

    /// Packs b on all threads.
    pub(super) fn pack_b(&self, pool: &Pool, packed: &mut [u32], b: Operand) {
        let (height, layout) = (PANEL_COLUMNS, self.geometry.b_layout);
        let panels = Panels { count: self.b_panels, height, layout };
        self.pack_on_all_threads(pool, packed, b.transposed(), panels, 0..self.k_words);
    }

    /// Packs a on all threads, run by run.
    pub(super) fn pack_a(&self, pool: &Pool, mut packed: &mut [u32], a: Operand) {
        let (height, layout) = (self.geometry.rows, self.geometry.a_layout);
        let panels = Panels { count: self.a_panels, height, layout };
        for k_words in self.runs() {
            let (run, rest) = packed.split_at_mut(self.a_panels * height * k_words.len());
            self.pack_on_all_threads(pool, run, a, panels, k_words);
            packed = rest;
        }
    }

    /// Packs panels for some words along k. Each task reads contiguous memory: whole panels, or if
    /// the elements of a row are not contiguous, parts along k of all panels.
    fn pack_on_all_threads(
        &self,
        pool: &Pool,
        packed: &mut [u32],
        rows: Operand,
        panels: Panels,
        k_words: Range<usize>,
    ) {
        if k_words.is_empty() {
            return;
        }
        let Panels { count, height, layout } = panels;
        let panel_len = height * k_words.len();
        let part = |panel: usize, k_words| PanelPart {
            first_row: panel * height,
            height,
            k_words,
            layout,
        };
        if rows.has_contiguous_rows() {
            let output = RowsMut::new(packed, panel_len);
            split_rows(pool, Tasks::new(count, 1), output, |panels, packed| {
                for (panel, packed) in panels.zip(packed.chunks_exact_mut(panel_len)) {
                    let first = panel * height;
                    rows.prefetch(first..first + height, self.depth(k_words.clone()));
                    pack_panel(packed, rows, &part(panel, k_words.clone()));
                }
            });
            return;
        }
        let tasks = Tasks::new(k_words.len().div_ceil(PACK_K_WORDS), 1);
        let output = BlocksMut::new(packed, panel_len).in_units(count, PACK_K_WORDS * height);
        split_grid(pool, Tasks::exactly(1, 1), tasks, output, |_, parts, mut packed| {
            let first = parts.start * PACK_K_WORDS;
            for start in parts.map(|part| part * PACK_K_WORDS) {
                let end = k_words.len().min(start + PACK_K_WORDS);
                let part_words = k_words.start + start..k_words.start + end;
                rows.prefetch(0..count * height, self.depth(part_words.clone()));
                for panel in 0..count {
                    let packed = &mut packed.row_mut(panel)[(start - first) * height..];
                    let packed = &mut packed[..part_words.len() * height];
                    pack_panel(packed, rows, &part(panel, part_words.clone()));
                }
            }
        });
    }

    /// Packs the panels of a of one task, for a run of words along k.
    fn pack_task_a(&self, packed: &mut [u32], a: Operand, panels: Range<usize>, run: Range<usize>) {
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
        a: Rows,
        b_panels: &[u32],
        [down, across]: [Range<usize>; 2],
        out: OutTile<E>,
    ) {
        debug_assert!(out.rows.div_ceil(self.geometry.rows) == down.len());
        let (own_panels, sums) = scratch.split_at_mut(self.a_len(down.len()));
        let own_panels = as_words_mut(own_panels);
        for k_words in self.runs() {
            let a_panels = match a {
                Rows::Packed(shared) => {
                    let run = &shared[self.a_panels * self.geometry.rows * k_words.start..];
                    let panel_len = self.geometry.rows * k_words.len();
                    &run[down.start * panel_len..down.end * panel_len]
                }
                Rows::Unpacked(a) => {
                    self.pack_task_a(own_panels, a, down.clone(), k_words.clone());
                    &*own_panels
                }
            };
            let run = PanelRun {
                a: a_panels,
                b: &b_panels[across.start * self.b_panel_len() + k_words.start * PANEL_COLUMNS..],
                b_stride: self.b_panel_len(),
                k_words: k_words.len(),
                panels: [down.len(), across.len()],
                is_first: k_words.start == 0,
                is_last: k_words.end == self.k_words,
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
        if out.mode == WriteMode::Stream {
            finish_streaming();
        }
    }
}
