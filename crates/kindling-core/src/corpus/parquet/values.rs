//! Reads the texts of a data page, one after the other.
//!
//! | encoding | values |
//! |---|---|
//! | `PLAIN` | length in 4 bytes, bytes |
//! | `RLE_DICTIONARY` | indices into the dictionary page, whose entries are `PLAIN` |
//! | `DELTA_LENGTH_BYTE_ARRAY` | all lengths, then all bytes |
//! | `DELTA_BYTE_ARRAY` | lengths of prefixes shared with the value before, then rests as above |
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>

use std::ops::Range;

use super::delta::DeltaReader;
use super::page::DataHeader;
use super::rle::HybridReader;

/// Encodings, by their numbers in the format.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const DELTA_LENGTH: i64 = 6;
const DELTA_BYTES: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

/// The texts of a dictionary page.
#[derive(Debug, Default)]
pub struct Dictionary {
    bytes: Vec<u8>,
    entries: Vec<Range<u32>>,
}

impl Dictionary {
    /// Reads the `count` entries of a dictionary page.
    pub fn new(bytes: Vec<u8>, count: u32, encoding: i64) -> Result<Self, String> {
        if !matches!(encoding, PLAIN | PLAIN_DICTIONARY) {
            return Err(format!("its dictionary has the unknown encoding {encoding}"));
        }
        let (mut entries, mut at) = (Vec::new(), 0);
        for _ in 0..count {
            let entry = plain(&bytes, &mut at).ok_or("its dictionary ends early")?;
            entries.push(entry.start as u32..entry.end as u32);
        }
        Ok(Self { bytes, entries })
    }

    fn get(&self, index: u32) -> Option<&[u8]> {
        let entry = self.entries.get(index as usize)?;
        Some(&self.bytes[entry.start as usize..entry.end as usize])
    }
}

/// Returns the range of the bytes of the PLAIN value at `at`, and moves `at` past it.
fn plain(bytes: &[u8], at: &mut usize) -> Option<Range<usize>> {
    let length = bytes.get(*at..)?.first_chunk::<4>()?;
    let start = *at + 4;
    let end = start.checked_add(u32::from_le_bytes(*length) as usize)?;
    *at = end;
    (end <= bytes.len()).then_some(start..end)
}

/// A data page while it is read.
#[derive(Debug)]
pub struct DataPage {
    bytes: Vec<u8>,
    /// Values left, nulls included.
    left: u64,
    levels: Option<Levels>,
    values: Values,
    /// The previous value, for `Values::Shared`.
    text: Vec<u8>,
}

/// Definition levels. A value is null unless its level is the highest.
#[derive(Debug)]
struct Levels {
    reader: HybridReader,
    max: u32,
}

#[derive(Debug)]
enum Values {
    Plain {
        at: usize,
    },
    Indices(HybridReader),
    /// Lengths, and the offset of the next value.
    Lengths(DeltaReader, usize),
    /// Lengths of the shared prefixes and of the rests, and the offset of the next rest.
    Shared(DeltaReader, DeltaReader, usize),
}

const DAMAGED: &str = "a page is damaged: it ends early";

impl DataPage {
    /// Prepares to read the decompressed `bytes` of a page.
    pub fn new(bytes: Vec<u8>, header: DataHeader, max_definition: u8) -> Result<Self, String> {
        let (levels, start) = levels_of(&bytes, header, max_definition)?;
        let read = |at| DeltaReader::new(&bytes, at).ok_or(DAMAGED);
        let end = |reader: &DeltaReader| reader.end(&bytes).ok_or(DAMAGED);
        let values = match header.encoding {
            PLAIN => Values::Plain { at: start },
            // A page of nulls alone has no values, and may lack even their width.
            PLAIN_DICTIONARY | RLE_DICTIONARY => {
                let width = bytes.get(start).map_or(0, |&width| usize::from(width));
                let reader = HybridReader::new(width, start + 1, bytes.len());
                Values::Indices(reader.ok_or(DAMAGED)?)
            }
            DELTA_LENGTH | DELTA_BYTES if start == bytes.len() => Values::Plain { at: start },
            DELTA_LENGTH => {
                let lengths = read(start)?;
                let end = end(&lengths)?;
                Values::Lengths(lengths, end)
            }
            DELTA_BYTES => {
                let shared = read(start)?;
                let rest = read(end(&shared)?)?;
                let end = end(&rest)?;
                Values::Shared(shared, rest, end)
            }
            other => return Err(format!("its text column has the unknown encoding {other}")),
        };
        Ok(Self { bytes, left: u64::from(header.values), levels, values, text: Vec::new() })
    }

    /// Returns the next text that is not null, or `None` at the end of the page.
    pub fn next<'a>(&'a mut self, dictionary: &'a Dictionary) -> Result<Option<&'a [u8]>, String> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            let Some(Levels { reader, max }) = &mut self.levels else {
                self.left -= 1;
                break;
            };
            // Nulls are skipped a run at a time, values are read one by one.
            let mut ahead = *reader;
            let (level, count) = ahead.next_run(&self.bytes, self.left).ok_or(DAMAGED)?;
            if level == *max {
                reader.next(&self.bytes);
                self.left -= 1;
                break;
            }
            *reader = ahead;
            self.left -= count;
        }
        self.value(dictionary).ok_or_else(|| DAMAGED.to_owned()).map(Some)
    }

    fn value<'a>(&'a mut self, dictionary: &'a Dictionary) -> Option<&'a [u8]> {
        let length = |length: i64| usize::try_from(length).ok();
        match &mut self.values {
            Values::Plain { at } => plain(&self.bytes, at).map(|range| &self.bytes[range]),
            Values::Indices(reader) => dictionary.get(reader.next(&self.bytes)?),
            Values::Lengths(lengths, at) => {
                let start = *at;
                *at = start.checked_add(length(lengths.next(&self.bytes)?)?)?;
                self.bytes.get(start..*at)
            }
            Values::Shared(shared, rest, at) => {
                let kept = length(shared.next(&self.bytes)?)?;
                let start = *at;
                *at = start.checked_add(length(rest.next(&self.bytes)?)?)?;
                if kept > self.text.len() {
                    return None;
                }
                self.text.truncate(kept);
                self.text.extend_from_slice(self.bytes.get(start..*at)?);
                Some(&self.text)
            }
        }
    }
}

/// Returns the definition levels, if there are any, and the offset at which the values start.
fn levels_of(bytes: &[u8], header: DataHeader, max: u8) -> Result<(Option<Levels>, usize), String> {
    let width = 8 - max.leading_zeros() as usize;
    let levels = |start: usize, end: usize| {
        let reader = HybridReader::new(width, start, end).ok_or(DAMAGED)?;
        Ok((Some(Levels { reader, max: u32::from(max) }), end))
    };
    match header.v2 {
        Some((repetition, definition, _)) => {
            let start = repetition + definition;
            if start > bytes.len() {
                Err(DAMAGED.to_owned())
            } else if max == 0 {
                Ok((None, start))
            } else {
                levels(repetition, start)
            }
        }
        None if max == 0 => Ok((None, 0)),
        None if header.level_encoding != RLE => Err(
            "its nulls have the outdated encoding BIT_PACKED; write the file again with a newer \
                 library"
                .to_owned(),
        ),
        None => {
            let mut end = 0;
            let range = plain(bytes, &mut end).ok_or(DAMAGED)?;
            levels(range.start, range.end)
        }
    }
}
