//! Reads integers stored as differences in blocks (`DELTA_BINARY_PACKED`), such as the lengths of
//! byte strings.
//!
//! ```text
//! header = block size, parts per block, count, first value
//! block  = least difference, a width for each part, the parts that hold values
//! ```
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

use super::rle::varint;

/// A reader of such integers. It does not borrow the bytes: every call is passed the same ones.
#[derive(Debug, Clone)]
pub struct DeltaReader {
    at: usize,
    part_values: u64,
    parts: u64,
    /// Values left, `value` included.
    left: u64,
    value: i64,
    least: i64,
    /// The offset of the next part's width, and the parts left in the block.
    widths: usize,
    parts_left: u64,
    /// The next difference: its first bit, its width in bits, and the number left in the part.
    bit: usize,
    width: usize,
    part_left: u64,
}

fn zigzag(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let value = varint(bytes, at)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

impl DeltaReader {
    /// Reads the header at `at`. Returns `None` if it is damaged.
    pub fn new(bytes: &[u8], mut at: usize) -> Option<Self> {
        let block = varint(bytes, &mut at)?;
        let parts = varint(bytes, &mut at)?;
        let left = varint(bytes, &mut at)?;
        let value = zigzag(bytes, &mut at)?;
        let part_values = block.checked_div(parts)?;
        if part_values == 0 || part_values % 8 != 0 || part_values.checked_mul(parts)? != block {
            return None;
        }
        let (least, widths, parts_left) = (0, 0, 0);
        let (bit, width, part_left) = (0, 0, 0);
        Some(Self {
            at,
            part_values,
            parts,
            left,
            value,
            least,
            widths,
            parts_left,
            bit,
            width,
            part_left,
        })
    }

    /// Returns the next value, or `None` if there is none or the bytes end.
    pub fn next(&mut self, bytes: &[u8]) -> Option<i64> {
        let value = self.value;
        self.left = self.left.checked_sub(1)?;
        if self.left > 0 {
            if self.part_left == 0 {
                self.begin_part(bytes)?;
            }
            let difference = packed(bytes, self.bit, self.width)?;
            self.bit += self.width;
            self.part_left -= 1;
            self.value = value.wrapping_add(self.least).wrapping_add(difference.cast_signed());
        }
        Some(value)
    }

    /// Reads the width of the next part, and moves `at` past its values.
    fn begin_part(&mut self, bytes: &[u8]) -> Option<()> {
        if self.parts_left == 0 {
            self.least = zigzag(bytes, &mut self.at)?;
            self.widths = self.at;
            self.parts_left = self.parts;
            self.at = self.at.checked_add(usize::try_from(self.parts).ok()?)?;
        }
        self.width = usize::from(*bytes.get(self.widths)?);
        if self.width > 64 {
            return None;
        }
        self.widths += 1;
        self.parts_left -= 1;
        self.part_left = self.part_values;
        self.bit = self.at.checked_mul(8)?;
        let length = usize::try_from(self.part_values / 8).ok()?.checked_mul(self.width)?;
        self.at = self.at.checked_add(length)?;
        Some(())
    }

    /// Returns the offset after the last value. Finding it takes a walk over all parts.
    pub fn end(&self, bytes: &[u8]) -> Option<usize> {
        let mut ahead = self.clone();
        while ahead.left > 1 {
            if ahead.part_left == 0 {
                ahead.begin_part(bytes)?;
            }
            let skipped = ahead.part_left.min(ahead.left - 1);
            (ahead.left, ahead.part_left) = (ahead.left - skipped, ahead.part_left - skipped);
        }
        (ahead.at <= bytes.len()).then_some(ahead.at)
    }
}

/// Returns the value of `width` bits, at most 64, that starts at bit `bit`.
fn packed(bytes: &[u8], bit: usize, width: usize) -> Option<u64> {
    let mut value = 0u128;
    for (i, at) in (bit / 8..(bit + width).div_ceil(8)).enumerate() {
        value |= u128::from(*bytes.get(at)?) << (8 * i);
    }
    Some((value >> (bit % 8) & ((1 << width) - 1)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_format_are_read() {
        // Blocks of 128 in 4 parts. 1..=5: least difference 1, all widths 0.
        let even = [0x80, 1, 4, 5, 2, 2, 0, 0, 0, 0, 99];
        let mut reader = DeltaReader::new(&even, 0).unwrap();
        assert_eq!(reader.end(&even), Some(10));
        let values: Vec<i64> = std::iter::from_fn(|| reader.next(&even)).collect();
        assert_eq!(values, [1, 2, 3, 4, 5]);
        // 7, 5, 3, 1, 2, 3, 4, 5: least difference -2, differences above it 0 0 0 3 3 3 3 in 2 bits.
        let mut uneven = vec![0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0xC0, 0x3F];
        uneven.extend([0; 6]);
        let mut reader = DeltaReader::new(&uneven, 0).unwrap();
        assert_eq!(reader.end(&uneven), Some(18));
        let values: Vec<i64> = std::iter::from_fn(|| reader.next(&uneven)).collect();
        assert_eq!(values, [7, 5, 3, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn hostile_headers_are_rejected_at_once() {
        for bytes in [
            &[0x80, 1, 0, 5, 2][..],
            &[0, 4, 5, 2],
            &[0x81, 1, 4, 5, 2],
            &[0x80, 1, 4, 5],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        ] {
            assert!(DeltaReader::new(bytes, 0).is_none(), "{bytes:?}");
        }
        // 2^62 values of no bits would be in blocks that the bytes do not have.
        let many =
            [0x80, 1, 4, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x3F, 0, 0, 0, 0, 0, 0];
        assert_eq!(DeltaReader::new(&many, 0).unwrap().end(&many), None);
        let wide = [0x80, 1, 4, 5, 2, 2, 65, 0, 0, 0];
        let mut reader = DeltaReader::new(&wide, 0).unwrap();
        assert_eq!(reader.next(&wide), None);
    }
}
