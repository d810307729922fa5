//! Kernels over parameters and gradients: embedding, bias, norm and clipping, AdamW, SGD, casts.

mod common;

use common::{Activation, TOLERANCE, assert_close, in_every_order, launch, memory, random, wide};
use kindling_core::dtype::Dtype;
use kindling_core::ops::kernels::cast;
use kindling_core::ops::{adamw, embedding, grad_norm, linear, sgd};
use kindling_kernel_emulator::{Bf16, Element, Memory, ORDERS, Order};

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn embedding_gathers_rows_and_its_gradient_sums_them_by_id() {
    for (rows, d_model, vocab_size, offset) in [
        (1, 1, 1, 0),
        (7, 31, 5, 0),
        (9, 36, 1000, 0),
        (40, 132, 3, 0),
        (200, 132, 2, 0),
        (300, 260, 7, 1),
        (33, 8, 65, 2),
    ] {
        let s = embedding::Shape { rows, d_model, vocab_size };
        let ids: Vec<u32> =
            (0..rows).map(|row| (row * row * 31 % 97 % vocab_size) as u32).collect();
        let as_i32: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let (weight, before) = (
            random::<f32>(1, vocab_size * d_model, 1.0),
            random::<f32>(2, vocab_size * d_model, 1.0),
        );
        let dout = random::<f32>(3, rows * d_model, 1.0);
        let groups = embedding::cuda::Groups::of(&ids, vocab_size, &mut vec![9; 3]);
        assert_eq!(groups.data.len(), embedding::cuda::Groups::len_of(rows));
        let results = in_every_order(|order| {
            let (ids, weight) = (memory(&as_i32, 0), memory(&weight, offset));
            let (dout, dweight) = (memory(&dout, offset), memory(&before, offset));
            let (groups, out) =
                (memory(&groups.data, 0), Memory::<f32>::poisoned(rows * d_model, 0));
            let forward = embedding::cuda::Forward {
                out: out.address(),
                ids: ids.address(),
                weight: weight.address(),
            };
            launch(&embedding::cuda::forward(forward, s), order);
            let backward = embedding::cuda::Backward {
                dweight: dweight.address(),
                dout: dout.address(),
                groups: groups.address(),
            };
            launch(&embedding::cuda::backward(backward, s), order);
            vec![out.to_f32(), dweight.to_f32()]
        });
        assert_close(
            "out",
            &results[0],
            &embedding::reference::forward(&ids, &wide(&weight), s),
            0.0,
        );
        let mut expected = wide(&before);
        for (row, &id) in ids.iter().enumerate() {
            for column in 0..d_model {
                expected[id as usize * d_model + column] += f64::from(dout[row * d_model + column]);
            }
        }
        assert_close("dweight", &results[1], &expected, TOLERANCE);
    }
}

