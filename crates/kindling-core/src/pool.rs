//! A pool of threads owned by the engine.
//!
//! A job is a number of tasks, fixed by the sizes of the op and never by the number of threads, so
//! that results do not depend on it either. A step of a small model runs hundreds of jobs of a few
//! microseconds. The pool is therefore built for latency: a job costs two cache lines of shared
//! state, idle workers spin before they sleep, and the caller does not wait for a worker that is
//! late for a job.
//!
//! # Protocol
//!
//! `inside` counts the workers that may follow the pointer to the job, or is `CLOSED`.
//!
//! ```text
//! caller: run(tasks, work)                   worker: serve()
//!   open    write the job                      idle    spin, then sleep, until a job has tasks
//!           set each `next`; inside = 0        enter   if inside != CLOSED: inside += 1
//!           wake sleepers                              else: back to idle
//!   take tasks from `next` until none is left  take tasks from `next` until none is left
//!   close   if inside == 0: inside = CLOSED    leave   inside -= 1
//!           else: spin, then sleep, and retry          if that made it 0: wake a sleeping caller
//!   return
//! ```
//!
//! 1. `enter` and `close` are compare-and-swaps on the same word, so a worker either has entered
//!    before the caller closes, and is waited for, or finds the job closed. No thread reads the job
//!    after `run` has returned, which is what lets `work` borrow from the caller's stack.
//! 2. Tasks are cut into a contiguous share per thread, and a thread takes those of its own share
//!    first. It then mostly reads the rows that it wrote in the job before, which are in its own
//!    cache. A thread that is done takes from the other shares.
//! 3. Tasks are taken by `fetch_add` on the `next` of a share. Several threads write that word, and
//!    idle ones read `inside`: each of these words has cache lines of its own, so that spinning
//!    does not slow down the threads that take tasks.
//! 4. A job whose tasks are all done closes at once if no worker is inside, even if none ever came.
//! 5. Sleepers register under a lock and check again before they sleep. A thread that wakes them
//!    takes the same lock first, so that no wake-up falls between the check and the sleep.
//!
//! `crates/kindling-core/loom` runs this file through the interleavings of a caller and a worker.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::time::Duration;
#[cfg(not(loom))]
use std::time::Instant;

use crate::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, UnsafeCell, in_total_order, thread, thread_local};

/// Time that an idle worker spins before it sleeps: longer than the gaps between the ops of a step,
/// and about as long as waking it takes.
const IDLE_SPIN: Duration = Duration::from_micros(50);
/// Time that a thread without tasks spins until the others have finished theirs. The next job
/// follows at once; but if there are more threads than cores, spinning takes time from those it
/// waits for.
const CLOSE_SPIN: Duration = Duration::from_micros(200);
/// Checks between two readings of the clock while spinning.
#[cfg(not(loom))]
const CHECKS_PER_CLOCK: u32 = 64;
/// Value of `Shared::inside` while no job can be entered.
const CLOSED: isize = -1;
/// Maximum number of shares of a job, all of which an idle worker looks through.
const MAX_SHARES: usize = 8;

type Work<'a> = dyn Fn(usize) + Sync + 'a;

#[cfg(not(loom))]
thread_local! {
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}
// loom's macro takes no constant.
#[cfg(loom)]
thread_local! {
    static IN_TASK: Cell<bool> = Cell::new(false);
}

/// Aligned to two cache lines, since processors prefetch them in pairs.
#[repr(align(128))]
struct OwnLine<T>(T);

