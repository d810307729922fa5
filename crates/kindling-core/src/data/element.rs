//! The kinds of integers token files hold, and how they are read out of raw bytes.

use crate::{Error, Result};

/// One kind of little-endian integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// What Kindling and the course write.
    Int32,
    /// numpy's default integer.
    Int64,
    /// What nanoGPT and llm.c write.
    Uint16,
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::Int32 => 4,
            Self::Int64 => 8,
            Self::Uint16 => 2,
        }
    }

    /// Its name in numpy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint16 => "uint16",
        }
    }

    /// The kind of a folder's chunk files, by its name in `store.json`.
    pub fn of_chunks(name: &str) -> Option<Self> {
        [Self::Int32, Self::Uint16].into_iter().find(|element| element.name() == name)
    }

    /// How many ids, from 0 on, it can hold.
    pub fn ids(self) -> usize {
        match self {
            Self::Uint16 => 1 << 16,
            Self::Int32 | Self::Int64 => 1 << 31,
        }
    }

    /// `ids` as files hold them; each is below `self.ids()`. `buffer` is for those that lie in memory in another way.
    pub fn bytes<'a>(self, ids: &'a [u32], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        if self == Self::Int32 && cfg!(target_endian = "little") {
            // SAFETY: the bytes of initialized integers, which u8 may alias and whose lifetime is that of `ids`.
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

    /// The kind that numpy writes as `descr` in a .npy header.
    pub fn from_descr(descr: &str) -> Option<Self> {
        match descr {
            "<i4" => Some(Self::Int32),
            "<i8" => Some(Self::Int64),
            "<u2" => Some(Self::Uint16),
            _ => None,
        }
    }

    /// Reads `bytes`, which hold as many elements as `out`; the first is at `position` of the store.
    ///
    /// # Errors
    /// `ERR_INVALID_STORE` if a 64-bit value is no token id.
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

/// The largest of `ids`, 0 if there is none.
pub(super) fn largest(ids: &[u32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2.
        return unsafe { largest_avx2(ids) };
    }
    largest_of(ids)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn largest_avx2(ids: &[u32]) -> u32 {
    largest_of(ids)
}

#[inline(always)]
fn largest_of(ids: &[u32]) -> u32 {
    ids.iter().fold(0, |largest, &id| largest.max(id))
}

/// The error of a value that is an id of no vocabulary.
pub(super) fn not_an_id(value: i64, position: u64) -> Error {
    Error::InvalidStore(format!("{value} at position {position} of the token store is no token id"))
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
    fn the_largest_is_found_at_any_place() {
        assert_eq!(largest(&[]), 0);
        for length in 1..70 {
            for place in 0..length {
                let mut ids = vec![7; length];
                ids[place] = 0x7FFF_FFFF;
                assert_eq!((largest(&ids), largest_of(&ids)), (0x7FFF_FFFF, 0x7FFF_FFFF));
            }
        }
    }
}
