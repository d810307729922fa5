//! Cross-entropy and the output layer fused with it, against plain f64 loops with finite differences and candle's autograd.

mod common;

use candle_core::{D, Tensor};
use common::*;
use kindling_core::buffer::{In, Out};
use kindling_core::ops::{IGNORED_TARGET, cross_entropy, output_loss};

fn candle_loss(logits: &Tensor, targets: &[i32]) -> Tensor {
    let largest = logits.max_keepdim(D::Minus1).unwrap().detach();
    let shifted = logits.broadcast_sub(&largest).unwrap();
    let log = shifted
        .broadcast_sub(&shifted.exp().unwrap().sum_keepdim(D::Minus1).unwrap().log().unwrap())
        .unwrap();
    let columns = logits.dims()[1];
    let count = targets.iter().filter(|t| **t != IGNORED_TARGET).count().max(1) as f64;
    let mut pick = vec![0.0f64; targets.len() * columns];
    for (row, target) in targets.iter().enumerate() {
        if *target != IGNORED_TARGET {
            pick[row * columns + *target as usize] = -1.0 / count;
        }
    }
    (log * Tensor::from_vec(pick, (targets.len(), columns), &candle_core::Device::Cpu).unwrap())
        .unwrap()
        .sum_all()
        .unwrap()
}

fn targets(rows: usize, vocab: usize) -> Vec<i32> {
    (0..rows).map(|i| if i % 5 == 3 { IGNORED_TARGET } else { (i * 7 % vocab) as i32 }).collect()
}

#[test]
fn scores_that_overflow_a_plain_softmax_give_1001() {
    let logits = [100.0, -1.0, 1.0, 5.0, 2.0, 1000.0];
    let s = cross_entropy::Shape { rows: 1, vocab_size: 6 };
    for dev in devices() {
        let loss =
            cross_entropy::forward(&dev, Out::from(&mut [0.0][..]), In::from(&logits[..]), &[1], s)
                .unwrap();
        assert_eq!(loss.mean(), 1001.0);
    }
}

#[test]
fn cross_entropy_matches_the_reference_and_candle() {
    for (rows, vocab_size) in [(1, 1), (7, 31), (33, 65), (100, 7), (11, 1000)] {
        let s = cross_entropy::Shape { rows, vocab_size };
        let logits: Vec<f32> = random(1, rows * vocab_size).iter().map(|v| v * 9.0).collect();
        let targets = targets(rows, vocab_size);
        let count = targets.iter().filter(|t| **t != IGNORED_TARGET).count();
        let vlogits = variable(&logits, &[rows, vocab_size]);
        let loss = candle_loss(&vlogits, &targets);
        let oracle = values(loss.backward().unwrap().get(&vlogits).unwrap());
        let slopes = (rows * vocab_size < 300).then(|| {
            finite_differences(&wide(&logits), &[1.0], |x| {
                vec![cross_entropy::reference::forward(x, &targets, s)]
            })
        });
        for dev in devices() {
            let mut lse = vec![9.0; rows];
            let sum = cross_entropy::forward(
                &dev,
                Out::from(&mut lse[..]),
                In::from(&logits[..]),
                &targets,
                s,
            )
            .unwrap();
            assert_eq!(sum.count, count);
            assert_close(
                "loss",
                &[sum.mean() as f32],
                &[cross_entropy::reference::forward(&wide(&logits), &targets, s)],
            );
            let scale = 1.0 / count as f32;
            let mut d = vec![9.0; rows * vocab_size];
            cross_entropy::backward(
                &dev,
                Out::from(&mut d[..]),
                In::from(&logits[..]),
                In::from(&lse[..]),
                &targets,
                s,
                scale,
            )
            .unwrap();
            let mut fused = logits.clone();
            let again = cross_entropy::forward_backward(
                &dev,
                Out::from(&mut fused[..]),
                &targets,
                s,
                scale,
            )
            .unwrap();
            assert_eq!(again, sum);
            if vocab_size > 1 {
                assert_close("dlogits", &d, &oracle);
                assert_close("fused dlogits", &fused, &oracle);
                if let Some(slopes) = &slopes {
                    assert_close("dlogits", &d, slopes);
                }
            }
        }
    }
}

