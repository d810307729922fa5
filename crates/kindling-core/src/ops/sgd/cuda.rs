//! CUDA implementation: the launch of the kernel in `cuda.cu`.

use super::Hyper;
use crate::cuda::{Arg, Launch};
use crate::ops::kernels::step_grid;

/// Number of f32 in `settings`.
pub const SETTINGS: usize = 2;

/// Returns the settings that the kernel reads, to be copied to the device. The clip factor is not
/// among them: the kernel takes it from the state of `grad_norm`.
pub fn settings(hyper: Hyper) -> [f32; SETTINGS] {
    [hyper.rate() as f32, (1.0 - hyper.rate() * hyper.weight_decay) as f32]
}

/// Addresses of n elements each, in f32 unless noted.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub p: u64,
    /// Copy of the parameters in bf16, which is updated as well; 0 if there is none.
    pub p_bf16: u64,
    pub g: u64,
    pub n: usize,
    /// Copy of `settings`.
    pub settings: u64,
    /// State of `grad_norm`, or 0. Nothing changes if its norm is not finite.
    pub clip: u64,
    /// Sets g to zero.
    pub clear_gradients: bool,
}

/// Builds the launch that updates p.
pub fn step(args: Step) -> Launch {
    Launch {
        kernel: "sgd_step",
        grid: step_grid(args.n),
        block: 256,
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(args.p),
            Arg::Pointer(args.p_bf16),
            Arg::Pointer(args.g),
            Arg::I64(args.n as i64),
            Arg::Pointer(args.settings),
            Arg::Pointer(args.clip),
            Arg::I32(i32::from(args.clear_gradients)),
        ],
    }
}
