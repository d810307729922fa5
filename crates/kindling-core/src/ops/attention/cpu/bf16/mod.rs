//! Attention with products of bf16, by AMX tiles or `vdpbf16ps`: the algorithm of `super`, on
//! operands rounded to bf16. Softmax and sums are f32.
//!
//! A word holds two bf16 that are neighbours along the depth of a product. Products are out = a b
//! with a (rows, depth words) and b (depth words, columns), so that every operand is read in the
//! order in which it is stored:
//!
//! ```text
//! product                          a                        b
//! scores   (keys, queries) = k q^T   rows of k                q, words of hs by queries
//! dp       (keys, queries) = v dout^T  rows of v              dout, words of hs by queries
//! out^T    (hs, queries) += v^T p    v^T, words of keys       p, words of keys by queries
//! dq^T     (hs, queries) += k^T ds   k^T, words of keys       ds, words of keys by queries
//! dv       (keys, hs)    += p dout   p, words of queries      dout, words of queries by hs
//! dk       (keys, hs)    += ds q     ds, words of queries     q, words of queries by hs
//! ```
//!
//! 1. Scores stay (keys, queries), so the softmax of `super::softmax` serves both dtypes. Rounding
//!    its rows gives words of queries; interleaving two of its rows gives words of keys. Only q,
//!    dout, k and v are transposed, once per block or head.
//! 2. out and dq are summed transposed, so the factors by which earlier sums shrink are vectors
//!    over queries. They are transposed once per block of queries.
//! 3. Vector code works on a tile of 64 x 64 scores, which is four blocks of a product, so that the
//!    stores of one block are done before they are read and the products of the next are under way.
//! 4. The head size is padded with zeros to a multiple of 32.

mod backward;
mod forward;
mod operands;
mod product;

pub(super) use backward::{backward_group, scratch_len};
pub(super) use forward::{forward_head, scratch_len as forward_scratch_len};

use super::head_layout::HeadLayout;
use super::tile::{BLOCK, Causal};
use crate::cpu::MatmulKernel;

/// Rows and columns of a block of a product.
const SIDE: usize = 32;

/// The code that multiplies blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    Amx,
    EmulatedAmx,
}

impl Kernel {
    /// Returns the kernel that goes with one for large products, or `None` if that one takes f32.
    pub(super) fn of(kernel: MatmulKernel) -> Option<Self> {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            MatmulKernel::Avx512Bf16 => Some(Self::Avx512Bf16),
            MatmulKernel::Amx => Some(Self::Amx),
            MatmulKernel::EmulatedAmx => Some(Self::EmulatedAmx),
            _ => None,
        }
    }
}

/// Returns the head size, padded to whole blocks.
fn width(layout: HeadLayout) -> usize {
    layout.shape.head_size.next_multiple_of(SIDE)
}

/// Returns the number of words in an operand of one head over all positions.
fn head_words(layout: HeadLayout) -> usize {
    layout.shape.positions.next_multiple_of(BLOCK) * width(layout) / 2
}

/// Returns `causal` for a block on the diagonal; nothing of the others is skipped.
fn part(diagonal: bool, causal: Causal) -> Causal {
    if diagonal { causal } else { Causal::Full }
}
