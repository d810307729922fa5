//! The subset of libcuda and libcublasLt that Kindling calls, computed on the CPU by the
//! kernel emulator. One library serves under both names, so an addon built with CUDA runs end
//! to end without a GPU. Wrong handles, addresses, sizes and kernel names return CUDA's own errors,
//! and work is deferred until something waits for it, as late as a GPU might run it.
//!
//! `EMULATED_CUDA_*` variables configure the machine: `VERSION` of the driver (13000), `INIT`, the
//! result of `cuInit` (0), `DEVICES` (1), `CAPABILITY` (90), `MEMORY` in bytes (1 GiB), `GRAPH`,
//! the result of `cuGraphLaunch` (0), `FASTEST`, the
//! algorithm of products that takes half the time of the other (0 or 1).
//!
//! Signatures and constants follow cuda.h, `cublasLt.h` of CUDA 13.0.

// CUDA's names.
#![allow(non_snake_case)]
// Callers are compiled against CUDA's headers, which document the requirements.
#![allow(clippy::missing_safety_doc)]

mod blas;
mod driver;
mod memory;
mod state;
