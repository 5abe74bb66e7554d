use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;

/// A file as candle writes it.
fn file(types: &[GgmlDType]) -> Vec<u8> {
    let tensor = Tensor::ones((2, 256), candle_core::DType::F32, &Device::Cpu).expect("a tensor");
    let tensors: Vec<QTensor> = types
        .iter()
        .map(|kind| QTensor::quantize(&tensor, *kind).expect("a tensor"))
        .collect();
    let named: Vec<(String, &QTensor)> = tensors
        .iter()
        .enumerate()
        .map(|(number, tensor)| (format!("tensor.{number}"), tensor))
        .collect();
    let named: Vec<(&str, &QTensor)> = named.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    let values = [
        ("general.name", Value::String("tiny".to_owned())),
        ("general.alignment", Value::U32(32)),
        ("count", Value::U64(7)),
        ("flag", Value::Bool(true)),
        (
            "tokens",
            Value::Array(vec![Value::String("a".to_owned()), Value::String("bc".to_owned())]),
        ),
        ("scores", Value::Array(vec![Value::F32(0.5); 3])),
    ];
    let values: Vec<(&str, &Value)> = values.iter().map(|(name, value)| (*name, value)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    write(&mut bytes, &values, &named).expect("written");
    bytes.into_inner()
}

fn checked(bytes: &[u8]) -> Result<(), String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("written");
    match check(&path) {
        Err(VerifyError::Untrusted(problem)) => Err(problem),
        Err(other) => panic!("{other}"),
        Ok(()) => Ok(()),
    }
}

#[test]
fn files_of_all_types_are_read_like_candle_reads_them() {
    let types = [
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
    for kind in types {
        let bytes = file(&[kind]);
        assert_eq!(checked(&bytes), Ok(()), "{kind:?}");
        let content = Content::read(&mut std::io::Cursor::new(&bytes)).expect("a header");
        let stored = 512 / kind.block_size() * kind.type_size();
        let end = content.tensor_data_offset as usize + stored;
        assert_eq!(checked(&bytes[..end]), Ok(()), "{kind:?} needs {stored} bytes");
        assert!(checked(&bytes[..end - 1]).is_err(), "{kind:?} needs {stored} bytes");
    }
    assert_eq!(checked(&file(&types)), Ok(()));
}

#[test]
fn a_file_that_was_cut_anywhere_is_found() {
    let bytes = file(&[GgmlDType::F32]);
    let content = Content::read(&mut std::io::Cursor::new(&bytes)).expect("a header");
    for end in 0..content.tensor_data_offset as usize + 2048 {
        assert!(checked(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn lengths_are_not_believed() {
    let bytes = file(&[GgmlDType::F32]);
    // Whatever is claimed in any eight bytes, it ends, soon and without taking the memory that is claimed.
    for at in 0..bytes.len().min(500) {
        for claimed in [u64::MAX, 1 << 40, 1 << 62] {
            let mut wrong = bytes.clone();
            let end = (at + 8).min(wrong.len());
            wrong[at..end].copy_from_slice(&claimed.to_le_bytes()[..end - at]);
            let _ = checked(&wrong);
        }
    }
    let at = |needle: &[u8]| {
        bytes
            .windows(needle.len())
            .position(|window| window == needle)
            .expect("it is there")
    };
    let changed = |position: usize, value: &[u8]| {
        let mut wrong = bytes.clone();
        wrong[position..position + value.len()].copy_from_slice(value);
        checked(&wrong).expect_err("damaged")
    };
    assert!(changed(0, b"GGUX").contains("does not begin"));
    assert!(changed(4, &[9]).contains("version"));
    assert!(changed(8, &[255; 8]).contains("more tensors"));
    let tensor = at(b"tensor.0") + 8;
    assert!(changed(tensor, &[9]).contains("too many dimensions"));
    assert!(changed(tensor + 4, &[255; 7]).contains("behind the end"));
    assert!(changed(tensor + 20, &[99]).contains("type that is not known"));
    assert!(changed(tensor + 24, &[1]).contains("place do not fit"));
    assert!(changed(tensor + 24, &[32]).contains("behind the end"));
    assert!(changed(at(b"general.alignment") + 21, &[3]).contains("alignment"));
}
