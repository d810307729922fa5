//! Products with bf16 operands and f32 sums: out = a b or out += a b, where a and b are bf16 or are rounded to it (to nearest,
//! ties to even) as they are packed, and each sum is kept in f32; out is f32, or bf16 rounded at the end.
//!
//! a: (m, k); b: (k, n); out: (m, n). Both operands are packed whole: panels of some rows of a, and of 32 columns of b, in
//! which two neighbours along k make one 32-bit pair. A task owns a block of out and goes through it a run of k at a time, so
//! that its sums, its rows of a and its columns of b stay in L2 and a panel of a in L1. Tasks depend on sizes only, sums on k only: results are the same
//! bits for any number of threads. Source of the scheme: BLIS, "Anatomy of high-performance matrix multiplication", 2008.

mod dot;
mod narrow;
mod pack;
mod tiles;

pub(crate) use narrow::{dot_rows, rounded};

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::gemm::Matrix;
use crate::buffer::{AlignedMemory, In, Out};
use crate::device::Cpu;
use crate::ops::{Disjoint, Pieces, with_dirty_scratch};
use crate::simd::bf16;

/// Columns of a panel of b.
const WIDTH: usize = 32;
/// Most pairs along k of one run: a panel of a is then at most 14 KiB (of tiles 32), one of b 32 KiB.
const PAIRS: usize = 256;
/// Most rows of a, and panels of b, in one task: in a run 224 KiB and 256 KiB, and 224 KiB of sums.
const ROWS: usize = 224;
const PANELS: usize = 8;
/// Pairs along k that are packed at a time where lanes are contiguous; whole squares.
const PACKED_PAIRS: usize = 32;
/// Elements packed at a time in a deep product, where that costs less than going through out again: 16 MiB stay in L3.
const PACKED_ELEMENTS: usize = 8 << 20;
/// Tasks a product is cut into where it is large enough.
const TASKS: usize = 32;

/// What multiplies the panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// `vdpbf16ps` of AVX512-BF16.
    #[non_exhaustive]
    Dot,
    /// Tiles of AMX-BF16.
    #[non_exhaustive]
    Tiles,
    /// The tiles' arithmetic in plain code, to test the packing and blocking of `Tiles` on any machine.
    Emulated,
}

impl Kernel {
    /// The fastest that the machine has, none without AVX512-BF16; `KINDLING_ISA` narrows it: `scalar`, `avx2` and `avx512`
    /// have none, `avx512bf16` has `Dot`.
    pub fn detect() -> Option<Self> {
        Self::narrowed(std::env::var("KINDLING_ISA").ok().as_deref())
    }

    fn narrowed(asked: Option<&str>) -> Option<Self> {
        if !bf16::is_available() {
            return None;
        }
        match asked {
            Some("scalar" | "avx2" | "avx512") => None,
            Some("avx512bf16") => Some(Self::Dot),
            _ => Some(if tiles::are_available() { Self::Tiles } else { Self::Dot }),
        }
    }

    /// Every one that can run here.
    pub fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Emulated];
        kernels.extend(bf16::is_available().then_some(Self::Dot));
        kernels.extend(tiles::are_available().then_some(Self::Tiles));
        kernels
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dot => "avx512bf16",
            Self::Tiles => "amx",
            Self::Emulated => "emulated",
        }
    }

    /// Rows of a panel of a.
    fn rows(self) -> usize {
        match self {
            Self::Dot => dot::ROWS,
            Self::Tiles | Self::Emulated => tiles::ROWS,
        }
    }

    /// What the number of pairs along k is rounded up to.
    fn pairs(self) -> usize {
        match self {
            Self::Dot => 1,
            Self::Tiles | Self::Emulated => tiles::PAIRS,
        }
    }

    fn order(self) -> pack::Order {
        match self {
            Self::Dot => pack::Order::Pairs,
            Self::Tiles | Self::Emulated => pack::Order::Tiles,
        }
    }
}

/// A matrix of either kind.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    F32(Matrix<'a>),
    Bf16(Matrix<'a, u16>),
}

impl<'a> Operand<'a> {
    /// `height` rows of `width` elements, one after the other.
    pub(crate) fn rows(elements: In<'a>, height: usize, width: usize) -> Self {
        match elements {
            In::CpuBf16(slice) => Self::Bf16(Matrix::rows(slice, height, width)),
            elements => Self::F32(Matrix::rows(elements.cpu(), height, width)),
        }
    }

    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.transposed()),
            Self::Bf16(matrix) => Self::Bf16(matrix.transposed()),
        }
    }

    /// The matrix of f32.
    ///
    /// # Panics
    /// When it is of bf16: only devices with such products have any.
    pub(crate) fn f32(self) -> Matrix<'a> {
        match self {
            Self::F32(matrix) => matrix,
            Self::Bf16(_) => panic!("a product of f32 was given bf16"),
        }
    }

    /// Some of its columns.
    fn columns(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.columns(range)),
            Self::Bf16(matrix) => Self::Bf16(matrix.columns(range)),
        }
    }

    /// Whether a row's elements lie next to each other.
    fn is_along(&self) -> bool {
        match self {
            Self::F32(matrix) => matrix.column_stride() == 1,
            Self::Bf16(matrix) => matrix.column_stride() == 1,
        }
    }

    /// Rows and columns.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::F32(matrix) => (matrix.height, matrix.width),
            Self::Bf16(matrix) => (matrix.height, matrix.width),
        }
    }
}

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

