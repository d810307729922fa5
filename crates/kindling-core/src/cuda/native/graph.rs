//! CUDA graphs of work that repeats. A training pass is hundreds of launches; launching one graph
//! instead takes less of the host's time and leaves smaller gaps between kernels.
//!
//! While `Native` records, work is held back as plain data. At the end the list is compared with
//! those seen before. A list that is new is queued as it is; the second time it is captured as a
//! graph; from then on the graph is launched. A graph thus never runs work other than what was
//! asked for. Uploads go to memory of their own at once, and the list copies from there to where
//! they belong, so that the uploaded bytes are not part of the list.

use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};

use crate::cuda::driver::Rows;
use crate::cuda::{Launch, Product};

/// Lists to remember: those of full and of shorter batches, with and without checkpointing.
const LISTS: usize = 4;
/// Minimum length of a list that is worth a graph.
const MIN_LENGTH: usize = 16;

/// Work on the queue as plain data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    Launch(Launch),
    Product(Product),
    Clear { pointer: u64, bytes: usize },
    CopyRows { to: Rows, from: Rows, bytes: usize, count: usize },
}

/// A list of work that was seen, and its graph.
#[derive(Debug)]
struct Seen {
    work: Vec<Work>,
    /// Absent until the list comes again.
    graph: Option<Graph>,
    /// The device refused to capture the list.
    refused: bool,
}

/// An executable graph.
#[derive(Debug)]
pub(super) struct Graph {
    exec: sys::CUgraphExec,
    context: Arc<CudaContext>,
}

// SAFETY: a graph may be launched and destroyed on any thread on which its context is current.
unsafe impl Send for Graph {}

impl Graph {
    /// Captures what `queue` queues on `stream` as a graph. Returns `None` if that fails.
    pub fn capture(
        stream: sys::CUstream,
        context: &Arc<CudaContext>,
        queue: impl FnOnce() -> crate::Result<()>,
    ) -> Option<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live and captures nothing else; the graph is destroyed once, after
        // its executable form was made.
        unsafe {
            result::stream::begin_capture(stream, mode).ok()?;
            let queued = queue();
            let graph = result::stream::end_capture(stream).ok()?;
            if graph.is_null() {
                return None;
            }
            let mut exec = std::ptr::null_mut();
            let made = sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0).result();
            let _ = sys::cuGraphDestroy(graph).result();
            (queued.is_ok() && made.is_ok()).then(|| Self { exec, context: Arc::clone(context) })
        }
    }

    /// Queues the graph's work.
    pub fn launch(&self, stream: sys::CUstream) -> Result<(), result::DriverError> {
        // SAFETY: graph and stream are live; the memory that the graph uses is that of the work
        // just recorded.
        unsafe { sys::cuGraphLaunch(self.exec, stream) }.result()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // Errors cannot be reported from drop.
            // SAFETY: made by `capture`, destroyed once; the driver keeps it until it has run.
            let _ = unsafe { sys::cuGraphExecDestroy(self.exec) }.result();
        }
    }
}

/// What to do with a list of work.
pub(super) enum Plan<'a> {
    /// Queue it.
    Queue(Vec<Work>),
    /// Capture it: call `Recorder::captured` with the outcome, then queue or launch it.
    Capture(Vec<Work>),
    Launch(&'a Graph),
}

/// Memory that an upload goes to until the list copies it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mirror {
    pub pointer: u64,
    pub bytes: usize,
}

/// The list being recorded and those seen before.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    recording: bool,
    work: Vec<Work>,
    seen: Vec<Seen>,
    /// One for each upload of a list.
    pub mirrors: Vec<Mirror>,
    uploads: usize,
}

impl Recorder {
    pub fn start(&mut self) {
        self.recording = true;
        self.uploads = 0;
    }

    /// Holds work back if it is being recorded. Returns whether it was.
    pub fn hold(&mut self, work: impl FnOnce() -> Work) -> bool {
        if self.recording {
            self.work.push(work());
        }
        self.recording
    }

    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Returns the index of the next upload's mirror.
    pub fn next_mirror(&mut self) -> usize {
        self.uploads += 1;
        self.uploads - 1
    }

    /// Stops recording and returns what was held back, to be queued as it is.
    pub fn flush(&mut self) -> Vec<Work> {
        self.recording = false;
        std::mem::take(&mut self.work)
    }

    /// Ends the recording.
    pub fn finish(&mut self) -> Plan<'_> {
        let work = self.flush();
        if work.len() < MIN_LENGTH {
            return Plan::Queue(work);
        }
        let Some(place) = self.seen.iter().position(|seen| seen.work == work) else {
            if self.seen.len() == LISTS {
                self.seen.remove(0);
            }
            self.seen.push(Seen { work: work.clone(), graph: None, refused: false });
            return Plan::Queue(work);
        };
        // The list that was used last comes last.
        let seen = self.seen.remove(place);
        self.seen.push(seen);
        match &self.seen[self.seen.len() - 1] {
            Seen { refused: true, .. } => Plan::Queue(work),
            Seen { graph: None, .. } => Plan::Capture(work),
            Seen { graph: Some(graph), .. } => Plan::Launch(graph),
        }
    }

    /// Keeps the graph of the list that `finish` asked to capture, or `None` if that failed.
    pub fn captured(&mut self, graph: Option<Graph>) -> Option<&Graph> {
        let seen = self.seen.last_mut()?;
        seen.refused = graph.is_none();
        seen.graph = graph;
        seen.graph.as_ref()
    }
}
