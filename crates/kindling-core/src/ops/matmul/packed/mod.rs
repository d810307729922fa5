//! Products of packed operands: out = a b or out += a b, sums in f32; out is f32, or bf16 rounded at the end. A kernel takes f32 as
//! it is, or takes bf16, to which f32 is rounded (to nearest, ties to even) as it is packed.
//!
//! a: (m, k); b: (k, n); out: (m, n). Operands are packed as panels of some rows of a, and of 32 columns of b, in 32-bit words:
//! one f32, or two bf16 that are neighbours along k. b is packed for all threads, a part at a time that stays in a cache. A
//! task owns a block of out and goes through it a run of k at a time: it packs its rows of a for that run, which then stay in
//! L2 while the panels of b pass. Sums depend on k only, not on how tasks are cut: results are the same bits for any number of
//! threads. Source of the scheme: BLIS, "Anatomy of high-performance matrix multiplication", 2008.

mod block;
mod kernel;
mod narrow;
mod operand;
mod pack;
mod tiles;

pub use kernel::Kernel;
pub(crate) use narrow::{dot_rows, rounded};
pub(crate) use operand::Operand;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::buffer::{AlignedMemory, Out};
use crate::cpu::Cpu;
use crate::ops::{Disjoint, Pieces, with_dirty_scratch};
use crate::simd::bf16;

/// Columns of a panel of b.
const WIDTH: usize = 32;
/// Most panels of b in one task where its sums are gone through again in every run, and where they are not.
const PANELS: usize = 16;
const PANELS_ONCE: usize = 32;
/// Least panels of a and of b in one task.
const LEAST: usize = 4;
/// Tasks for each thread where a product is large enough.
const TASKS: usize = 8;
/// Words along k that are packed at a time where lanes are contiguous; whole squares.
const PACKED_RUN: usize = 32;
/// Most words of b that are packed at a time: 2 MiB, which stay in a cache.
const PACKED_WORDS: usize = 1 << 19;

/// Memory for packed operands; grows to the largest product and is kept.
#[derive(Debug, Default)]
pub struct Packed(Mutex<Option<AlignedMemory>>);

/// A block of out that a kernel writes: `rows` x `columns` at most one panel each, rows `stride` apart.
#[derive(Clone, Copy)]
struct Block {
    address: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    /// Added to, rather than overwritten.
    accumulate: bool,
}

/// How a part of a product, (m, k) by (k, n), is cut.
struct Plan {
    kernel: Kernel,
    m: usize,
    n: usize,
    /// Words along k, rounded up.
    words: usize,
    /// Panels of b.
    panels: usize,
    /// Runs of words; where they begin does not depend on the parts, so neither does the order of a sum.
    runs: usize,
    /// Panels of a, and of b.
    down: Pieces,
    across: Pieces,
}

impl Plan {
    fn new(kernel: Kernel, threads: usize, m: usize, k: usize, n: usize) -> Self {
        let words = k.div_ceil(kernel.in_word()).next_multiple_of(kernel.words());
        let (run, rows) = kernel.run();
        let runs = words.div_ceil(run).max(1);
        let (left, right) = (m.div_ceil(kernel.rows()), n.div_ceil(WIDTH));
        let widest = if runs == 1 { PANELS_ONCE } else { PANELS };
        let (mut down, mut across) = (left.div_ceil(rows / kernel.rows()), right.div_ceil(widest));
        while down * across < TASKS * threads {
            match (left / down > LEAST, right / across > LEAST) {
                (true, _) => down *= 2,
                (false, true) => across *= 2,
                (false, false) => break,
            }
        }
        let (down, across) = (Pieces::exactly(left, down), Pieces::exactly(right, across));
        Self { kernel, m, n, words, panels: right, runs, down, across }
    }

    fn run(&self, index: usize) -> Range<usize> {
        let (most, _) = self.kernel.run();
        index * most..self.words.min((index + 1) * most)
    }

    /// What lies along k in `words`.
    fn depth(&self, words: Range<usize>) -> Range<usize> {
        words.start * self.kernel.in_word()..words.end * self.kernel.in_word()
    }

    /// Words of a panel of b.
    fn in_b(&self) -> usize {
        WIDTH * self.words
    }
}