struct Shared {
    /// The current job. Valid while `inside` is not `CLOSED`.
    work: UnsafeCell<Option<*const Work<'static>>>,
    tasks: AtomicUsize,
    /// The next task to take of each share.
    next: Box<[OwnLine<AtomicUsize>]>,
    /// The number of workers inside the current job, or `CLOSED`.
    inside: OwnLine<AtomicIsize>,
    sleeping_workers: AtomicUsize,
    sleep_lock: Mutex<()>,
    job_opened: Condvar,
    caller_sleeps: AtomicBool,
    leave_lock: Mutex<()>,
    last_worker_left: Condvar,
    shutdown: AtomicBool,
    /// The first panic of a task of the current job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written only by the caller that holds `Owner::running`, while `inside` is
// CLOSED, and read only by workers that have entered (inside > 0). The caller closes only at inside
// = 0. `Work` itself is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never followed after `run` has returned.
unsafe impl Send for Shared {}

impl Shared {
    fn new(threads: usize) -> Self {
        let shares = threads.clamp(1, MAX_SHARES);
        Self {
            work: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: (0..shares).map(|_| OwnLine(AtomicUsize::new(0))).collect(),
            inside: OwnLine(AtomicIsize::new(CLOSED)),
            sleeping_workers: AtomicUsize::new(0),
            sleep_lock: Mutex::new(()),
            job_opened: Condvar::new(),
            caller_sleeps: AtomicBool::new(false),
            leave_lock: Mutex::new(()),
            last_worker_left: Condvar::new(),
            shutdown: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// Opens a job to the workers.
    ///
    /// # Safety
    /// The caller holds `Owner::running`, and calls `close` before `work` ends.
    unsafe fn open(&self, tasks: usize, work: &Work<'_>) {
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot lengthen the lifetime of a trait object"
        )]
        // SAFETY: only the lifetime is erased; no worker follows the pointer once the job is
        // closed.
        let erased = unsafe {
            std::mem::transmute::<*const Work<'_>, *const Work<'static>>(std::ptr::from_ref(work))
        };
        self.work.with_mut(|job| {
            // SAFETY: `inside` is CLOSED, so no thread reads, and `running` is held, so no other
            // thread writes.
            unsafe { *job = Some(erased) }
        });
        self.tasks.store(tasks, Ordering::Relaxed);
        for (share, next) in self.next.iter().enumerate() {
            next.0.store(self.first_task(share), Ordering::Relaxed);
        }
        self.inside.0.store(0, Ordering::SeqCst);
        in_total_order();
        self.wake_workers();
    }

    fn has_tasks(&self) -> bool {
        self.inside.0.load(Ordering::SeqCst) != CLOSED
            && (0..self.next.len()).any(|share| self.has_tasks_of(share))
    }

    fn has_tasks_of(&self, share: usize) -> bool {
        self.next[share].0.load(Ordering::Relaxed) < self.first_task(share + 1)
    }

    /// Returns the first task of a share of the current job, or for the share after the last one
    /// the number of tasks.
    fn first_task(&self, share: usize) -> usize {
        let (tasks, shares) = (self.tasks.load(Ordering::Relaxed), self.next.len());
        tasks / shares * share + (tasks % shares) * share / shares
    }

    /// Enters the current job, unless it is closed.
    fn enter(&self) -> bool {
        self.inside
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| {
                (inside != CLOSED).then(|| inside + 1)
            })
            .is_ok()
    }

    /// Runs tasks until none is left to take: those of the thread's own share, then those of the
    /// shares that follow it.
    fn take_tasks(&self, thread: usize, work: &Work<'_>) {
        IN_TASK.with(|is| is.set(true));
        let shares = self.next.len();
        for share in (0..shares).map(|offset| (thread + offset) % shares) {
            // Read before it is written: most shares are done by the time another thread comes.
            while self.has_tasks_of(share) {
                let task = self.next[share].0.fetch_add(1, Ordering::Relaxed);
                if task < self.first_task(share + 1) {
                    self.run_task(task, work);
                }
            }
        }
        IN_TASK.with(|is| is.set(false));
    }

