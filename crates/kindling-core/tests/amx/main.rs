//! The kernel of AMX: its very instructions, run by the processor where it has them, else one by one by an emulation of ours
//! that takes SIGILL. It holds their encodings, the tiles' configuration, strides and the packing against sums in f64.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "../common/mod.rs"]
mod common;
mod instructions;
mod signal;
mod tiles;

use std::sync::Arc;

use common::{random, view, view_mut};
use kindling_core::buffer::{In, Out};
use kindling_core::cpu::{Cpu, MatmulBackend, MatmulKernel};
use kindling_core::device::Device;
use kindling_core::ops::linear;
use kindling_core::simd::Isa;

/// Whether the processor runs the instructions itself.
fn is_real() -> bool {
    named("amx").is_some()
}

fn named(name: &str) -> Option<MatmulKernel> {
    MatmulKernel::available().into_iter().find(|kernel| kernel.name() == name)
}

/// The kernel, on this processor or on the emulation.
fn tiles() -> MatmulKernel {
    if !is_real() {
        signal::install();
    }
    // SAFETY: the processor has the instructions, or the handler does their work.
    unsafe { MatmulKernel::amx_unchecked() }
        .expect("the instructions compute what the plain code does")
}

fn device(kernel: MatmulKernel, threads: usize) -> Device {
    Device::Cpu(Arc::new(Cpu::new(threads, Isa::detect(), MatmulBackend::Packed(kernel))))
}

/// y, dx and dweight of a linear layer; dweight starts at 1.
fn layer(
    kernel: MatmulKernel,
    threads: usize,
    s: linear::Shape,
    [x, w, dout]: [&[f32]; 3],
) -> [Vec<f32>; 3] {
    let dev = device(kernel, threads);
    let (mut y, mut dx) = (vec![7.0; s.rows * s.outputs], vec![7.0; s.rows * s.inputs]);
    let mut dw = vec![1.0; s.outputs * s.inputs];
    linear::forward(
        &dev,
        linear::Forward {
            out: view_mut(&mut y),
            x: view(x),
            weight: view(w),
            bias: None,
            shape: s,
        },
    )
    .unwrap();
    linear::backward_input(
        &dev,
        linear::BackwardInput {
            dx: view_mut(&mut dx),
            dout: view(dout),
            weight: view(w),
            shape: s,
            accumulate: false,
        },
    )
    .unwrap();
    linear::backward_weight(
        &dev,
        linear::BackwardWeight {
            dweight: view_mut(&mut dw),
            dbias: None,
            dout: view(dout),
            x: view(x),
            shape: s,
        },
    )
    .unwrap();
    [y, dx, dw]
}

/// As `layer`, by sums in f64 of operands as they are.
fn sums(s: linear::Shape, [x, w, dout]: [&[f32]; 3]) -> [Vec<f64>; 3] {
    let linear::Shape { rows, inputs, outputs } = s;
    let sum = |len: usize, term: &dyn Fn(usize) -> (f32, f32)| -> f64 {
        (0..len).map(term).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
    };
    let all = |height: usize, width: usize, element: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..height * width).map(|i| element(i / width, i % width)).collect()
    };
    [
        all(rows, outputs, &|r, o| sum(inputs, &|i| (x[r * inputs + i], w[o * inputs + i]))),
        all(rows, inputs, &|r, i| sum(outputs, &|o| (dout[r * outputs + o], w[o * inputs + i]))),
        all(outputs, inputs, &|o, i| {
            1.0 + sum(rows, &|r| (dout[r * outputs + o], x[r * inputs + i]))
        }),
    ]
}

/// Rows of parts of a tile and of whole ones, odd depths, several runs along k, several tasks.
fn shapes() -> Vec<linear::Shape> {
    let mut sizes: Vec<_> = (1..=17).map(|rows| (rows, 2 * rows + 1, 40 - rows)).collect();
    sizes.extend([
        (32, 32, 32),
        (33, 31, 65),
        (64, 96, 64),
        (15, 1025, 30),
        (300, 70, 129),
        (600, 33, 65),
    ]);
    sizes
        .into_iter()
        .map(|(rows, inputs, outputs)| linear::Shape { rows, inputs, outputs })
        .collect()
}

