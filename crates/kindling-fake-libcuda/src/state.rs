//! The device, its queue, and its settings from the environment.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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
/// `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`.
pub const CAPTURE_UNSUPPORTED: Answer = 900;
pub const ILLEGAL_ADDRESS: Answer = 700;

/// Handles that are not null and easy to recognize.
pub const CONTEXT: usize = 0xC0;
pub const STREAM: usize = 0x57;
pub const BLAS: usize = 0xB1A5;

type Work = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// State of the device.
#[derive(Default)]
pub struct State {
    /// Size of each allocation in bytes.
    pub sizes: HashMap<u64, usize>,
    /// Functions looked up so far; a handle is the index plus one.
    pub functions: Vec<Function>,
    /// Events created so far; a handle is the index plus one.
    pub events: Vec<Event>,
    /// Sum of the times that all products queued so far take.
    time: u64,
    queue: VecDeque<Work>,
    /// Work of each captured graph; a handle is the index plus one.
    graphs: Vec<Vec<Work>>,
    /// Number of operations ever queued.
    queued: u64,
    failed: bool,
}

/// A kernel that has been looked up.
pub struct Function {
    pub name: &'static str,
    pub shared_bytes: u32,
}

/// What an event saw when it was recorded.
#[derive(Clone, Copy, Default)]
pub struct Event {
    /// Operations queued before it.
    pub queued: u64,
    pub time: u64,
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    /// Operations queued by this thread since its capture began. A GPU captures a stream; here all
    /// models share one stream, but each captures on a thread of its own.
    static CAPTURING: RefCell<Option<Vec<Work>>> = const { RefCell::new(None) };
}

/// Reads `EMULATED_CUDA_<name>` from the environment.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(format!("EMULATED_CUDA_{name}"))
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Returns the only device.
pub fn device() -> &'static EmulatedDevice {
    static DEVICE: OnceLock<EmulatedDevice> = OnceLock::new();
    DEVICE.get_or_init(|| EmulatedDevice::new(setting("MEMORY", 1 << 30), Order::Reverse))
}

pub fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    STATE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records an event.
pub fn record(event: usize) -> Answer {
    let mut state = state();
    let now = Event { queued: state.queued, time: state.time };
    let Some(place) = event.checked_sub(1).and_then(|place| state.events.get_mut(place)) else {
        return INVALID_HANDLE;
    };
    *place = now;
    SUCCESS
}

/// Adds to the time that events measure.
pub fn pass_time(units: u64) {
    state().time += units;
}

/// Makes a context current on the calling thread.
pub fn set_current(context: usize) {
    CURRENT.set(context);
}

pub fn current() -> usize {
    CURRENT.get()
}

/// Checks that the context is current and that the stream is the one that was created.
pub fn ready(stream: usize) -> Result<(), Answer> {
    match (current(), stream) {
        (CONTEXT, STREAM) => Ok(()),
        (CONTEXT, _) => Err(INVALID_HANDLE),
        _ => Err(INVALID_CONTEXT),
    }
}

/// Defers work until something waits for it.
pub fn queue(
    stream: usize,
    work: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Answer {
    if let Err(answer) = ready(stream) {
        return answer;
    }
    let work: Work = Arc::new(work);
    let captured = CAPTURING.with_borrow_mut(|capturing| {
        let list = capturing.as_mut();
        list.is_some_and(|list| {
            list.push(Arc::clone(&work));
            true
        })
    });
    if captured {
        return SUCCESS;
    }
    let mut state = state();
    state.queue.push_back(work);
    state.queued += 1;
    SUCCESS
}

/// Starts to capture what is queued.
pub fn begin_capture(stream: usize) -> Answer {
    if let Err(answer) = ready(stream) {
        return answer;
    }
    CAPTURING.with_borrow_mut(|capturing| {
        if capturing.is_some() {
            return CAPTURE_UNSUPPORTED;
        }
        *capturing = Some(Vec::new());
        SUCCESS
    })
}

/// Ends a capture. Returns the handle of its graph.
pub fn end_capture() -> Result<usize, Answer> {
    let captured = CAPTURING.take().ok_or(INVALID_VALUE)?;
    let mut state = state();
    state.graphs.push(captured);
    Ok(state.graphs.len())
}

/// Queues the work of a graph.
pub fn launch_graph(graph: usize, stream: usize) -> Answer {
    if let Err(answer) = ready(stream) {
        return answer;
    }
    let mut state = state();
    let known = graph.checked_sub(1).and_then(|place| state.graphs.get(place).cloned());
    let Some(work) = known else { return INVALID_HANDLE };
    state.queued += work.len() as u64;
    state.queue.extend(work);
    SUCCESS
}

/// Runs all deferred work.
pub fn finish() -> Answer {
    finish_first(u64::MAX)
}

/// Runs the first `count` operations ever queued. A failure is sticky, as on a GPU.
pub fn finish_first(count: u64) -> Answer {
    if CAPTURING.with_borrow(Option::is_some) {
        return CAPTURE_UNSUPPORTED;
    }
    let mut state = state();
    while state.queued - (state.queue.len() as u64) < count {
        let Some(work) = state.queue.pop_front() else { break };
        if let (false, Err(message)) = (state.failed, work()) {
            // A driver's own diagnostics go to stderr.
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
