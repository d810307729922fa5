//! Memory, copies, events and synchronisation.

use std::ffi::c_void;

use kindling_core::cuda::{Driver, Rows};

use crate::state::{
    Answer, Event, INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS, device, finish,
    finish_first, queue, ready, record, state,
};

fn said(error: &kindling_core::Error) -> String {
    error.to_string()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(pointer: *mut u64, bytes: usize, stream: usize) -> Answer {
    if let Err(answer) = ready(stream) {
        return answer;
    }
    // Released memory becomes available only after its last use is done.
    let allocated = device().allocate(bytes).or_else(|_| {
        finish();
        device().allocate(bytes)
    });
    let Ok(address) = allocated else { return OUT_OF_MEMORY };
    state().sizes.insert(address, bytes);
    // SAFETY: the caller provides room for the address.
    unsafe { pointer.write(address) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(pointer: u64, stream: usize) -> Answer {
    let Some(bytes) = state().sizes.remove(&pointer) else { return INVALID_VALUE };
    queue(stream, move || {
        device().release(pointer, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(pointer: u64, value: u8, bytes: usize, stream: usize) -> Answer {
    if value != 0 {
        return INVALID_VALUE;
    }
    queue(stream, move || device().clear(pointer, bytes).map_err(|e| said(&e)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Answer {
    let from = from as usize;
    queue(stream, move || {
        // SAFETY: the caller keeps the memory until the copy is done, and this is the copy.
        let from = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
        device().upload(to, from).map_err(|e| said(&e))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: usize,
) -> Answer {
    let to = to as usize;
    queue(stream, move || {
        // SAFETY: as in `cuMemcpyHtoDAsync_v2`.
        let to = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
        device().download(to, from).map_err(|e| said(&e))
    })
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy2d {
    source_x: usize,
    source_y: usize,
    source_type: u32,
    source_host: *const c_void,
    source_device: u64,
    source_array: *mut c_void,
    source_pitch: usize,
    to_x: usize,
    to_y: usize,
    to_type: u32,
    to_host: *mut c_void,
    to_device: u64,
    to_array: *mut c_void,
    to_pitch: usize,
    width: usize,
    height: usize,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const Copy2d, stream: usize) -> Answer {
    const DEVICE: u32 = 2;
    // SAFETY: the caller's descriptor.
    let copy = unsafe { *copy };
    let plain = copy.source_x + copy.source_y + copy.to_x + copy.to_y == 0;
    if !plain || (copy.source_type, copy.to_type) != (DEVICE, DEVICE) {
        return INVALID_VALUE;
    }
    let (width, height) = (copy.width, copy.height);
    if width > copy.source_pitch || width > copy.to_pitch {
        return INVALID_VALUE;
    }
    let to = Rows { pointer: copy.to_device, pitch: copy.to_pitch };
    let from = Rows { pointer: copy.source_device, pitch: copy.source_pitch };
    queue(stream, move || device().copy_rows(to, from, width, height).map_err(|e| said(&e)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    pointer: *mut *mut c_void,
    bytes: usize,
    _flags: u32,
) -> Answer {
    let memory = vec![0xFFu8; bytes + size_of::<[u64; 2]>()].into_boxed_slice();
    // The size is stored in front of the memory, for `cuMemFreeHost`.
    let memory = Box::into_raw(memory);
    let start = memory.cast::<u8>();
    // SAFETY: room for the size and `bytes` more; the caller provides room for the address.
    unsafe {
        start.cast::<[u8; 8]>().write(memory.len().to_ne_bytes());
        pointer.write(start.add(size_of::<[u64; 2]>()).cast());
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> Answer {
    // SAFETY: allocated by `cuMemHostAlloc`, with the size in front.
    unsafe {
        let start = pointer.cast::<u8>().sub(size_of::<[u64; 2]>());
        let len = usize::from_ne_bytes(start.cast::<[u8; 8]>().read());
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, len)));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> Answer {
    ready(stream).map_or_else(|answer| answer, |()| finish())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Answer {
    finish()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _flags: u32) -> Answer {
    let events = &mut state().events;
    events.push(Event::default());
    // SAFETY: the caller provides room for the handle.
    unsafe { event.write(events.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(_event: usize) -> Answer {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> Answer {
    ready(stream).map_or_else(|answer| answer, |()| record(event))
}

/// Runs the work queued before the event, and nothing after it.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> Answer {
    let Some(before) = recorded(event) else { return INVALID_HANDLE };
    finish_first(before.queued)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    start: usize,
    end: usize,
) -> Answer {
    let (Some(start), Some(end)) = (recorded(start), recorded(end)) else { return INVALID_HANDLE };
    // SAFETY: the caller provides room for the result.
    unsafe { milliseconds.write((end.time - start.time) as f32) };
    SUCCESS
}

fn recorded(event: usize) -> Option<Event> {
    event.checked_sub(1).and_then(|place| state().events.get(place).copied())
}
