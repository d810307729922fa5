//! Attention, softmax and log-softmax against plain f64 loops with finite differences, and against
//! candle's autograd of primitive ops, at odd sizes, with grouped heads and on every instruction
//! set.

mod common;

use std::ops::Range;

use common::attention::{bits, candle_attention, candle_softmax, forward_backward};
use common::*;
use kindling_core::buffer::{In, Out};
use kindling_core::ops::attention::{self, Shape};
use kindling_core::ops::{log_softmax, softmax};

#[test]
fn attention_matches_the_reference_and_candle() {
    for (batch, positions, num_heads, num_kv_heads, head_size) in [
        (1, 1, 1, 1, 2),
        (2, 7, 3, 3, 6),
        (1, 31, 4, 2, 8),
        (2, 33, 6, 1, 32),
        (1, 65, 2, 2, 64),
        (3, 100, 2, 1, 10),
        (1, 200, 1, 1, 31),
        (2, 64, 4, 2, 32),
        (1, 129, 6, 1, 6),
        (1, 128, 2, 2, 64),
        (1, 150, 3, 3, 17),
        (1, 70, 2, 1, 128),
        (1, 97, 3, 1, 48),
        (2, 66, 4, 2, 24),
        (1, 80, 4, 1, 80),
    ] {
        let s = Shape { batch, positions, num_heads, num_kv_heads, head_size };
        let rows = batch * positions;
        let qkv: Vec<f32> = random(1, rows * s.qkv_width()).iter().map(|v| 3.0 * v).collect();
        let dout = random(2, rows * s.out_width());
        let candle_qkv = variable(&qkv, &[rows, s.qkv_width()]);
        let candle_out = candle_attention(&candle_qkv, s);
        let oracle = candle_gradients(&candle_out, &dout, &[&candle_qkv]);
        let expected = attention::reference::forward(&wide(&qkv), s);
        for dev in devices() {
            let [out, _, dqkv] = forward_backward(&dev, &qkv, &dout, s);
            assert_close("out", &out, &expected);
            assert_close("out", &out, &values(&candle_out));
            assert_close("dqkv", &dqkv, &oracle[0]);
        }
        if rows * s.qkv_width() < 400 {
            let slopes =
                finite_differences(&wide(&qkv), &dout, |x| attention::reference::forward(x, s));
            let oracle: Vec<f32> = oracle[0].iter().map(|v| *v as f32).collect();
            assert_close("finite differences", &oracle, &slopes);
        }
    }
}

#[test]
fn scratch_left_by_a_pass_over_nan_does_not_leak_into_the_next_pass() {
    let small = Shape { batch: 1, positions: 35, num_heads: 2, num_kv_heads: 1, head_size: 6 };
    let large = Shape { batch: 1, positions: 140, num_heads: 1, num_kv_heads: 1, head_size: 34 };
    let (qkv, dout) = (random(1, 35 * small.qkv_width()), random(2, 35 * small.out_width()));
    let nan = |width: usize| vec![f32::NAN; 140 * width];
    for isa in kindling_core::simd::Isa::available() {
        // One thread, so that both passes use the same scratch memory.
        let dev = device(isa, 1);
        let clean = bits(&forward_backward(&dev, &qkv, &dout, small));
        forward_backward(&dev, &nan(large.qkv_width()), &nan(large.out_width()), large);
        assert!(bits(&forward_backward(&dev, &qkv, &dout, small)) == clean);
        assert!(clean.iter().all(|bits| f32::from_bits(*bits).is_finite()));
    }
}

#[test]
fn later_tokens_do_not_change_the_output_of_earlier_ones() {
    let s = Shape { batch: 1, positions: 100, num_heads: 2, num_kv_heads: 2, head_size: 8 };
    let qkv = random(1, 100 * s.qkv_width());
    let dout = vec![0.0; 100 * s.out_width()];
    for dev in devices() {
        let [before, ..] = forward_backward(&dev, &qkv, &dout, s);
        for position in [1, 15, 16, 17, 63, 64, 99] {
            let mut changed = qkv.clone();
            changed[position * s.qkv_width()..].iter_mut().for_each(|x| *x = 50.0 - *x);
            let [after, ..] = forward_backward(&dev, &changed, &dout, s);
            let (past, future) = after.split_at(position * s.out_width());
            assert!(past == &before[..past.len()] && future != &before[past.len()..]);
        }
    }
}

