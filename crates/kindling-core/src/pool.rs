//! Threads owned by the engine.
//!
//! Work is cut in fixed pieces whose number and bounds never depend on the number of threads, so results do not either.
//! A step of a small model hands out hundreds of jobs of a few microseconds; the workers therefore watch for the next job
//! for a moment before they sleep, and a job that is over before a worker arrives does not wait for it.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an idle worker watches for the next job before it sleeps: longer than the gaps between the ops of a step,
/// and of the order of what waking it costs.
const WATCH: Duration = Duration::from_micros(50);
/// How long a thread out of pieces watches the others finish theirs before it sleeps: the next job follows at once, but on
/// a machine with more to do than cores it takes the time away from those it waits for.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks between two readings of the clock.
const LOOKS: u32 = 64;
/// Value of `Shared::inside` while no job may be entered.
const CLOSED: isize = -1;

type Work<'a> = dyn Fn(usize) + Sync + 'a;

thread_local! {
    static INSIDE_A_PIECE: Cell<bool> = const { Cell::new(false) };
}

/// A cache line of its own (two, as processors fetch them in pairs), so that taking a piece does not slow the others' looks.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// The current job; valid while `inside` is not `CLOSED`.
    work: UnsafeCell<Option<*const Work<'static>>>,
    pieces: AtomicUsize,
    /// The next piece to take.
    next: Line<AtomicUsize>,
    /// Workers inside the current job, or `CLOSED`.
    inside: Line<AtomicIsize>,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
    /// Whether the caller sleeps until the last worker has left.
    caller_sleeps: AtomicBool,
    leaving: Mutex<()>,
    left: Condvar,
    shutdown: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written only by the caller that holds `Owner::running`, while `inside` is CLOSED, and read only by
// workers that have entered (inside > 0); the caller closes only at inside = 0. `Work` itself is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never followed after `run` has returned.
unsafe impl Send for Shared {}

impl Shared {
    fn has_work(&self) -> bool {
        self.inside.0.load(Ordering::SeqCst) != CLOSED
            && self.next.0.load(Ordering::Relaxed) < self.pieces.load(Ordering::Relaxed)
    }

