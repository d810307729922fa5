//! The header of a one-dimensional .npy file: a magic string, two version bytes, the length of the
//! rest (u16 in version 1, u32 in 2 and 3), then a Python dict as text. With one dimension,
//! `fortran_order` does not matter.
//! Source: numpy.lib.format.

use std::io::Read;
use std::path::Path;

use super::element::Element;
use crate::error::IoAction;
use crate::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest header that is accepted. Those of one-dimensional arrays have about a hundred bytes.
const MAX_HEADER: usize = 1 << 16;

/// The type and position of the tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    pub element: Element,
    pub length: u64,
    /// Offset in bytes of the first token.
    pub offset: u64,
}

/// Reads the header at the start of `file`.
///
/// # Errors
/// Returns `ERR_INVALID_STORE` if the header is malformed or describes anything but token ids, and
/// I/O errors.
pub fn read_header(file: &mut impl Read, path: &Path) -> Result<Header> {
    let invalid = |what: String| Error::InvalidStore(format!("{}: {what}", path.display()));
    let mut read = |length: usize| {
        let mut bytes = vec![0; length];
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(invalid("the .npy header is incomplete; copy the file again".to_owned()))
            }
            Err(error) => Err(Error::io(IoAction::Read, path, error)),
        }
    };
    let start = read(8)?;
    if &start[..6] != MAGIC {
        return Err(invalid("not a .npy file; save it with numpy.save".to_owned()));
    }
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => {
            return Err(invalid(format!(
                "unknown .npy version {version}; save it with numpy.save"
            )));
        }
    };
    let length = read(width)?.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_HEADER {
        return Err(invalid(format!(
            "a .npy header of {length} bytes is too long for a token array"
        )));
    }
    let text = String::from_utf8_lossy(&read(length)?).into_owned();
    let (descr, shape) = entries(&text).ok_or_else(|| {
        invalid("the .npy header is malformed; save the file again with numpy.save".to_owned())
    })?;
    let Some(element) = Element::from_descr(descr) else {
        return Err(invalid(format!(
            "dtype {descr} is not supported; save the ids as little-endian int32, int64 or uint16"
        )));
    };
    let Some(length_of_array) = one_dimension(shape) else {
        return Err(invalid(format!(
            "shape ({shape}) does not have one dimension; save a flat array"
        )));
    };
    Ok(Header { element, length: length_of_array, offset: (8 + width + length) as u64 })
}

/// Returns the value of `descr` and the text between the parentheses of `shape`.
fn entries(text: &str) -> Option<(&str, &str)> {
    let descr = value(text, "descr")?;
    let descr = match descr.chars().next()? {
        quote @ ('\'' | '"') => descr[1..].split(quote).next()?,
        // A list means a structured dtype.
        _ => descr.split_inclusive(']').next()?,
    };
    let shape = value(text, "shape")?.strip_prefix('(')?;
    Some((descr, shape.split_once(')')?.0))
}

/// Returns the text after `'key':`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) =
        text.split_once(&format!("'{key}'")).or_else(|| text.split_once(&format!("\"{key}\"")))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// Parses the `n,` of a one-dimensional shape.
fn one_dimension(shape: &str) -> Option<u64> {
    // Python 2 wrote long integers as 12L.
    shape.trim().strip_suffix(',')?.trim().trim_end_matches('L').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dict: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        let length = (dict.len() as u32).to_le_bytes();
        bytes.extend(if version == 1 { &length[..2] } else { &length[..] });
        bytes.extend(dict.as_bytes());
        bytes
    }

    fn read(version: u8, dict: &str) -> Result<Header> {
        read_header(&mut file(version, dict).as_slice(), Path::new("tokens.npy"))
    }

    #[test]
    fn headers_of_all_versions_and_dtypes_are_read() {
        for (version, descr, element) in
            [(1, "<i4", Element::Int32), (2, "<i8", Element::Int64), (3, "<u2", Element::Uint16)]
        {
            for fortran in ["True", "False"] {
                let dict = format!(
                    "{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (12,), }}   \n"
                );
                let offset = (file(version, &dict)).len() as u64;
                assert_eq!(read(version, &dict).unwrap(), Header { element, length: 12, offset });
            }
        }
    }

    #[test]
    fn arrays_of_other_types_and_shapes_are_errors() {
        let dict = |descr: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")
        };
        for (descr, shape, said) in [
            ("'<f4'", "(3,)", "<f4"),
            ("'>i4'", "(3,)", ">i4"),
            ("'<u4'", "(3,)", "<u4"),
            ("[('a', '<i4')]", "(3,)", "[('a', '<i4')]"),
            ("'<i4'", "(3, 4)", "3, 4"),
            ("'<i4'", "()", "one dimension"),
        ] {
            let error = read(1, &dict(descr, shape)).unwrap_err();
            assert_eq!(error.code(), "ERR_INVALID_STORE");
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(read(4, &dict("'<i4'", "(3,)")).is_err());
        assert!(read(1, "no dict at all").is_err());
        assert!(
            read_header(&mut &b"\x93NUMPY\x01\x00\xff\x00{'descr'"[..], Path::new("t.npy"))
                .is_err()
        );
        assert!(read_header(&mut &b"PK"[..], Path::new("t.npy")).is_err());
    }
}
