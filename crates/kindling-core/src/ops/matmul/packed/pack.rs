//! Packing: rows of a matrix (of a, or of b's transpose: "lanes") as a panel of 32-bit words along k, each one f32, or two
//! neighbours as bf16. Lanes past the matrix and the other half of an odd k are zero.

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use super::Operand;
use crate::ops::matmul::gemm::Matrix;
use crate::simd::{Isa, bf16};

/// Lanes, and words, of a square that is turned in registers.
const SIDE: usize = 16;

/// What a word is, and where that of a lane lies in a panel of `width` lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// One f32: [k][lane].
    Single,
    /// Two bf16: [pair][lane].
    Pairs,
    /// Two bf16: [16 pairs][16 lanes][lane][pair]: squares whose rows are a cache line each, as AMX loads them.
    Tiles,
}

impl Order {
    fn index(self, width: usize, pair: usize, lane: usize) -> usize {
        match self {
            Self::Single | Self::Pairs => pair * width + lane,
            Self::Tiles => {
                pair / SIDE * SIDE * width
                    + lane / SIDE * SIDE * SIDE
                    + lane % SIDE * SIDE
                    + pair % SIDE
            }
        }
    }
}

/// Packs `pairs` (from a multiple of 16 on) of the rows `first..first + width` of `lanes`, as many as there are, into
/// `target`, the part of the panel that belongs to them.
pub(super) fn panel(
    target: &mut [u32],
    lanes: Operand,
    first: usize,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    match lanes {
        Operand::F32(lanes) if order == Order::Single => {
            panel_of::<Single>(target, lanes, first, width, order, pairs);
        }
        Operand::F32(lanes) => panel_of::<Rounded>(target, lanes, first, width, order, pairs),
        Operand::Bf16(_) if order == Order::Single => panic!("a product of f32 was given bf16"),
        Operand::Bf16(lanes) => panel_of::<Pairs>(target, lanes, first, width, order, pairs),
    }
}

/// How the elements of a matrix become words.
trait Words {
    type Element: Copy;
    /// Elements of a word.
    const COUNT: usize;
    /// Whether the machine has the instructions.
    fn is_available() -> bool;
    /// The word of elements that may lie past the matrix.
    fn word(element: impl Fn(usize) -> Option<Self::Element>) -> u32;
    /// 16 words of neighbours from `source` on, of which `rest` elements exist.
    ///
    /// # Safety
    /// The instructions are there, and so many elements can be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn along(source: *const Self::Element, rest: usize) -> std::arch::x86_64::__m512i;
    /// The words of 16 lanes, `sources` their first and second elements, null past the matrix; those lanes of the mask.
    ///
    /// # Safety
    /// As `along`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn across(sources: [*const Self::Element; 2], mask: u16) -> std::arch::x86_64::__m512i;
}

/// f32 as it is.
struct Single;
/// f32, rounded to pairs of bf16.
struct Rounded;
/// bf16.
struct Pairs;

impl Words for Single {
    type Element = f32;
    const COUNT: usize = 1;
    fn is_available() -> bool {
        Isa::has_avx512()
    }
    fn word(element: impl Fn(usize) -> Option<f32>) -> u32 {
        element(0).unwrap_or(0.0).to_bits()
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn along(source: *const f32, rest: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::whole(source, avx512::mask(rest)) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn across(sources: [*const f32; 2], mask: u16) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::whole(sources[0], mask) }
    }
}

fn pair_of<T>(element: impl Fn(usize) -> Option<T>, round: impl Fn(T) -> u16) -> u32 {
    let half = |index| u32::from(element(index).map_or(0, &round));
    half(0) | half(1) << 16
}

