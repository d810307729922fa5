//! The subset of libcuda and libcublasLt that Kindling calls, computed on the CPU by the kernel
//! emulator. One library serves under both names, so an addon built with CUDA runs end to end
//! without a GPU. Wrong handles, addresses, sizes and kernel names return CUDA's own errors, and
//! work is deferred until something waits for it, as late as a GPU might run it.
//!
//! Environment variables `EMULATED_CUDA_*` configure the machine:
//!
//! - `VERSION`: version of the driver (13000)
//! - `INIT`: result of `cuInit` (0)
//! - `DEVICES`: number of devices (1)
//! - `CAPABILITY`: compute capability (90)
//! - `MEMORY`: bytes of device memory (1 GiB)
//! - `GRAPH`: result of `cuGraphLaunch` (0)
//! - `FASTEST`: algorithm of products, 0 or 1, that takes half the time of the other (0)
//!
//! Signatures and constants follow `cuda.h` and `cublasLt.h` of CUDA 13.0.

// CUDA's names.
#![allow(non_snake_case)]
// Callers are compiled against CUDA's headers, which document the requirements.
#![allow(clippy::missing_safety_doc)]

mod blas;
mod driver;
mod matrix;
mod memory;
mod state;
