//! Products with bf16 operands and f32 sums: out = a b or out += a b, where a and b are bf16 or are rounded to it (to nearest,
//! ties to even) as they are packed, and each sum is kept in f32; out is f32, or bf16 rounded at the end.
//!
//! a: (m, k); b: (k, n); out: (m, n). Both operands are packed whole: panels of some rows of a, and of 32 columns of b, in
//! which two neighbours along k make one 32-bit pair. A task owns a block of out and goes through it a run of k at a time, so
//! that its rows of a stay in L2 and a panel of b in L1. Tasks depend on sizes only, sums on k only: results are the same
//! bits for any number of threads. Source of the scheme: BLIS, "Anatomy of high-performance matrix multiplication", 2008.

mod dot;
mod narrow;
mod pack;
mod tiles;

pub(crate) use narrow::{dot_rows, rounded};

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::gemm::Matrix;
use crate::buffer::{In, Out};
use crate::device::Cpu;
use crate::ops::{Disjoint, Pieces, with_dirty_scratch};
use crate::simd::bf16;

/// Columns of a panel of b.
const WIDTH: usize = 32;
/// Most pairs along k of one run: a panel of b is then at most 24 KiB.
const PAIRS: usize = 192;
/// Most rows of a in one task: with a run of k at most 512 KiB.
const ROWS: usize = 672;
/// Most rows and panels of b in one task whose sums stay beside it until they are rounded: at most 210 KiB.
const ROUNDED_ROWS: usize = 112;
const ROUNDED_PANELS: usize = 15;
/// Pairs along k that are packed before the next panel's; whole squares.
const PACKED_PAIRS: usize = 32;
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
            In::Cpu(slice) => Self::F32(Matrix::rows(slice, height, width)),
            In::CpuBf16(slice) => Self::Bf16(Matrix::rows(slice, height, width)),
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
pub struct Packed(Mutex<Vec<u32>>);

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
    fn new(kernel: Kernel, (m, k, n): (usize, usize, usize), is_rounded: bool) -> Self {
        let pairs = k.div_ceil(2).next_multiple_of(kernel.pairs());
        let panels = (m.div_ceil(kernel.rows()), n.div_ceil(WIDTH));
        let rows = if is_rounded { ROUNDED_ROWS } else { ROWS };
        let most = (rows / kernel.rows()).min(panels.0.div_ceil(TASKS / 2)).max(1);
        let down = panels.0.div_ceil(most);
        let mut across = TASKS.div_ceil(down).min(panels.1.div_ceil(2)).max(1);
        if is_rounded {
            across = across.max(panels.1.div_ceil(ROUNDED_PANELS));
        }
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
pub(crate) fn product(cpu: &Cpu, kernel: Kernel, out: Out, a: Operand, b: Operand, accumulate: bool) {
    let ((m, k), (depth, n)) = (a.size(), b.size());
    assert!(out.len() == m * n && k == depth);
    if m == 0 || n == 0 {
        return;
    }
    let plan = Plan::new(kernel, (m, k, n), matches!(out, Out::CpuBf16(_)));
    let mut memory = cpu.packed.0.lock().unwrap_or_else(PoisonError::into_inner);
    let len = plan.in_a() * plan.panels.0 + plan.in_b() * plan.panels.1;
    if memory.len() < len + pack::LINE {
        *memory = vec![0; len + pack::LINE];
    }
    let start = memory.as_ptr().align_offset(64).min(pack::LINE);
    let (packed_a, packed_b) = memory[start..start + len].split_at_mut(plan.in_a() * plan.panels.0);
    plan.pack(cpu, packed_a, packed_b, a, b);
    let tasks = plan.down.count * plan.across.count;
    let cut = |task: usize| {
        (plan.down.range(task / plan.across.count), plan.across.range(task % plan.across.count))
    };
    match out {
        Out::Cpu(out) => {
            let out = Disjoint::new(out);
            cpu.pool.run(tasks, |task| {
                let (down, across) = cut(task);
                let (row, column) = (down.start * kernel.rows(), across.start * WIDTH);
                let corner = Corner { address: out.address(row * n + column), stride: n, accumulate };
                // SAFETY: the task's rows and columns lie inside `out` and belong to it alone.
                unsafe { plan.task(packed_a, packed_b, (m, n), down, across, corner) };
            });
        }
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
    }
}

/// Where the sums of a task go: the address of its first one.
#[derive(Clone, Copy)]
struct Corner {
    address: *mut f32,
    stride: usize,
    accumulate: bool,
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
        let (in_a, in_b, rows, order) = (self.in_a(), self.in_b(), self.kernel.rows(), self.kernel.order());
        let (parts_a, parts_b) = (Disjoint::new(packed_a), Disjoint::new(packed_b));
        let columns = b.transposed();
        let packing = Pieces::new(self.panels.0 + self.panels.1, 1);
        cpu.pool.run(packing.count, |piece| {
            // A run of k at a time over all panels of the piece: where lanes are contiguous, neighbours share cache lines.
            for pairs in (0..self.pairs).step_by(PACKED_PAIRS) {
                let pairs = pairs..self.pairs.min(pairs + PACKED_PAIRS);
                for panel in packing.range(piece) {
                    if let Some(panel) = panel.checked_sub(self.panels.0) {
                        // SAFETY: each panel is packed by one piece.
                        let target = unsafe { parts_b.part(panel * in_b..(panel + 1) * in_b) };
                        pack::panel(target, columns, panel * WIDTH, WIDTH, pack::Order::Pairs, pairs.clone());
                    } else {
                        // SAFETY: as above.
                        let target = unsafe { parts_a.part(panel * in_a..(panel + 1) * in_a) };
                        pack::panel(target, a, panel * rows, rows, order, pairs.clone());
                    }
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
            for right in across.clone() {
                let in_b = right * self.in_b();
                let panel_b = &packed_b[in_b + pairs.start * WIDTH..in_b + pairs.end * WIDTH];
                for left in down.clone() {
                    let in_a = left * self.in_a();
                    let panel_a = &packed_a[in_a + pairs.start * height..in_a + pairs.end * height];
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
