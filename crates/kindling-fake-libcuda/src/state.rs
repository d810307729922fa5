//! The device, what is queued on it, and what was said about it in the environment.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kindling_kernel_emulator::{EmulatedDevice, Order};

/// A `CUresult`.
pub type Answer = i32;
pub const SUCCESS: Answer = 0;
pub const INVALID_VALUE: Answer = 1;
pub const OUT_OF_MEMORY: Answer = 2;
pub const INVALID_DEVICE: Answer = 101;
pub const INVALID_CONTEXT: Answer = 201;
pub const NO_BINARY_FOR_GPU: Answer = 209;
pub const INVALID_HANDLE: Answer = 400;
pub const NOT_FOUND: Answer = 500;
pub const ILLEGAL_ADDRESS: Answer = 700;

/// Handles that are not null and say what they are of.
pub const CONTEXT: usize = 0xC0;
pub const STREAM: usize = 0x57;
pub const BLAS: usize = 0xB1A5;

type Work = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// What is known of the device.
#[derive(Default)]
pub struct State {
    /// Bytes of each allocation.
    pub sizes: HashMap<u64, usize>,
    /// Names of the functions that were looked up; a handle is the place plus one.
    pub functions: Vec<Function>,
    /// Of each event, how much had been queued when it was recorded; a handle is the place plus one.
    pub events: Vec<u64>,
    queue: VecDeque<Work>,
    /// How much was ever queued.
    queued: u64,
    failed: bool,
}

/// A kernel that was looked up.
pub struct Function {
    pub name: &'static str,
    pub shared_bytes: u32,
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// A setting of the environment.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(format!("EMULATED_CUDA_{name}"))
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// The one device.
pub fn device() -> &'static EmulatedDevice {
    static DEVICE: OnceLock<EmulatedDevice> = OnceLock::new();
    DEVICE.get_or_init(|| EmulatedDevice::new(setting("MEMORY", 1 << 30), Order::Reverse))
}

pub fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    STATE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks an event.
pub fn record(event: usize) -> Answer {
    let mut state = state();
    let queued = state.queued;
    let Some(place) = event.checked_sub(1).and_then(|place| state.events.get_mut(place)) else {
        return INVALID_HANDLE;
    };
    *place = queued;
    SUCCESS
}

/// Makes a context the calling thread's.
pub fn set_current(context: usize) {
    CURRENT.set(context);
}

pub fn current() -> usize {
    CURRENT.get()
}

/// The answer to a call that needs a context and this stream.
pub fn ready(stream: usize) -> Result<(), Answer> {
    match (current(), stream) {
        (CONTEXT, STREAM) => Ok(()),
        (CONTEXT, _) => Err(INVALID_HANDLE),
        _ => Err(INVALID_CONTEXT),
    }
}

/// Puts work off until something waits for it.
pub fn queue(stream: usize, work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Answer {
    if let Err(answer) = ready(stream) {
        return answer;
    }
    let mut state = state();
    state.queue.push_back(Box::new(work));
    state.queued += 1;
    SUCCESS
}

/// Does all that was put off.
pub fn finish() -> Answer {
    finish_first(u64::MAX)
}

/// Does the first `count` things that were ever queued. A failure stays: the device has to be opened anew by another process.
pub fn finish_first(count: u64) -> Answer {
    let mut state = state();
    while state.queued - (state.queue.len() as u64) < count {
        let Some(work) = state.queue.pop_front() else { break };
        if let (false, Err(message)) = (state.failed, work()) {
            // Stderr is where a driver's own words go.
            report(&message);
            state.failed = true;
        }
    }
    if state.failed { ILLEGAL_ADDRESS } else { SUCCESS }
}

#[allow(clippy::print_stderr)]
fn report(message: &str) {
    eprintln!("emulated CUDA: {message}");
}
