//! Runs the tests of the kernels and the engine on a real GPU instead of the emulator, with the
//! feature `cuda` and `KINDLING_TEST_DEVICE=cuda`. Memory that a launch points to is copied to the
//! GPU before the launch and back after it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use kindling_core::cuda::{Arg, Launch};
use kindling_core::cuda::{Arithmetic, Cuda, DeviceMemory};
use kindling_core::dtype::Dtype;

use crate::memory::live_around;

/// Returns whether the tests should run on a GPU.
pub fn is_asked_for() -> bool {
    std::env::var("KINDLING_TEST_DEVICE").is_ok_and(|device| device == "cuda")
}

/// Returns whether the tests can run Hopper's kernels, as the emulator does.
pub fn runs_hopper_kernels() -> bool {
    !is_asked_for() || gpu().is_ok_and(|gpu| gpu.properties().is_hopper())
}

fn gpu() -> Result<&'static Cuda, &'static String> {
    static GPU: OnceLock<Result<Cuda, String>> = OnceLock::new();
    let arithmetic = Arithmetic { dtype: Dtype::F32, tf32: false };
    GPU.get_or_init(|| Cuda::open(0, arithmetic, 1).map_err(|e| e.to_string())).as_ref()
}

/// Runs a launch on the GPU.
pub(crate) fn run(launch: &Launch) -> Result<(), String> {
    run_on(gpu()?, launch)
}

fn run_on(gpu: &Cuda, launch: &Launch) -> Result<(), String> {
    let failed = |error: kindling_core::Error| format!("{}: {error}", launch.kernel);
    // By host address: the bytes there, their device address, and the memory that owns it.
    let mut copies: BTreeMap<u64, (usize, u64, DeviceMemory)> = BTreeMap::new();
    let mut there = launch.clone();
    for arg in &mut there.args {
        let Arg::Pointer(address) = arg else { continue };
        if *address == 0 {
            continue;
        }
        let (start, bytes) = live_around(*address)
            .ok_or_else(|| format!("{}: {address:#x} is in no memory", launch.kernel))?;
        if let std::collections::btree_map::Entry::Vacant(place) = copies.entry(start) {
            // Keep the host's alignment up to 16 bytes, and no larger one.
            let shift = (start % 16) as usize;
            let memory = gpu.zeros(bytes + shift).map_err(failed)?;
            let pointer = memory.pointer() + shift as u64;
            gpu.upload(pointer, bytes_at(start, bytes)).map_err(failed)?;
            place.insert((bytes, pointer, memory));
        }
        *address = copies[&start].1 + (*address - start);
    }
    gpu.run(&[there]).map_err(failed)?;
    for (start, (bytes, pointer, _)) in &copies {
        gpu.download(bytes_at_mut(*start, *bytes), *pointer).map_err(failed)?;
    }
    Ok(())
}

fn bytes_at<'a>(start: u64, bytes: usize) -> &'a [u8] {
    // SAFETY: live `Memory` of this size, which the caller holds and does not write meanwhile.
    unsafe { std::slice::from_raw_parts(start as *const u8, bytes) }
}

fn bytes_at_mut<'a>(start: u64, bytes: usize) -> &'a mut [u8] {
    // SAFETY: as above; a kernel may write what it points to, and so may this.
    unsafe { std::slice::from_raw_parts_mut(start as *mut u8, bytes) }
}
