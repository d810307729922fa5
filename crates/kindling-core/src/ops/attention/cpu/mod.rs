//! Attention on the CPU, over tiles of 64 queries by 64 keys.
//!
//! ```text
//! forward, a task per sequence and query head:
//!     k, v := keys and values of the head, packed
//!     for each block of 64 queries:
//!         q := queries / sqrt(hs), packed as columns
//!         max, sum := -inf, 0                           for each query
//!         for each block of 64 keys up to the queries' own:
//!             scores := k q                             (keys, queries)
//!             new    := max(max, column maxima of scores)
//!             p      := exp(scores - new)
//!             shrink := exp(max - new)
//!             sum    := shrink sum + column sums of p
//!             out    := shrink out + p^T v
//!             max    := new
//!         out := out / sum
//!         lse := max + ln(sum)
//!
//! backward, a task per sequence and key/value head:
//!     k, v := keys and values of the head, packed
//!     for each query head that shares them, for each block of 64 queries:
//!         delta := row sums of dout * out
//!         for each block of 64 keys up to the queries' own:
//!             p   := exp(k q - lse)                     (keys, queries)
//!             ds  := p * (v dout^T - delta) / sqrt(hs)
//!             dv  += p dout
//!             dk  += ds q
//!             dq  += ds^T k
//! ```
//!
//! 1. A tile of scores is 16 KiB and stays in the L1 cache from the product that fills it to the
//!    products that read it. The (t, t) scores of a head never exist as a whole.
//! 2. The online softmax visits each key once. If a block raises a query's maximum, what was summed
//!    so far shrinks by exp(old - new), so no exponential overflows.
//! 3. Backward needs no running maximum: lse already normalises, so p is one exponential.
//! 4. Tiles are (keys, queries). One vector holds a key and sixteen queries, and max, sum, lse and
//!    delta of those queries are vectors too: the softmax has no horizontal operations.
//! 5. Queries, keys and values are copied once per task (`tile::pack`). In qkv the rows of a head
//!    are (nh + 2 nkv) hs elements apart; packed, they are adjacent and padded with zeros to whole
//!    vectors and blocks, so the inner loops have no remainders. The scale 1 / sqrt(hs) is applied
//!    to the queries as they are copied.
//! 6. Blocks of keys after the queries are skipped. On the diagonal, products skip the zero
//!    triangle (`tile::Causal`), and only vectors that the diagonal crosses are masked
//!    (`softmax.rs`).
//! 7. A backward task owns a key/value head with all its query heads, so no two tasks add to the
//!    same dk and dv, and sums are added in one order whatever the number of threads.
//! 8. Gradients may replace qkv: a task packs what it reads of its heads before it writes there.

mod backward;
mod bf16;
mod decode;
mod forward;
mod head_layout;
mod out_rows;
mod softmax;
mod tile;

pub(super) use decode::{DecodeInputs, decode};

use super::{BackwardInPlace, Forward};
use crate::buffer::Out;
use crate::cpu::{Cpu, MatmulBackend};
use crate::ops::{BlocksMut, PerTask, Tasks, split_grid, with_dirty_scratch};
use backward::{HeadGroup, backward_group};
use forward::forward_head;
use head_layout::HeadLayout;
use out_rows::{OutBlock, OutRows};

/// Returns the f32 elements of scratch memory that a task of the backward pass needs. The forward
/// pass needs less.
pub(super) fn scratch_len(s: super::Shape, matmul: MatmulBackend) -> usize {
    backward_scratch_len(HeadLayout::new(s, 0, 0), bf16_kernel(matmul))
}

fn backward_scratch_len(layout: HeadLayout, kernel: Option<bf16::Kernel>) -> usize {
    kernel.map_or_else(|| backward::scratch_len(layout), |_| bf16::scratch_len(layout))
}

/// Returns the kernel for products of bf16, or `None` where products are f32.
fn bf16_kernel(matmul: MatmulBackend) -> Option<bf16::Kernel> {
    match matmul {
        MatmulBackend::Gemm => None,
        MatmulBackend::Packed(kernel) => bf16::Kernel::of(kernel),
    }
}

pub(super) fn forward(cpu: &Cpu, args: Forward) {
    let Forward { out, lse, qkv, shape: s } = args;
    if s.rows() == 0 {
        return;
    }
    let (sequences, heads) =
        (Tasks::exactly(s.batch, s.batch), Tasks::exactly(s.num_heads, s.num_heads));
    let (qkv, lse) = (qkv.cpu(), PerTask::new(lse.cpu(), s.positions));
    let kernel = bf16_kernel(cpu.matmul);
    let work = |sequence: usize, head: usize, mut out: OutBlock, lse: &mut [f32]| {
        let layout = HeadLayout::new(s, sequence, head);
        if let Some(kernel) = kernel {
            with_dirty_scratch(bf16::forward_scratch_len(layout), |scratch| {
                bf16::forward_head(cpu.isa, kernel, &mut out, lse, qkv, layout, scratch);
            });
            return;
        }
        with_dirty_scratch(forward::scratch_len(layout), |scratch| {
            forward_head(cpu.isa, &mut out, lse, qkv, layout, scratch);
        });
    };
    match out {
        Out::CpuBf16(out) => {
            let out = BlocksMut::new(out, s.out_width()).in_units(s.positions, s.head_size);
            split_grid(&cpu.pool, sequences, heads, (out, lse), |sequence, head, (out, lse)| {
                work(sequence.start, head.start, OutBlock::Bf16(out), lse);
            });
        }
        out => {
            let out = BlocksMut::new(out.cpu(), s.out_width()).in_units(s.positions, s.head_size);
            split_grid(&cpu.pool, sequences, heads, (out, lse), |sequence, head, (out, lse)| {
                work(sequence.start, head.start, OutBlock::F32(out), lse);
            });
        }
    }
}

pub(super) fn backward_in_place(cpu: &Cpu, args: BackwardInPlace) {
    let BackwardInPlace { qkv, dout, out, lse, shape: s } = args;
    if s.rows() == 0 {
        return;
    }
    let (sequences, kv_heads) =
        (Tasks::exactly(s.batch, s.batch), Tasks::exactly(s.num_kv_heads, s.num_kv_heads));
    let (queries, rest) = BlocksMut::new(qkv.cpu(), s.qkv_width()).split_columns(s.out_width());
    let (keys, values) = rest.split_columns(s.num_kv_heads * s.head_size);
    let blocks = (
        queries.in_units(s.positions, s.group() * s.head_size),
        keys.in_units(s.positions, s.head_size),
        values.in_units(s.positions, s.head_size),
    );
    let kernel = bf16_kernel(cpu.matmul);
    let saved = backward::Saved { dout: dout.cpu(), out: OutRows::new(out), lse: lse.cpu() };
    split_grid(&cpu.pool, sequences, kv_heads, blocks, |sequence, kv_head, (q, k, v)| {
        let first = HeadLayout::new(s, sequence.start, kv_head.start * s.group());
        let heads = HeadGroup { q, k, v };
        with_dirty_scratch(backward_scratch_len(first, kernel), |scratch| match kernel {
            Some(kernel) => bf16::backward_group(cpu.isa, kernel, heads, saved, first, scratch),
            None => backward_group(cpu.isa, heads, saved, first, scratch),
        });
    });
}
