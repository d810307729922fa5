//! A short pre-token packed into two words, so that it is hashed and compared without reading the
//! text.

/// Longest pre-token that fits in a key, in bytes.
pub const MAX_KEY_BYTES: usize = 15;

/// Bytes of a pre-token in little-endian order, with its length in the highest byte; never 0.
///
/// A pre-token of more than `MAX_KEY_BYTES` gets its first bytes and the length
/// `MAX_KEY_BYTES` + 1, so its key differs from that of every pre-token that fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PretokenKey {
    pub low: u64,
    pub high: u64,
}

/// For each length of a pre-token, the bits to keep of the 16 bytes from its start.
static KEPT_BITS: [(u64, u64); MAX_KEY_BYTES + 2] = {
    let mut table = [(0, 0); MAX_KEY_BYTES + 2];
    let mut length = 1;
    while length < table.len() {
        let bytes = if length < MAX_KEY_BYTES { length } else { MAX_KEY_BYTES };
        let all = (1u128 << (bytes * 8)) - 1;
        table[length] = (all as u64, (all >> 64) as u64);
        length += 1;
    }
    table
};

impl PretokenKey {
    /// Packs `text[start..end]`, which must not be empty.
    #[inline(always)]
    pub fn new(text: &[u8], start: usize, end: usize) -> Self {
        let length = (end - start).min(MAX_KEY_BYTES + 1);
        let (kept_low, kept_high) = KEPT_BITS[length];
        // One unaligned load and a mask. Bytes are copied only within the last 15 of a text.
        let sixteen = if let Some(sixteen) = text[start..].first_chunk::<16>() {
            u128::from_le_bytes(*sixteen)
        } else {
            let mut all = [0; 16];
            all[..length].copy_from_slice(&text[start..start + length]);
            u128::from_le_bytes(all)
        };
        Self {
            low: sixteen as u64 & kept_low,
            high: (sixteen >> 64) as u64 & kept_high | (length as u64) << 56,
        }
    }

    /// Returns whether the key holds the whole pre-token.
    pub fn is_whole(self) -> bool {
        self.high >> 56 <= MAX_KEY_BYTES as u64
    }

    /// Returns the bytes of a whole key, and how many there are.
    pub fn bytes(self) -> ([u8; 16], usize) {
        let all = u128::from(self.low) | u128::from(self.high) << 64;
        (all.to_le_bytes(), (self.high >> 56) as usize)
    }

    /// Returns a hash. Its highest bits are mixed best.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        let product = u128::from(self.low ^ 0xFF51_AFD7_ED55_8CCD)
            * u128::from(self.high ^ 0xC4CE_B9FE_1A85_EC53);
        product as u64 ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_pretokens_have_distinct_keys() {
        let text = b"ab\0 abc abcdefghijklmnopq";
        let keys = [(0, 1), (0, 2), (0, 3), (1, 2), (4, 7), (8, 23), (9, 23)]
            .map(|(start, end)| PretokenKey::new(text, start, end));
        for (i, key) in keys.iter().enumerate() {
            assert!(!matches!(key.high, 0 | u64::MAX) && !keys[..i].contains(key));
        }
        assert_eq!(PretokenKey::new(b"abc", 0, 2), PretokenKey::new(text, 0, 2));
        assert!(keys.iter().all(|key| key.is_whole()));
        let longer = PretokenKey::new(text, 8, 24);
        assert!(!longer.is_whole() && longer == PretokenKey::new(text, 8, 25));
        assert!(!keys.contains(&longer));
    }
}
