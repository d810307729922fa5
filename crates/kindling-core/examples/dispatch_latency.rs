//! Measures what it costs to start and end a job, in the engine's pool and in rayon.
//!
//! A job is 8 tasks of 0, 5 or 50 microseconds each. Jobs follow each other at once, or after 20
//! microseconds of work on the calling thread, as between the ops of a step. Prints the median
//! microseconds per job above the ideal, which is `ceil(8 / threads)` tasks in a row.
//!
//! Usage: `cargo run --release -p kindling-core --example dispatch_latency [threads]`

#![allow(clippy::print_stdout, reason = "its output is the table")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use kindling_core::pool::{Pool, available_threads};
use rayon::prelude::*;

const TASKS: usize = 8;
const GAP: Duration = Duration::from_micros(20);
/// The pools take turns, so that a change of the clock rate or the load affects all of them.
const ROUNDS: usize = 20;
const JOBS_PER_ROUND: usize = 200;

fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// Returns the seconds of each job.
fn time_jobs(gap: Duration, mut run: impl FnMut()) -> Vec<f64> {
    (0..JOBS_PER_ROUND)
        .map(|_| {
            spin(gap);
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let threads: usize = threads.unwrap_or_else(available_threads).max(1);
    let pool = Pool::new(threads);
    let rayon = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("the system lends the threads");
    println!(
        "{threads} threads, {TASKS} tasks per job; median microseconds per job above the ideal"
    );
    println!("| task us | gap us | pool | rayon scope | rayon par_iter |");
    println!("|---|---|---|---|---|");
    for task in [0, 5, 50].map(Duration::from_micros) {
        for gap in [Duration::ZERO, GAP] {
            let work = |_: usize| spin(black_box(task));
            let mut seconds = [const { Vec::new() }; 3];
            for _ in 0..ROUNDS {
                seconds[0].extend(time_jobs(gap, || pool.run(TASKS, work)));
                seconds[1].extend(time_jobs(gap, || {
                    rayon.scope(|scope| {
                        (0..TASKS).for_each(|task| scope.spawn(move |_| work(task)));
                    });
                }));
                seconds[2].extend(time_jobs(gap, || {
                    rayon.install(|| (0..TASKS).into_par_iter().with_max_len(1).for_each(work));
                }));
            }
            let ideal = TASKS.div_ceil(threads) as f64 * task.as_secs_f64();
            let [ours, scope, par_iter] = seconds.map(|all| 1e6 * (median(all) - ideal));
            let (task, gap) = (task.as_micros(), gap.as_micros());
            println!("| {task} | {gap} | {ours:.1} | {scope:.1} | {par_iter:.1} |");
        }
    }
}
