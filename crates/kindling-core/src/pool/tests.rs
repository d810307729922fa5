use super::*;
use std::sync::atomic::AtomicU32;

#[cfg(target_os = "linux")]
#[test]
fn available_threads_respects_the_affinity_mask() {
    // On another thread, since the call changes the mask of its own thread only.
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
fn every_task_runs_exactly_once() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(threads);
        for tasks in [0, 1, 2, 7, 100] {
            let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
            for _ in 0..200 {
                pool.run(tasks, |task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 200));
        }
    }
}

#[test]
fn shares_are_contiguous_and_hold_every_task_once() {
    for threads in [1, 2, 3, 8, 20] {
        let shared = Shared::new(threads);
        for tasks in [0, 1, 2, 7, 16, 100, usize::MAX] {
            shared.tasks.store(tasks, Ordering::Relaxed);
            let shares = shared.next.len();
            let firsts: Vec<usize> = (0..=shares).map(|share| shared.first_task(share)).collect();
            assert_eq!((firsts[0], firsts[shares]), (0, tasks));
            let (least, most) = (tasks / shares, tasks.div_ceil(shares));
            let sizes = firsts.windows(2).map(|pair| pair[1].checked_sub(pair[0]).unwrap());
            assert!(sizes.into_iter().all(|size| (least..=most).contains(&size)), "{firsts:?}");
        }
    }
}

#[test]
fn a_thread_takes_its_own_share_first_then_the_others() {
    let shared = Shared::new(3);
    for (thread, expected) in [(0, [0, 1, 2, 3, 4, 5, 6]), (1, [2, 3, 4, 5, 6, 0, 1])] {
        let order = Mutex::new(Vec::new());
        let work = |task| order.lock().unwrap().push(task);
        // SAFETY: there are no workers, and the job is closed below.
        unsafe { shared.open(7, &work) };
        shared.take_tasks(thread, &work);
        shared.close();
        assert_eq!(order.into_inner().unwrap(), expected);
    }
}

#[test]
fn a_job_started_by_a_task_runs_inline_and_callers_take_turns() {
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
fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
    let pool = Pool::new(2);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pool.run(10, |task| assert!(task != 7, "task seven"));
    }));
    assert!(outcome.is_err());
    let count = AtomicU32::new(0);
    pool.run(10, |_| add_one(&count));
    assert_eq!(count.load(Ordering::Relaxed), 10);
}

#[test]
fn a_sleeping_caller_wakes_when_the_last_worker_leaves() {
    let pool = Pool::new(3);
    for _ in 0..20 {
        let caller = std::thread::current().id();
        let entered = AtomicU32::new(0);
        let count = AtomicU32::new(0);
        pool.run(3, |_| {
            // Each thread takes one task, and the caller finishes long before the workers.
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
fn sleeping_workers_wake_for_the_next_job() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        let count = AtomicU32::new(0);
        pool.run(2, |_| add_one(&count));
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
