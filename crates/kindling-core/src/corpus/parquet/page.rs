//! Reads the headers of pages, and decompresses pages.
//!
//! A header states the length of its page. Memory for the page is allocated only after that length
//! is checked against the file, `LARGEST`, and what the compressed bytes can hold.
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/>

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::thrift::{Thrift, ThriftError};

/// Largest page in bytes, compressed or not. Writers make pages of about 1 MiB, but never split a
/// text between two.
pub const LARGEST: usize = 256 << 20;
/// Upper bound of Snappy's compression ratio: its best element copies 64 bytes and takes 3.
const SNAPPY_RATIO: usize = 22;

/// A page header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Length of the header itself.
    pub length: usize,
    pub compressed: usize,
    pub uncompressed: usize,
    pub kind: PageKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    Dictionary {
        values: u32,
        encoding: i64,
    },
    Data(DataHeader),
    /// A page that is skipped.
    Other,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataHeader {
    /// Values, nulls included.
    pub values: u32,
    pub encoding: i64,
    /// Encoding of the definition levels (version 1).
    pub level_encoding: i64,
    /// Version 2: lengths of the repetition and definition levels, which are never compressed, and
    /// whether the values are.
    pub v2: Option<(usize, usize, bool)>,
}

/// The fields of a header, unchecked.
#[derive(Default)]
struct Fields {
    kind: i64,
    compressed: i64,
    uncompressed: i64,
    values: i64,
    encoding: i64,
    level_encoding: i64,
    lengths: [i64; 2],
    is_compressed: bool,
}

/// Reads the header at the start of `bytes`. Returns `Ok(None)` if it is longer than they are.
pub fn read_header(bytes: &[u8]) -> Result<Option<PageHeader>, String> {
    let mut thrift = Thrift::new(bytes);
    let mut fields = Fields { kind: -1, is_compressed: true, ..Fields::default() };
    let read = thrift.fields(|thrift, id, _| {
        match id {
            1 => fields.kind = thrift.integer()?,
            2 => fields.uncompressed = thrift.integer()?,
            3 => fields.compressed = thrift.integer()?,
            5 | 7 | 8 => read_inner(thrift, id, &mut fields)?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    match read {
        Err(ThriftError::Truncated) => return Ok(None),
        Err(ThriftError::Invalid) => return Err("a page header is damaged".to_owned()),
        Ok(()) => {}
    }
    let size = |bytes: i64| {
        usize::try_from(bytes).ok().filter(|&bytes| bytes <= LARGEST).ok_or_else(|| {
            format!(
                "it has a page of {bytes} bytes, which is above the limit of {} MiB; write it with \
                 smaller pages",
                LARGEST >> 20
            )
        })
    };
    let (compressed, uncompressed) = (size(fields.compressed)?, size(fields.uncompressed)?);
    let values = u32::try_from(fields.values).map_err(|_| "a page header is damaged".to_owned())?;
    let [repetition, definition] = fields.lengths;
    let Fields { encoding, level_encoding, is_compressed, .. } = fields;
    let data = |v2| PageKind::Data(DataHeader { values, encoding, level_encoding, v2 });
    let kind = match fields.kind {
        0 => data(None),
        2 => PageKind::Dictionary { values, encoding },
        3 => data(Some((size(repetition)?, size(definition)?, is_compressed))),
        _ => PageKind::Other,
    };
    Ok(Some(PageHeader { length: thrift.at, compressed, uncompressed, kind }))
}

/// Reads the part of a header, by the id `of` its field, for a data page (5), a dictionary page (7)
/// or a data page of version 2 (8).
fn read_inner(thrift: &mut Thrift<'_>, of: i64, fields: &mut Fields) -> super::thrift::Result<()> {
    thrift.fields(|thrift, id, kind| {
        match (of, id) {
            (_, 1) => fields.values = thrift.integer()?,
            (5 | 7, 2) | (8, 4) => fields.encoding = thrift.integer()?,
            (5, 3) => fields.level_encoding = thrift.integer()?,
            (8, 5) => fields.lengths[1] = thrift.integer()?,
            (8, 6) => fields.lengths[0] = thrift.integer()?,
            (8, 7) => fields.is_compressed = kind != super::thrift::Type::False,
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// Decompresses `compressed`, which must hold `length` bytes, and appends them to `out`.
pub fn decompress(
    codec: i64,
    compressed: &[u8],
    length: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let start = out.len();
    let failed = |what: &str, error: String| format!("its {what} data is damaged ({error})");
    match codec {
        0 => out.extend_from_slice(compressed),
        1 => snappy(compressed, length, out).map_err(|error| failed("snappy", error))?,
        2 => read_up_to(MultiGzDecoder::new(compressed), length, out)
            .map_err(|error| failed("gzip", error))?,
        6 => {
            let decoder = StreamingDecoder::new(compressed);
            let decoder = decoder.map_err(|error| failed("zstd", error.to_string()))?;
            read_up_to(decoder, length, out).map_err(|error| failed("zstd", error))?;
        }
        _ => {
            let name = ["LZO", "Brotli", "LZ4"].get((codec - 3) as usize).unwrap_or(&"LZ4");
            return Err(format!(
                "it is compressed with {name}; write it with snappy, zstd, gzip or no compression"
            ));
        }
    }
    let found = out.len() - start;
    if found == length {
        Ok(())
    } else {
        Err(format!("a page has {found} bytes instead of {length}"))
    }
}

fn snappy(compressed: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let stated = snap::raw::decompress_len(compressed).map_err(|error| error.to_string())?;
    if stated != length || length > compressed.len().saturating_mul(SNAPPY_RATIO) {
        return Err(format!("{} bytes cannot decompress to {length}", compressed.len()));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(compressed, &mut out[start..]);
    written.map(|_| ()).map_err(|error| error.to_string())
}

/// Appends what `reader` yields, but at most `length` + 1 bytes, enough to see that there are too
/// many. Memory grows with what is read, not with `length`.
fn read_up_to(reader: impl Read, length: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let read = reader.take(length as u64 + 1).read_to_end(out);
    read.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_the_bytes_cannot_have_are_errors_before_memory_is_taken() {
        // A header of a data page of 2^31 - 1 bytes.
        let large = [0x15, 0, 0x15, 0xFE, 0xFF, 0xFF, 0xFF, 0x0F, 0x15, 2, 0];
        assert!(read_header(&large).unwrap_err().contains("2147483647 bytes"));
        let negative = [0x15, 0, 0x15, 1, 0x15, 2, 0];
        assert!(read_header(&negative).unwrap_err().contains("-1 bytes"));
        // Snappy: 100 MB in 5 bytes.
        let bomb = [0x80, 0xC2, 0xD7, 0x2F, 0];
        let mut out = Vec::new();
        assert!(
            decompress(1, &bomb, 100_000_000, &mut out).unwrap_err().contains("cannot decompress")
        );
        assert_eq!(out.capacity(), 0);
        for codec in [3, 4, 5, 7, 99, -1] {
            assert!(decompress(codec, &[], 0, &mut out).unwrap_err().contains("write it with"));
        }
    }

    #[test]
    fn data_longer_than_its_header_says_is_an_error() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&vec![7; 100_000]).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut out = Vec::new();
        assert_eq!(
            decompress(2, &gzip, 5, &mut out).unwrap_err(),
            "a page has 6 bytes instead of 5"
        );
        out.clear();
        decompress(2, &gzip, 100_000, &mut out).unwrap();
        assert!(out == vec![7; 100_000]);
    }
}
