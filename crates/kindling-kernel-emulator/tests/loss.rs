//! Softmax, log-softmax and cross-entropy kernels against references and finite differences.

mod common;

use std::sync::Arc;

use common::{
    Activation, TOLERANCE, assert_close, assert_slopes, in_every_order, launch, memory, random,
    slopes, view, view_mut, wide,
};
use kindling_core::buffer::Buffer;
use kindling_core::cuda::{Arithmetic, Cuda, Driver};
use kindling_core::device::Device;
use kindling_core::dtype::Dtype;
use kindling_core::ops::{cross_entropy, log_softmax, output_loss, softmax};
use kindling_kernel_emulator::{Bf16, Element, EmulatedDevice, Memory, Order};

/// (rows, columns): one number, less than a warp, more than a block, a multiple of eight.
const SHAPES: [(usize, usize); 5] = [(1, 1), (7, 31), (3, 1000), (2, 4104), (5, 8)];

macro_rules! softmax_holds {
    ($name:ident, $op:ident) => {
        fn $name<T: Activation>() {
            for (rows, columns) in SHAPES {
                let s = $op::Shape { rows, columns };
                let n = rows * columns;
                let (x, dout) = (random::<T>(1, n, 10.0), random::<T>(2, n, 1.0));
                let results = in_every_order(|order| {
                    let (x, dout) = (memory(&x, 0), memory(&dout, 1));
                    let (out, dx) = (Memory::<T>::poisoned(n, 0), Memory::<T>::poisoned(n, 0));
                    let forward = $op::Forward { out: view_mut(&out), x: view(&x), shape: s };
                    launch(&$op::cuda::forward(&forward), order);
                    let backward = $op::Backward {
                        dx: view_mut(&dx),
                        dout: view(&dout),
                        out: view(&out),
                        shape: s,
                    };
                    launch(&$op::cuda::backward(&backward), order);
                    vec![out.to_f32(), dx.to_f32()]
                });
                assert_close(
                    "out",
                    &results[0],
                    &$op::reference::forward(&wide(&x), s),
                    T::TOLERANCE,
                );
                let slopes = slopes(&wide(&x), &wide(&dout), |x| $op::reference::forward(x, s));
                // The gradient is computed from a rounded output.
                assert_slopes("dx", &results[1], &slopes, 4.0 * T::TOLERANCE);
            }
        }
    };
}
softmax_holds!(softmax_holds, softmax);
softmax_holds!(log_softmax_holds, log_softmax);

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn softmax_and_log_softmax_match_the_reference_and_finite_differences() {
    softmax_holds::<f32>();
    softmax_holds::<Bf16>();
    log_softmax_holds::<f32>();
    log_softmax_holds::<Bf16>();
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn a_score_of_minus_infinity_has_probability_zero() {
    // Whole warps of the block see nothing but -inf.
    let n = 1000;
    let mut scores = vec![f32::NEG_INFINITY; n];
    (scores[3], scores[999]) = (2.0, 2.0);
    let shape = softmax::Shape { rows: 1, columns: n };
    let results = in_every_order(|order| {
        let x = memory(&scores, 0);
        let (out, log) = (Memory::<f32>::poisoned(n, 0), Memory::<f32>::poisoned(n, 0));
        let args = softmax::Forward { out: view_mut(&out), x: view(&x), shape };
        launch(&softmax::cuda::forward(&args), order);
        let args = log_softmax::Forward { out: view_mut(&log), x: view(&x), shape };
        launch(&log_softmax::cuda::forward(&args), order);
        vec![out.to_f32(), log.to_f32()]
    });
    for (column, score) in scores.iter().enumerate() {
        let (p, log_p) = (results[0][column], results[1][column]);
        if score.is_finite() {
            assert!((p - 0.5).abs() < 1e-6 && (log_p - 0.5f32.ln()).abs() < 1e-6);
        } else {
            assert_eq!((p, log_p), (0.0, f32::NEG_INFINITY));
        }
    }
}

fn targets(rows: usize, vocab_size: usize) -> Vec<i32> {
    (0..rows)
        .map(|row| if row % 3 == 1 { -100 } else { (row * 7919 % vocab_size) as i32 })
        .collect()
}

/// Pads the rows with NaN.
fn padded<T: Element>(dense: &[T], width: usize, pitch: usize) -> Vec<T> {
    let mut out = vec![T::from_f32(f32::NAN); dense.len() / width * pitch];
    for (to, row) in out.chunks_mut(pitch).zip(dense.chunks(width)) {
        to[..width].copy_from_slice(row);
    }
    out
}

/// Removes the padding of the rows, which must still be NaN from the next multiple of 8 on.
fn unpadded(padded: &[f32], width: usize, pitch: usize) -> Vec<f32> {
    let rows = padded.chunks(pitch);
    assert!(rows.clone().all(|row| row.iter().skip(width.next_multiple_of(8)).all(|v| v.is_nan())));
    rows.flat_map(|row| &row[..width]).copied().collect()
}

fn cross_entropy_holds<T: Activation>() {
    // The last shapes: rows that are kept in registers, and one that is not.
    for (rows, vocab_size) in SHAPES.into_iter().chain([(2, 20_001), (2, 50_257), (1, 57_349)]) {
        for pitch in [vocab_size, vocab_size.next_multiple_of(64), vocab_size + 3] {
            cross_entropy_holds_at::<T>(cross_entropy::Shape { rows, vocab_size }, pitch);
        }
    }
}

fn cross_entropy_holds_at<T: Activation>(s: cross_entropy::Shape, pitch: usize) {
    use cross_entropy::{cuda, reference};
    let cross_entropy::Shape { rows, vocab_size } = s;
    let n = rows * vocab_size;
    let (logits, targets) = (random::<T>(1, n, 8.0), targets(rows, vocab_size));
    let apart = padded(&logits, vocab_size, pitch);
    let layout = cuda::Logits { dtype: T::DTYPE, rows, vocab_size, pitch };
    let count = targets.iter().filter(|t| **t >= 0).count();
    let scale = 1.0 / count as f32;
    let results = in_every_order(|order| {
        let (x, replaced, targets) = (memory(&apart, 0), memory(&apart, 0), memory(&targets, 1));
        let (lse, dx) = (Memory::<f32>::poisoned(rows, 0), Memory::<T>::poisoned(rows * pitch, 0));
        let (losses, again) = (Memory::<f32>::poisoned(rows, 0), Memory::<f32>::poisoned(rows, 0));
        let total = Memory::<f64>::of(&[3.0]);
        let forward = cuda::Forward {
            lse: lse.address(),
            losses: losses.address(),
            logits: x.address(),
            targets: targets.address(),
        };
        launch(&cuda::forward(forward, layout), order);
        launch(&cuda::add_losses(total.address(), losses.address(), rows), order);
        let backward = cuda::Backward {
            dlogits: dx.address(),
            logits: x.address(),
            lse: lse.address(),
            targets: targets.address(),
        };
        launch(&cuda::backward(backward, scale, layout), order);
        let both = cuda::ForwardBackward {
            logits: replaced.address(),
            losses: again.address(),
            targets: targets.address(),
        };
        launch(&cuda::forward_backward(both, scale, layout), order);
        assert_close("losses", again.values(), &wide(losses.values()), 1e-6);
        let loss = ((total.values()[0] - 3.0) / count as f64) as f32;
        let rows_of = |m: &Memory<T>| unpadded(&m.to_f32(), vocab_size, pitch);
        vec![vec![loss], rows_of(&dx), rows_of(&replaced)]
    });
    assert_close(
        "loss",
        &results[0],
        &[reference::forward(&wide(&logits), &targets, s)],
        TOLERANCE,
    );
    let slopes = slopes(&wide(&logits), &[1.0], |x| vec![reference::forward(x, &targets, s)]);
    assert_slopes("dlogits", &results[1], &slopes, T::TOLERANCE);
    let differ = results[1].iter().zip(&results[2]).filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
    assert_eq!(differ, 0, "in one pass or two");
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn cross_entropy_matches_the_reference_and_finite_differences() {
    cross_entropy_holds::<f32>();
    cross_entropy_holds::<Bf16>();
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn logits_100_to_1000_with_target_1_have_loss_1001() {
    let (logits, targets) =
        (memory(&[100.0f32, -1.0, 1.0, 5.0, 2.0, 1000.0], 0), memory(&[1i32], 0));
    let (lse, losses) = (Memory::<f32>::poisoned(1, 0), Memory::<f32>::poisoned(1, 0));
    let s = cross_entropy::Shape { rows: 1, vocab_size: 6 };
    let forward = cross_entropy::cuda::Forward {
        lse: lse.address(),
        losses: losses.address(),
        logits: logits.address(),
        targets: targets.address(),
    };
    let forward =
        cross_entropy::cuda::forward(forward, cross_entropy::cuda::Logits::dense(f32::DTYPE, s));
    launch(&forward, Order::Forward);
    assert_eq!(losses.values()[0], 1001.0);
}

/// Returns the sum of the losses of the output layer, dx and dweight.
fn output_loss_on(device: &Device, s: output_loss::Shape) -> (f64, Vec<f32>, Vec<f32>) {
    let (c, v) = (s.d_model, s.vocab_size);
    let x = Buffer::of(device, &random::<f32>(1, s.rows * c, 1.0)).unwrap();
    let weight = Buffer::of(device, &random::<f32>(2, v * c, 1.0)).unwrap();
    let mut dx = Buffer::zeros(device, s.rows * c).unwrap();
    let mut dweight = Buffer::zeros(device, v * c).unwrap();
    let mut scratch = output_loss::Scratch::default();
    let (args, targets) = ((x.view(), weight.view()), targets(s.rows, v));
    let losses = output_loss::forward_backward(
        device,
        output_loss::ForwardBackward {
            dx: dx.view_mut(),
            dweight: dweight.view_mut(),
            x: args.0,
            weight: args.1,
            targets: &targets,
            scale: 2.0,
            shape: s,
        },
        &mut scratch,
    )
    .unwrap();
    let alone = output_loss::Forward { x: args.0, weight: args.1, targets: &targets, shape: s };
    let again = output_loss::forward(device, alone, &mut scratch).unwrap();
    assert!((again.sum / losses.sum - 1.0).abs() < 1e-6 && again.count == losses.count);
    (losses.sum, dx.read().unwrap().into_owned(), dweight.read().unwrap().into_owned())
}

#[test]
#[cfg_attr(no_cpp_compiler, ignore = "no C++ compiler")]
fn an_output_layer_of_several_blocks_matches_the_cpu() {
    // A sixteenth of the memory has room for 256 rows of 64 logits.
    let driver = Arc::new(EmulatedDevice::new(17 << 16, Order::Forward));
    let shared: Arc<dyn Driver> = Arc::<EmulatedDevice>::clone(&driver);
    let arithmetic = Arithmetic { dtype: Dtype::F32, tf32: false };
    let gpu = Device::Cuda(Arc::new(Cuda::new(shared, arithmetic, 1)));
    let s = output_loss::Shape { rows: 600, d_model: 5, vocab_size: 61 };
    let (loss, dx, dweight) = output_loss_on(&gpu, s);
    // Two passes, one of them without gradients.
    assert_eq!(driver.take_work().products.len(), 3 * (3 + 1));
    let (expected, dx_expected, dweight_expected) = output_loss_on(&Device::cpu(1), s);
    assert!((loss / expected - 1.0).abs() < 1e-6);
    assert_close("dx", &dx, &wide(&dx_expected), TOLERANCE);
    assert_close("dweight", &dweight, &wide(&dweight_expected), TOLERANCE);
}
