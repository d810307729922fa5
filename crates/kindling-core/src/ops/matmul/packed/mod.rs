//! Products of packed operands: out = a b or out += a b, with sums in f32.
//!
//! a: (m, k), f32 or bf16; b: (k, n), f32 or bf16; out: (m, n), f32, or bf16 rounded at the end.
//! Depending on the kernel, operands are multiplied as f32, or rounded to bf16 (to nearest, ties to
//! even) as they are packed.
//!
//! The scheme is that of BLIS. A kernel multiplies a panel of 14 or 32 rows of a by a panel of 32
//! columns of b, over a run of k, and keeps the sums in registers. Panels are packed: their words
//! lie in the order in which the kernel reads them. A word has 32 bits: one f32, or two bf16 that
//! are neighbours along k.
//!
//! ```text
//! for each block of b, of columns or of k                              product
//!     pack its panels, on all threads                                  BlockPlan::pack_b
//!     pack the panels of a, if several tasks need them                 BlockPlan::pack_a
//!     for each task, a block of rows and columns, on all threads       BlockPlan::multiply_panels
//!         for each run of k
//!             pack the task's panels of a, if they are not packed
//!             for each panel of b in the task
//!                 for each panel of a in the task
//!                     sum over k, in registers             kernel_avx512, simd::amx::block_product
//! ```
//!
//! 1. b is packed once, for all threads, in blocks of at most 2.5 MiB, which stay in a shared cache
//!    until all tasks have read them.
//! 2. Rows of a that several tasks need are packed once, for all threads, unless that takes more
//!    than 4 MiB. Otherwise each task packs its own, without synchronization. One run of them takes
//!    at most a quarter of the thread's L2 and stays there while the panels of b pass by.
//! 3. Runs are equal and have at most 640 elements, so that most products in a model need one.
//!    Sums between runs lie in blocks of scratch memory; the last run alone writes the output.
//! 4. There are several tasks per thread (`Geometry`), so that threads finish together, but tasks
//!    are not cut below about 4 x 4 panels, since each task packs its rows of a again.
//! 5. Runs and blocks begin at fixed k, whatever the tasks. A sum is therefore added in the same
//!    order, and a result has the same bits, for any number of threads.
//! 6. For a bf16 output, b is cut into blocks of columns only: the sums of a block over part of k
//!    could not be added to the output without rounding twice.
//! 7. Large outputs that are overwritten are written past the caches (`OutTile::overwrite_mode`).
//!
//! Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008; BLIS.

mod bf16_rows;
mod geometry;
mod kernel_avx512;
mod operand;
mod pack;
mod plan;

pub(crate) use bf16_rows::round_to_bf16;
pub(crate) use operand::Operand;

use crate::buffer::Out;
use crate::cpu::{Cpu, MatmulKernel};
use crate::dtype::Dtype;
use crate::ops::{split_grid, with_dirty_scratch};
use crate::simd::out_tile::{OutElement, OutTile, WriteMode};
use geometry::{Geometry, PANEL_COLUMNS};
use plan::{BlockPlan, Rows};

/// Maximum number of words in a block of b: 2.5 MiB, so that dW of 2,048 rows of 576 inputs is a
/// single block.
const MAX_BLOCK_WORDS: usize = 5 << 17;
/// The depth of a block of b is a multiple of this, so that its runs are long.
const BLOCK_DEPTH_UNIT: usize = 512;

/// A product: out = a b, or out += a b if `accumulate` is set, which a bf16 output does not allow.
pub(crate) struct Product<'a> {
    pub out: Out<'a>,
    pub a: Operand<'a>,
    pub b: Operand<'a>,
    pub accumulate: bool,
}

