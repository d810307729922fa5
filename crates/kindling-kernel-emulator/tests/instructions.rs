//! The emulated matrix instructions against plain products and the layouts of the PTX ISA.

mod common;

use common::{TOLERANCE, assert_close, in_every_order, launch, memory, random, wide};
use kindling_core::cuda::Launch;
use kindling_kernel_emulator::{Bf16, Element, Memory};

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn mma_multiplies_fragments_laid_out_as_documented() {
    let (a, b, before) =
        (random::<Bf16>(1, 256, 1.0), random::<Bf16>(2, 128, 1.0), random::<f32>(3, 128, 1.0));
    let results = in_every_order(|order| {
        let (d, a, b) = (memory(&before, 0), memory(&a, 0), memory(&b, 0));
        let args = vec![d.arg(), a.arg(), b.arg()];
        launch(
            &Launch { kernel: "instructions_mma", grid: [1; 3], block: 32, shared_bytes: 0, args },
            order,
        );
        vec![d.to_f32()]
    });
    let (a, b, mut expected) = (wide(&a), wide(&b), wide(&before));
    for row in 0..16 {
        for column in 0..8 {
            expected[row * 8 + column] +=
                (0..16).map(|k| a[row * 16 + k] * b[k * 8 + column]).sum::<f64>();
        }
    }
    assert_close("d", &results[0], &expected, TOLERANCE);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn ldmatrix_assigns_elements_to_lanes_as_documented() {
    // Each element encodes its own position: matrix, row, column.
    let x: Vec<Bf16> = (0..256).map(|i| Bf16::from_f32(i as f32)).collect();
    let results = in_every_order(|order| {
        let (out, x) = (Memory::<Bf16>::poisoned(512, 0), memory(&x, 0));
        let args = vec![out.arg(), x.arg()];
        launch(
            &Launch {
                kernel: "instructions_ldmatrix",
                grid: [1; 3],
                block: 32,
                shared_bytes: 0,
                args,
            },
            order,
        );
        vec![out.to_f32()]
    });
    for lane in 0..32 {
        for matrix in 0..4 {
            for half in 0..2 {
                let (line, element) = (lane / 4, 2 * (lane % 4) + half);
                let at = lane * 8 + matrix * 2 + half;
                assert_eq!(results[0][at], (matrix * 64 + line * 8 + element) as f32);
                assert_eq!(results[0][256 + at], (matrix * 64 + element * 8 + line) as f32);
            }
        }
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn wgmma_multiplies_a_swizzled_tile_and_its_transpose() {
    let (a, b) = (random::<Bf16>(1, 64 * 16, 1.0), random::<Bf16>(2, 64 * 64, 1.0));
    let results = in_every_order(|order| {
        let (d, a, b) = (Memory::<f32>::poisoned(2 * 64 * 64, 0), memory(&a, 0), memory(&b, 0));
        let args = vec![d.arg(), a.arg(), b.arg()];
        let kernel = "instructions_wgmma";
        launch(&Launch { kernel, grid: [1; 3], block: 128, shared_bytes: 64 * 128, args }, order);
        vec![d.to_f32()]
    });
    let (a, b) = (wide(&a), wide(&b));
    let product = |row: usize, column: usize, transposed: bool| -> f64 {
        (0..16)
            .map(|k| {
                let at = if transposed { k * 64 + column } else { column * 64 + k };
                a[row * 16 + k] * b[at]
            })
            .sum()
    };
    let expected: Vec<f64> = [false, true]
        .iter()
        .flat_map(|&form| (0..64 * 64).map(move |i| (i, form)))
        .map(|(i, form)| product(i / 64, i % 64, form))
        .collect();
    assert_close("d", &results[0], &expected, TOLERANCE);
}
