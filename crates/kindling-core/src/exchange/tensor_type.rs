//! Element types of tensors in model files, and their conversion to and from f32.
//!
//! Quantized types of GGUF come in blocks of 32 or 256 elements, each with its own scale
//! (`blocks.rs`). Source of the types and names: ggml-common.h of llama.cpp.

use half::{bf16, f16};

use super::blocks;
use crate::{Error, Result};

/// An element type that can be read. The plain types and `Q8_0` can be written, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    F32,
    F16,
    Bf16,
    /// Blocks of 32: f16 scale, 32 i8.
    Q8_0,
    /// Blocks of 32: f16 scale, 16 bytes of two 4-bit integers from -8 to 7.
    Q4_0,
    /// Blocks of 32: f16 scale, f16 minimum, 16 bytes of two 4-bit integers from 0 to 15.
    Q4_1,
    /// Blocks of 256: 8 groups of 4-bit integers with 6-bit scales and minima.
    Q4K,
    /// Blocks of 256: 16 groups of 6-bit integers with 8-bit scales.
    Q6K,
}

impl TensorType {
    /// Parses a type that can be written.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_ARGUMENT` for any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "q8_0" => Ok(Self::Q8_0),
            other => Err(Error::argument(format!(
                "unknown file dtype \"{other}\"; use f32, bf16, f16 or q8_0"
            ))),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q4K => "q4_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Returns whether elements are stored one by one, without blocks.
    pub fn is_plain(self) -> bool {
        self.block_elements() == 1
    }

    /// Returns the number of elements in a block.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Returns the number of bytes in a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Returns the number of bytes that `elements` take. Returns `None` if they are not whole
    /// blocks, or the number exceeds 64 bits.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        let block = self.block_elements() as u64;
        elements
            .is_multiple_of(block)
            .then(|| elements / block)?
            .checked_mul(self.block_bytes() as u64)
    }

    /// Decodes whole blocks and appends their elements to `out`.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        let bytes = bytes.chunks_exact(self.block_bytes());
        match self {
            Self::F32 => out.extend(bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            Self::F16 => out.extend(bytes.map(|b| blocks::half_at(b, 0))),
            Self::Bf16 => {
                out.extend(bytes.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()));
            }
            Self::Q8_0 => bytes.for_each(|block| blocks::decode_q8_0(block, out)),
            Self::Q4_0 => bytes.for_each(|block| blocks::decode_q4_0(block, out)),
            Self::Q4_1 => bytes.for_each(|block| blocks::decode_q4_1(block, out)),
            Self::Q4K => bytes.for_each(|block| blocks::decode_q4_k(block, out)),
            Self::Q6K => bytes.for_each(|block| blocks::decode_q6_k(block, out)),
        }
    }

    /// Encodes `values`, which are whole blocks, rounding to nearest, and appends the bytes to
    /// `out`.
    ///
    /// # Errors
    /// Returns `ERR_UNSUPPORTED` for a type that can only be read.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => {
                out.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()));
            }
            Self::Bf16 => {
                out.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()));
            }
            Self::Q8_0 => values.chunks_exact(32).for_each(|block| blocks::encode_q8_0(block, out)),
            Self::Q4_0 | Self::Q4_1 | Self::Q4K | Self::Q6K => {
                return Err(Error::Unsupported(format!(
                    "dtype {} can be read but not written; use f32, bf16, f16 or q8_0",
                    self.name()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of random bytes with small finite f16 scales, and the elements that the Python
    /// package `gguf` decodes from them. `scripts/fixtures/gguf_blocks.py` makes the file.
    const BLOCKS: &str = include_str!("../../tests/fixtures/exchange/blocks.json");

    #[test]
    fn blocks_decode_as_llama_cpp_decodes_them_bit_for_bit() {
        let cases: serde_json::Value = serde_json::from_str(BLOCKS).unwrap();
        let types = [
            TensorType::F16,
            TensorType::Bf16,
            TensorType::Q8_0,
            TensorType::Q4_0,
            TensorType::Q4_1,
            TensorType::Q4K,
            TensorType::Q6K,
        ];
        for kind in types {
            let case = &cases[kind.name()];
            let numbers = |key: &str| case[key].as_array().unwrap().iter();
            let bytes: Vec<u8> = numbers("bytes").map(|v| v.as_u64().unwrap() as u8).collect();
            let expected: Vec<u32> = numbers("bits").map(|v| v.as_u64().unwrap() as u32).collect();
            let mut decoded = Vec::new();
            kind.decode(&bytes, &mut decoded);
            let bits: Vec<u32> = decoded.iter().map(|value| value.to_bits()).collect();
            assert!(expected.len() >= 2 * kind.block_elements());
            assert_eq!(bits, expected, "{}", kind.name());
        }
    }

    #[test]
    fn q8_0_is_encoded_as_llama_cpp_encodes_it() {
        let case = &serde_json::from_str::<serde_json::Value>(BLOCKS).unwrap()["encode_q8_0"];
        let numbers = |key: &str| case[key].as_array().unwrap().iter();
        let values: Vec<f32> =
            numbers("bits").map(|v| f32::from_bits(v.as_u64().unwrap() as u32)).collect();
        let expected: Vec<u8> = numbers("bytes").map(|v| v.as_u64().unwrap() as u8).collect();
        let mut encoded = Vec::new();
        TensorType::Q8_0.encode(&values, &mut encoded).unwrap();
        assert_eq!(encoded, expected);
    }

    #[test]
    fn plain_types_survive_the_way_through_f32() {
        for kind in [TensorType::F32, TensorType::F16, TensorType::Bf16] {
            let values = [0.0, -0.0, 1.5, -2.25, f32::INFINITY];
            let (mut bytes, mut back) = (Vec::new(), Vec::new());
            kind.encode(&values, &mut bytes).unwrap();
            assert_eq!(Some(bytes.len() as u64), kind.bytes(values.len() as u64));
            kind.decode(&bytes, &mut back);
            assert_eq!(back.map_bits(), values.map_bits(), "{}", kind.name());
        }
        let error = TensorType::Q4_1.encode(&[0.0; 32], &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), "ERR_UNSUPPORTED");
    }

    trait MapBits {
        fn map_bits(&self) -> Vec<u32>;
    }

    impl MapBits for [f32] {
        fn map_bits(&self) -> Vec<u32> {
            self.iter().map(|value| value.to_bits()).collect()
        }
    }

    #[test]
    fn sizes_are_whole_blocks() {
        assert_eq!(TensorType::Q4_1.bytes(64), Some(40));
        assert_eq!(TensorType::Q4_1.bytes(65), None);
        assert_eq!(TensorType::F32.bytes(u64::MAX), None);
    }
}
