//! Products with bf16 operands and f32 sums: out = a b or out += a b, where a and b are rounded to bf16 (to nearest, ties to
//! even) as they are packed, and each sum is kept in f32.
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
use crate::device::Cpu;
use crate::ops::{Disjoint, Pieces};
use crate::simd::bf16;

/// Columns of a panel of b.
const WIDTH: usize = 32;
/// Most pairs along k of one run: a panel of b is then at most 24 KiB.
const PAIRS: usize = 192;
/// Most rows of a in one task: with a run of k at most 512 KiB.
const ROWS: usize = 672;
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
    fn new(kernel: Kernel, m: usize, k: usize, n: usize) -> Self {
        let pairs = k.div_ceil(2).next_multiple_of(kernel.pairs());
        let panels = (m.div_ceil(kernel.rows()), n.div_ceil(WIDTH));
        let most = (ROWS / kernel.rows()).min(panels.0.div_ceil(TASKS / 2)).max(1);
        let down = panels.0.div_ceil(most);
        let across = TASKS.div_ceil(down).min(panels.1.div_ceil(2)).max(1);
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

/// `out` (`a.height` rows of `b.width`) = a b, or += where `accumulate`.
pub(crate) fn product(cpu: &Cpu, kernel: Kernel, out: &mut [f32], a: Matrix, b: Matrix, accumulate: bool) {
    assert!(out.len() == a.height * b.width && a.width == b.height);
    let (m, n) = (a.height, b.width);
    if m == 0 || n == 0 {
        return;
    }
    let plan = Plan::new(kernel, m, a.width, n);
    let mut memory = cpu.packed.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (in_a, in_b) = (kernel.rows() * plan.pairs, WIDTH * plan.pairs);
    let len = in_a * plan.panels.0 + in_b * plan.panels.1;
    if memory.len() < len + pack::LINE {
        *memory = vec![0; len + pack::LINE];
    }
    let start = memory.as_ptr().align_offset(64).min(pack::LINE);
    let (packed_a, packed_b) = memory[start..start + len].split_at_mut(in_a * plan.panels.0);

    let (parts_a, parts_b) = (Disjoint::new(&mut *packed_a), Disjoint::new(&mut *packed_b));
    let columns = b.transposed();
    let packing = Pieces::new(plan.panels.0 + plan.panels.1, 1);
    cpu.pool.run(packing.count, |piece| {
        // A run of k at a time over all panels of the piece: where lanes are contiguous, neighbours share cache lines.
        for pairs in (0..plan.pairs).step_by(PACKED_PAIRS) {
            let pairs = pairs..plan.pairs.min(pairs + PACKED_PAIRS);
            for panel in packing.range(piece) {
                if let Some(panel) = panel.checked_sub(plan.panels.0) {
                    // SAFETY: each panel is packed by one piece.
                    let target = unsafe { parts_b.part(panel * in_b..(panel + 1) * in_b) };
                    pack::panel(target, columns, panel * WIDTH, WIDTH, pack::Order::Pairs, pairs.clone());
                } else {
                    // SAFETY: as above.
                    let target = unsafe { parts_a.part(panel * in_a..(panel + 1) * in_a) };
                    pack::panel(
                        target,
                        a,
                        panel * kernel.rows(),
                        kernel.rows(),
                        kernel.order(),
                        pairs.clone(),
                    );
                }
            }
        }
    });
    let out = Disjoint::new(out);
    cpu.pool.run(plan.down.count * plan.across.count, |task| {
        let (down, across) =
            (plan.down.range(task / plan.across.count), plan.across.range(task % plan.across.count));
        for run in 0..plan.runs.count {
            let pairs = plan.run(run);
            for right in across.clone() {
                let panel_b = &packed_b[right * in_b + pairs.start * WIDTH..right * in_b + pairs.end * WIDTH];
                for left in down.clone() {
                    let panel_a =
                        left * in_a + pairs.start * kernel.rows()..left * in_a + pairs.end * kernel.rows();
                    let (row, column) = (left * kernel.rows(), right * WIDTH);
                    let block = Block {
                        address: out.address(row * n + column),
                        stride: n,
                        rows: kernel.rows().min(m - row),
                        columns: WIDTH.min(n - column),
                        accumulate: accumulate || run > 0,
                    };
                    // SAFETY: the block lies inside `out` and belongs to this task alone; the kernel is one that the
                    // machine has.
                    unsafe { multiply(kernel, &packed_a[panel_a], panel_b, block) };
                }
            }
        }
        if kernel == Kernel::Tiles {
            tiles::release();
        }
    });
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