    /// Runs a task, and keeps its panic if it is the first.
    fn run_task(&self, task: usize, work: &Work<'_>) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(task))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }

    /// Runs a worker until the pool shuts down. Thread 0 is the caller.
    fn serve(&self, thread: usize) {
        while !self.shutdown.load(Ordering::Acquire) {
            if self.has_tasks() && self.enter() {
                // SAFETY: entered, so the caller keeps the job alive until this worker leaves.
                let work = self.work.with(|job| unsafe { *job });
                if let Some(work) = work {
                    // SAFETY: as above.
                    self.take_tasks(thread, unsafe { &*work });
                }
                self.leave();
                continue;
            }
            self.idle();
        }
    }

    /// Leaves the job. The last worker to leave wakes the caller if it sleeps.
    fn leave(&self) {
        let was = self.inside.0.fetch_sub(1, Ordering::SeqCst);
        in_total_order();
        if was == 1 && self.caller_sleeps.load(Ordering::SeqCst) {
            let _guard = self.leave_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.last_worker_left.notify_one();
        }
    }

    /// Closes the job if no worker is inside.
    fn try_close(&self) -> bool {
        self.inside.0.load(Ordering::SeqCst) == 0
            && self.inside.0.compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Waits until every worker has left the job, and closes it. After spinning for a while it
    /// sleeps, which leaves its core to the worker it waits for.
    fn close(&self) {
        if spin_until(|| self.try_close(), CLOSE_SPIN) {
            return;
        }
        let mut guard = self.leave_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.caller_sleeps.store(true, Ordering::SeqCst);
        in_total_order();
        while !self.try_close() {
            guard = self.last_worker_left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    /// Waits for a job: spins until the current one is closed, spins for the next one, then sleeps.
    fn idle(&self) {
        let wanted = || self.has_tasks() || self.shutdown.load(Ordering::Relaxed);
        let closed = || self.inside.0.load(Ordering::Relaxed) == CLOSED;
        spin_until(|| closed() || wanted(), CLOSE_SPIN);
        if spin_until(wanted, IDLE_SPIN) {
            return;
        }
        let mut guard = self.sleep_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping_workers.fetch_add(1, Ordering::SeqCst);
        in_total_order();
        while !self.has_tasks() && !self.shutdown.load(Ordering::Acquire) {
            guard = self.job_opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping_workers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_workers(&self) {
        if self.sleeping_workers.load(Ordering::SeqCst) > 0 {
            // Locked and unlocked: a worker that just found nothing to do is asleep by then, and
            // workers that wake up find the lock free.
            drop(self.sleep_lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.job_opened.notify_all();
        }
    }
}

/// Like the function below, but without spinning: loom runs one thread at a time.
#[cfg(loom)]
fn spin_until(done: impl Fn() -> bool, _limit: Duration) -> bool {
    done()
}

/// Spins until `done` returns true or `limit` has passed. Returns whether it did.
#[cfg(not(loom))]
fn spin_until(done: impl Fn() -> bool, limit: Duration) -> bool {
    let mut since = None;
    loop {
        for _ in 0..CHECKS_PER_CLOCK {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= limit {
            return false;
        }
    }
}

struct Owner {
    shared: Arc<Shared>,
    /// Held while a job runs.
    running: Mutex<()>,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        {
            let _guard = self.shared.sleep_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.job_opened.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// Threads that run the tasks of one job at a time. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    threads: usize,
    owner: Arc<Owner>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts a pool of `threads` threads, the calling thread included. If the system refuses to
    /// start one, the pool has fewer.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::new(threads));
        let workers: Vec<_> = (1..threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("kindling-{index}"))
                    .spawn(move || shared.serve(index))
                    .ok()
            })
            .collect();
        Self {
            threads: workers.len() + 1,
            owner: Arc::new(Owner { shared, running: Mutex::new(()), workers }),
        }
    }

    /// Returns the number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(task)` once for each task in `0..tasks`, in any order and on any thread, and
    /// returns when all are done.
    ///
    /// Called from inside a task, it runs all tasks on the calling thread. Threads that call it at
    /// the same time take turns.
    ///
    /// # Panics
    /// Resumes the first panic of a task once no thread works on the job any more.
    pub fn run(&self, tasks: usize, work: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.threads == 1 || IN_TASK.with(Cell::get) {
            (0..tasks).for_each(work);
            return;
        }
        let guard = self.owner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.owner.shared;
        // SAFETY: `running` is held, and the job is closed below. Nothing in between panics:
        // `take_tasks` catches the panics of tasks.
        unsafe { shared.open(tasks, &work) };
        shared.take_tasks(0, &work);
        shared.close();
        let payload = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(guard);
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

/// Returns the number of cores the process may use, or 1 if the system does not say.
///
/// On Linux the standard library reads the affinity mask (`taskset`, cpusets) and the CPU quota of
/// the cgroup (containers), rounded down.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(all(test, not(loom)))]
mod tests;
