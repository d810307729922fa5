//! Input: numbers of eight bytes each, the sampling options and then the logits of one draw.
#![no_main]

use kindling_core::decode::{SamplingOptions, TokenSampler};
use kindling_fuzz::sound;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut numbers = data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    let mut next = || numbers.next().unwrap_or(1.0);
    let (temperature, top_p, repetition_penalty) = (next(), next(), next());
    let top_k = Some(next() as usize).filter(|&k| k < 100);
    let uniform = next().abs() % 1.0;
    let options = SamplingOptions { temperature, top_k, top_p, repetition_penalty };
    let uniform = if uniform.is_finite() { uniform } else { 0.5 };
    let logits: Vec<f32> = numbers.map(|number| number as f32).collect();
    let context = [0, 1, 1, u32::MAX, logits.len() as u32];
    let mut sampler = TokenSampler::default();
    let mut changed = logits.clone();
    if let Some(id) = sound(sampler.sample(&mut changed, &context, &options, uniform)) {
        assert!(options.validate().is_ok());
        assert!(changed[id as usize] > f32::NEG_INFINITY, "a token that cannot be drawn");
    }
});
