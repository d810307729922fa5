//! The part of libcuda, libcublas and libcurand that Kindling calls, computed on the CPU by the emulator: one library that
//! stands for all three under their real names, so that an addon built with CUDA runs from end to end without a GPU. Wrong
//! handles, addresses, sizes and kernel names come out as CUDA's own errors, and work is put off until something waits for
//! it, as late as a GPU may be.
//!
//! `EMULATED_CUDA_*` in the environment makes another machine of it: `VERSION` of the driver (13000), `INIT` the answer of
//! `cuInit` (0), `DEVICES` (1), `CAPABILITY` (90), `MEMORY` in bytes (1 GiB).
//!
//! Signatures and numbers are those of cuda.h, `cublas_api.h` and curand.h of CUDA 13.0.

// CUDA's names.
#![allow(non_snake_case)]
// Called by what was compiled against CUDA's headers, which say what callers have to keep.
#![allow(clippy::missing_safety_doc)]

mod blas;
mod driver;
mod memory;
mod state;
