//! CUDA half: launches of `cuda.cu`. logits and dlogits are of the dtype; lse, losses (rows) f32; targets i32, checked on
//! the host; `total` one f64 to which `add_losses` adds, read when the host wants the loss.

use super::{LossSum, Shape};
use crate::Result;
use crate::cuda::Cuda;
use crate::cuda::{Arg, Launch};
use crate::dtype::Dtype;
use crate::ops::IGNORED_TARGET;
use crate::ops::kernels::by_dtype;

fn launch(kernel: &'static str, s: Shape, args: Vec<Arg>) -> Launch {
    let block = (s.vocab_size.div_ceil(8).div_ceil(32) * 32).clamp(32, 512) as u32;
    Launch { kernel, grid: [s.rows as u32, 1, 1], block, shared_bytes: 0, args }
}

/// lse and loss of each row.
pub fn forward(dtype: Dtype, lse: u64, losses: u64, logits: u64, targets: u64, s: Shape) -> Launch {
    launch(
        by_dtype(dtype, "cross_entropy_forward_f32", "cross_entropy_forward_bf16"),
        s,
        vec![
            Arg::Pointer(lse),
            Arg::Pointer(losses),
            Arg::Pointer(logits),
            Arg::Pointer(targets),
            s.vocab_size.into(),
        ],
    )
}

/// dlogits = (softmax - one at the target) scale.
pub fn backward(
    dtype: Dtype,
    dlogits: u64,
    logits: u64,
    lse: u64,
    targets: u64,
    s: Shape,
    scale: f32,
) -> Launch {
    launch(
        by_dtype(dtype, "cross_entropy_backward_f32", "cross_entropy_backward_bf16"),
        s,
        vec![
            Arg::Pointer(dlogits),
            Arg::Pointer(logits),
            Arg::Pointer(lse),
            Arg::Pointer(targets),
            s.vocab_size.into(),
            scale.into(),
        ],
    )
}

/// The loss of each row, and the scores replaced by their gradient.
pub fn forward_backward(
    dtype: Dtype,
    logits: u64,
    losses: u64,
    targets: u64,
    s: Shape,
    scale: f32,
) -> Launch {
    launch(
        by_dtype(
            dtype,
            "cross_entropy_forward_backward_f32",
            "cross_entropy_forward_backward_bf16",
        ),
        s,
        vec![
            Arg::Pointer(logits),
            Arg::Pointer(losses),
            Arg::Pointer(targets),
            s.vocab_size.into(),
            scale.into(),
        ],
    )
}

/// *total += the sum of the losses.
pub fn add_losses(total: u64, losses: u64, rows: usize) -> Launch {
    Launch {
        kernel: "cross_entropy_add_losses",
        grid: [1, 1, 1],
        block: 1024,
        shared_bytes: 0,
        args: vec![Arg::Pointer(total), Arg::Pointer(losses), rows.into()],
    }
}

/// Scratch memory of the targets, copied there, of the rows' losses, and of their sum, zero.
pub(super) fn scratch(gpu: &Cuda, targets: &[i32]) -> Result<[u64; 3]> {
    let rows = size_of_val(targets);
    let all = gpu.scratch([rows, rows, size_of::<f64>()])?;
    gpu.upload(all[0], targets)?;
    gpu.clear(all[2], size_of::<f64>())?;
    Ok(all)
}

/// The sum at `total` with the number of rows that count; waits for it.
pub(crate) fn read_total(gpu: &Cuda, total: u64, targets: &[i32]) -> Result<LossSum> {
    let mut sum = [0.0];
    gpu.download(&mut sum, total)?;
    Ok(LossSum { sum: sum[0], count: targets.iter().filter(|t| **t != IGNORED_TARGET).count() })
}
