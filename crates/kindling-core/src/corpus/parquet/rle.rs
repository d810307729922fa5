//! Reads the hybrid of run-length encoding and bit packing, used for definition levels and
//! dictionary indices.
//!
//! ```text
//! run = varint h;  h even: h >> 1 times one value of ceil(width / 8) bytes
//!                  h odd:  (h >> 1) * 8 values of `width` bits each, lowest bits first
//! ```
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

/// A run of values.
#[derive(Debug, Clone, Copy)]
enum Run {
    Repeated(u32),
    /// The bit at which the next value starts.
    Packed(usize),
}

/// A reader of values of `width` bits, at most 32. It does not borrow the bytes: every call is
/// passed the same ones.
#[derive(Debug, Clone, Copy)]
pub struct HybridReader {
    width: usize,
    at: usize,
    end: usize,
    run: Run,
    /// Values left in the run.
    left: u64,
}

impl HybridReader {
    /// Creates a reader of `bytes[start..end]`. Returns `None` if `width` is above 32.
    pub fn new(width: usize, start: usize, end: usize) -> Option<Self> {
        let run = Run::Repeated(0);
        (width <= 32).then_some(Self { width, at: start, end, run, left: 0 })
    }

    /// Returns the next value and how many times it occurs in a row, as far as the run tells, at
    /// most `most`. Returns `None` if the bytes end.
    pub fn next_run(&mut self, bytes: &[u8], most: u64) -> Option<(u32, u64)> {
        while self.left == 0 {
            self.begin_run(bytes)?;
        }
        match self.run {
            Run::Repeated(value) => {
                let count = self.left.min(most);
                self.left -= count;
                Some((value, count))
            }
            Run::Packed(bit) => {
                let value = packed(bytes.get(..self.end)?, bit, self.width)?;
                self.run = Run::Packed(bit + self.width);
                self.left -= 1;
                Some((value, 1))
            }
        }
    }

    /// Returns the next value, or `None` if the bytes end.
    pub fn next(&mut self, bytes: &[u8]) -> Option<u32> {
        self.next_run(bytes, 1).map(|(value, _)| value)
    }

    fn begin_run(&mut self, bytes: &[u8]) -> Option<()> {
        let bytes = bytes.get(..self.end)?;
        let header = varint(bytes, &mut self.at)?;
        self.left = header >> 1;
        if header & 1 == 1 {
            self.left = self.left.checked_mul(8)?;
            self.run = Run::Packed(self.at.checked_mul(8)?);
            // The last run may be cut off after the values that exist.
            let length = usize::try_from(header >> 1).ok()?.checked_mul(self.width)?;
            self.at = self.at.checked_add(length)?.min(self.end);
            return Some(());
        }
        let length = self.width.div_ceil(8);
        let value = bytes.get(self.at..self.at + length)?;
        let value = value.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        self.at += length;
        self.run = Run::Repeated(value);
        Some(())
    }
}

/// Returns the value of `width` bits, at most 32, that starts at bit `bit`.
fn packed(bytes: &[u8], bit: usize, width: usize) -> Option<u32> {
    let mut value = 0u64;
    for (i, at) in (bit / 8..(bit + width).div_ceil(8)).enumerate() {
        value |= u64::from(*bytes.get(at)?) << (8 * i);
    }
    Some((value >> (bit % 8) & ((1 << width) - 1)) as u32)
}

/// Reads the varint at `at`, and moves `at` past it. Returns `None` if the bytes end, or it is too
/// long.
pub fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_values_are_read() {
        // The example of the format: 0..8 in 3 bits; then 300 times 5.
        let bytes = [0x03, 0x88, 0xC6, 0xFA, 0xD8, 0x04, 5];
        let mut reader = HybridReader::new(3, 0, bytes.len()).unwrap();
        let first: Vec<u32> = (0..8).map(|_| reader.next(&bytes).unwrap()).collect();
        assert_eq!(first, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(reader.next_run(&bytes, 200), Some((5, 200)));
        assert_eq!(reader.next_run(&bytes, 200), Some((5, 100)));
        assert_eq!(reader.next_run(&bytes, 1), None);
    }

    #[test]
    fn values_of_no_and_of_many_bits_are_read() {
        let mut none = HybridReader::new(0, 0, 1).unwrap();
        assert_eq!(none.next_run(&[14], 99), Some((0, 7)));
        let bytes = [0x03, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0];
        let mut wide = HybridReader::new(32, 0, bytes.len()).unwrap();
        assert_eq!(
            (wide.next(&bytes), wide.next(&bytes), wide.next(&bytes)),
            (Some(u32::MAX), Some(1), None)
        );
        assert!(HybridReader::new(33, 0, 0).is_none());
    }

    #[test]
    fn hostile_runs_end_instead_of_overflowing() {
        for bytes in
            [&[0xFF; 12][..], &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], &[3]]
        {
            let mut reader = HybridReader::new(31, 0, bytes.len()).unwrap();
            assert!((0..100).any(|_| reader.next(bytes).is_none()), "{bytes:?}");
        }
        assert_eq!(HybridReader::new(1, 0, 3).unwrap().next(&[2]), None);
    }
}
