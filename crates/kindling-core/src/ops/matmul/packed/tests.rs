//! Every kernel the machine has, and the tiles' emulation, against sums in f64 of operands as it takes them.

use super::*;
use crate::buffer::In;
use crate::cpu::MatmulBackend;
use crate::dtype::Dtype;
use crate::random::{Purpose, uniform};
use crate::simd::Isa;

fn random(len: usize, major: u64) -> Vec<f32> {
    (0..len).map(|i| (2.0 * uniform(3, Purpose::Benchmark, major, i as u32) - 1.0) as f32).collect()
}

/// As the kernel takes it.
fn taken(kernel: Kernel, value: f32) -> f64 {
    if kernel.dtype() == Dtype::F32 {
        f64::from(value)
    } else {
        f64::from(bf16::widen(bf16::round(value)))
    }
}

fn cpu(kernel: Kernel, threads: usize) -> Cpu {
    Cpu::new(threads, Isa::detect(), MatmulBackend::Packed(kernel))
}

const SIZES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (3, 5, 7),
    (14, 32, 32),
    (15, 33, 31),
    (33, 17, 65),
    (64, 385, 70),
    (100, 800, 33),
    (700, 40, 50),
    (31, 1000, 100),
    (3, 5000, 2000),
];

#[test]
fn products_in_all_layouts_equal_the_sums_of_rounded_operands() {
    // Blocks at the edge of every height, and of a part of each register of columns.
    let edges = (1..=14).flat_map(|m| [1, 15, 16, 17, 31].map(|n| (m, 9, n)));
    for (m, k, n) in SIZES.into_iter().chain(edges) {
        let (a, b, start) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
        let turn = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
        };
        let (a_turned, b_turned) = (turn(&a, m, k), turn(&b, k, n));
        for kernel in Kernel::available() {
            let taken = |value| taken(kernel, value);
            let expected: Vec<f64> = (0..m * n)
                .map(|i| (0..k).map(|p| taken(a[i / n * k + p]) * taken(b[p * n + i % n])).sum())
                .collect();
            let cpu = cpu(kernel, 2);
            for (turned_a, turned_b, accumulate) in [
                (false, false, false),
                (false, true, true),
                (true, false, true),
                (true, true, false),
            ] {
                let left = if turned_a {
                    Operand::rows(In::Cpu(&a_turned), k, m).transposed()
                } else {
                    Operand::rows(In::Cpu(&a), m, k)
                };
                let right = if turned_b {
                    Operand::rows(In::Cpu(&b_turned), n, k).transposed()
                } else {
                    Operand::rows(In::Cpu(&b), k, n)
                };
                let mut out = start.clone();
                product(&cpu, kernel, Out::Cpu(&mut out), left, right, accumulate);
                for (index, (out, expected)) in out.iter().zip(&expected).enumerate() {
                    let expected =
                        expected + if accumulate { f64::from(start[index]) } else { 0.0 };
                    let error = (f64::from(*out) - expected).abs();
                    assert!(
                        error < 1e-5 * (k as f64).sqrt().max(1.0),
                        "{kernel:?} {m} {k} {n}: {out} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn operands_and_results_kept_as_bf16_equal_those_rounded_on_the_way() {
    for (m, k, n) in SIZES.into_iter().chain([(250, 70, 1000)]) {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let narrow = |values: &[f32]| -> Vec<u16> {
            values.iter().map(|value| bf16::round(*value)).collect()
        };
        let (narrow_a, narrow_b) = (narrow(&a), narrow(&b));
        for kernel in Kernel::available().into_iter().filter(|kernel| kernel.dtype() == Dtype::Bf16)
        {
            let cpu = cpu(kernel, 2);
            let mut wide = vec![7.0; m * n];
            let (left, right) =
                (Operand::rows(In::Cpu(&a), m, k), Operand::rows(In::Cpu(&b), k, n));
            product(&cpu, kernel, Out::Cpu(&mut wide), left, right, false);
            let mut rounded = vec![9; m * n];
            let (left, right) = (
                Operand::rows(In::CpuBf16(&narrow_a), m, k),
                Operand::rows(In::CpuBf16(&narrow_b), k, n),
            );
            product(&cpu, kernel, Out::CpuBf16(&mut rounded), left, right, false);
            assert!(rounded == narrow(&wide), "{kernel:?} {m} {k} {n}");
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads() {
    // Cut in other tasks by each number of threads.
    let (m, k, n) = (700, 500, 330);
    let (a, b) = (random(m * k, 1), random(k * n, 2));
    for kernel in Kernel::available() {
        let run = |threads| {
            let mut out = vec![0.5; m * n];
            let (a, b) = (Operand::rows(In::Cpu(&a), m, k), Operand::rows(In::Cpu(&b), k, n));
            product(&cpu(kernel, threads), kernel, Out::Cpu(&mut out), a, b, true);
            out
        };
        let alone = run(1);
        assert!([2, 3, 8].into_iter().all(|threads| run(threads) == alone), "{kernel:?}");
    }
}

#[test]
fn a_name_narrows_the_kernel() {
    for name in ["scalar", "avx2", "avx512"] {
        assert_eq!(Kernel::narrowed(Some(name)), None);
    }
    if bf16::is_available() {
        assert_eq!(Kernel::narrowed(Some("avx512bf16")), Some(Kernel::Dot));
        assert!(Kernel::narrowed(None).is_some());
    }
}

#[test]
fn no_rows_no_columns_and_no_depth_are_products_too() {
    for kernel in Kernel::available() {
        let cpu = cpu(kernel, 1);
        let rows = |elements, height, width| Operand::rows(In::Cpu(elements), height, width);
        product(&cpu, kernel, Out::Cpu(&mut []), rows(&[], 0, 3), rows(&[0.0; 6], 3, 2), false);
        let mut out = [7.0; 4];
        product(&cpu, kernel, Out::Cpu(&mut out), rows(&[], 2, 0), rows(&[], 0, 2), false);
        assert!(out == [0.0; 4]);
    }
}
