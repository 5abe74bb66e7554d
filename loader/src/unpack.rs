//! Model files out of image layers. Only plain files with model names are written, each at a checked path below one
//! directory; links are never made, so nothing can point out of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek as _, Write as _};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

use crate::digest::Hasher;
use crate::error::{LoadError, one_line};
use crate::select::is_model_file;
use crate::space;
use crate::store::Finished;
use crate::transfer::bytes;

const BUFFER_BYTES: usize = 1 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Files by path.
pub(crate) type Files = BTreeMap<String, Finished>;

/// Adds the model files of the layer in `archive` to `files`, writing them below `directory`. Layers come in order: a
/// later one replaces and, by whiteouts, removes files of the earlier.
pub(crate) fn unpack(
    archive: &Path,
    subject: &str,
    directory: &Path,
    files: &mut Files,
    cancel: &CancellationToken,
) -> Result<(), LoadError> {
    let mut file = File::open(archive).map_err(|error| LoadError::io("open", archive, error))?;
    let mut magic = Vec::new();
    let read = (&mut file).take(4).read_to_end(&mut magic).and_then(|_| file.rewind());
    read.map_err(|error| LoadError::io("read", archive, error))?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, file);
    let layer = Layer {
        subject,
        directory,
        cancel,
    };
    if magic.starts_with(&ZSTD) {
        return Err(LoadError::Unsupported {
            subject: subject.to_owned(),
            problem: "a layer is compressed by zstd: push it uncompressed (weights do not shrink) or with gzip"
                .to_owned(),
        });
    }
    if magic.starts_with(&GZIP) {
        layer.read(MultiGzDecoder::new(reader), files)
    } else {
        layer.read(reader, files)
    }
}

struct Layer<'a> {
    subject: &'a str,
    directory: &'a Path,
    cancel: &'a CancellationToken,
}

impl Layer<'_> {
    fn read(&self, reader: impl Read, files: &mut Files) -> Result<(), LoadError> {
        let mut added = Files::new();
        let mut archive = Archive::new(reader);
        for entry in archive.entries().map_err(|error| self.damaged(&error))? {
            let mut entry = entry.map_err(|error| self.damaged(&error))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(path) = safe_path(&name) else {
                return Err(self.invalid(format!(
                    "a layer holds the path {:?}, which leads out of it",
                    one_line(&name)
                )));
            };
            if apply_whiteout(&path, files) || !is_model_file(&path) {
                continue;
            }
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let file = self.write(&mut entry, &path)?;
                    added.insert(path, file);
                }
                EntryType::Directory => {}
                _ => {
                    return Err(self.invalid(format!(
                        "{path:?} in a layer is a link or device: store the file itself"
                    )));
                }
            }
        }
        files.append(&mut added);
        Ok(())
    }

    fn write(&self, entry: &mut Entry<'_, impl Read>, name: &str) -> Result<Finished, LoadError> {
        let path = self.directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| LoadError::io("create directory", parent, error))?;
        }
        space::ensure(self.directory, entry.size())?;
        let mut file = File::create(&path).map_err(|error| LoadError::io("create", &path, error))?;
        let (mut hasher, mut size) = (Hasher::default(), 0);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if self.cancel.is_cancelled() {
                return Err(LoadError::Cancelled);
            }
            let count = entry.read(&mut buffer).map_err(|error| self.damaged(&error))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])
                .map_err(|error| LoadError::io("write", &path, error))?;
            size += bytes(count);
        }
        if size != entry.size() {
            return Err(self.invalid(format!("{name:?} in a layer is truncated")));
        }
        Ok(Finished {
            name: name.to_owned(),
            size,
            digest: hasher.finish(),
        })
    }

    fn damaged(&self, error: &std::io::Error) -> LoadError {
        self.invalid(format!("a layer is no readable tar archive: {error}"))
    }

    fn invalid(&self, problem: String) -> LoadError {
        LoadError::InvalidModel {
            subject: self.subject.to_owned(),
            problem: one_line(&problem),
        }
    }
}

/// The path without `.` parts; `None` if it is absolute, leads upwards, or names nothing a path may name.
pub(crate) fn safe_path(name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains(['\0', '\\']) {
        return None;
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..")).then(|| parts.join("/"))
}

/// Removes what a whiteout of this layer hides of the layers below. Says whether `path` is one.
fn apply_whiteout(path: &str, below: &mut Files) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return false;
    };
    let join = |name: &str| {
        if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        }
    };
    if name == OPAQUE {
        let prefix = join("");
        below.retain(|path, _| !path.starts_with(&prefix));
    } else {
        let (hidden, prefix) = (join(hidden), join(&format!("{hidden}/")));
        below.retain(|path, _| *path != hidden && !path.starts_with(&prefix));
    }
    true
}

