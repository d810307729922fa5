//! Finding CUDA's libraries and driver, and saying what is missing before anything is asked of them.
//!
//! They are looked for as the system's loader does: `libcuda.so.1` comes with NVIDIA's driver, `libcublas.so.13` and
//! `libcurand.so.10` with the toolkit. Where they are only part of Python packages, `KINDLING_CUDA_LIBRARIES` names their
//! folders, separated by colons.

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc;
use cudarc::driver::sys;

use crate::{Error, Result};

/// CUDA version that the driver has to know, as `cuDriverGetVersion` gives it: the kernels' PTX is of 13.0.
const CUDA_VERSION: c_int = 13_000;
/// Oldest architecture there is code for: `sm_80`.
const OLDEST_ARCHITECTURE: (c_int, c_int) = (8, 0);
/// Folders with CUDA's libraries.
const FOLDERS: &str = "KINDLING_CUDA_LIBRARIES";
/// What products need, in the order in which they need each other.
const TOOLKIT: [&CStr; 3] = [c"libcublasLt.so.13", c"libcublas.so.13", c"libcurand.so.10"];

/// Says whether CUDA can be used here.
///
/// # Errors
/// `ERR_DEVICE_UNAVAILABLE` saying what is missing or too old.
pub(super) fn check() -> Result<()> {
    static FOUND: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            std::panic::catch_unwind(find).unwrap_or_else(|_| {
                Err("NVIDIA's driver lacks functions of CUDA 13.0: update it to 580 or newer"
                    .to_owned())
            })
        })
        .clone()
        .map_err(|what| Error::DeviceUnavailable(format!("{what}; or use --device cpu")))
}

/// What keeps a GPU that seems to be there, the first one, from being used; none where it can be, or where there is none.
pub(in crate::cuda) fn problem() -> Option<String> {
    match check() {
        Err(Error::DeviceUnavailable(what)) => has_driver().then_some(what),
        Err(_) => None,
        Ok(()) if device_count() == 0 => None,
        Ok(()) => architecture(0).and_then(too_old),
    }
}

/// Whether a driver of NVIDIA's is there that shows a device, as far as that can be asked.
fn has_driver() -> bool {
    // SAFETY: as `loads`; the two functions are as old as the driver's interface, and are called with what they take.
    unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return false;
        }
        let [init, count] =
            [c"cuInit", c"cuDeviceGetCount"].map(|name| libc::dlsym(library, name.as_ptr()));
        if init.is_null() || count.is_null() {
            return false;
        }
        let init: unsafe extern "C" fn(u32) -> c_int = std::mem::transmute(init);
        let count: unsafe extern "C" fn(*mut c_int) -> c_int = std::mem::transmute(count);
        let mut devices = 0;
        init(0) == 0 && count(&raw mut devices) == 0 && devices > 0
    }
}

/// Name and compute capability of a device.
fn architecture(ordinal: c_int) -> Option<(String, (c_int, c_int))> {
    let (mut device, mut major, mut minor) = (0, 0, 0);
    let mut name = [0; 128];
    let attributes = [
        sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ];
    // SAFETY: the driver was found and initialised by `check`; the name ends within its 128 bytes.
    unsafe {
        sys::cuDeviceGet(&raw mut device, ordinal).result().ok()?;
        sys::cuDeviceGetName(name.as_mut_ptr(), 128, device).result().ok()?;
        sys::cuDeviceGetAttribute(&raw mut major, attributes[0], device).result().ok()?;
        sys::cuDeviceGetAttribute(&raw mut minor, attributes[1], device).result().ok()?;
        let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
        Some((name, (major, minor)))
    }
}

/// What is wrong with a device of this name and compute capability.
pub(super) fn too_old((name, (major, minor)): (String, (c_int, c_int))) -> Option<String> {
    ((major, minor) < OLDEST_ARCHITECTURE).then(|| {
        format!(
            "{name} has compute capability {major}.{minor}; this build needs 8.0 or newer; use --device cpu"
        )
    })
}

/// Number of devices that the driver shows; 0 where CUDA cannot be used.
pub(in crate::cuda) fn device_count() -> usize {
    let mut count = 0;
    // SAFETY: the driver was found and initialised by `check`.
    let known =
        check().is_ok() && unsafe { sys::cuDeviceGetCount(&raw mut count) }.result().is_ok();
    if known { usize::try_from(count).unwrap_or(0) } else { 0 }
}

fn find() -> std::result::Result<(), String> {
    preload();
    if !loads(c"libcuda.so.1") {
        return Err("libcuda.so.1 was not found: install NVIDIA's driver, 580 or newer".to_owned());
    }
    // SAFETY: loads the library and looks its functions up.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcuda.so.1 cannot be used: install NVIDIA's driver, 580 or newer".to_owned());
    }
    let mut version = 0;
    // SAFETY: the library has all functions.
    let answers = unsafe { [sys::cuInit(0), sys::cuDriverGetVersion(&raw mut version)] };
    if let Some(error) = answers.iter().find(|answer| **answer != sys::CUresult::CUDA_SUCCESS) {
        return Err(format!(
            "NVIDIA's driver does not work ({error:?}): check that nvidia-smi shows a GPU"
        ));
    }
    if version < CUDA_VERSION {
        return Err(format!(
            "NVIDIA's driver knows CUDA {}.{}, and 13.0 is needed: update it to 580 or newer",
            version / 1000,
            version % 1000 / 10
        ));
    }
    for library in TOOLKIT {
        if !loads(library) {
            return Err(format!(
                "{} was not found: install the CUDA toolkit 13, or name the folder of Python's nvidia packages in {FOLDERS}",
                library.to_string_lossy()
            ));
        }
    }
    // SAFETY: as above.
    if unsafe { cudarc::cublas::sys::is_culib_present() && cudarc::curand::sys::is_culib_present() }
    {
        Ok(())
    } else {
        Err("cuBLAS or cuRAND cannot be used: install the CUDA toolkit 13".to_owned())
    }
}

/// Loads the libraries in the folders of `KINDLING_CUDA_LIBRARIES`; the loader then finds them by their names.
fn preload() {
    let folders = std::env::var_os(FOLDERS).unwrap_or_default();
    for folder in std::env::split_paths(&folders) {
        for library in TOOLKIT {
            if let Ok(path) =
                CString::new(format!("{}/{}", folder.display(), library.to_string_lossy()))
            {
                loads(&path);
            }
        }
    }
}

/// Whether the loader finds a library, which then stays loaded.
fn loads(library: &CStr) -> bool {
    // SAFETY: a name that ends; the initialisers of CUDA's libraries may run at any time.
    !unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) }.is_null()
}