/// How a product is cut.
struct Plan {
    kernel: Kernel,
    /// Pairs along k, rounded up.
    pairs: usize,
    /// Panels of a and of b.
    panels: (usize, usize),
    /// Runs of pairs, and of panels of a and b.
    runs: Pieces,
    down: Pieces,
    across: Pieces,
}

impl Plan {
    fn new(kernel: Kernel, m: usize, k: usize, n: usize) -> Self {
        let pairs = k.div_ceil(2).next_multiple_of(kernel.pairs());
        let panels = (m.div_ceil(kernel.rows()), n.div_ceil(WIDTH));
        let most = (ROWS / kernel.rows()).min(panels.0.div_ceil(TASKS / 2)).max(1);
        let down = panels.0.div_ceil(most);
        let across = TASKS.div_ceil(down).min(panels.1.div_ceil(2)).max(panels.1.div_ceil(PANELS)).max(1);
        let units = pairs / kernel.pairs();
        Self {
            kernel,
            pairs,
            panels,
            runs: Pieces::exactly(units, units.div_ceil(PAIRS / kernel.pairs()).max(1)),
            down: Pieces::exactly(panels.0, down.max(1)),
            across: Pieces::exactly(panels.1, across),
        }
    }

    fn run(&self, index: usize) -> Range<usize> {
        let units = self.runs.range(index);
        units.start * self.kernel.pairs()..units.end * self.kernel.pairs()
    }
}

/// `out` (rows of a, columns of b) = a b, or += where `accumulate` (into f32 only).
pub(crate) fn product(cpu: &Cpu, kernel: Kernel, mut out: Out, a: Operand, b: Operand, accumulate: bool) {
    let ((m, k), (depth, n)) = (a.size(), b.size());
    assert!(out.len() == m * n && k == depth);
    if m == 0 || n == 0 {
        return;
    }
    let most = (PACKED_ELEMENTS / (m + n)).max(2 * PAIRS);
    let is_deep = k > most && m * n < (m + n) * most / 2 && matches!(out, Out::Cpu(_));
    let chunks = if is_deep { k.div_ceil(most) } else { 1 };
    let depth = k.div_ceil(chunks).next_multiple_of(2 * PAIRS);
    for start in (0..k.max(1)).step_by(depth.max(1)) {
        let range = start..k.min(start + depth);
        let (a, b) = (a.columns(range.clone()), b.transposed().columns(range).transposed());
        chunk(cpu, kernel, out.again(), a, b, accumulate || start > 0);
    }
}

/// As `product`, packed whole.
fn chunk(cpu: &Cpu, kernel: Kernel, out: Out, a: Operand, b: Operand, accumulate: bool) {
    let ((m, k), (_, n)) = (a.size(), b.size());
    let plan = Plan::new(kernel, m, k, n);
    let mut memory = cpu.packed.0.lock().unwrap_or_else(PoisonError::into_inner);
    let len = plan.in_a() * plan.panels.0 + plan.in_b() * plan.panels.1;
    let kept = memory.take().filter(|memory| memory.len() >= len);
    let memory = memory.insert(kept.unwrap_or_else(|| AlignedMemory::needed(len)));
    let (packed_a, packed_b) = memory.words_mut()[..len].split_at_mut(plan.in_a() * plan.panels.0);
    plan.pack(cpu, packed_a, packed_b, a, b);
    let tasks = plan.down.count * plan.across.count;
    let cut = |task: usize| {
        (plan.down.range(task / plan.across.count), plan.across.range(task % plan.across.count))
    };
    match out {
        Out::CpuBf16(out) => {
            assert!(!accumulate, "sums are not added to bf16");
            let out = Disjoint::new(out);
            cpu.pool.run(tasks, |task| {
                let (down, across) = cut(task);
                let rows = down.start * kernel.rows()..m.min(down.end * kernel.rows());
                let columns = across.start * WIDTH..n.min(across.end * WIDTH);
                with_dirty_scratch(rows.len() * columns.len(), |sums| {
                    let corner =
                        Corner { address: sums.as_mut_ptr(), stride: columns.len(), accumulate: false };
                    // SAFETY: `sums` is the task's own and has its size.
                    unsafe { plan.task(packed_a, packed_b, (m, n), down, across, corner) };
                    for (row, sums) in rows.zip(sums.chunks_exact(columns.len())) {
                        // SAFETY: tasks write disjoint blocks.
                        let out = unsafe { out.part(row * n + columns.start..row * n + columns.end) };
                        bf16::round_all(out, sums);
                    }
                });
            });
        }
        out => {
            let out = Disjoint::new(out.cpu());
            cpu.pool.run(tasks, |task| {
                let (down, across) = cut(task);
                let (row, column) = (down.start * kernel.rows(), across.start * WIDTH);
                let corner = Corner { address: out.address(row * n + column), stride: n, accumulate };
                // SAFETY: the task's rows and columns lie inside `out` and belong to it alone.
                unsafe { plan.task(packed_a, packed_b, (m, n), down, across, corner) };
            });
        }
    }
}