/// Computes a product.
///
/// # Panics
/// Panics if the sizes do not match, or if a bf16 output is to be accumulated.
pub(crate) fn product(cpu: &Cpu, kernel: MatmulKernel, args: Product) {
    let Product { mut out, a, b, accumulate } = args;
    let ((m, k), (depth, n)) = (a.size(), b.size());
    assert!(out.len() == m * n && k == depth);
    assert!(!(accumulate && is_bf16(&out)), "a bf16 output cannot be accumulated");
    assert!(kernel.dtype() == Dtype::Bf16 || !is_bf16(&out), "a bf16 output of an f32 product");
    if m == 0 || n == 0 {
        return;
    }
    let [block_k, block_n] = block_size(kernel, [k, n], is_bf16(&out));
    let plan = |depth: usize, columns: usize| {
        BlockPlan::new(kernel, cpu.pool.threads(), [m, depth, columns], n.div_ceil(block_n))
    };
    let mut scratch = cpu.scratch.lock();
    for top in (0..k.max(1)).step_by(block_k) {
        let depth = top..k.min(top + block_k);
        let (a, b) = (a.columns(depth.clone()), b.rows(depth.clone()));
        let largest = plan(depth.len(), n.min(block_n));
        let (b_panels, a_panels) =
            scratch.words(largest.scratch_len()).split_at_mut(largest.b_len());
        let rows = if largest.shares_a {
            largest.pack_a(&cpu.pool, a_panels, a);
            Rows::Packed(a_panels)
        } else {
            Rows::Unpacked(a)
        };
        for left in (0..n).step_by(block_n) {
            let columns = left..n.min(left + block_n);
            let plan = plan(depth.len(), columns.len());
            let b_panels = &mut b_panels[..plan.b_len()];
            plan.pack_b(&cpu.pool, b_panels, b.columns(columns));
            let block =
                Block { cpu, plan, rows, b_panels, left, accumulate: accumulate || top > 0 };
            match out.reborrow() {
                Out::CpuBf16(out) => block.multiply(out, n),
                out => block.multiply(out.cpu(), n),
            }
        }
    }
}

/// The product of a and one block of b.
struct Block<'a> {
    cpu: &'a Cpu,
    plan: BlockPlan,
    rows: Rows<'a>,
    b_panels: &'a [u32],
    /// First column of the output.
    left: usize,
    accumulate: bool,
}

impl Block<'_> {
    /// Runs the tasks of the block. Its output is some columns of `out`, whose rows have `stride`
    /// elements.
    fn multiply<E: OutElement>(&self, out: &mut [E], stride: usize) {
        let &Self { ref plan, rows: a, b_panels, left, accumulate, .. } = self;
        let mode = if accumulate {
            WriteMode::Accumulate
        } else {
            OutTile::overwrite_mode(out.as_ptr(), stride, out.len())
        };
        let out = plan.blocks(out, stride, left);
        split_grid(&self.cpu.pool, plan.down, plan.across, out, |down, across, mut out| {
            let (rows, cols) = (out.rows(), out.columns());
            let tile = OutTile { ptr: out.as_mut_ptr(), stride: out.stride(), rows, cols, mode };
            with_dirty_scratch(plan.task_scratch_len(down.len(), across.len()), |scratch| {
                // SAFETY: `out` belongs to the task, and has the rows and columns of its panels.
                unsafe { plan.multiply_panels(scratch, a, b_panels, [down, across], tile) };
            });
        });
    }
}

/// Returns how many words of scratch memory a product of these sizes with an f32 output takes.
pub(crate) fn scratch_len(kernel: MatmulKernel, threads: usize, [m, k, n]: [usize; 3]) -> usize {
    let [block_k, block_n] = block_size(kernel, [k, n], false);
    let sizes = [m, block_k.min(k), block_n.min(n)];
    BlockPlan::new(kernel, threads, sizes, n.div_ceil(block_n)).scratch_len()
}

fn is_bf16(out: &Out) -> bool {
    matches!(out, Out::CpuBf16(_))
}

/// Returns the size of a block of b along k and along n.
///
/// Blocks are cut along the longer side, so that panels are long and few. A bf16 output is cut
/// along n only.
fn block_size(kernel: MatmulKernel, [k, n]: [usize; 2], out_is_bf16: bool) -> [usize; 2] {
    let geometry = Geometry::of(kernel);
    let blocks = (k.div_ceil(geometry.elements_per_word) * n).div_ceil(MAX_BLOCK_WORDS).max(1);
    if k > n && !out_is_bf16 {
        [k.div_ceil(blocks).next_multiple_of(BLOCK_DEPTH_UNIT), n]
    } else {
        [k.max(1), n.div_ceil(blocks).next_multiple_of(PANEL_COLUMNS)]
    }
}

#[cfg(test)]
mod tests;