    /// Enters the current job unless it is closed.
    fn enter(&self) -> bool {
        self.inside
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| {
                (inside != CLOSED).then(|| inside + 1)
            })
            .is_ok()
    }

    fn take_pieces(&self, work: &Work<'_>) {
        INSIDE_A_PIECE.set(true);
        let pieces = self.pieces.load(Ordering::Relaxed);
        loop {
            let piece = self.next.0.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                break;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(piece))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
        }
        INSIDE_A_PIECE.set(false);
    }

    fn serve(&self) {
        while !self.shutdown.load(Ordering::Acquire) {
            if self.has_work() && self.enter() {
                // SAFETY: entered, so the caller keeps the job alive until this worker leaves.
                if let Some(work) = unsafe { *self.work.get() } {
                    // SAFETY: as above.
                    self.take_pieces(unsafe { &*work });
                }
                self.leave();
                continue;
            }
            self.idle();
        }
    }

    /// Leaves the job entered; the last to leave wakes the caller if it sleeps.
    fn leave(&self) {
        if self.inside.0.fetch_sub(1, Ordering::SeqCst) == 1
            && self.caller_sleeps.load(Ordering::SeqCst)
        {
            let _guard = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            self.left.notify_one();
        }
    }

    /// Closes the job if no worker is inside.
    fn try_close(&self) -> bool {
        self.inside.0.load(Ordering::SeqCst) == 0
            && self.inside.0.compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Waits until every worker has left the job and closes it.
    ///
    /// After a while it sleeps, which leaves its core to the worker it waits for.
    fn close(&self) {
        if watch(|| self.try_close(), PATIENCE) {
            return;
        }
        let mut guard = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !self.try_close() {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    fn idle(&self) {
        let wanted = || self.has_work() || self.shutdown.load(Ordering::Relaxed);
        let closed = || self.inside.0.load(Ordering::Relaxed) == CLOSED;
        watch(|| closed() || wanted(), PATIENCE);
        if watch(wanted, WATCH) {
            return;
        }
        let mut guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.has_work() && !self.shutdown.load(Ordering::Acquire) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Taken and given back: whoever has just found nothing to do is asleep by then, and those who wake find it free.
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }
}

/// Looks again and again until `seen` or until `limit` has passed; says whether it was seen.
fn watch(seen: impl Fn() -> bool, limit: Duration) -> bool {
    let mut since = None;
    loop {
        for _ in 0..LOOKS {
            if seen() {
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
    running: Mutex<()>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        {
            let _guard = self.shared.asleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// A set of threads that run the pieces of one job at a time. Cheap to clone.
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
    /// A pool in which `threads` threads work, the caller's among them. Where the system refuses a thread, fewer work.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            work: UnsafeCell::new(None),
            pieces: AtomicUsize::new(0),
            next: Line(AtomicUsize::new(0)),
            inside: Line(AtomicIsize::new(CLOSED)),
            sleepers: AtomicUsize::new(0),
            asleep: Mutex::new(()),
            wake: Condvar::new(),
            caller_sleeps: AtomicBool::new(false),
            leaving: Mutex::new(()),
            left: Condvar::new(),
            shutdown: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers: Vec<_> = (1..threads)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("kindling-{index}"))
                    .spawn(move || shared.serve())
                    .ok()
            })
            .collect();
        Self {
            threads: workers.len() + 1,
            owner: Arc::new(Owner { shared, running: Mutex::new(()), workers }),
        }
    }

    /// Threads that work on a job.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work(piece)` once for each piece in 0..pieces, in any order and on any thread, and returns when all are done.
    ///
    /// Called from inside a piece it runs inline; two threads that call it at once take turns. A panic of a piece reaches
    /// the caller, once the pieces that other threads are at are done.
    pub fn run(&self, pieces: usize, work: impl Fn(usize) + Sync) {
        if pieces <= 1 || self.threads == 1 || INSIDE_A_PIECE.get() {
            (0..pieces).for_each(work);
            return;
        }
        let guard = self.owner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.owner.shared;
        let work: &Work<'_> = &work;
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot lengthen a trait object's lifetime"
        )]
        // SAFETY: only the lifetime is erased; no worker follows the pointer once `inside` is CLOSED again below.
        let erased = unsafe {
            std::mem::transmute::<*const Work<'_>, *const Work<'static>>(std::ptr::from_ref(work))
        };
        // SAFETY: `inside` is CLOSED (no reader) and `running` is held (no other writer).
        unsafe { *shared.work.get() = Some(erased) };
        shared.next.0.store(0, Ordering::Relaxed);
        shared.pieces.store(pieces, Ordering::Relaxed);
        shared.inside.0.store(0, Ordering::SeqCst);
        shared.wake_sleepers();
        shared.take_pieces(work);
        shared.close();
        let payload = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(guard);
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

/// Cores the process may use, 1 where the system does not say. On Linux the standard library asks the affinity mask
/// (`taskset`, cpusets) and the CPU quota of the cgroup (containers), rounded down.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[cfg(target_os = "linux")]
    #[test]
    fn available_threads_respects_the_affinity_mask() {
        // In a thread of its own: the mask belongs to the thread that sets it.
        let threads = std::thread::spawn(|| {
            // SAFETY: `cpu_set_t` is plain bits, valid when zero; the calls get its true size.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                let size = size_of::<libc::cpu_set_t>();
                assert_eq!(libc::sched_getaffinity(0, size, &raw mut set), 0);
                let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &set));
                libc::CPU_ZERO(&mut set);
                libc::CPU_SET(first.expect("a core"), &mut set);
                assert_eq!(libc::sched_setaffinity(0, size, &raw const set), 0);
            }
            available_threads()
        });
        assert_eq!(threads.join().unwrap(), 1);
    }

    fn add_one(count: &AtomicU32) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn every_piece_runs_exactly_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for pieces in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicU32> = (0..pieces).map(|_| AtomicU32::new(0)).collect();
                for _ in 0..200 {
                    pool.run(pieces, |piece| {
                        counts[piece].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 200));
            }
        }
    }

    #[test]
    fn a_job_inside_a_piece_runs_inline_and_callers_take_turns() {
        let pool = Pool::new(3);
        let total = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(5, |_| pool.run(3, |_| add_one(&total)));
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 100 * 15);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(10, |piece| assert!(piece != 7, "piece seven"))
        }));
        assert!(outcome.is_err());
        let count = AtomicU32::new(0);
        pool.run(10, |_| add_one(&count));
        assert_eq!(count.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_caller_that_fell_asleep_wakes_when_the_last_worker_leaves() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            let caller = std::thread::current().id();
            let entered = AtomicU32::new(0);
            let count = AtomicU32::new(0);
            pool.run(3, |_| {
                // Each thread takes one piece, and the caller is done long before the workers.
                add_one(&entered);
                while entered.load(Ordering::Relaxed) < 3 {
                    std::thread::yield_now();
                }
                if std::thread::current().id() != caller {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                add_one(&count);
            });
            assert_eq!(count.load(Ordering::Relaxed), 3);
        }
    }

    #[test]
    fn workers_that_fell_asleep_wake_for_the_next_job() {
        let pool = Pool::new(2);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let count = AtomicU32::new(0);
            pool.run(2, |_| add_one(&count));
            assert_eq!(count.load(Ordering::Relaxed), 2);
        }
    }
}
