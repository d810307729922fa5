//! Converts blocks of GGUF's quantized types to f32, and f32 to `Q8_0`.
//!
//! In K-quants, a block of 256 elements is divided into groups, whose scales are quantized too.
//! Source: the functions `dequantize_row_*` of ggml-quants.c in llama.cpp.

use half::f16;

/// Reads the f16 at `at`.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Iterates over the low 4 bits of all bytes, then over the high 4 bits.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 0xF).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Decodes a `Q8_0` block of 32 elements.
///
/// ```text
/// f16 scale | 32 i8
/// ```
pub(super) fn decode_q8_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(block[2..].iter().map(|q| f32::from(q.cast_signed()) * scale));
}

/// Encodes 32 elements as `quantize_row_q8_0_ref` does: the largest magnitude becomes 127.
pub(super) fn encode_q8_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(block.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
}

/// Decodes a `Q4_0` block of 32 elements.
///
/// ```text
/// f16 scale | 16 bytes of two 4-bit integers
/// element = scale (integer - 8)
/// ```
pub(super) fn decode_q4_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(nibbles(&block[2..]).map(|q| (f32::from(q) - 8.0) * scale));
}

/// Decodes a `Q4_1` block of 32 elements.
///
/// ```text
/// f16 scale | f16 minimum | 16 bytes of two 4-bit integers
/// element = scale integer + minimum
/// ```
pub(super) fn decode_q4_1(block: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    out.extend(nibbles(&block[4..]).map(|q| f32::from(q) * scale + minimum));
}

/// Decodes a `Q4_K` block of 256 elements.
///
/// ```text
/// f16 d | f16 dmin | 12 bytes: 6-bit scales and minima of 8 groups of 32 | 128 bytes of nibbles
/// element = d scale nibble - dmin minimum
/// ```
/// Each 32 bytes of nibbles hold two groups: one in their low 4 bits, the next in their high 4
/// bits.
pub(super) fn decode_q4_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, quants) = (&block[4..16], &block[16..144]);
    for group in 0..8 {
        let (scale, minimum) = scale_and_minimum(scales, group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let bytes = &quants[group / 2 * 32..][..32];
        let shift = group % 2 * 4;
        out.extend(bytes.iter().map(|byte| scale * f32::from(byte >> shift & 0xF) - minimum));
    }
}

/// Unpacks the 6-bit scale and minimum of a group. The upper two bits of groups 4 to 7 are in the
/// upper two bits of the bytes of groups 0 to 3.
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 0x3F, packed[group + 4] & 0x3F);
    }
    let low = packed[group + 4];
    (low & 0xF | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
}

/// Decodes a `Q6_K` block of 256 elements.
///
/// ```text
/// 128 bytes: lower 4 bits | 64 bytes: upper 2 bits | i8 scales of 16 groups of 16 | f16 d
/// element = d scale (6-bit integer - 32)
/// ```
/// Each half of 128 elements takes 64 bytes of lower bits and 32 bytes of upper bits. Byte l of the
/// upper bits holds those of the elements l, l + 32, l + 64 and l + 96 of the half.
pub(super) fn decode_q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for half in 0..2 {
        let (low, high) = (&low[half * 64..][..64], &high[half * 32..][..32]);
        for quarter in 0..4 {
            let low = &low[quarter % 2 * 32..][..32];
            for l in 0..32 {
                let nibble = low[l] >> (quarter / 2 * 4) & 0xF;
                let number = nibble | (high[l] >> (2 * quarter) & 3) << 4;
                let scale = scales[half * 8 + quarter * 2 + l / 16].cast_signed();
                out.push(d * f32::from(scale) * (f32::from(number) - 32.0));
            }
        }
    }
}
