//! A real GPU in the emulator's place, so that the tests of the kernels and of the engine are the same over both: with the
//! feature `cuda` and `KINDLING_TEST_DEVICE=cuda`. What a launch points to is copied there before it, and back after it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use kindling_core::cuda::{Arg, Launch};
use kindling_core::cuda::{Arithmetic, Cuda, DeviceMemory};
use kindling_core::dtype::Dtype;

use crate::memory::live_around;

/// Whether the tests are asked to run over a GPU.
pub fn is_asked_for() -> bool {
    std::env::var("KINDLING_TEST_DEVICE").is_ok_and(|device| device == "cuda")
}

/// Runs a launch there.
pub(crate) fn run(launch: &Launch) -> Result<(), String> {
    static GPU: OnceLock<Result<Cuda, String>> = OnceLock::new();
    let arithmetic = Arithmetic { dtype: Dtype::F32, tf32: false };
    let gpu =
        GPU.get_or_init(|| Cuda::open(0, arithmetic, 1).map_err(|e| e.to_string())).as_ref()?;
    run_on(gpu, launch)
}

fn run_on(gpu: &Cuda, launch: &Launch) -> Result<(), String> {
    let failed = |error: kindling_core::Error| format!("{}: {error}", launch.kernel);
    // By host address: the bytes there, their place on the device and what holds it.
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
            // Aligned to 16 bytes as on the host, no more.
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
    // SAFETY: live `Memory` of these bytes, which the launch's caller holds and does not write to meanwhile.
    unsafe { std::slice::from_raw_parts(start as *const u8, bytes) }
}

fn bytes_at_mut<'a>(start: u64, bytes: usize) -> &'a mut [u8] {
    // SAFETY: as above; a kernel may write to what it points to, and so may this.
    unsafe { std::slice::from_raw_parts_mut(start as *mut u8, bytes) }
}
