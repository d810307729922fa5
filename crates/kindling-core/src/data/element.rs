//! The integer types of token files, and conversion between their bytes and ids.

use crate::simd::Isa;
use crate::{Error, Result};

/// The type of stored ids, a little-endian integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// As the course and Kindling write it.
    Int32,
    /// numpy's default integer.
    Int64,
    /// As nanoGPT and llm.c write it.
    Uint16,
}

impl Element {
    /// Returns the size in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Int32 => 4,
            Self::Int64 => 8,
            Self::Uint16 => 2,
        }
    }

    /// Returns numpy's name for the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint16 => "uint16",
        }
    }

    /// Returns the type with this name, if chunk files may have it.
    pub fn of_chunks(name: &str) -> Option<Self> {
        [Self::Int32, Self::Uint16].into_iter().find(|element| element.name() == name)
    }

    /// Returns the number of ids that it can represent.
    pub fn ids(self) -> usize {
        match self {
            Self::Uint16 => 1 << 16,
            Self::Int32 | Self::Int64 => 1 << 31,
        }
    }

    /// Returns the bytes of `ids`, each below `self.ids()`, as files hold them. `buffer` is used
    /// where the bytes in memory differ.
    pub fn bytes<'a>(self, ids: &'a [u32], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        if self == Self::Int32 && cfg!(target_endian = "little") {
            // SAFETY: initialized integers may be read as bytes, and the slice borrows `ids`.
            return unsafe { std::slice::from_raw_parts(ids.as_ptr().cast(), size_of_val(ids)) };
        }
        self.write(ids, buffer);
        buffer
    }

    fn write(self, ids: &[u32], bytes: &mut Vec<u8>) {
        bytes.resize(ids.len() * self.size(), 0);
        match self {
            Self::Int32 => {
                for (bytes, id) in bytes.as_chunks_mut().0.iter_mut().zip(ids) {
                    *bytes = id.to_le_bytes();
                }
            }
            Self::Uint16 => {
                for (bytes, id) in bytes.as_chunks_mut().0.iter_mut().zip(ids) {
                    *bytes = (*id as u16).to_le_bytes();
                }
            }
            Self::Int64 => {
                for (bytes, id) in bytes.as_chunks_mut().0.iter_mut().zip(ids) {
                    *bytes = i64::from(*id).to_le_bytes();
                }
            }
        }
    }

    /// Returns the type with this `descr` in the header of a .npy file.
    pub fn from_descr(descr: &str) -> Option<Self> {
        match descr {
            "<i4" => Some(Self::Int32),
            "<i8" => Some(Self::Int64),
            "<u2" => Some(Self::Uint16),
            _ => None,
        }
    }

    /// Converts `bytes`, which hold as many elements as `out`, to ids. `position` is the position
    /// of the first in the store.
    ///
    /// # Errors
    /// Returns `ERR_INVALID_STORE` if a 64-bit value is not a token id.
    pub fn read(self, bytes: &[u8], out: &mut [i32], position: u64) -> Result<()> {
        debug_assert_eq!(bytes.len(), out.len() * self.size());
        match self {
            Self::Int32 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = i32::from_le_bytes(*bytes);
                }
            }
            Self::Uint16 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = i32::from(u16::from_le_bytes(*bytes));
                }
            }
            Self::Int64 => {
                for (i, (out, bytes)) in out.iter_mut().zip(bytes.as_chunks().0).enumerate() {
                    let value = i64::from_le_bytes(*bytes);
                    *out =
                        i32::try_from(value).map_err(|_| not_an_id(value, position + i as u64))?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the largest of `ids`, or 0 if there are none.
pub(super) fn largest(isa: Isa, ids: &[u32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        // SAFETY: an `Isa` exists only if the machine supports it.
        return unsafe { largest_avx2(ids) };
    }
    let _ = isa;
    largest_portable(ids)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn largest_avx2(ids: &[u32]) -> u32 {
    largest_portable(ids)
}

#[inline(always)]
fn largest_portable(ids: &[u32]) -> u32 {
    ids.iter().fold(0, |largest, &id| largest.max(id))
}

/// Returns the error for a value that cannot be a token id.
pub(super) fn not_an_id(value: i64, position: u64) -> Error {
    Error::InvalidStore(format!(
        "{value} at position {position} of the token store is not a token id; encode the text again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_little_endian_and_read_back() {
        let ids: Vec<u32> = (0..1000).map(|i| i * 65 + 3).collect();
        for element in [Element::Int32, Element::Int64, Element::Uint16] {
            let (mut buffer, mut read) = (vec![0xFF; 3], vec![0; ids.len()]);
            let bytes = element.bytes(&ids, &mut buffer);
            assert_eq!(&bytes[element.size()..][..2], [68, 0]);
            element.read(bytes, &mut read, 0).unwrap();
            assert!(read.iter().zip(&ids).all(|(&read, &id)| read as u32 == id), "{element:?}");
            assert!(element.bytes(&[], &mut buffer).is_empty());
        }
    }

    #[test]
    fn every_instruction_set_finds_the_largest_id_at_any_place() {
        for isa in Isa::available() {
            assert_eq!(largest(isa, &[]), 0);
            for length in 1..70 {
                for place in 0..length {
                    let mut ids = vec![7; length];
                    ids[place] = 0x7FFF_FFFF;
                    assert_eq!(largest(isa, &ids), 0x7FFF_FFFF, "{}", isa.name());
                }
            }
        }
    }
}
