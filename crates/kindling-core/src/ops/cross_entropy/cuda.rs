//! CUDA implementation: launches of the kernels in `cuda.cu`.
//!
//! logits and dlogits have the device's dtype; lse and losses (rows) are f32; targets are i32,
//! checked on the host. `total` is one f64 that `add_losses` adds to and the host reads when it
//! wants the loss.

use super::{LossSum, Shape};
use crate::Result;
use crate::cuda::{Arg, Cuda, Launch};
use crate::dtype::Dtype;
use crate::ops::IGNORED_TARGET;
use crate::ops::kernels::by_dtype;

/// Rows of logits, or of their gradient, in device memory.
#[derive(Debug, Clone, Copy)]
pub struct Logits {
    pub dtype: Dtype,
    pub rows: usize,
    pub vocab_size: usize,
    /// Elements from one row to the next. If it is a multiple of 8, the elements between the end of
    /// a row and the next multiple of 8 may be read and overwritten.
    pub pitch: usize,
}

impl Logits {
    /// Returns the layout of rows without gaps between them.
    pub fn dense(dtype: Dtype, s: Shape) -> Self {
        Self { dtype, rows: s.rows, vocab_size: s.vocab_size, pitch: s.vocab_size }
    }
}

/// Maximum number of threads in a block that keeps a row in registers.
const KEEPING_THREADS: usize = 1024;

/// The kernels that keep a row in registers: the number of 16-byte vectors that a thread keeps, and
/// the names in f32 and bf16.
const KEEPING: [(usize, &str, &str); 3] = [
    (2, "cross_entropy_forward_backward_kept_f32_2", "cross_entropy_forward_backward_kept_bf16_2"),
    (4, "cross_entropy_forward_backward_kept_f32_4", "cross_entropy_forward_backward_kept_bf16_4"),
    (7, "cross_entropy_forward_backward_kept_f32_7", "cross_entropy_forward_backward_kept_bf16_7"),
];

/// Returns the kernel that keeps the rows in registers and the number of threads in its block, or
/// `None` if rows are too long or not aligned.
fn keeping(logits: u64, s: Logits) -> Option<(&'static str, u32)> {
    let in_vector = 16 / s.dtype.size();
    if !s.pitch.is_multiple_of(in_vector) || !logits.is_multiple_of(16) {
        return None;
    }
    let vectors = s.vocab_size.div_ceil(in_vector);
    let (kept, f32, bf16) =
        KEEPING.into_iter().find(|(kept, ..)| vectors <= kept * KEEPING_THREADS)?;
    let threads = vectors.div_ceil(kept).next_multiple_of(32).max(32);
    Some((by_dtype(s.dtype, f32, bf16), threads as u32))
}

fn launch(kernel: &'static str, s: Logits, args: Vec<Arg>) -> Launch {
    let block = (s.vocab_size.div_ceil(8).div_ceil(32) * 32).clamp(32, 512) as u32;
    Launch { kernel, grid: [s.rows as u32, 1, 1], block, shared_bytes: 0, args }
}

/// Device addresses of the buffers of `forward`.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    pub lse: u64,
    pub losses: u64,
    pub logits: u64,
    pub targets: u64,
}

/// Builds the launch that computes lse and loss of each row.
pub fn forward(addresses: Forward, s: Logits) -> Launch {
    let Forward { lse, losses, logits, targets } = addresses;
    launch(
        by_dtype(s.dtype, "cross_entropy_forward_f32", "cross_entropy_forward_bf16"),
        s,
        vec![
            Arg::Pointer(lse),
            Arg::Pointer(losses),
            Arg::Pointer(logits),
            Arg::Pointer(targets),
            s.vocab_size.into(),
            s.pitch.into(),
        ],
    )
}

/// Device addresses of the buffers of `backward`.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    pub dlogits: u64,
    pub logits: u64,
    pub lse: u64,
    pub targets: u64,
}

/// Builds the launch that computes dlogits from the saved lse.
pub fn backward(addresses: Backward, scale: f32, s: Logits) -> Launch {
    let Backward { dlogits, logits, lse, targets } = addresses;
    launch(
        by_dtype(s.dtype, "cross_entropy_backward_f32", "cross_entropy_backward_bf16"),
        s,
        vec![
            Arg::Pointer(dlogits),
            Arg::Pointer(logits),
            Arg::Pointer(lse),
            Arg::Pointer(targets),
            s.vocab_size.into(),
            s.pitch.into(),
            scale.into(),
        ],
    )
}

/// Device addresses of the buffers of `forward_backward`.
#[derive(Debug, Clone, Copy)]
pub struct ForwardBackward {
    pub logits: u64,
    pub losses: u64,
    pub targets: u64,
}

/// Builds the launch that computes the loss of each row and replaces the logits by their gradient.
pub fn forward_backward(addresses: ForwardBackward, scale: f32, s: Logits) -> Launch {
    let ForwardBackward { logits, losses, targets } = addresses;
    let reading_twice = by_dtype(
        s.dtype,
        "cross_entropy_forward_backward_f32",
        "cross_entropy_forward_backward_bf16",
    );
    let args = vec![
        Arg::Pointer(logits),
        Arg::Pointer(losses),
        Arg::Pointer(targets),
        s.vocab_size.into(),
        s.pitch.into(),
        scale.into(),
    ];
    match keeping(logits, s) {
        Some((kernel, block)) => Launch { block, ..launch(kernel, s, args) },
        None => launch(reading_twice, s, args),
    }
}

/// Builds the launch that adds the losses of the rows to `total`.
pub fn add_losses(total: u64, losses: u64, rows: usize) -> Launch {
    Launch {
        kernel: "cross_entropy_add_losses",
        grid: [1, 1, 1],
        block: 1024,
        shared_bytes: 0,
        args: vec![Arg::Pointer(total), Arg::Pointer(losses), rows.into()],
    }
}

/// Device scratch memory of a call.
pub(super) struct Scratch {
    /// A copy of the targets.
    pub targets: u64,
    /// The losses of the rows.
    pub losses: u64,
    /// The sum of the losses, which starts at 0.
    pub total: u64,
}

impl Scratch {
    pub(super) fn new(gpu: &Cuda, targets: &[i32]) -> Result<Self> {
        let bytes = size_of_val(targets);
        let [targets_at, losses, total] = gpu.scratch([bytes, bytes, size_of::<f64>()])?;
        gpu.upload(targets_at, targets)?;
        gpu.clear(total, size_of::<f64>())?;
        Ok(Self { targets: targets_at, losses, total })
    }
}

/// Reads the sum at `total` and counts the targets that are not ignored. Waits for the device.
pub(crate) fn read_total(gpu: &Cuda, total: u64, targets: &[i32]) -> Result<LossSum> {
    let mut sum = [0.0];
    gpu.download(&mut sum, total)?;
    Ok(LossSum { sum: sum[0], count: targets.iter().filter(|t| **t != IGNORED_TARGET).count() })
}
