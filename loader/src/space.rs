//! Whether the disk has room, before hours are spent to find out.

use std::path::Path;

use crate::error::LoadError;

/// Room to leave for logs and records.
const RESERVE_BYTES: u64 = 4 << 20;

/// Refuses to begin what cannot be finished.
pub(crate) fn ensure(directory: &Path, needed: u64) -> Result<(), LoadError> {
    let free = free(directory)?;
    if needed == 0 || needed.saturating_add(RESERVE_BYTES) <= free {
        return Ok(());
    }
    Err(LoadError::NoSpaceLeft {
        directory: directory.to_owned(),
        problem: format!("{} more are needed, and {} are free", human(needed), human(free)),
    })
}

fn free(directory: &Path) -> Result<u64, LoadError> {
    let figures = rustix::fs::statvfs(directory).map_err(|error| LoadError::io("measure", directory, error.into()))?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

/// Bytes as people say them.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            return format!("{}.{} {unit}", bytes / size, ((bytes % size) / (size / 10)).min(9));
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use perennial_crds::serving::FailureReason;

    use super::*;

    #[test]
    fn too_much_is_refused_with_figures() {
        let directory = std::env::temp_dir();
        assert!(ensure(&directory, 1).is_ok());
        let error = ensure(&directory, 1 << 60).unwrap_err();
        assert_eq!(error.reason(), FailureReason::NoSpaceLeft);
        assert!(error.to_string().contains("1048576.0 TiB more are needed"), "{error}");
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(human(512), "512 bytes");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human((5 << 30) + (1 << 29)), "5.5 GiB");
        // The tenth is cut, never rounded up to ten.
        assert_eq!(human((2 << 10) - 1), "1.9 KiB");
    }
}