#[test]
fn products_of_small_whole_numbers_are_exact() {
    let kernel = tiles();
    let whole =
        |seed, len| -> Vec<f32> { random(seed, len).iter().map(|x| (4.0 * x).round()).collect() };
    for s in shapes() {
        let (x, w, dout) = (
            whole(1, s.rows * s.inputs),
            whole(2, s.outputs * s.inputs),
            whole(3, s.rows * s.outputs),
        );
        let operands = [&x[..], &w[..], &dout[..]];
        let expected =
            sums(s, operands).map(|values| values.iter().map(|v| *v as f32).collect::<Vec<_>>());
        assert!(layer(kernel, 2, s, operands) == expected, "{s:?}");
        if let Some(dot) = named("avx512bf16") {
            assert!(layer(dot, 2, s, operands) == expected, "avx512bf16: {s:?}");
        }
    }
}

#[test]
fn products_of_rounded_numbers_are_those_of_the_plain_code() {
    let kernel = tiles();
    let plain = named("emulated").expect("plain code runs anywhere");
    for s in shapes() {
        let operands = [
            random(1, s.rows * s.inputs),
            random(2, s.outputs * s.inputs),
            random(3, s.rows * s.outputs),
        ];
        let operands = [&operands[0][..], &operands[1][..], &operands[2][..]];
        let found = layer(kernel, 3, s, operands);
        assert!(found == layer(kernel, 1, s, operands), "threads: {s:?}");
        let expected = layer(plain, 2, s, operands);
        if is_real() {
            // The order of additions inside an instruction is the processor's.
            for (found, expected) in found.iter().zip(&expected) {
                common::assert_close("amx", found, &common::wide(expected));
            }
        } else {
            assert!(found == expected, "{s:?}");
        }
    }
}

#[test]
fn operands_and_results_of_bf16_are_taken_as_they_are() {
    let kernel = tiles();
    let s = linear::Shape { rows: 45, inputs: 77, outputs: 50 };
    let upper = |values: &[f32]| -> Vec<u16> {
        values.iter().map(|x| (x.to_bits() >> 16) as u16).collect()
    };
    let widened = |bits: &[u16]| -> Vec<f32> {
        bits.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)).collect()
    };
    let (x, w) = (upper(&random(1, s.rows * s.inputs)), random(2, s.outputs * s.inputs));
    let dev = device(kernel, 2);
    let (mut narrow, mut wide) = (vec![0; s.rows * s.outputs], vec![0.0; s.rows * s.outputs]);
    linear::forward(
        &dev,
        linear::Forward {
            out: Out::CpuBf16(&mut narrow),
            x: In::CpuBf16(&x),
            weight: view(&w),
            bias: None,
            shape: s,
        },
    )
    .unwrap();
    linear::forward(
        &dev,
        linear::Forward {
            out: view_mut(&mut wide),
            x: view(&widened(&x)),
            weight: view(&w),
            bias: None,
            shape: s,
        },
    )
    .unwrap();
    let furthest =
        widened(&narrow).iter().zip(&wide).map(|(n, w)| ((n - w) / w).abs()).fold(0.0, f32::max);
    assert!(furthest <= 1.0 / 256.0, "{furthest}");
}

#[test]
fn every_instruction_runs_and_configured_tiles_are_released() {
    if is_real() {
        return;
    }
    let kernel = tiles();
    let before = signal::counts();
    let s = linear::Shape { rows: 40, inputs: 40, outputs: 40 };
    let operands = [random(1, 1600), random(2, 1600), random(3, 1600)];
    // By one thread, this one.
    layer(kernel, 1, s, [&operands[0], &operands[1], &operands[2]]);
    let after = signal::counts();
    let ran: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert!(ran.iter().all(|count| *count > 0), "{ran:?}");
    assert_eq!(ran[0], ran[1], "configured and released");
}