#[test]
fn the_fused_output_layer_matches_candle() {
    for (rows, d_model, vocab_size) in [(1, 2, 3), (33, 7, 31), (700, 5, 9000), (130, 33, 65)] {
        let s = output_loss::Shape { rows, d_model, vocab_size };
        let (x, w) = (random(1, rows * d_model), random(2, vocab_size * d_model));
        let targets = targets(rows, vocab_size);
        let (vx, vw) = (variable(&x, &[rows, d_model]), variable(&w, &[vocab_size, d_model]));
        let loss = candle_loss(&vx.matmul(&vw.t().unwrap()).unwrap(), &targets);
        let gradients = loss.backward().unwrap();
        for dev in devices() {
            let mut scratch = output_loss::Scratch::default();
            let (mut dx, mut dw) = (vec![9.0; rows * d_model], vec![0.0; vocab_size * d_model]);
            let sum = output_loss::forward_backward(
                &dev,
                Out::from(&mut dx[..]),
                Out::from(&mut dw[..]),
                In::from(&x[..]),
                In::from(&w[..]),
                &targets,
                s,
                1.0,
                &mut scratch,
            )
            .unwrap();
            assert_close("loss", &[sum.mean() as f32], &values(&loss));
            assert_close("dx", &dx, &values(gradients.get(&vx).unwrap()));
            assert_close("dweight", &dw, &values(gradients.get(&vw).unwrap()));
            let alone = output_loss::forward(
                &dev,
                In::from(&x[..]),
                In::from(&w[..]),
                &targets,
                s,
                &mut scratch,
            )
            .unwrap();
            assert_eq!(alone.count, sum.count);
            assert!((alone.mean() - sum.mean()).abs() < 1e-6);
        }
    }
}

#[test]
fn rows_that_are_all_ignored_give_no_loss_and_no_gradient() {
    let s = output_loss::Shape { rows: 3, d_model: 2, vocab_size: 5 };
    let (mut dx, mut dw) = (vec![9.0; 6], vec![0.0; 10]);
    let sum = output_loss::forward_backward(
        &devices()[0],
        Out::from(&mut dx[..]),
        Out::from(&mut dw[..]),
        In::from(&random(1, 6)[..]),
        In::from(&random(2, 10)[..]),
        &[IGNORED_TARGET; 3],
        s,
        1.0,
        &mut output_loss::Scratch::default(),
    )
    .unwrap();
    assert_eq!((sum.count, sum.mean()), (0, 0.0));
    assert!(dx.iter().chain(&dw).all(|v| *v == 0.0));
}

#[test]
fn a_target_outside_the_vocabulary_is_refused_before_anything_is_written() {
    let s = cross_entropy::Shape { rows: 2, vocab_size: 3 };
    for target in [3, -1] {
        let mut lse = [7.0; 2];
        let error = cross_entropy::forward(
            &devices()[0],
            Out::from(&mut lse[..]),
            In::from(&[0.0; 6][..]),
            &[0, target],
            s,
        )
        .unwrap_err();
        assert_eq!(error.code(), "ERR_TOKEN_OUT_OF_RANGE");
        assert!(lse.iter().all(|x| *x == 7.0));
    }
}

#[test]
fn a_score_that_is_not_a_number_makes_the_loss_not_a_number() {
    let s = cross_entropy::Shape { rows: 1, vocab_size: 40 };
    let mut logits = [0.5; 40];
    logits[17] = f32::NAN;
    for dev in devices() {
        let sum =
            cross_entropy::forward(&dev, Out::from(&mut [0.0][..]), In::from(&logits[..]), &[3], s)
                .unwrap();
        assert!(sum.mean().is_nan());
    }
}

#[test]
fn the_fused_output_layer_gives_the_same_bits_for_any_number_of_threads() {
    let isa = *kindling_core::simd::Isa::available().last().unwrap();
    let (rows, d_model, vocab_size) = (211, 33, 1001);
    let s = output_loss::Shape { rows, d_model, vocab_size };
    let (x, w, targets) =
        (random(1, rows * d_model), random(2, vocab_size * d_model), targets(rows, vocab_size));
    let run = |threads: usize| {
        let dev = device(isa, threads);
        let mut scratch = output_loss::Scratch::default();
        let (mut dx, mut dw) = (vec![0.0; rows * d_model], random(3, vocab_size * d_model));
        let views =
            (Out::from(&mut dx[..]), Out::from(&mut dw[..]), In::from(&x[..]), In::from(&w[..]));
        let sum = output_loss::forward_backward(
            &dev,
            views.0,
            views.1,
            views.2,
            views.3,
            &targets,
            s,
            0.5,
            &mut scratch,
        )
        .unwrap();
        (sum.sum.to_bits(), [dx, dw].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}
