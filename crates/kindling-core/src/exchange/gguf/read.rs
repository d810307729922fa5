//! Reads GGUF files of versions 2 and 3, little-endian.
//!
//! ```text
//! "GGUF" | u32 version | u64 tensors | u64 values
//! values:  text key | u32 type | value; an array is u32 type | u64 count | values
//! tensors: text name | u32 n | n u64 dimensions, the row first | u32 type | u64 offset
//! padding to general.alignment | data
//! ```
//! A text is u64 length | bytes. Every count and length is checked against the rest of the header
//! before memory is allocated for it.
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use super::value::{Value, ValueType};
use crate::exchange::tensor_files::{MOST_DIMENSIONS, MOST_TENSORS, TensorFiles, damaged};
use crate::exchange::tensor_type::TensorType;
use crate::{Error, Result};

/// The largest header that is read. One with a vocabulary of 256,000 tokens and its merges has 15
/// MiB.
const LARGEST_HEADER: u64 = 256 << 20;
/// Most values in the metadata.
const MOST_VALUES: u64 = 1 << 16;
/// The longest array.
const LONGEST_ARRAY: u64 = 1 << 22;
const DEFAULT_ALIGNMENT: u64 = 32;

/// An open GGUF file: its metadata and its tensors.
#[derive(Debug)]
pub struct GgufFile {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: TensorFiles,
}

