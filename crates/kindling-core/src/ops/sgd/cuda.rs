//! CUDA half: the launch of `cuda.cu`. p, g: n f32; settings: `settings` as 2 f32 on the device.

use super::Hyper;
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::step_grid;

/// Elements of `settings`.
pub const SETTINGS: usize = 2;

/// What the kernel reads of `hyper`, to be copied to the device (clipping is read from `grad_norm`'s state instead).
pub fn settings(hyper: Hyper) -> [f32; SETTINGS] {
    [hyper.rate() as f32, (1.0 - hyper.rate() * hyper.weight_decay) as f32]
}

/// One update of p, and of `copy`, the weights in bf16 (0: none). `clip`: `grad_norm`'s state (0: none); where its norm is
/// not finite nothing changes. `clear`: the gradients become zero.
pub fn step(p: u64, copy: u64, g: u64, n: usize, settings: u64, clip: u64, clear: bool) -> Launch {
    Launch {
        kernel: "sgd_step",
        grid: step_grid(n),
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(p),
            Arg::Pointer(copy),
            Arg::Pointer(g),
            Arg::I64(n as i64),
            Arg::Pointer(settings),
            Arg::Pointer(clip),
            Arg::I32(i32::from(clear)),
        ],
    }
}
