//! How much memory the broker may count on: the machine's, or less when a container is limited. Linux' files.

use std::fs;
use std::path::{Path, PathBuf};

/// Assumed where the system does not say.
const FALLBACK_BYTES: usize = 1 << 30;

/// The memory of the machine or, if that is less, the limit of its control group. Reads a few small files.
#[must_use]
pub fn memory_bytes() -> usize {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok();
    let limits = group.iter().flat_map(|text| limit_files(text)).filter_map(|file| limit(&file));
    limits.chain(total).min().unwrap_or(FALLBACK_BYTES)
}

fn mem_total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The limit files of the group and all groups around it, in both versions of the interface.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        files.extend(group.ancestors().map(|above| Path::new(root).join(above).join(name)));
    }
    files
}

/// `max` and a group that is not mounted here are no limits.
fn limit(file: &Path) -> Option<usize> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total() {
        assert_eq!(mem_total("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn looks_at_the_group_and_those_around_it() {
        let files = limit_files("0::/a/b\n4:memory:/c\n5:cpu:/d\n");
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
    }

    #[test]
    fn a_group_without_a_limit_does_not_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "max\n").unwrap();
        assert_eq!(limit(file.path()), None);
        fs::write(file.path(), "4096\n").unwrap();
        assert_eq!(limit(file.path()), Some(4096));
    }
}