impl GgufFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Returns `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if it is not GGUF or damaged,
    /// `ERR_UNSUPPORTED` for another version or a tensor type that cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut tensors = TensorFiles::default();
        let file = tensors.open(path)?;
        let bytes = tensors.file(file).1;
        let buffered = BufReader::with_capacity(1 << 16, tensors.reader(file));
        let mut header = Header { reader: buffered, path, at: 0, end: bytes.min(LARGEST_HEADER) };
        let (num_tensors, num_values) = header.preamble()?;
        let mut metadata = BTreeMap::new();
        for _ in 0..num_values {
            let key = header.text()?;
            let value = header.value()?;
            metadata.insert(key, value);
        }
        let infos: Vec<_> = (0..num_tensors).map(|_| header.tensor()).collect::<Result<_>>()?;
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Integer(n)) => u64::try_from(*n).ok().filter(|n| n.is_power_of_two()),
            _ => Some(DEFAULT_ALIGNMENT),
        };
        let start = alignment.and_then(|alignment| header.at.checked_next_multiple_of(alignment));
        let Some(start) = start else {
            return Err(damaged(path, "its alignment is not a power of two"));
        };
        for Info { name, shape, kind, offset } in infos {
            // An offset that saturates at 64 bits is past the end of the file too, which `add`
            // rejects.
            tensors.add(file, &name, shape, kind, start.saturating_add(offset))?;
        }
        Ok(Self { metadata, tensors })
    }

    /// Returns a text of the metadata. Like the methods below, returns `None` if `key` is absent or
    /// of another type.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns an integer of the metadata.
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.metadata.get(key)? {
            Value::Integer(number) => i64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Returns a float of the metadata.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns a boolean of the metadata.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns an array of texts of the metadata.
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// Returns an array of integers of the metadata.
    pub fn integers(&self, key: &str) -> Option<&[i64]> {
        match self.metadata.get(key)? {
            Value::Integers(numbers) => Some(numbers),
            _ => None,
        }
    }
}

/// Returns the shortest decimal number that rounds to `value`, so that an f32 of 1e-5 becomes 1e-5
/// in f64.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// A tensor as the header describes it.
struct Info {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    /// Offset from the start of the data.
    offset: u64,
}

/// A reader of the header that never reads past `end`.
struct Header<'a, R> {
    reader: R,
    path: &'a Path,
    at: u64,
    end: u64,
}

impl<R: Read> Header<'_, R> {
    /// Reads the start of the header. Returns the numbers of tensors and of values.
    fn preamble(&mut self) -> Result<(u64, u64)> {
        if self.end < 4 || self.array::<4>()? != *b"GGUF" {
            return Err(self.wrong("it does not start with GGUF"));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(Error::Unsupported(format!(
                "{} has GGUF version {version}, or is big-endian; convert it to little-endian \
                 version 3",
                self.path.display()
            )));
        }
        let (tensors, values) = (self.u64()?, self.u64()?);
        if tensors > MOST_TENSORS as u64 || values > MOST_VALUES {
            return Err(self.wrong("its header states an impossible number of tensors or values"));
        }
        Ok((tensors, values))
    }

    fn wrong(&self, what: &str) -> Error {
        damaged(self.path, format_args!("{what} (at byte {})", self.at))
    }

    /// Checks that at least `bytes` bytes are left.
    fn require(&self, bytes: u64) -> Result<()> {
        if bytes <= self.end - self.at { Ok(()) } else { Err(self.wrong("its header ends early")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.require(N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader
            .read_exact(bytes)
            .map_err(|error| Error::io(crate::error::IoAction::Read, self.path, error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        self.require(length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.wrong("a string is not UTF-8"))
    }

    fn value_type(&mut self) -> Result<ValueType> {
        let number = self.u32()?;
        ValueType::from_number(number)
            .ok_or_else(|| self.wrong(&format!("value type {number} does not exist")))
    }

    fn value(&mut self) -> Result<Value> {
        match self.value_type()? {
            ValueType::Text => self.text().map(Value::Text),
            ValueType::Bool => Ok(Value::Bool(self.array::<1>()? != [0])),
            ValueType::F32 => Ok(Value::Float(as_written(f32::from_le_bytes(self.array()?)))),
            ValueType::F64 => Ok(Value::Float(f64::from_le_bytes(self.array()?))),
            ValueType::Array => self.values(),
            integer => self.integer(integer).map(Value::Integer),
        }
    }

    fn values(&mut self) -> Result<Value> {
        let kind = self.value_type()?;
        let count = self.u64()?;
        if count > LONGEST_ARRAY {
            return Err(self.wrong("an array is impossibly long"));
        }
        self.require(count * kind.least_bytes())?;
        match kind {
            ValueType::Array => Err(self.wrong("an array contains arrays")),
            ValueType::Text => {
                (0..count).map(|_| self.text()).collect::<Result<_>>().map(Value::Texts)
            }
            ValueType::F32 => (0..count)
                .map(|_| Ok(f32::from_le_bytes(self.array()?)))
                .collect::<Result<_>>()
                .map(Value::Floats),
            ValueType::F64 => (0..count)
                .map(|_| Ok(f64::from_le_bytes(self.array()?) as f32))
                .collect::<Result<_>>()
                .map(Value::Floats),
            integer => (0..count)
                .map(|_| self.integer(integer).map(|number| number as i64))
                .collect::<Result<_>>()
                .map(Value::Integers),
        }
    }

    fn integer(&mut self, kind: ValueType) -> Result<i128> {
        Ok(match kind {
            ValueType::U8 | ValueType::Bool => u8::from_le_bytes(self.array()?).into(),
            ValueType::I8 => i8::from_le_bytes(self.array()?).into(),
            ValueType::U16 => u16::from_le_bytes(self.array()?).into(),
            ValueType::I16 => i16::from_le_bytes(self.array()?).into(),
            ValueType::U32 => u32::from_le_bytes(self.array()?).into(),
            ValueType::I32 => i32::from_le_bytes(self.array()?).into(),
            ValueType::U64 => u64::from_le_bytes(self.array()?).into(),
            ValueType::I64 => i64::from_le_bytes(self.array()?).into(),
            _ => return Err(self.wrong("a value is not an integer")),
        })
    }

    fn tensor(&mut self) -> Result<Info> {
        let name = self.text()?;
        let dimensions = self.u32()? as usize;
        if dimensions > MOST_DIMENSIONS {
            return Err(self.wrong(&format!(
                "tensor {name} has {dimensions} dimensions, more than {MOST_DIMENSIONS}"
            )));
        }
        let mut shape: Vec<usize> = (0..dimensions)
            .map(|_| Ok(usize::try_from(self.u64()?).unwrap_or(usize::MAX)))
            .collect::<Result<_>>()?;
        shape.reverse();
        let kind = self.tensor_type(&name)?;
        Ok(Info { name, shape, kind, offset: self.u64()? })
    }

    fn tensor_type(&mut self, name: &str) -> Result<TensorType> {
        Ok(match self.u32()? {
            0 => TensorType::F32,
            1 => TensorType::F16,
            2 => TensorType::Q4_0,
            3 => TensorType::Q4_1,
            8 => TensorType::Q8_0,
            12 => TensorType::Q4K,
            14 => TensorType::Q6K,
            30 => TensorType::Bf16,
            number => {
                let known =
                    TYPE_NAMES.get(number as usize).copied().filter(|name| !name.is_empty());
                return Err(Error::Unsupported(format!(
                    "{}: tensor {name} has type {}; use a file with F32, F16, BF16, Q8_0, Q4_0, \
                     Q4_1, Q4_K or Q6_K tensors",
                    self.path.display(),
                    known.map_or_else(|| number.to_string(), str::to_owned),
                )));
            }
        })
    }
}

/// Names of ggml's types by number; empty where there is none.
const TYPE_NAMES: [&str; 24] = [
    "F32", "F16", "Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K",
    "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S",
    "IQ4_XS",
];
