//! Writes the generated YAML: `crdgen` writes, `crdgen --check` fails if what is committed differs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use perennial_crds::generate;

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("usage: crdgen [--check]   writes the CRDs, or says which of them are out of date");
            return ExitCode::from(2);
        }
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut stale = Vec::new();
    for (path, text) in generate::files() {
        let target: PathBuf = root.join(path);
        if check {
            if std::fs::read_to_string(&target).unwrap_or_default() != text {
                stale.push(path);
            }
        } else if let Err(error) = write(&target, &text) {
            eprintln!("crdgen: cannot write {}: {error}", target.display());
            return ExitCode::FAILURE;
        }
    }
    if stale.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "crdgen: out of date: {}. Run `make generate` and commit the result.",
        stale.join(", ")
    );
    ExitCode::FAILURE
}

fn write(target: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(target, text)
}
