//! How much memory this process may use.

use std::path::{Path, PathBuf};

/// The memory limit in bytes: the lowest of the cgroup's (version 2 or 1, with all its parents) and the machine's.
/// `None` where neither can be read.
#[must_use]
pub fn limit() -> Option<u64> {
    limit_under(
        Path::new("/sys/fs/cgroup"),
        &read("/proc/self/cgroup"),
        &read("/proc/meminfo"),
    )
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn limit_under(root: &Path, membership: &str, meminfo: &str) -> Option<u64> {
    let groups = membership.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
        if controllers.is_empty() {
            lowest(root, group, "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            lowest(&root.join("memory"), group, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    groups.chain(machine(meminfo)).min()
}

/// The lowest limit from `group` up to `root`. In a container the group's path may not exist below the mount, whose
/// root then is the group itself.
fn lowest(root: &Path, group: &str, file: &str) -> Option<u64> {
    let mut directory: PathBuf = root.join(group);
    let mut lowest = None;
    loop {
        let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        if let Ok(bytes) = text.trim().parse::<u64>() {
            lowest = Some(lowest.map_or(bytes, |found: u64| found.min(bytes)));
        }
        if directory == root || !directory.pop() {
            return lowest;
        }
    }
}

fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

/// Parses an amount the way Kubernetes writes memory: `4Gi`, `500M`, `1073741824`.
///
/// # Errors
/// A sentence that names the forms.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1_u64 << 40,
        _ => {
            return Err(format!(
                "`{text}` is no amount of memory; write it like 4Gi, 500M or 1073741824"
            ));
        }
    };
    match number.parse::<f64>() {
        Ok(amount) if amount > 0.0 => Ok((amount * factor as f64) as u64),
        _ => Err(format!(
            "`{text}` is no amount of memory; write it like 4Gi, 500M or 1073741824"
        )),
    }
}

/// Writes bytes for people: `3.2 GiB`.
#[must_use]
pub fn display(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            return format!("{:.1} {unit}", bytes as f64 / size as f64);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        std::fs::write(path, text).expect("a file");
    }

    #[test]
    fn version_2_takes_the_lowest_on_the_way_up() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "pods/one/memory.max", "max\n");
        write(root.path(), "pods/memory.max", "1000\n");
        assert_eq!(
            limit_under(root.path(), "0::/pods/one\n", "MemTotal: 16 kB"),
            Some(1000)
        );
    }

    #[test]
    fn version_1_inside_a_container_reads_the_mount() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "memory/memory.limit_in_bytes", "2048\n");
        assert_eq!(
            limit_under(root.path(), "9:cpu:/x\n5:memory:/kubepods/x\n", ""),
            Some(2048)
        );
    }

    #[test]
    fn without_a_limit_the_machine_is_the_limit() {
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(
            limit_under(root.path(), "0::/\n", "MemTotal:       16 kB\n"),
            Some(16 * 1024)
        );
        assert_eq!(limit_under(root.path(), "", ""), None);
    }

    #[test]
    fn amounts_are_written_like_kubernetes_does() {
        assert_eq!(parse("4Gi"), Ok(4 << 30));
        assert_eq!(parse("1.5M"), Ok(1_500_000));
        assert_eq!(parse("12"), Ok(12));
        for wrong in ["", "Gi", "4GB", "-1", "0", "1.2.3"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(display(3 << 29), "1.5 GiB");
    }
}