impl Words for Rounded {
    type Element = f32;
    const COUNT: usize = 2;
    fn is_available() -> bool {
        bf16::is_available()
    }
    fn word(element: impl Fn(usize) -> Option<f32>) -> u32 {
        pair_of(element, bf16::round)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn along(source: *const f32, rest: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::round_row(source, avx512::wide_mask(rest)) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn across(sources: [*const f32; 2], mask: u16) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe {
            avx512::joined(
                sources.map(|source| avx512::round_halves(source, avx512::of(source, mask))),
            )
        }
    }
}

impl Words for Pairs {
    type Element = u16;
    const COUNT: usize = 2;
    fn is_available() -> bool {
        bf16::is_available()
    }
    fn word(element: impl Fn(usize) -> Option<u16>) -> u32 {
        pair_of(element, |bits| bits)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn along(source: *const u16, rest: usize) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe { avx512::row(source, avx512::wide_mask(rest)) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn across(sources: [*const u16; 2], mask: u16) -> std::arch::x86_64::__m512i {
        // SAFETY: the caller's promise.
        unsafe {
            avx512::joined(sources.map(|source| avx512::halves(source, avx512::of(source, mask))))
        }
    }
}

fn panel_of<W: Words>(
    target: &mut [u32],
    lanes: Matrix<W::Element>,
    first: usize,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    let lanes = lanes.lines(first..lanes.height.min(first + width));
    #[cfg(target_arch = "x86_64")]
    if W::is_available() && (lanes.row_stride() == 1 || lanes.column_stride() == 1) {
        // SAFETY: the machine has the instructions.
        unsafe {
            if order == Order::Single {
                avx512::panel_f32::<W>(target, lanes, width, order, pairs);
            } else {
                avx512::panel_pairs::<W>(target, lanes, width, order, pairs);
            }
        }
        return;
    }
    plain::<W>(target, lanes, width, order, pairs);
}

fn plain<W: Words>(
    target: &mut [u32],
    lanes: Matrix<W::Element>,
    width: usize,
    order: Order,
    pairs: Range<usize>,
) {
    for pair in pairs.clone() {
        for lane in 0..width {
            target[order.index(width, pair - pairs.start, lane)] = W::word(|index| {
                let k = W::COUNT * pair + index;
                (lane < lanes.height && k < lanes.width).then(|| lanes.element(lane, k))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_packed_by_vectors_equal_those_packed_plainly() {
        for (rows, depth) in [(1usize, 1usize), (14, 32), (15, 33), (40, 70), (32, 384), (3, 129)] {
            let values: Vec<f32> = (0..rows * depth).map(|i| (i as f32 * 0.731).sin()).collect();
            let turned: Vec<f32> =
                (0..rows * depth).map(|i| values[i % rows * depth + i / rows]).collect();
            for (width, order) in [
                (14, Order::Single),
                (32, Order::Single),
                (30, Order::Single),
                (20, Order::Pairs),
                (14, Order::Pairs),
                (32, Order::Pairs),
                (32, Order::Tiles),
            ] {
                let pairs = match order {
                    Order::Single => depth,
                    Order::Pairs => depth.div_ceil(2),
                    Order::Tiles => depth.div_ceil(2).next_multiple_of(SIDE),
                };
                for first in (0..rows).step_by(width) {
                    let mut expected = vec![7; pairs * width];
                    let lanes = Matrix::rows(&values, rows, depth);
                    let part = lanes.lines(first..rows.min(first + width));
                    if order == Order::Single {
                        plain::<Single>(&mut expected, part, width, order, 0..pairs);
                    } else {
                        plain::<Rounded>(&mut expected, part, width, order, 0..pairs);
                    }
                    let mut packed = vec![9; pairs * width];
                    let (head, tail) = packed.split_at_mut(pairs.min(32) * width);
                    panel(head, Operand::F32(lanes), first, width, order, 0..pairs.min(32));
                    panel(tail, Operand::F32(lanes), first, width, order, pairs.min(32)..pairs);
                    assert!(packed == expected, "along: {rows} {depth} {width} {order:?}");
                    let mut packed = vec![9; pairs * width];
                    let lanes = Matrix::rows(&turned, depth, rows).transposed();
                    panel(&mut packed, Operand::F32(lanes), first, width, order, 0..pairs);
                    assert!(packed == expected, "across: {rows} {depth} {width} {order:?}");
                    if order == Order::Single {
                        continue;
                    }
                    let narrow: Vec<u16> = values.iter().map(|value| bf16::round(*value)).collect();
                    let mut packed = vec![9; pairs * width];
                    let lanes = Operand::Bf16(Matrix::rows(&narrow, rows, depth));
                    panel(&mut packed, lanes, first, width, order, 0..pairs);
                    assert!(packed == expected, "bf16 along: {rows} {depth} {width} {order:?}");
                    let narrow: Vec<u16> = turned.iter().map(|value| bf16::round(*value)).collect();
                    let mut packed = vec![9; pairs * width];
                    let lanes = Operand::Bf16(Matrix::rows(&narrow, depth, rows).transposed());
                    panel(&mut packed, lanes, first, width, order, 0..pairs);
                    assert!(packed == expected, "bf16 across: {rows} {depth} {width} {order:?}");
                }
            }
        }
    }
}