/// `out` (rows of a, columns of b) = a b, or += where `accumulate` (into f32 only).
pub(crate) fn product(
    cpu: &Cpu,
    kernel: Kernel,
    out: Out,
    a: Operand,
    b: Operand,
    accumulate: bool,
) {
    let ((m, k), (depth, n)) = (a.size(), b.size());
    assert!(out.len() == m * n && k == depth);
    if m == 0 || n == 0 {
        return;
    }
    let target = match out {
        Out::CpuBf16(out) => {
            assert!(!accumulate, "sums are not added to bf16");
            Target::Narrow(Disjoint::new(out))
        }
        out => Target::Wide(Disjoint::new(out.cpu())),
    };
    // Parts of b along k, unless bf16 would have to be added to, else along n.
    let by_depth = matches!(target, Target::Wide(_)) && k > n;
    let (depth, width) = part_size(kernel, k, n, by_depth);
    let mut memory = cpu.packed.0.lock().unwrap_or_else(PoisonError::into_inner);
    for left in (0..n).step_by(width) {
        let columns = left..n.min(left + width);
        for top in (0..k.max(1)).step_by(depth) {
            let range = top..k.min(top + depth);
            let a = a.columns(range.clone());
            let b = b.columns(columns.clone()).transposed().columns(range).transposed();
            let place = Place {
                target: &target,
                stride: n,
                column: left,
                accumulate: accumulate || top > 0,
            };
            part(cpu, kernel, &mut memory, place, a, b);
        }
    }
}

/// Rows and columns of the parts of b (k, n) that are packed one after the other.
fn part_size(kernel: Kernel, k: usize, n: usize, by_depth: bool) -> (usize, usize) {
    let parts = (k.div_ceil(kernel.in_word()) * n).div_ceil(PACKED_WORDS).max(1);
    if by_depth {
        (k.div_ceil(parts).next_multiple_of(kernel.in_word() * kernel.run().0), n)
    } else {
        (k.max(1), n.div_ceil(parts).next_multiple_of(WIDTH))
    }
}

/// Returns the words of memory that a product with b (k, n) into f32 packs at a time.
pub(crate) fn scratch_len(kernel: Kernel, k: usize, n: usize) -> usize {
    let (depth, width) = part_size(kernel, k, n, k > n);
    let plan = Plan::new(kernel, 1, 1, depth.min(k), width.min(n));
    plan.in_b() * plan.panels
}

/// What a product is written to.
enum Target<'a> {
    Wide(Disjoint<'a, f32>),
    Narrow(Disjoint<'a, u16>),
}

/// Where a part of a product goes: from `column` on, rows `stride` apart.
#[derive(Clone, Copy)]
struct Place<'a> {
    target: &'a Target<'a>,
    stride: usize,
    column: usize,
    accumulate: bool,
}

/// One part of a product: packs its b, then runs its tasks.
fn part(
    cpu: &Cpu,
    kernel: Kernel,
    memory: &mut Option<AlignedMemory>,
    place: Place,
    a: Operand,
    b: Operand,
) {
    let ((m, k), (_, n)) = (a.size(), b.size());
    let plan = Plan::new(kernel, cpu.pool.threads(), m, k, n);
    let len = plan.in_b() * plan.panels;
    let kept = memory.take().filter(|memory| memory.len() >= len);
    let memory = memory.insert(kept.unwrap_or_else(|| AlignedMemory::needed(len)));
    let packed = &mut memory.words_mut()[..len];
    plan.pack(cpu, packed, b);
    cpu.pool.run(plan.down.count * plan.across.count, |task| {
        let down = plan.down.range(task / plan.across.count);
        let across = plan.across.range(task % plan.across.count);
        plan.task(packed, a, down, across, place);
    });
}

impl Plan {
    /// Packs b, in pieces that read memory in order: panels, or where lanes are contiguous runs along k of all of them.
    fn pack(&self, cpu: &Cpu, packed: &mut [u32], b: Operand) {
        let lanes = b.transposed();
        let along = lanes.is_along();
        let pieces =
            Pieces::new(if along { self.panels } else { self.words.div_ceil(PACKED_RUN) }, 1);
        let packed = Disjoint::new(packed);
        let pack = |panel: usize, run: Range<usize>| {
            let start = panel * self.in_b();
            // SAFETY: each piece writes places of its own: the run of a panel, which is contiguous.
            let target = unsafe { packed.part(start + run.start * WIDTH..start + run.end * WIDTH) };
            pack::panel(target, lanes, panel * WIDTH, WIDTH, self.kernel.order_of_columns(), run);
        };
        cpu.pool.run(pieces.count, |piece| {
            if along {
                for panel in pieces.range(piece) {
                    lanes.fetch(panel * WIDTH..(panel + 1) * WIDTH, self.depth(0..self.words));
                    pack(panel, 0..self.words);
                }
                return;
            }
            for run in pieces.range(piece) {
                let run = run * PACKED_RUN..self.words.min((run + 1) * PACKED_RUN);
                lanes.fetch(0..self.n, self.depth(run.clone()));
                (0..self.panels).for_each(|panel| pack(panel, run.clone()));
            }
        });
    }

