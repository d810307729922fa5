//! Reads the footer of a Parquet file: the schema, and where the pages of one column are.
//!
//! Source: <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>

use super::thrift::{Result, Thrift, ThriftError};

/// The physical type of byte strings.
const BYTE_ARRAY: i64 = 6;
/// `repetition_type` of fields that may be null, and of repeated ones (lists).
const OPTIONAL: i64 = 1;
const REPEATED: i64 = 2;
/// Most levels of nested fields.
const DEEPEST: usize = 64;

/// A leaf of the schema that holds texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Index among all leaves.
    pub index: usize,
    /// Definition level of a value that is not null.
    pub max_definition: u8,
}

/// The pages of the column in one row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub start: u64,
    pub end: u64,
    pub codec: i64,
    /// Values, nulls included.
    pub values: u64,
}

/// Finds the text column with a dotted path. The error says why there is none.
pub fn find_column(footer: &[u8], path: &str) -> std::result::Result<Column, String> {
    let mut search = Search { path, ..Search::default() };
    let read = Thrift::new(footer).fields(|thrift, id, _| {
        if id == 2 {
            thrift.structs(|element| search.add(element))?;
        }
        Ok(id == 2)
    });
    read.map_err(|_| "its schema is damaged".to_owned())?;
    let names = search.names.join(", ");
    search.found.unwrap_or_else(|| {
        Err(format!(
            "it has no column {path:?} (columns: {names}); name the text column with --text-field"
        ))
    })
}

/// Most column names listed in a message.
const NAMES: usize = 12;

/// A walk over the schema, which lists each field before its children.
#[derive(Default)]
struct Search<'a> {
    path: &'a str,
    /// The fields that enclose the next one.
    open: Vec<Open>,
    leaves: usize,
    names: Vec<String>,
    found: Option<std::result::Result<Column, String>>,
}

struct Open {
    children_left: i64,
    path: String,
    definition: u8,
    repeated: bool,
}

impl Search<'_> {
    fn add(&mut self, element: &mut Thrift<'_>) -> Result<()> {
        let (mut kind, mut repetition, mut children, mut name) = (None, 0, 0, &[][..]);
        element.fields(|thrift, id, _| {
            match id {
                1 => kind = Some(thrift.integer()?),
                3 => repetition = thrift.integer()?,
                4 => name = thrift.binary()?,
                5 => children = thrift.integer()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        while self.open.last().is_some_and(|open| open.children_left == 0) {
            self.open.pop();
        }
        let is_root = self.open.is_empty();
        let mut field =
            Open { children_left: children, path: String::new(), definition: 0, repeated: false };
        if let Some(parent) = self.open.last_mut() {
            parent.children_left -= 1;
            let name = String::from_utf8_lossy(name);
            field.path = if parent.path.is_empty() {
                name.into_owned()
            } else {
                [&parent.path, &*name].join(".")
            };
            field.definition = parent.definition + u8::from(repetition != 0);
            field.repeated = parent.repeated || repetition == REPEATED;
        }
        if is_root && self.leaves > 0 || !matches!(repetition, 0 | OPTIONAL | REPEATED) {
            return Err(ThriftError::Invalid);
        }
        if let (Some(kind), false) = (kind, is_root) {
            self.add_leaf(&field, kind);
        } else if children < 0 || self.open.len() >= DEEPEST {
            return Err(ThriftError::Invalid);
        } else {
            self.open.push(field);
        }
        Ok(())
    }

    fn add_leaf(&mut self, field: &Open, kind: i64) {
        if field.path == self.path {
            self.found = Some(if field.repeated {
                Err(format!(
                    "its column {:?} is a list; name a column with one text per row",
                    field.path
                ))
            } else if kind == BYTE_ARRAY {
                Ok(Column { index: self.leaves, max_definition: field.definition })
            } else {
                Err(format!("its column {:?} does not hold text", field.path))
            });
        }
        if self.names.len() < NAMES {
            self.names.push(field.path.clone());
        }
        self.leaves += 1;
    }
}

/// Returns the chunks of a column, one for each row group. The error says what is wrong.
pub fn chunks(footer: &[u8], column: Column) -> std::result::Result<Vec<Chunk>, String> {
    let mut found = Vec::new();
    let mut lacking = None;
    let read = Thrift::new(footer).fields(|thrift, id, _| {
        if id == 4 {
            thrift.structs(|group| {
                let Some(chunk) = chunk_of(group, column.index)? else {
                    lacking = Some(found.len());
                    return Err(ThriftError::Invalid);
                };
                found.push(chunk);
                Ok(())
            })?;
        }
        Ok(id == 4)
    });
    match (read, lacking) {
        (Ok(()), _) => Ok(found),
        (_, Some(group)) => Err(format!("row group {group} gives no location for the text column")),
        _ => Err("its row groups are damaged".to_owned()),
    }
}

/// Returns the chunk of column `index` in a row group.
fn chunk_of(group: &mut Thrift<'_>, index: usize) -> Result<Option<Chunk>> {
    let mut found = None;
    group.fields(|thrift, id, _| {
        if id == 1 {
            let mut number = 0;
            thrift.structs(|column| {
                let chunk = read_chunk(column)?;
                if number == index {
                    found = chunk;
                }
                number += 1;
                Ok(())
            })?;
        }
        Ok(id == 1)
    })?;
    Ok(found)
}

/// Reads a `ColumnChunk`. Returns `None` if its pages are in another file, or its offsets or sizes
/// are invalid.
fn read_chunk(column: &mut Thrift<'_>) -> Result<Option<Chunk>> {
    let mut is_elsewhere = false;
    let (mut codec, mut values, mut size, mut data, mut dictionary) = (0, -1, -1, -1, 0);
    column.fields(|thrift, id, _| {
        match id {
            1 => is_elsewhere = !thrift.binary()?.is_empty(),
            3 => thrift.fields(|thrift, id, _| {
                match id {
                    4 => codec = thrift.integer()?,
                    5 => values = thrift.integer()?,
                    7 => size = thrift.integer()?,
                    9 => data = thrift.integer()?,
                    11 => dictionary = thrift.integer()?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // Writers without dictionaries may give them the offset 0.
    let start = if dictionary > 0 { dictionary.min(data) } else { data };
    let place = (u64::try_from(start), u64::try_from(size), u64::try_from(values));
    let (Ok(start), Ok(size), Ok(values)) = place else { return Ok(None) };
    let end = start.checked_add(size).filter(|_| !is_elsewhere);
    Ok(end.map(|end| Chunk { start, end, codec, values }))
}
