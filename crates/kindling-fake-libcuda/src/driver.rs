//! Devices, contexts, streams, modules and launches.

use std::ffi::{CStr, c_char, c_void};

use kindling_kernel_emulator::{kernel, run_raw};

use crate::state::{
    Answer, CONTEXT, Function, INVALID_DEVICE, INVALID_HANDLE, INVALID_VALUE, NO_BINARY_FOR_GPU,
    NOT_FOUND, STREAM, SUCCESS, begin_capture, current, end_capture, launch_graph, queue,
    set_current, setting, state,
};

/// First word of a fatbin.
const FATBIN: u32 = 0xBA55_ED50;
/// Dynamic shared memory available without setting an attribute, and the maximum on Hopper.
const SHARED_BYTES: u32 = 48 << 10;
const MOST_SHARED_BYTES: i32 = 227 << 10;
const NAME: &CStr = c"Emulated GPU";

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: u32) -> Answer {
    setting("INIT", SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> Answer {
    // SAFETY: here and below, the caller provides room for the result.
    unsafe { version.write(setting("VERSION", 13_000)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> Answer {
    // SAFETY: as above.
    unsafe { count.write(setting("DEVICES", 1)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> Answer {
    if ordinal < 0 || ordinal >= setting("DEVICES", 1) {
        return INVALID_DEVICE;
    }
    // SAFETY: as above.
    unsafe { device.write(ordinal) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: i32, _device: i32) -> Answer {
    let whole = NAME.to_bytes_with_nul();
    if (bytes as usize) < whole.len() {
        return INVALID_VALUE;
    }
    // SAFETY: room for `bytes`.
    unsafe { name.copy_from_nonoverlapping(whole.as_ptr().cast(), whole.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: i32) -> Answer {
    // SAFETY: as above.
    unsafe { bytes.write(setting("MEMORY", 1 << 30)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut i32,
    attribute: u32,
    _device: i32,
) -> Answer {
    let capability = setting("CAPABILITY", 90);
    let answer = match attribute {
        75 => capability / 10,
        76 => capability % 10,
        // Multiprocessors: those of an H100.
        16 => 132,
        // Memory pools.
        115 => 1,
        _ => return INVALID_VALUE,
    };
    // SAFETY: as above.
    unsafe { value.write(answer) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _device: i32) -> Answer {
    // SAFETY: as above.
    unsafe { context.write(CONTEXT) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: i32) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Answer {
    // SAFETY: as above.
    unsafe { context.write(current()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> Answer {
    set_current(context);
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, _flags: u32) -> Answer {
    // SAFETY: as above.
    unsafe { stream.write(STREAM) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: usize) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut usize, _device: i32) -> Answer {
    // SAFETY: as above.
    unsafe { pool.write(1) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolSetAttribute(
    _pool: usize,
    _attribute: u32,
    _value: *mut c_void,
) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> Answer {
    if !image.cast::<u64>().is_aligned() {
        return INVALID_VALUE;
    }
    // SAFETY: a complete image; the caller provides room for the handle.
    unsafe {
        if image.cast::<u32>().read() != FATBIN {
            return NO_BINARY_FOR_GPU;
        }
        module.write(image as usize);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(_module: usize) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    _module: usize,
    name: *const c_char,
) -> Answer {
    // SAFETY: a terminated string.
    let Some(name) = kernel(unsafe { CStr::from_ptr(name) }) else { return NOT_FOUND };
    let functions = &mut state().functions;
    functions.push(Function { name, shared_bytes: SHARED_BYTES });
    // SAFETY: as above.
    unsafe { function.write(functions.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: usize, attribute: u32, value: i32) -> Answer {
    const MAX_DYNAMIC_SHARED_SIZE_BYTES: u32 = 8;
    if attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || !(0..=MOST_SHARED_BYTES).contains(&value) {
        return INVALID_VALUE;
    }
    let functions = &mut state().functions;
    let Some(function) = function.checked_sub(1).and_then(|place| functions.get_mut(place)) else {
        return INVALID_HANDLE;
    };
    function.shared_bytes = value as u32;
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: usize,
    arguments: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Answer {
    let known = state();
    let Some(function) = function.checked_sub(1).and_then(|place| known.functions.get(place))
    else {
        return INVALID_HANDLE;
    };
    let grid = [grid_x, grid_y, grid_z];
    if shared_bytes > function.shared_bytes || grid.contains(&0) || (block_y, block_z) != (1, 1) {
        return INVALID_VALUE;
    }
    let name = function.name;
    drop(known);
    let Ok(signature) = kindling_kernel_emulator::signature(name) else { return NOT_FOUND };
    // SAFETY: one pointer per kernel argument, each readable in its size, as the driver reads them.
    let values: Vec<u64> = unsafe {
        signature.bytes().enumerate().map(|(place, kind)| {
            let at = *arguments.add(place);
            if matches!(kind, b'p' | b'l') {
                at.cast::<u64>().read()
            } else {
                u64::from(at.cast::<u32>().read())
            }
        })
    }
    .collect();
    queue(stream, move || run_raw(name, grid, block_x, shared_bytes, &mut values.clone()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: usize, _mode: u32) -> Answer {
    begin_capture(stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(_stream: usize, graph: *mut usize) -> Answer {
    match end_capture() {
        Ok(captured) => {
            // SAFETY: as above.
            unsafe { graph.write(captured) };
            SUCCESS
        }
        Err(answer) => answer,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut usize,
    graph: usize,
    _flags: u64,
) -> Answer {
    // SAFETY: as above.
    unsafe { executable.write(graph) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(_graph: usize) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(_executable: usize) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> Answer {
    match setting("GRAPH", SUCCESS) {
        SUCCESS => launch_graph(executable, stream),
        answer => answer,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(_error: Answer, text: *mut *const c_char) -> Answer {
    // SAFETY: as above.
    unsafe { text.write(c"an error of emulated CUDA".as_ptr()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: Answer, text: *mut *const c_char) -> Answer {
    // SAFETY: as above.
    unsafe { cuGetErrorName(error, text) }
}
