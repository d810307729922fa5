//! Thrift's compact protocol, as far as Parquet's metadata needs it, read by a cursor over memory.
//!
//! ```text
//! struct = fields, then 0;  field = header (id delta << 4 | type), value
//! list   = header (count << 4 | type), values;  integers are zigzag varints
//! ```
//!
//! Lists are read element by element, and every element takes at least one byte. So the length of
//! the input bounds memory and time, whatever counts it states.
//!
//! Source: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// Reasons why metadata cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThriftError {
    /// The bytes end within a value.
    Truncated,
    /// The bytes break the protocol.
    Invalid,
}

pub type Result<T> = std::result::Result<T, ThriftError>;

/// Types of values. The type of a boolean field is its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    True,
    False,
    Byte,
    /// An integer of 16, 32 or 64 bits.
    Integer,
    Double,
    Binary,
    /// A list or a set.
    List,
    Map,
    Struct,
    Uuid,
}

impl Type {
    fn of(code: u8) -> Result<Self> {
        Ok(match code {
            1 => Self::True,
            2 => Self::False,
            3 => Self::Byte,
            4..=6 => Self::Integer,
            7 => Self::Double,
            8 => Self::Binary,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Uuid,
            _ => return Err(ThriftError::Invalid),
        })
    }
}

/// Deepest nesting of values that are skipped.
const DEEPEST: usize = 32;

/// A cursor over encoded bytes.
#[derive(Debug, Clone)]
pub struct Thrift<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Thrift<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).ok_or(ThriftError::Truncated)?;
        self.at += 1;
        Ok(*byte)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or(ThriftError::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ThriftError::Invalid)
    }

    /// Reads an integer.
    pub fn integer(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Reads a byte string.
    pub fn binary(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| ThriftError::Invalid)?;
        self.take(length)
    }

    /// Reads a struct. Calls `field` with the id and type of each field; it reads the value, or
    /// returns false to have it skipped.
    pub fn fields(
        &mut self,
        mut field: impl FnMut(&mut Self, i64, Type) -> Result<bool>,
    ) -> Result<()> {
        let mut id = 0;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(());
            }
            let delta = i64::from(header >> 4);
            id = if delta == 0 { self.integer()? } else { id + delta };
            let kind = Type::of(header & 0xF)?;
            if !field(self, id, kind)? {
                self.skip(kind, 0)?;
            }
        }
    }

    /// Reads a list of structs. Calls `element` to read each.
    pub fn structs(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let (count, kind) = self.list_header()?;
        if count > 0 && kind != Type::Struct {
            return Err(ThriftError::Invalid);
        }
        (0..count).try_for_each(|_| element(self))
    }

    fn list_header(&mut self) -> Result<(u64, Type)> {
        let header = self.byte()?;
        let count = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
        // Some writers give empty lists an invalid type.
        let kind = if count == 0 { Type::Byte } else { Type::of(header & 0xF)? };
        Ok((count, kind))
    }

    fn skip(&mut self, kind: Type, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(ThriftError::Invalid);
        }
        match kind {
            Type::True | Type::False => {}
            Type::Byte => {
                self.byte()?;
            }
            Type::Integer => {
                self.varint()?;
            }
            Type::Double => {
                self.take(8)?;
            }
            Type::Uuid => {
                self.take(16)?;
            }
            Type::Binary => {
                self.binary()?;
            }
            Type::List => {
                let (count, kind) = self.list_header()?;
                for _ in 0..count {
                    self.skip_element(kind, depth)?;
                }
            }
            Type::Map => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0x33 } else { self.byte()? };
                let (key, value) = (Type::of(kinds >> 4)?, Type::of(kinds & 0xF)?);
                for _ in 0..count {
                    self.skip_element(key, depth)?;
                    self.skip_element(value, depth)?;
                }
            }
            Type::Struct => loop {
                let header = self.byte()?;
                if header == 0 {
                    break;
                }
                if header >> 4 == 0 {
                    self.integer()?;
                }
                self.skip(Type::of(header & 0xF)?, depth + 1)?;
            },
        }
        Ok(())
    }

    /// Skips an element of a list or map, in which a boolean takes a byte.
    fn skip_element(&mut self, kind: Type, depth: usize) -> Result<()> {
        match kind {
            Type::True | Type::False => self.byte().map(|_| ()),
            _ => self.skip(kind, depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_unknown_ones_skipped() {
        // 1: -3, 2: list of two lists of booleans, 4: {1: "é"}, 20 (long form): true, 21: 300.
        let bytes = [
            0x15, 5, 0x19, 0x29, 0x22, 1, 2, 0x12, 1, 0x2C, 0x18, 2, 0xC3, 0xA9, 0, 0x01, 40, 0x15,
            0xD8, 4, 0, 99,
        ];
        let (mut thrift, mut read) = (Thrift::new(&bytes), Vec::new());
        thrift
            .fields(|thrift, id, kind| {
                read.push((id, kind));
                match id {
                    1 => assert_eq!(thrift.integer()?, -3),
                    21 => assert_eq!(thrift.integer()?, 300),
                    _ => return Ok(false),
                }
                Ok(true)
            })
            .unwrap();
        let kinds = [
            (1, Type::Integer),
            (2, Type::List),
            (4, Type::Struct),
            (20, Type::True),
            (21, Type::Integer),
        ];
        assert_eq!((read.as_slice(), thrift.at), (&kinds[..], bytes.len() - 1));
        for length in 0..bytes.len() - 1 {
            let error = Thrift::new(&bytes[..length]).fields(|_, _, _| Ok(false));
            assert_eq!(error, Err(ThriftError::Truncated), "{length}");
        }
    }

    #[test]
    fn hostile_counts_and_depths_are_errors() {
        let deep = [0x1C; 200];
        let long = [0x19, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
        let endless = [0x15; 1].iter().chain(&[0xFF; 20]).copied().collect::<Vec<u8>>();
        for bytes in [&deep[..], &long, &endless] {
            assert!(Thrift::new(bytes).fields(|_, _, _| Ok(false)).is_err());
        }
    }
}
