//! The ids of a short pre-token packed into 48 bytes.

/// Maximum number of ids of a cached pre-token. Languages that a vocabulary covers badly need this
/// many.
pub const CACHED_IDS: usize = 12;
/// Number of ids that few pre-tokens exceed.
pub const FEW_IDS: usize = 4;
/// 64-bit words for `CACHED_IDS` ids.
pub const ID_WORDS: usize = CACHED_IDS / 2;
/// Largest vocabulary whose ids can be cached, since they are packed into 24 bits.
pub const CACHED_VOCAB: usize = 1 << 24;
/// The bits of an id.
const ID: u64 = CACHED_VOCAB as u64 - 1;

/// Up to `CACHED_IDS` ids, two per word, with their number in the highest byte of the first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedIds(pub [u64; ID_WORDS]);

impl PackedIds {
    /// Packs `ids`; returns `None` if there are too many or one is too large.
    pub fn new(ids: &[u32]) -> Option<Self> {
        if ids.len() > CACHED_IDS || ids.iter().any(|id| *id as usize >= CACHED_VOCAB) {
            return None;
        }
        let id = |i: usize| u64::from(ids.get(i).copied().unwrap_or(0));
        let mut words = std::array::from_fn(|i| id(2 * i) | id(2 * i + 1) << 32);
        words[0] |= (ids.len() as u64) << 56;
        Some(Self(words))
    }

    /// Returns the number of ids.
    #[inline(always)]
    pub fn count(&self) -> usize {
        (self.0[0] >> 56) as usize
    }

    /// Returns the ids; only the first `count` are meaningful.
    #[inline(always)]
    pub fn ids(&self) -> [u32; CACHED_IDS] {
        std::array::from_fn(|i| (self.0[i / 2] >> (i % 2 * 32)) as u32 & ID as u32)
    }

    /// Returns the first `FEW_IDS` ids as they are laid out in an array of u32.
    #[inline(always)]
    pub fn first_words(&self) -> [u64; FEW_IDS / 2] {
        // On big-endian machines the low half of a word comes second in memory.
        let order = if cfg!(target_endian = "little") { 0 } else { 32 };
        std::array::from_fn(|i| (self.0[i] & (ID | ID << 32)).rotate_left(order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_unless_they_are_too_many_or_too_large() {
        for ids in
            [&[1][..], &[0x00FF_FFFF, 0], &[7, 0x00FF_FFFF, 9], &[1, 2, 3, 0x00FF_FFFF], &[5; 12]]
        {
            let packed = PackedIds::new(ids).unwrap();
            assert_eq!(&packed.ids()[..packed.count()], ids);
            let few = ids.len().min(FEW_IDS);
            let first = packed.first_words().map(u64::to_ne_bytes).concat();
            let bytes: Vec<u8> = ids[..few].iter().flat_map(|id| id.to_ne_bytes()).collect();
            assert_eq!(first[..4 * few], bytes);
        }
        assert_eq!(PackedIds::new(&[1; 13]), None);
        assert_eq!(PackedIds::new(&[1 << 24]), None);
    }
}