fn bias_holds<T: Activation>() {
    for (rows, outputs) in [(1, 1), (7, 33), (200, 31), (65, 300)] {
        let s = linear::Shape { rows, inputs: 1, outputs };
        let out = random::<T>(1, rows * outputs, 1.0);
        let (bias, before) = (random::<f32>(2, outputs, 1.0), random::<f32>(3, outputs, 1.0));
        let results = in_every_order(|order| {
            let (dout, out, bias) = (memory(&out, 0), memory(&out, 1), memory(&bias, 0));
            let (dbias, partial) =
                (memory(&before, 0), Memory::<f32>::poisoned(linear::cuda::partial_len(s), 0));
            launch(&linear::cuda::add_bias(T::DTYPE, out.address(), bias.address(), s), order);
            let backward = linear::cuda::backward_bias(
                T::DTYPE,
                dbias.address(),
                partial.address(),
                dout.address(),
                s,
            );
            for one in &backward {
                launch(one, order);
            }
            vec![out.to_f32(), dbias.to_f32()]
        });
        let wide_out = wide(&out);
        let expected: Vec<f64> =
            wide_out.iter().enumerate().map(|(i, v)| v + f64::from(bias[i % outputs])).collect();
        assert_close("out", &results[0], &expected, T::TOLERANCE);
        let mut expected = wide(&before);
        wide_out.iter().enumerate().for_each(|(i, v)| expected[i % outputs] += v);
        assert_close("dbias", &results[1], &expected, TOLERANCE);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn bias_is_added_to_each_row_and_its_gradient_sums_columns() {
    bias_holds::<f32>();
    bias_holds::<Bf16>();
}

/// Returns the state that `grad_norm` computes for g.
fn clip_state(g: &[f32], max_norm: f32, order: Order) -> Vec<f64> {
    let n = g.len();
    let g = memory(g, n % 2);
    let partial = Memory::<f64>::poisoned(grad_norm::cuda::partial_len(n), 0);
    let state = Memory::<f64>::poisoned(3, 0);
    launch(&grad_norm::cuda::squares(partial.address(), g.address(), n), order);
    launch(&grad_norm::cuda::clip_factor(state.address(), partial.address(), n, max_norm), order);
    state.values().to_vec()
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn norm_and_clip_factor_match_the_reference() {
    for n in [1, 31, 1000, 4096, 20_008, 70_001] {
        let g = random::<f32>(1, n, 3.0);
        let sum = grad_norm::reference::sum_of_squares(&wide(&g));
        for max_norm in [0.0, 1.0, 1e9] {
            let states = ORDERS.map(|order| clip_state(&g, max_norm, order));
            assert!(states.iter().all(|s| *s == states[0]), "in every order");
            let factor = grad_norm::clip_factor(sum.sqrt(), f64::from(max_norm));
            for (value, expected) in states[0].iter().zip([sum, sum.sqrt(), factor]) {
                assert!(
                    (value / expected - 1.0).abs() < 1e-6,
                    "{n} {max_norm}: {value} {expected}"
                );
            }
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut g = random::<f32>(1, 3000, 3.0);
        g[1234] = bad;
        assert!(clip_state(&g, 1.0, Order::Forward)[2].is_nan());
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn scaling_applies_the_clip_factor_only_when_it_is_below_one() {
    for (factor, expected) in [(0.25, 0.25), (1.0, 1.0), (f64::NAN, 1.0)] {
        let (g, state) = (memory(&random::<f32>(1, 999, 1.0), 0), memory(&[0.0, 0.0, factor], 0));
        let before = g.wide();
        launch(&grad_norm::cuda::scale(g.address(), state.address(), 999), Order::Reverse);
        let expected: Vec<f64> = before.iter().map(|v| v * expected).collect();
        assert_close("g", &g.to_f32(), &expected, TOLERANCE);
    }
}

/// Runs an optimizer's kernel over n parameters for two steps. Returns p, its bf16 copy, g, m and
/// v.
fn steps(
    n: usize,
    offset: usize,
    clip: Option<f64>,
    clear: bool,
    order: Order,
    update: impl Fn(&[u64; 5], usize, u64, bool, u64) -> kindling_core::cuda::Launch,
) -> [Vec<f32>; 5] {
    let [p, m] = [1, 2].map(|seed| memory(&random::<f32>(seed, n, 1.0), offset));
    let v = memory(&random::<f32>(3, n, 1.0).iter().map(|v| v.abs()).collect::<Vec<_>>(), offset);
    let (g, copy) =
        (memory(&random::<f32>(4, n, 1.0), offset), Memory::<Bf16>::poisoned(n, offset));
    let state = clip.map(|factor| memory(&[9.0, 3.0, factor], 0));
    let clip = state.as_ref().map_or(0, Memory::address);
    let pointers = [p.address(), copy.address(), g.address(), m.address(), v.address()];
    for step in 0..2 {
        launch(&update(&pointers, n, clip, clear, step), order);
    }
    [p.to_f32(), copy.to_f32(), g.to_f32(), m.to_f32(), v.to_f32()]
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn adamw_matches_the_reference_and_keeps_a_rounded_copy() {
    for (n, offset, clip, clear) in [
        (1, 0, None, false),
        (1000, 0, Some(0.5), false),
        (1001, 3, None, true),
        (4100, 0, Some(1.0), true),
    ] {
        let hyper = |step: u64| adamw::Hyper {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step: step + 5,
            grad_scale: clip.unwrap_or(1.0) as f32,
        };
        let settings = [0, 1].map(|step| memory(&adamw::cuda::settings(hyper(step)), 0));
        let results = in_every_order(|order| {
            steps(n, offset, clip, clear, order, |&[p, copy, g, m, v], n, clip, clear, step| {
                adamw::cuda::step(adamw::cuda::Step {
                    p,
                    p_bf16: copy,
                    g,
                    m,
                    v,
                    n,
                    settings: settings[step as usize].address(),
                    clip,
                    clear_gradients: clear,
                })
            })
            .to_vec()
        });
        let [mut p, mut m] = [1, 2].map(|seed| wide(&random::<f32>(seed, n, 1.0)));
        let mut v: Vec<f64> = random::<f32>(3, n, 1.0).iter().map(|v| f64::from(v.abs())).collect();
        let mut g = wide(&random::<f32>(4, n, 1.0));
        for step in 0..2 {
            adamw::reference::step(&mut p, &g, &mut m, &mut v, hyper(step));
            if clear {
                g.fill(0.0);
            }
        }
        for (what, index, expected) in [("p", 0, &p), ("g", 2, &g), ("m", 3, &m), ("v", 4, &v)] {
            assert_close(what, &results[index], expected, TOLERANCE);
        }
        let rounded: Vec<f32> = results[0].iter().map(|p| Bf16::from_f32(*p).to_f32()).collect();
        assert_eq!(results[1], rounded);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn sgd_matches_the_reference_and_keeps_a_rounded_copy() {
    for (n, offset, clip, clear) in
        [(7, 0, None, true), (1000, 0, Some(0.5), false), (1003, 1, Some(0.5), false)]
    {
        let hyper = |step: u64| sgd::Hyper {
            lr: 0.1,
            weight_decay: 0.2,
            step: step + 3,
            constant: false,
            grad_scale: clip.unwrap_or(1.0) as f32,
        };
        let settings = [0, 1].map(|step| memory(&sgd::cuda::settings(hyper(step)), 0));
        let results = in_every_order(|order| {
            steps(n, offset, clip, clear, order, |&[p, copy, g, ..], n, clip, clear, step| {
                sgd::cuda::step(sgd::cuda::Step {
                    p,
                    p_bf16: copy,
                    g,
                    n,
                    settings: settings[step as usize].address(),
                    clip,
                    clear_gradients: clear,
                })
            })
            .to_vec()
        });
        let (mut p, mut g) = (wide(&random::<f32>(1, n, 1.0)), wide(&random::<f32>(4, n, 1.0)));
        for step in 0..2 {
            sgd::reference::step(&mut p, &g, hyper(step));
            if clear {
                g.fill(0.0);
            }
        }
        assert_close("p", &results[0], &p, TOLERANCE);
        assert_close("g", &results[2], &g, TOLERANCE);
        let rounded: Vec<f32> = results[0].iter().map(|p| Bf16::from_f32(*p).to_f32()).collect();
        assert_eq!(results[1], rounded);
    }
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_non_finite_norm_leaves_weights_moments_and_gradients_unchanged() {
    let ones = memory(&[1.0f32; 7], 0);
    let start: Vec<Vec<f32>> = [1, 4, 2].map(|seed| random::<f32>(seed, 100, 1.0)).to_vec();
    let after = steps(
        100,
        0,
        Some(f64::NAN),
        true,
        Order::Forward,
        |&[p, copy, g, m, v], n, clip, clear, _| {
            adamw::cuda::step(adamw::cuda::Step {
                p,
                p_bf16: copy,
                g,
                m,
                v,
                n,
                settings: ones.address(),
                clip,
                clear_gradients: clear,
            })
        },
    );
    assert_eq!([&after[0], &after[2], &after[3]], [&start[0], &start[1], &start[2]]);
    let after = steps(
        100,
        0,
        Some(f64::NAN),
        true,
        Order::Forward,
        |&[p, copy, g, ..], n, clip, clear, _| {
            sgd::cuda::step(sgd::cuda::Step {
                p,
                p_bf16: copy,
                g,
                n,
                settings: ones.address(),
                clip,
                clear_gradients: clear,
            })
        },
    );
    assert_eq!([&after[0], &after[2]], [&start[0], &start[1]]);
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn casts_round_to_nearest_and_widen_exactly() {
    for (n, offset) in [(1, 0), (33, 0), (4096, 0), (5000, 1)] {
        let x = random::<f32>(1, n, 100.0);
        let rounded: Vec<f32> = x.iter().map(|v| Bf16::from_f32(*v).to_f32()).collect();
        for order in ORDERS {
            let (x, half) = (memory(&x, offset), Memory::<Bf16>::poisoned(n, offset));
            let back = Memory::<f32>::poisoned(n, 0);
            launch(&cast(Dtype::Bf16, half.address(), x.address(), n), order);
            launch(&cast(Dtype::F32, back.address(), half.address(), n), order);
            assert_eq!(back.values(), rounded);
        }
    }
}
