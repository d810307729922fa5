//! Attention as the tests call it, and composed of candle's primitive ops.

use candle_core::{D, DType, Tensor};
use kindling_core::buffer::{In, Out};
use kindling_core::device::Device;
use kindling_core::ops::attention::{self, Shape};

/// Returns the softmax of each row, composed of primitive ops.
pub fn candle_softmax(x: &Tensor) -> Tensor {
    let largest = x.max_keepdim(D::Minus1).unwrap().detach();
    let e = x.broadcast_sub(&largest).unwrap().exp().unwrap();
    e.broadcast_div(&e.sum_keepdim(D::Minus1).unwrap()).unwrap()
}

/// Returns `count` heads of (b t, width), starting at `column`, as (b, heads, t, hs), with each
/// head repeated `times` times.
fn heads(x: &Tensor, s: Shape, column: usize, count: usize, times: usize) -> Tensor {
    x.narrow(1, column, count * s.head_size)
        .unwrap()
        .reshape((s.batch, s.positions, count, 1, s.head_size))
        .unwrap()
        .broadcast_as((s.batch, s.positions, count, times, s.head_size))
        .unwrap()
        .reshape((s.batch, s.positions, count * times, s.head_size))
        .unwrap()
        .transpose(1, 2)
        .unwrap()
        .contiguous()
        .unwrap()
}

/// Returns causal attention, composed of primitive ops.
pub fn candle_attention(qkv: &Tensor, s: Shape) -> Tensor {
    let group = s.num_heads / s.num_kv_heads;
    let q = heads(qkv, s, 0, s.num_heads, 1);
    let k = heads(qkv, s, s.num_heads * s.head_size, s.num_kv_heads, group);
    let v = heads(qkv, s, (s.num_heads + s.num_kv_heads) * s.head_size, s.num_kv_heads, group);
    let t = s.positions;
    let mask: Vec<f64> = (0..t * t).map(|i| if i % t > i / t { -1e30 } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (t, t), &candle_core::Device::Cpu).unwrap();
    let scores = (q.matmul(&k.transpose(2, 3).unwrap().contiguous().unwrap()).unwrap()
        / (s.head_size as f64).sqrt())
    .unwrap();
    let p = candle_softmax(&scores.broadcast_add(&mask).unwrap());
    let out = p.matmul(&v).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    out.reshape((s.batch * t, s.out_width())).unwrap().to_dtype(DType::F64).unwrap()
}

/// Runs forward and backward; returns out, lse and dqkv.
pub fn forward_backward(dev: &Device, qkv: &[f32], dout: &[f32], s: Shape) -> [Vec<f32>; 3] {
    let rows = s.batch * s.positions;
    let (mut out, mut lse) = (vec![9.0; rows * s.out_width()], vec![9.0; rows * s.num_heads]);
    let mut dqkv = vec![9.0; qkv.len()];
    attention::forward(
        dev,
        attention::Forward {
            out: Out::from(&mut out[..]),
            lse: Out::from(&mut lse[..]),
            qkv: In::from(qkv),
            shape: s,
        },
    )
    .unwrap();
    attention::backward(
        dev,
        attention::Backward {
            dqkv: Out::from(&mut dqkv[..]),
            dout: In::from(dout),
            qkv: In::from(qkv),
            out: In::from(&out[..]),
            lse: In::from(&lse[..]),
            rotation: None,
            shape: s,
        },
    )
    .unwrap();
    [out, lse, dqkv]
}

pub fn bits(x: &[Vec<f32>]) -> Vec<u32> {
    x.iter().flatten().map(|v| v.to_bits()).collect()
}
