//! Writes GGUF files of version 3. `read.rs` shows the layout.

use std::path::Path;

use super::value::{Value, ValueType};
use crate::Result;
use crate::exchange::tensor_type::TensorType;
use crate::exchange::tensor_writer::{NewTensor, ReadTensor, TensorWriter};

const ALIGNMENT: u64 = 32;

/// Writes a file and syncs it, holding one tensor in memory at a time.
///
/// # Errors
/// Returns `ERR_NOT_WRITABLE`, `ERR_DISK_FULL` and other I/O errors, and those of `read`.
pub fn write(
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[NewTensor],
    read: &mut ReadTensor<'_>,
) -> Result<()> {
    let mut file = TensorWriter::create(path)?;
    file.bytes(&header(metadata, tensors)?)?;
    for (index, tensor) in tensors.iter().enumerate() {
        file.align(ALIGNMENT)?;
        file.tensor(tensor.kind, &read(index)?)?;
    }
    file.align(ALIGNMENT)?;
    file.finish()
}

fn header(metadata: &[(String, Value)], tensors: &[NewTensor]) -> Result<Vec<u8>> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        push_text(&mut out, key);
        push_value(&mut out, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        push_text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for dimension in tensor.shape.iter().rev() {
            out.extend((*dimension as u64).to_le_bytes());
        }
        out.extend(type_number(tensor.kind).to_le_bytes());
        out.extend(u64::to_le_bytes(offset));
        offset = (offset + tensor.bytes()?).next_multiple_of(ALIGNMENT);
    }
    Ok(out)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn push_type(out: &mut Vec<u8>, kind: ValueType) {
    out.extend((kind as u32).to_le_bytes());
}

/// Appends a value after its type. Integers are written as u32 if they fit, as llama.cpp expects
/// for sizes and ids.
fn push_value(out: &mut Vec<u8>, value: &Value) {
    let start_array = |out: &mut Vec<u8>, kind, count: usize| {
        push_type(out, ValueType::Array);
        push_type(out, kind);
        out.extend((count as u64).to_le_bytes());
    };
    match value {
        Value::Integer(number) => {
            if let Ok(number) = u32::try_from(*number) {
                push_type(out, ValueType::U32);
                out.extend(number.to_le_bytes());
            } else {
                push_type(out, ValueType::I64);
                out.extend((*number as i64).to_le_bytes());
            }
        }
        Value::Float(number) => {
            push_type(out, ValueType::F32);
            out.extend((*number as f32).to_le_bytes());
        }
        Value::Text(text) => {
            push_type(out, ValueType::Text);
            push_text(out, text);
        }
        Value::Bool(value) => {
            push_type(out, ValueType::Bool);
            out.push(u8::from(*value));
        }
        Value::Integers(numbers) => {
            start_array(out, ValueType::I32, numbers.len());
            out.extend(numbers.iter().flat_map(|number| (*number as i32).to_le_bytes()));
        }
        Value::Floats(numbers) => {
            start_array(out, ValueType::F32, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Value::Texts(texts) => {
            start_array(out, ValueType::Text, texts.len());
            for text in texts {
                push_text(out, text);
            }
        }
    }
}

fn type_number(kind: TensorType) -> u32 {
    match kind {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q4_1 => 3,
        TensorType::Q8_0 => 8,
        TensorType::Q4K => 12,
        TensorType::Q6K => 14,
        TensorType::Bf16 => 30,
    }
}