/// Where the sums of a task go: the address of its first one.
#[derive(Clone, Copy)]
struct Corner {
    address: *mut f32,
    stride: usize,
    accumulate: bool,
}

/// The packing of one operand in `count` panels of `width` lanes.
struct Packing<'a> {
    lanes: Operand<'a>,
    width: usize,
    order: pack::Order,
    count: usize,
}

impl Packing<'_> {
    /// Pieces that read memory in order: panels, or where lanes are contiguous runs along k of all of them.
    fn pieces(&self, pairs: usize) -> Pieces {
        Pieces::new(if self.lanes.is_along() { self.count } else { pairs.div_ceil(PACKED_PAIRS) }, 1)
    }

    /// # Safety
    /// No other thread writes this piece's places in `parts` at the same time.
    unsafe fn piece(&self, parts: &Disjoint<u32>, pairs: usize, range: Range<usize>) {
        let pack = |panel: usize, run: Range<usize>| {
            let start = panel * self.width * pairs;
            // SAFETY: the places of a run of one panel, which are contiguous; the caller's promise.
            let target = unsafe { parts.part(start + run.start * self.width..start + run.end * self.width) };
            pack::panel(target, self.lanes, panel * self.width, self.width, self.order, run);
        };
        if self.lanes.is_along() {
            range.for_each(|panel| pack(panel, 0..pairs));
        } else {
            for run in range {
                let run = run * PACKED_PAIRS..pairs.min((run + 1) * PACKED_PAIRS);
                (0..self.count).for_each(|panel| pack(panel, run.clone()));
            }
        }
    }
}

impl Plan {
    /// Words of a panel of a, and of b.
    fn in_a(&self) -> usize {
        self.kernel.rows() * self.pairs
    }

    fn in_b(&self) -> usize {
        WIDTH * self.pairs
    }

    fn pack(&self, cpu: &Cpu, packed_a: &mut [u32], packed_b: &mut [u32], a: Operand, b: Operand) {
        let rows = self.kernel.rows();
        let left = Packing { lanes: a, width: rows, order: self.kernel.order(), count: self.panels.0 };
        let right =
            Packing { lanes: b.transposed(), width: WIDTH, order: pack::Order::Pairs, count: self.panels.1 };
        let pieces = [left.pieces(self.pairs), right.pieces(self.pairs)];
        let parts = [Disjoint::new(packed_a), Disjoint::new(packed_b)];
        cpu.pool.run(pieces[0].count + pieces[1].count, |piece| {
            // SAFETY: each piece writes places of its own.
            unsafe {
                match piece.checked_sub(pieces[0].count) {
                    None => left.piece(&parts[0], self.pairs, pieces[0].range(piece)),
                    Some(piece) => right.piece(&parts[1], self.pairs, pieces[1].range(piece)),
                }
            }
        });
    }

    /// The panels `down` x `across` of a product of (m, n), from `corner` on.
    ///
    /// # Safety
    /// Their elements may be written.
    unsafe fn task(
        &self,
        packed_a: &[u32],
        packed_b: &[u32],
        (m, n): (usize, usize),
        down: Range<usize>,
        across: Range<usize>,
        corner: Corner,
    ) {
        let (kernel, height) = (self.kernel, self.kernel.rows());
        for run in 0..self.runs.count {
            let pairs = self.run(run);
            for left in down.clone() {
                let in_a = left * self.in_a();
                let panel_a = &packed_a[in_a + pairs.start * height..in_a + pairs.end * height];
                for right in across.clone() {
                    let in_b = right * self.in_b();
                    let panel_b = &packed_b[in_b + pairs.start * WIDTH..in_b + pairs.end * WIDTH];
                    let (row, column) = ((left - down.start) * height, (right - across.start) * WIDTH);
                    let block = Block {
                        address: corner.address.wrapping_add(row * corner.stride + column),
                        stride: corner.stride,
                        rows: height.min(m - left * height),
                        columns: WIDTH.min(n - right * WIDTH),
                        accumulate: corner.accumulate || run > 0,
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

/// One block of out from one panel of a and one of b.
///
/// # Safety
/// The block may be written, and the machine has the kernel's instructions.
unsafe fn multiply(kernel: Kernel, a: &[u32], b: &[u32], block: Block) {
    // SAFETY: the caller's promises.
    unsafe {
        match kernel {
            Kernel::Dot => dot::multiply(a, b, block),
            Kernel::Tiles => tiles::multiply::<tiles::Amx>(a, b, block),
            Kernel::Emulated => tiles::multiply::<tiles::Plain>(a, b, block),
        }
    }
}

#[cfg(test)]
mod tests;