#[cfg(test)]
mod tests {
    use perennial_crds::serving::FailureReason;
    use tar::{Builder, Header};

    use super::*;
    use crate::digest::Digest;

    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            // `set_path` refuses what a hostile archive holds.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes(content.len()));
            header.set_mode(0o644);
            if *kind == EntryType::Symlink {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(layers: &[Vec<u8>]) -> Result<(tempfile::TempDir, Files), LoadError> {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::new();
        for layer in layers {
            let path = directory.path().join("layer");
            fs::write(&path, layer).unwrap();
            unpack(
                &path,
                "image",
                &directory.path().join("out"),
                &mut files,
                &CancellationToken::new(),
            )?;
        }
        Ok((directory, files))
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn model_files_are_taken_and_hashed() {
        let layer = archive(&[
            ("./models/", EntryType::Directory, b""),
            ("./models/m.gguf", FILE, b"weights"),
            ("bin/sh", FILE, b"no"),
            ("bin/bash", EntryType::Symlink, b""),
        ]);
        let (directory, files) = unpacked(&[layer]).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["models/m.gguf"]);
        assert_eq!(files["models/m.gguf"].digest, Digest::of(b"weights"));
        assert_eq!(
            fs::read(directory.path().join("out/models/m.gguf")).unwrap(),
            b"weights"
        );
        assert!(!directory.path().join("out/bin").exists());
    }

    #[test]
    fn hostile_archives_are_refused_and_write_nothing_outside() {
        for (path, kind) in [
            ("../m.gguf", FILE),
            ("a/../../m.gguf", FILE),
            ("/tmp/m.gguf", FILE),
            ("..", EntryType::Directory),
            ("m.gguf", EntryType::Symlink),
            ("m.gguf", EntryType::Link),
            ("m.gguf", EntryType::Fifo),
        ] {
            let error = unpacked(&[archive(&[(path, kind, b"")])]).unwrap_err();
            assert_eq!(error.reason(), FailureReason::InvalidModel, "{path} {kind:?}: {error}");
        }
    }

    #[test]
    fn a_linked_folder_leads_nowhere() {
        let layer = archive(&[("a", EntryType::Symlink, b""), ("a/m.gguf", FILE, b"x")]);
        let (directory, _) = unpacked(&[layer]).unwrap();
        assert!(fs::symlink_metadata(directory.path().join("out/a")).unwrap().is_dir());
    }

    #[test]
    fn later_layers_replace_and_remove() {
        let below = archive(&[
            ("a/m.gguf", FILE, b"1"),
            ("b/n.gguf", FILE, b"2"),
            ("c.gguf", FILE, b"3"),
            ("d/e.gguf", FILE, b"4"),
        ]);
        let above = archive(&[
            ("a/.wh..wh..opq", FILE, b""),
            ("a/new.gguf", FILE, b"5"),
            (".wh.c.gguf", FILE, b""),
            (".wh.d", FILE, b""),
            ("b/n.gguf", FILE, b"6"),
        ]);
        let (_directory, files) = unpacked(&[below, above]).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a/new.gguf", "b/n.gguf"]);
        assert_eq!(files["b/n.gguf"].digest, Digest::of(b"6"));
    }

    #[test]
    fn compressed_truncated_and_foreign_layers() {
        let plain = archive(&[("m.gguf", FILE, &[7; 5000])]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).unwrap();
        let gzip = encoder.finish().unwrap();
        assert_eq!(unpacked(std::slice::from_ref(&gzip)).unwrap().1.len(), 1);
        for wrong in [
            &gzip[..gzip.len() / 2],
            &plain[..2000],
            b"<html>not a tar archive</html>".repeat(50).as_slice(),
        ] {
            assert_eq!(
                unpacked(&[wrong.to_vec()]).unwrap_err().reason(),
                FailureReason::InvalidModel
            );
        }
        let zstd = [&ZSTD[..], b"..."].concat();
        assert_eq!(unpacked(&[zstd]).unwrap_err().reason(), FailureReason::UnsupportedModel);
    }
}
