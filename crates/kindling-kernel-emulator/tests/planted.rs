//! The emulator finds what kernels do wrong: each `planted_*` kernel (cpp/planted.cu) has one bug.

use kindling_core::cuda::Launch;
use kindling_kernel_emulator::{Bf16, Memory, ORDERS, Order, run};

const THREADS: usize = 64;

fn launch(
    kernel: &'static str,
    out: &Memory<f32>,
    x: &Memory<f32>,
    blocks: u32,
    shared_bytes: u32,
) -> Launch {
    let args = vec![out.arg(), x.arg()];
    Launch { kernel, grid: [blocks, 1, 1], block: THREADS as u32, shared_bytes, args }
}

fn x() -> Vec<f32> {
    (0..THREADS).map(|i| i as f32).collect()
}

/// Returns the error of a kernel that fails in every order.
fn error(kernel: &'static str, shared_bytes: u32) -> String {
    let mut messages = ORDERS.map(|order| {
        let (out, x) = (Memory::<f32>::poisoned(THREADS, 0), Memory::of(&x()));
        run(&launch(kernel, &out, &x, 1, shared_bytes), order).expect_err("an error")
    });
    std::mem::take(&mut messages[0])
}

/// Returns a kernel's results in each order.
fn results(kernel: &'static str, blocks: u32) -> Vec<Vec<f32>> {
    ORDERS
        .map(|order| {
            let (out, x) = (Memory::<f32>::of(&[0.0; THREADS]), Memory::of(&x()));
            run(&launch(kernel, &out, &x, blocks, 0), order).unwrap();
            out.to_f32()
        })
        .to_vec()
}

fn prefix_sums() -> Vec<f32> {
    (0..THREADS).map(|i| (0..=i).sum::<usize>() as f32).collect()
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_correct_kernel_gives_the_same_result_in_every_order() {
    assert!(results("planted_sound", 1).iter().all(|r| *r == prefix_sums()));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_missing_barrier_gives_a_wrong_result() {
    for kernel in ["planted_no_barrier", "planted_no_second_barrier", "planted_no_warp_barrier"] {
        assert!(results(kernel, 1).iter().any(|r| *r != prefix_sums()), "{kernel}");
    }
    let all = results("planted_no_warp_barrier", 1);
    assert!(all.iter().any(|r| r.iter().any(|v| v.is_nan())), "poison is seen");
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_barrier_not_reached_by_all_threads_is_an_error() {
    assert!(error("planted_barrier_in_branch", 0).contains("__syncthreads is not reached by all"));
    assert!(error("planted_two_barriers", 0).contains("__syncthreads: another thread waits at"));
    assert!(
        error("planted_shuffle_in_branch", 0).contains("__shfl_xor_sync is not reached by all")
    );
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn an_out_of_bounds_access_is_an_error() {
    assert!(error("planted_read_past_end", 0).contains("an access outside of a buffer"));
    assert!(error("planted_write_past_end", 0).contains("an access outside of a buffer"));
    assert!(error("planted_shared_index", 0).contains("an index outside an array"));
    assert!(
        error("planted_dynamic_shared_size", 4 * 63).contains("outside of dynamic shared memory")
    );
    assert!(error("planted_dynamic_shared_size", 4 * 60).contains("an access outside of a buffer"));
    assert!(error("planted_misaligned", 0).contains("misaligned"));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_write_in_front_of_memory_is_detected() {
    let mut out = Memory::<f32>::poisoned(THREADS, 0);
    let x = Memory::of(&x());
    run(&launch("planted_write_before", &out, &x, 1, 0), Order::Forward).unwrap();
    assert!(!out.is_intact());
    out.repair();
    assert!(out.is_intact() && x.is_intact());
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn unwritten_memory_is_nan() {
    assert!(results("planted_uninitialised", 1).iter().flatten().all(|v| v.is_nan()));
    assert!(results("planted_no_wait", 1).iter().any(|r| r[..32].iter().all(|v| v.is_nan())));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_product_reads_its_operands_when_it_is_waited_for() {
    let (out, x) = (Memory::<f32>::poisoned(THREADS, 0), Memory::of(&x()));
    run(&launch("planted_product_in_flight", &out, &x, 1, 64 * 128), Order::Forward).unwrap();
    assert!(out.to_f32().iter().all(|&v| v == 24.0), "8 ones and 8 twos");
    let (d, b) = (Memory::<f32>::poisoned(2 * 64 * 64, 0), Memory::<Bf16>::of(&[Bf16(0); 4096]));
    let args = vec![d.arg(), b.arg(), b.arg()];
    let kernel = "planted_unpublished";
    let launch = Launch { kernel, grid: [1; 3], block: 128, shared_bytes: 64 * 128, args };
    assert!(run(&launch, Order::Forward).unwrap_err().contains("has not published"));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn sums_that_depend_on_the_order_of_blocks_differ() {
    let all = results("planted_order_of_blocks", 60);
    assert!(all.iter().any(|r| r[0] != all[0][0]));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn sums_in_turn_do_not_depend_on_the_order_of_blocks() {
    let all = results("planted_turns", 60);
    assert!(all.iter().all(|r| r[0] == all[0][0] && r[1].to_bits() == 60));
    let early = results("planted_early_turn", 60);
    assert!(early.iter().any(|r| r[0] != all[0][0]));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn waiting_for_a_block_that_may_not_have_started_is_an_error() {
    let (x, never) = (Memory::of(&x()), "a turn does not come before later blocks run");
    let outcomes = |kernel, blocks| {
        ORDERS.map(|order| {
            let out = Memory::<f32>::of(&[0.0; THREADS]);
            run(&launch(kernel, &out, &x, blocks, 0), order)
        })
    };
    let later = outcomes("planted_turns_of_later_blocks", 5);
    assert!(later[0].as_ref().unwrap_err().contains(never) && later[1].is_ok());
    for outcome in outcomes("planted_no_first_turn", 5) {
        assert!(outcome.unwrap_err().contains(never));
    }
    // Blocks that were set aside do not disturb the next launch.
    assert!(results("planted_sound", 1).iter().all(|r| *r == prefix_sums()));
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_launch_with_the_wrong_arguments_is_rejected() {
    let (out, x) = (Memory::<f32>::poisoned(THREADS, 0), Memory::of(&x()));
    let sound = launch("planted_sound", &out, &x, 1, 0);
    let refused = |launch: Launch| run(&launch, Order::Forward).unwrap_err();
    assert!(
        refused(Launch { args: vec![out.arg()], ..sound.clone() }).contains("the kernel takes pp")
    );
    assert!(
        refused(Launch { args: vec![out.arg(), 3usize.into()], ..sound.clone() })
            .contains("gives pi")
    );
    assert!(refused(Launch { block: 48, ..sound.clone() }).contains("whole warps"));
    assert!(refused(Launch { grid: [1, 65_536, 1], ..sound.clone() }).contains("65535"));
    assert!(refused(Launch { shared_bytes: 200_000, ..sound.clone() }).contains("shared memory"));
    assert!(refused(Launch { kernel: "nothing", ..sound.clone() }).contains("no such kernel"));
    run(&Launch { grid: [0, 1, 1], ..sound }, Order::Forward).unwrap();
    assert!(out.to_f32().iter().all(|v| v.is_nan()), "an empty launch does nothing");
}