#[test]
fn decoding_rows_of_different_lengths_equals_the_last_row_of_a_whole_pass_of_each() {
    for (lengths, num_heads, num_kv_heads, head_size) in [
        (vec![1], 1, 1, 2),
        (vec![7, 1, 3], 4, 2, 6),
        (vec![65], 6, 1, 32),
        (vec![300, 2, 299, 17, 1], 2, 2, 64),
    ] {
        let shape = |positions| Shape { batch: 1, positions, num_heads, num_kv_heads, head_size };
        let (s, kv) = (shape(1), num_kv_heads * head_size);
        let (mut keys, mut values) = (vec![f32::NAN; 3 * kv], vec![f32::NAN; 3 * kv]);
        let (mut last_rows, mut cached, mut expected) = (vec![], vec![], vec![]);
        for (row, &positions) in lengths.iter().enumerate() {
            let qkv = random(row as u64, positions * s.qkv_width());
            let out = attention::reference::forward(&wide(&qkv), shape(positions));
            expected.extend_from_slice(&out[(positions - 1) * s.out_width()..]);
            last_rows.extend_from_slice(&qkv[(positions - 1) * s.qkv_width()..]);
            cached.push(keys.len() / kv..keys.len() / kv + positions);
            for row in qkv.chunks(s.qkv_width()) {
                keys.extend_from_slice(&row[s.out_width()..s.out_width() + kv]);
                values.extend_from_slice(&row[s.out_width() + kv..]);
            }
            // The tokens between two rows belong to neither.
            keys.extend(vec![f32::NAN; row * kv]);
            values.extend(vec![f32::NAN; row * kv]);
        }
        for dev in devices() {
            let decode = |qkv: &[f32], cached: &[Range<usize>]| {
                let mut out = vec![9.0; cached.len() * s.out_width()];
                let args = attention::Decode {
                    out: Out::from(&mut out[..]),
                    qkv: In::from(qkv),
                    keys: In::from(&keys[..]),
                    values: In::from(&values[..]),
                    cached,
                    shape: s,
                };
                attention::decode(&dev, args).unwrap();
                out
            };
            let out = decode(&last_rows, &cached);
            assert_close("out", &out, &expected);
            let alone = last_rows.chunks(s.qkv_width()).zip(cached.chunks(1));
            assert!(out == alone.flat_map(|(qkv, row)| decode(qkv, row)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn attention_is_bitwise_equal_for_any_number_of_threads() {
    let isa = *kindling_core::simd::Isa::available().last().unwrap();
    let s = Shape { batch: 3, positions: 77, num_heads: 4, num_kv_heads: 2, head_size: 16 };
    let qkv = random(1, 3 * 77 * s.qkv_width());
    let dout = random(2, 3 * 77 * s.out_width());
    let run = |threads: usize| bits(&forward_backward(&device(isa, threads), &qkv, &dout, s));
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}

#[test]
fn an_empty_batch_is_accepted_and_a_model_without_heads_is_refused() {
    let s = Shape { batch: 0, positions: 5, num_heads: 2, num_kv_heads: 1, head_size: 4 };
    for dev in devices() {
        forward_backward(&dev, &[], &[], s);
        forward_backward(&dev, &[], &[], Shape { batch: 3, positions: 0, ..s });
    }
    for s in
        [Shape { num_heads: 0, ..s }, Shape { num_kv_heads: 0, ..s }, Shape { head_size: 0, ..s }]
    {
        let (out, lse) = (Out::from(&mut [][..]), Out::from(&mut [][..]));
        let args = attention::Forward { out, lse, qkv: In::from(&[][..]), shape: s };
        let error = attention::forward(&devices()[0], args).unwrap_err();
        assert_eq!(error.code(), "ERR_INVALID_ARGUMENT");
    }
}

#[test]
fn softmax_and_log_softmax_match_the_reference_and_candle() {
    for (rows, columns) in [(1, 1), (7, 31), (33, 33), (3, 1000), (100, 7)] {
        let x: Vec<f32> = random(1, rows * columns).iter().map(|v| v * 20.0).collect();
        let dout = random(2, rows * columns);
        let vx = variable(&x, &[rows, columns]);
        let soft = candle_softmax(&vx);
        let log = soft.log().unwrap();
        let (soft_oracle, log_oracle) =
            (candle_gradients(&soft, &dout, &[&vx]), candle_gradients(&log, &dout, &[&vx]));
        for dev in devices() {
            let (mut y, mut dx) = (vec![9.0; rows * columns], vec![9.0; rows * columns]);
            let s = softmax::Shape { rows, columns };
            softmax::forward(
                &dev,
                softmax::Forward { out: Out::from(&mut y[..]), x: In::from(&x[..]), shape: s },
            )
            .unwrap();
            assert_close("softmax", &y, &softmax::reference::forward(&wide(&x), s));
            softmax::backward(
                &dev,
                softmax::Backward {
                    dx: Out::from(&mut dx[..]),
                    dout: In::from(&dout[..]),
                    out: In::from(&y[..]),
                    shape: s,
                },
            )
            .unwrap();
            if columns > 1 {
                assert_close("softmax dx", &dx, &soft_oracle[0]);
            }
            let s = log_softmax::Shape { rows, columns };
            log_softmax::forward(
                &dev,
                log_softmax::Forward { out: Out::from(&mut y[..]), x: In::from(&x[..]), shape: s },
            )
            .unwrap();
            assert_close("log softmax", &y, &log_softmax::reference::forward(&wide(&x), s));
            log_softmax::backward(
                &dev,
                log_softmax::Backward {
                    dx: Out::from(&mut dx[..]),
                    dout: In::from(&dout[..]),
                    out: In::from(&y[..]),
                    shape: s,
                },
            )
            .unwrap();
            if columns > 1 {
                assert_close("log softmax dx", &dx, &log_oracle[0]);
            }
        }
    }
}

#[test]
fn a_key_with_a_score_of_minus_infinity_gets_no_attention() {
    let s =
        attention::Shape { batch: 1, positions: 2, num_heads: 1, num_kv_heads: 1, head_size: 1 };
    // Rows of q | k | v. The product of the second query and the first key overflows to -inf.
    let qkv = [0.0, -1e30, f32::MAX, 1e30, 0.0, 2.0];
    for dev in devices() {
        let (mut out, mut lse) = ([9.0; 2], [9.0; 2]);
        attention::forward(
            &dev,
            attention::Forward {
                out: Out::from(&mut out[..]),
                lse: Out::from(&mut lse[..]),
                qkv: In::from(&qkv[..]),
                shape: s,
            },
        )
        .unwrap();
        assert_eq!(out, [f32::MAX, 2.0]);
    }
}
