//! Finds NVIDIA's driver and CUDA's libraries, and reports what is missing before anything uses
//! them.
//!
//! The system's loader finds them by name: `libcuda.so.1` comes with the driver, `libcublasLt.so`
//! with the toolkit. If the latter exists only inside Python packages, list their folders in
//! `KINDLING_CUDA_LIBRARIES`, separated by colons. These come first.

use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys;

use crate::{Error, Result};

/// Minimum `cuDriverGetVersion`: the kernels are compiled by CUDA 13.0, which guarantees only that
/// drivers of the same major version or a later one run them.
const CUDA_VERSION: c_int = 13_000;
/// Oldest supported architecture, `sm_80`.
const OLDEST_ARCHITECTURE: (c_int, c_int) = (8, 0);
/// Environment variable listing folders with CUDA's libraries.
const FOLDERS: &str = "KINDLING_CUDA_LIBRARIES";
/// Names of the library that products need, the preferred one first. A driver runs libraries of its
/// own major version and of older ones.
const CUBLAS_LT: [&CStr; 2] = [c"libcublasLt.so.13", c"libcublasLt.so.12"];

/// An open library, which is never closed.
#[derive(Clone, Copy)]
struct Library(*mut c_void);

// SAFETY: a handle of dlopen may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Checks once per process that CUDA can be used. Returns the dlopen handle of cuBLASLt.
///
/// # Errors
/// Returns `ERR_DEVICE_UNAVAILABLE` naming what is missing or too old.
pub(super) fn check() -> Result<*mut c_void> {
    static FOUND: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            std::panic::catch_unwind(find).unwrap_or_else(|_| {
                Err("the NVIDIA driver lacks functions of CUDA 13.0; update it to 580 or newer"
                    .to_owned())
            })
        })
        .clone()
        .map(|library| library.0)
        .map_err(|what| Error::DeviceUnavailable(format!("{what}, or use --device cpu")))
}

/// Explains why the first GPU cannot be used. Returns `None` if it can be, or if there is none.
pub(in crate::cuda) fn problem() -> Option<String> {
    match check() {
        Err(Error::DeviceUnavailable(what)) => has_driver().then_some(what),
        Err(_) => None,
        Ok(_) if device_count() == 0 => None,
        Ok(_) => architecture(0).and_then(too_old),
    }
}

/// Returns whether a driver is installed and lists at least one device.
fn has_driver() -> bool {
    // SAFETY: as in `open`. Both functions have existed since the first driver API, and are called
    // with their documented arguments.
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

/// Returns a device's name and compute capability.
fn architecture(ordinal: c_int) -> Option<(String, (c_int, c_int))> {
    let (mut device, mut major, mut minor) = (0, 0, 0);
    let mut name = [0; 128];
    let attributes = [
        sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
        sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ];
    // SAFETY: `check` found and initialised the driver; the name is terminated within its 128
    // bytes.
    unsafe {
        sys::cuDeviceGet(&raw mut device, ordinal).result().ok()?;
        sys::cuDeviceGetName(name.as_mut_ptr(), 128, device).result().ok()?;
        sys::cuDeviceGetAttribute(&raw mut major, attributes[0], device).result().ok()?;
        sys::cuDeviceGetAttribute(&raw mut minor, attributes[1], device).result().ok()?;
        let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
        Some((name, (major, minor)))
    }
}

/// Explains why a device is too old. Returns `None` if it is not.
pub(super) fn too_old((name, (major, minor)): (String, (c_int, c_int))) -> Option<String> {
    ((major, minor) < OLDEST_ARCHITECTURE).then(|| {
        format!(
            "{name} has compute capability {major}.{minor}, but this build needs 8.0 or newer; use --device cpu"
        )
    })
}

/// Returns the number of devices the driver lists, or 0 if CUDA cannot be used.
pub(in crate::cuda) fn device_count() -> usize {
    let mut count = 0;
    // SAFETY: `check` found and initialised the driver.
    let known =
        check().is_ok() && unsafe { sys::cuDeviceGetCount(&raw mut count) }.result().is_ok();
    if known { usize::try_from(count).unwrap_or(0) } else { 0 }
}

fn find() -> std::result::Result<Library, String> {
    if open(c"libcuda.so.1").is_none() {
        return Err("libcuda.so.1 was not found; install NVIDIA driver 580 or newer".to_owned());
    }
    // SAFETY: loads the library and looks up its functions.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcuda.so.1 cannot be used; install NVIDIA driver 580 or newer".to_owned());
    }
    let mut version = 0;
    // SAFETY: the library exports all functions.
    let answers = unsafe { [sys::cuInit(0), sys::cuDriverGetVersion(&raw mut version)] };
    if let Some(error) = answers.iter().find(|answer| **answer != sys::CUresult::CUDA_SUCCESS) {
        return Err(format!(
            "the NVIDIA driver does not work ({error:?}); check that nvidia-smi lists a GPU"
        ));
    }
    if version < CUDA_VERSION {
        return Err(format!(
            "the NVIDIA driver supports CUDA {}.{}, but this build needs 13.0; update it to 580 or newer",
            version / 1000,
            version % 1000 / 10
        ));
    }
    cublas_lt().ok_or_else(|| {
        format!(
            "{} was not found; install CUDA toolkit 13, or list the folders of Python's nvidia packages in {FOLDERS}",
            CUBLAS_LT[0].to_string_lossy()
        )
    })
}

/// Opens cuBLASLt: from the folders of `KINDLING_CUDA_LIBRARIES`, or else by name.
fn cublas_lt() -> Option<Library> {
    let folders = std::env::var_os(FOLDERS).unwrap_or_default();
    let in_folders = std::env::split_paths(&folders)
        .filter(|folder| !folder.as_os_str().is_empty())
        .flat_map(|folder| CUBLAS_LT.map(|name| folder.join(&*name.to_string_lossy())))
        .find_map(|path| open(&CString::new(path.into_os_string().into_encoded_bytes()).ok()?));
    in_folders.or_else(|| CUBLAS_LT.into_iter().find_map(open))
}

/// Opens a library for the life of the process.
fn open(library: &CStr) -> Option<Library> {
    // SAFETY: the name is NUL-terminated; initialisers of CUDA's libraries may run at any time.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    (!handle.is_null()).then_some(Library(handle))
}