    /// Packs the panels `down` of a for a run of words.
    fn pack_rows(&self, packed: &mut [u32], a: Operand, down: Range<usize>, run: Range<usize>) {
        let height = self.kernel.rows();
        let step = if a.is_along() { run.len().max(1) } else { PACKED_RUN };
        for start in run.clone().step_by(step) {
            let words = start..run.end.min(start + step);
            a.fetch(down.start * height..down.end * height, self.depth(words.clone()));
            for (index, panel) in down.clone().enumerate() {
                let at = (index * run.len() + start - run.start) * height;
                let target = &mut packed[at..at + words.len() * height];
                pack::panel(target, a, panel * height, height, self.kernel.order(), words.clone());
            }
        }
    }

    /// The panels `down` x `across` of a part of a product.
    fn task(
        &self,
        packed: &[u32],
        a: Operand,
        down: Range<usize>,
        across: Range<usize>,
        place: Place,
    ) {
        let height = self.kernel.rows();
        let (row, column) = (down.start * height, across.start * WIDTH);
        let (rows, columns) =
            (self.m.min(down.end * height) - row, self.n.min(across.end * WIDTH) - column);
        let panel = down.len() * height * self.kernel.run().0;
        match place.target {
            Target::Wide(out) => with_dirty_scratch(panel, |panels| {
                let address = out.address(row * place.stride + place.column + column);
                let sums = Sums { address, stride: place.stride, accumulate: place.accumulate };
                // SAFETY: the task's rows and columns lie inside `out` and belong to it alone.
                unsafe { self.multiply(words(panels), packed, a, down, across, sums) };
            }),
            Target::Narrow(out) => with_dirty_scratch(panel + rows * columns, |scratch| {
                let (panels, sums) = scratch.split_at_mut(panel);
                let corner =
                    Sums { address: sums.as_mut_ptr(), stride: columns, accumulate: false };
                // SAFETY: `sums` is the task's own and has its size.
                unsafe { self.multiply(words(panels), packed, a, down, across, corner) };
                for (index, sums) in sums.chunks_exact(columns).enumerate() {
                    let start = (row + index) * place.stride + place.column + column;
                    // SAFETY: tasks write disjoint blocks.
                    bf16::round_all(unsafe { out.part(start..start + columns) }, sums);
                }
            }),
        }
    }

    /// The panels `down` x `across`, with `panels` as memory for those of a.
    ///
    /// # Safety
    /// Their elements may be written from `sums` on.
    unsafe fn multiply(
        &self,
        panels: &mut [u32],
        packed: &[u32],
        a: Operand,
        down: Range<usize>,
        across: Range<usize>,
        sums: Sums,
    ) {
        let (kernel, height) = (self.kernel, self.kernel.rows());
        for run in 0..self.runs {
            let words = self.run(run);
            self.pack_rows(panels, a, down.clone(), words.clone());
            for right in across.clone() {
                let in_b = right * self.in_b();
                let panel_b = &packed[in_b + words.start * WIDTH..in_b + words.end * WIDTH];
                for (index, left) in down.clone().enumerate() {
                    let panel_a = &panels[index * words.len() * height..][..words.len() * height];
                    let at = index * height * sums.stride + (right - across.start) * WIDTH;
                    let block = Block {
                        address: sums.address.wrapping_add(at),
                        stride: sums.stride,
                        rows: height.min(self.m - left * height),
                        columns: WIDTH.min(self.n - right * WIDTH),
                        accumulate: sums.accumulate || run > 0,
                    };
                    // SAFETY: the block is the caller's to write; the kernel is one that the machine has.
                    unsafe { multiply(kernel, panel_a, panel_b, block) };
                }
            }
        }
        if kernel == Kernel::Tiles {
            tiles::release();
        }
    }
}

/// Where the sums of a task go: the address of its first one.
#[derive(Clone, Copy)]
struct Sums {
    address: *mut f32,
    stride: usize,
    accumulate: bool,
}

/// Scratch memory as words.
fn words(scratch: &mut [f32]) -> &mut [u32] {
    // SAFETY: the same size and alignment, and any bits are a word.
    unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), scratch.len()) }
}

/// One block of out from one panel of a and one of b.
///
/// # Safety
/// The block may be written, and the machine has the kernel's instructions.
unsafe fn multiply(kernel: Kernel, a: &[u32], b: &[u32], block: Block) {
    // SAFETY: the caller's promises.
    unsafe {
        match kernel {
            Kernel::Fma => block::multiply_f32(a, b, block),
            Kernel::Dot => block::multiply_pairs(a, b, block),
            Kernel::Tiles => tiles::multiply::<tiles::Amx>(a, b, block),
            Kernel::Emulated => tiles::multiply::<tiles::Plain>(a, b, block),
        }
    }
}

#[cfg(test)]
mod tests;
