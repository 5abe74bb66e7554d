//! GGUF files, written tensor by tensor: candle's own writer wants the whole model in memory once more.

use std::io::{self, Write};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;

/// llama.cpp's alignment, and the only one that candle writes.
pub const ALIGNMENT: u32 = 32;
const MAGIC: &[u8] = b"GGUF";
/// As candle writes.
const VERSION: u32 = 2;

/// A tensor to be written; its bytes are asked for when it is their turn.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its sizes, rows first.
    pub shape: &'a [usize],
    /// Its type.
    pub dtype: GgmlDType,
}

impl Announced<'_> {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() / self.dtype.block_size() * self.dtype.type_size()
    }
}

/// Writes a file: first what is announced, then the bytes of each in that order.
///
/// # Errors
/// What `bytes_of` or the disk says.
pub fn write<E: From<io::Error>>(
    out: &mut impl Write,
    metadata: &[(&str, &Value)],
    tensors: &[Announced],
    mut bytes_of: impl FnMut(&Announced) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    out.write_all(&header(metadata, tensors))?;
    for tensor in tensors {
        let bytes = bytes_of(tensor)?;
        if bytes.len() != tensor.bytes() {
            let problem = format!("{} has {} bytes, not {}", tensor.name, bytes.len(), tensor.bytes());
            return Err(io::Error::other(problem).into());
        }
        out.write_all(&bytes)?;
        let padding = aligned(bytes.len()) - bytes.len();
        out.write_all(&[0; ALIGNMENT as usize][..padding])?;
    }
    Ok(())
}

fn header(metadata: &[(&str, &Value)], tensors: &[Announced]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    add_length(&mut header, tensors.len());
    add_length(&mut header, metadata.len());
    for (name, value) in metadata {
        add_text(&mut header, name);
        header.extend(kind(value).to_le_bytes());
        add_value(&mut header, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        add_text(&mut header, tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        // Columns first.
        tensor
            .shape
            .iter()
            .rev()
            .for_each(|size| add_length(&mut header, *size));
        header.extend(number(tensor.dtype).to_le_bytes());
        add_length(&mut header, offset);
        offset += aligned(tensor.bytes());
    }
    header.resize(aligned(header.len()), 0);
    header
}

fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT as usize)
}

fn add_length(header: &mut Vec<u8>, length: usize) {
    header.extend((length as u64).to_le_bytes());
}

fn add_text(header: &mut Vec<u8>, text: &str) {
    add_length(header, text.len());
    header.extend(text.as_bytes());
}

fn add_value(header: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => header.push(*value),
        Value::I8(value) => header.extend(value.to_le_bytes()),
        Value::U16(value) => header.extend(value.to_le_bytes()),
        Value::I16(value) => header.extend(value.to_le_bytes()),
        Value::U32(value) => header.extend(value.to_le_bytes()),
        Value::I32(value) => header.extend(value.to_le_bytes()),
        Value::U64(value) => header.extend(value.to_le_bytes()),
        Value::I64(value) => header.extend(value.to_le_bytes()),
        Value::F32(value) => header.extend(value.to_le_bytes()),
        Value::F64(value) => header.extend(value.to_le_bytes()),
        Value::Bool(value) => header.push(u8::from(*value)),
        Value::String(text) => add_text(header, text),
        Value::Array(values) => {
            // What was read from a file is all of one kind; that of none does not matter.
            let kind = values.first().map_or(kind(&Value::U32(0)), kind);
            header.extend(kind.to_le_bytes());
            add_length(header, values.len());
            values.iter().for_each(|value| add_value(header, value));
        }
    }
}

/// The numbers of kinds and types are those of ggml's `gguf.h` and `ggml.h`.
fn kind(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn number(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{QTensor, gguf_file};
    use candle_core::{DType, Device, Tensor};

    use super::*;

    /// All types that candle makes of numbers.
    const TYPES: [GgmlDType; 13] = [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    fn values() -> Vec<(String, Value)> {
        let text = |text: &str| Value::String(text.to_owned());
        let values = [
            Value::U8(1),
            Value::I8(-1),
            Value::U16(2),
            Value::I16(-2),
            Value::U32(3),
            Value::I32(-3),
            Value::U64(4),
            Value::I64(-4),
            Value::F32(0.5),
            Value::F64(-0.25),
            Value::Bool(true),
            text("ü€"),
            Value::Array(vec![text("a"), text("")]),
            Value::Array(vec![Value::I32(7), Value::I32(8)]),
            Value::Array(Vec::new()),
        ];
        let names = (0..).map(|number| format!("key.{number}"));
        names.zip(values).collect()
    }

    #[test]
    fn a_file_is_byte_for_byte_what_candle_writes() {
        let metadata = values();
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let matrix = Tensor::arange(0.0_f32, 3.0 * 256.0, &Device::Cpu).and_then(|all| all.reshape((3, 256)));
        let matrix = matrix.and_then(|matrix| matrix.affine(1e-3, -0.3)).expect("a matrix");
        // Its bytes end at no multiple of the alignment.
        let odd = Tensor::ones(5, DType::F32, &Device::Cpu).expect("numbers");
        let quantized = |tensor: &Tensor, dtype| QTensor::quantize(tensor, dtype).expect("a tensor");
        let mut tensors = vec![("odd".to_owned(), quantized(&odd, GgmlDType::F32))];
        tensors.extend(TYPES.map(|dtype| (format!("{dtype:?}"), quantized(&matrix, dtype))));
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut expected = io::Cursor::new(Vec::new());
        gguf_file::write(&mut expected, &metadata, &tensors).expect("written");
        let announced: Vec<Announced> = tensors
            .iter()
            .map(|(name, tensor)| Announced {
                name,
                shape: tensor.shape().dims(),
                dtype: tensor.dtype(),
            })
            .collect();
        let mut written = Vec::new();
        let mut waiting = tensors.iter();
        let bytes_of = |announced: &Announced| {
            let (name, tensor) = waiting.next().expect("one more");
            assert_eq!(announced.name, *name);
            Ok::<_, io::Error>(tensor.data().expect("bytes").into_owned())
        };
        write(&mut written, &metadata, &announced, bytes_of).expect("written");
        assert!(written == expected.into_inner(), "other bytes");
    }

    #[test]
    fn a_tensor_of_another_size_than_was_announced_is_an_error() {
        let announced = Announced {
            name: "a",
            shape: &[2, 32],
            dtype: GgmlDType::Q8_0,
        };
        assert_eq!(announced.bytes(), 2 * 34);
        let failed = write(&mut Vec::new(), &[], &[announced], |_| Ok::<_, io::Error>(vec![0; 67]));
        assert_eq!(failed.expect_err("too short").to_string(), "a has 67 bytes, not 68");
    }
}
