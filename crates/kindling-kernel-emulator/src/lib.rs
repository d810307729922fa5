//! Runs the CUDA kernels on the CPU, for tests only. `cpp/` implements CUDA's language in plain C++
//! and runs a block's threads as fibers, in orders that expose missing barriers. Memory ends at
//! guard pages and starts as NaN.

mod counting;
mod device;
mod gpu;
mod memory;
mod traffic;

pub use counting::{Count, CountingDevice, Counts};
pub use device::{EmulatedDevice, Work};
pub use gpu::{is_asked_for as gpu_is_asked_for, runs_hopper_kernels};
pub use memory::{Bf16, Element, Memory};
pub use traffic::Traffic;

use std::ffi::CStr;
use std::sync::OnceLock;

use kindling_core::cuda::{Arg, Launch};

/// Which thread continues at a barrier, a shuffle or a matrix instruction, and which block starts
/// next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Always the first that can run.
    Forward,
    /// Always the last that can run.
    Reverse,
    /// A random one, from this seed.
    Random(u64),
}

/// Orders in which every test runs.
pub const ORDERS: [Order; 4] = [Order::Forward, Order::Reverse, Order::Random(1), Order::Random(2)];

/// Runs a launch whose pointers lie in `Memory`, on the GPU if the tests are to use one. Does
/// nothing for an empty launch.
///
/// # Errors
/// Returns what the kernel did wrong and where: an out-of-bounds access, a barrier not reached by
/// all threads, an argument of the wrong type.
pub fn run(launch: &Launch, order: Order) -> Result<(), String> {
    if gpu_is_asked_for() { gpu::run(launch) } else { emulate(launch, order) }
}

/// Runs a launch on the emulator, never on a GPU.
pub(crate) fn emulate(launch: &Launch, order: Order) -> Result<(), String> {
    let signature = native::signature(launch.kernel)?;
    let given: String = launch
        .args
        .iter()
        .map(|arg| match arg {
            Arg::Pointer(_) => 'p',
            Arg::I32(_) => 'i',
            Arg::I64(_) => 'l',
            Arg::F32(_) => 'f',
        })
        .collect();
    if given != signature {
        return Err(format!(
            "{}: the kernel takes {signature}, the launch gives {given}",
            launch.kernel
        ));
    }
    if launch.is_empty() {
        return Ok(());
    }
    let mut values: Vec<u64> = launch
        .args
        .iter()
        .map(|arg| match *arg {
            Arg::Pointer(address) => address,
            Arg::I32(value) => u64::from(value as u32),
            Arg::I64(value) => value as u64,
            Arg::F32(value) => u64::from(value.to_bits()),
        })
        .collect();
    let order = match order {
        Order::Forward => 0,
        Order::Reverse => 1,
        Order::Random(seed) => seed.saturating_add(2),
    };
    native::launch(
        launch.kernel,
        launch.grid,
        launch.block,
        launch.shared_bytes,
        &mut values,
        order,
    )
}

/// Runs a kernel, its threads in reverse order. `values` are the arguments of its `signature`, each
/// in the low bytes of a word.
///
/// # Errors
/// As for `run`.
pub fn run_raw(
    kernel: &str,
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
    values: &mut [u64],
) -> Result<(), String> {
    if signature(kernel)?.len() != values.len() {
        return Err(format!("{kernel}: {} arguments", values.len()));
    }
    native::launch(kernel, grid, block, shared_bytes, values, 1)
}

/// Returns the types of a kernel's arguments: p pointer, i int, l long long, f float.
///
/// # Errors
/// Returns an error if there is no such kernel.
pub fn signature(kernel: &str) -> Result<String, String> {
    native::signature(kernel)
}

/// Looks up a kernel by name.
pub fn kernel(name: &CStr) -> Option<&'static str> {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES
        .get_or_init(kernels)
        .iter()
        .find(|known| known.as_bytes() == name.to_bytes())
        .map(String::as_str)
}

/// Returns the names of all kernels.
pub fn kernels() -> Vec<String> {
    (0..).map_while(native::kernel_name).collect()
}

#[cfg(not(no_cpp_compiler))]
mod native {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};

    unsafe extern "C" {
        fn kindling_kernel_emulator_signature(name: *const c_char) -> *const c_char;
        fn kindling_kernel_emulator_kernel_name(index: usize) -> *const c_char;
        fn kindling_kernel_emulator_launch(
            name: *const c_char,
            grid: *const u32,
            block: u32,
            shared_bytes: usize,
            arguments: *mut *mut c_void,
            order: u64,
            message: *mut c_char,
            message_bytes: usize,
        ) -> c_int;
    }

    fn text(pointer: *const c_char) -> Option<String> {
        // SAFETY: null, or a string that lives as long as the table of kernels, which never
        // changes.
        (!pointer.is_null())
            .then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
    }

    pub fn signature(kernel: &str) -> Result<String, String> {
        let name = CString::new(kernel).map_err(|e| e.to_string())?;
        // SAFETY: a terminated string.
        text(unsafe { kindling_kernel_emulator_signature(name.as_ptr()) })
            .ok_or_else(|| format!("{kernel}: no such kernel"))
    }

    pub fn kernel_name(index: usize) -> Option<String> {
        // SAFETY: any index is allowed.
        text(unsafe { kindling_kernel_emulator_kernel_name(index) })
    }

    pub fn launch(
        kernel: &str,
        grid: [u32; 3],
        block: u32,
        shared_bytes: u32,
        values: &mut [u64],
        order: u64,
    ) -> Result<(), String> {
        let name = CString::new(kernel).map_err(|e| e.to_string())?;
        let mut arguments: Vec<*mut c_void> =
            values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let mut message = [0u8; 512];
        // SAFETY: the caller compared the number and types of the arguments with the kernel's.
        // Memory that a kernel reaches by mistake lies behind guard pages or is reported by the
        // fault handler.
        let failed = unsafe {
            kindling_kernel_emulator_launch(
                name.as_ptr(),
                grid.as_ptr(),
                block,
                shared_bytes as usize,
                arguments.as_mut_ptr(),
                order,
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let end = message.iter().position(|b| *b == 0).unwrap_or(message.len());
        Err(String::from_utf8_lossy(&message[..end]).into_owned())
    }
}

#[cfg(no_cpp_compiler)]
mod native {
    pub fn signature(kernel: &str) -> Result<String, String> {
        Err(format!("{kernel}: built without a C++ compiler"))
    }

    pub fn kernel_name(_index: usize) -> Option<String> {
        None
    }

    pub fn launch(
        kernel: &str,
        _grid: [u32; 3],
        _block: u32,
        _shared_bytes: u32,
        _values: &mut [u64],
        _order: u64,
    ) -> Result<(), String> {
        signature(kernel).map(drop)
    }
}
