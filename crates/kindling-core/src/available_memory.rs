//! The memory that this process can still allocate: that of the machine, swap space included,
//! within the limits of its control groups.
//!
//! Linux overcommits: it grants more memory than it has, and kills a process that uses it. So large
//! allocations are checked against the available memory first.

use std::path::Path;

use crate::{Error, Result};

/// Smaller allocations are not checked, since reading the state of the system takes 50 us.
const LARGE: u64 = 64 << 20;

/// Checks that `bytes` more bytes can be allocated.
///
/// # Errors
/// Returns `ERR_OUT_OF_MEMORY` if they exceed the available memory. Never does where the system
/// does not report it.
pub(crate) fn require(bytes: u64) -> Result<()> {
    if bytes >= LARGE && available().is_some_and(|available| bytes > available) {
        return Err(Error::OutOfMemory { bytes });
    }
    Ok(())
}

/// Returns the bytes that this process can still allocate, or `None` if the system does not say.
pub(crate) fn available() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name: &str| field(&info, name).map(|value| value << 10);
    let swap = kilobytes("SwapFree:").unwrap_or(0);
    let machine = kilobytes("MemAvailable:")? + swap;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let rooms = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let mount = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => return None,
        };
        room_of_groups(Path::new(mount), path, swap)
    });
    rooms.chain([machine]).min()
}

/// Returns the bytes left in the control group `path` and the groups around it, or `None` without a
/// limit. `swap` is the free swap space in bytes.
fn room_of_groups(mount: &Path, path: &str, swap: u64) -> Option<u64> {
    let group = mount.join(path.trim_start_matches('/'));
    // In a container, `path` may be one of the host, and the group is then at the mount point.
    let groups = group.ancestors().take_while(|folder| folder.starts_with(mount));
    groups.filter_map(|folder| room_of_group(folder, swap)).min()
}

/// Returns the bytes left in one control group, of version 2 or 1, or `None` without a limit.
fn room_of_group(folder: &Path, swap: u64) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    // No limit is written as "max", which does not parse as a number.
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used, cached) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?, ["active_file", "inactive_file"]),
        None => (
            number("memory.limit_in_bytes")?,
            number("memory.usage_in_bytes")?,
            ["total_active_file", "total_inactive_file"],
        ),
    };
    let swap = match (read("memory.swap.max"), number("memory.swap.current")) {
        (Some(limit), Some(used)) => {
            limit.trim().parse().map_or(swap, |limit: u64| limit.saturating_sub(used).min(swap))
        }
        _ => swap,
    };
    // The page cache counts as free, since the kernel drops it when memory is needed.
    let stat = read("memory.stat").unwrap_or_default();
    let cached: u64 = cached.iter().filter_map(|name| field(&stat, name)).sum();
    Some(limit.saturating_sub(used.saturating_sub(cached)).saturating_add(swap))
}

/// Returns the number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Folder;

    #[test]
    fn more_than_the_machine_has_is_refused_and_a_little_is_not() {
        assert!(require(1 << 20).is_ok());
        if available().is_some() {
            assert_eq!(require(1 << 60).unwrap_err().code(), "ERR_OUT_OF_MEMORY");
        }
    }

    #[test]
    fn the_smallest_room_of_nested_groups_counts_and_caches_and_swap_are_room() {
        let root = Folder::new();
        let inner = root.path().join("outer/inner");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |folder: &Path, name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
        };
        let room = || room_of_groups(root.path(), "/outer/inner", 50);
        assert_eq!(room(), None);
        write(&inner, "memory.max", "max\n");
        write(&inner, "memory.current", "700\n");
        assert_eq!(room(), None);
        let outer = root.path().join("outer");
        write(&outer, "memory.max", "1000\n");
        write(&outer, "memory.current", "700\n");
        assert_eq!(room(), Some(350));
        write(&outer, "memory.stat", "anon 500\nactive_file 120\ninactive_file 80\n");
        assert_eq!(room(), Some(550));
        write(&outer, "memory.swap.max", "20\n");
        write(&outer, "memory.swap.current", "5\n");
        assert_eq!(room(), Some(515));
        write(&inner, "memory.max", "600\n");
        assert_eq!(room(), Some(50));
        write(root.path(), "memory.limit_in_bytes", "40\n");
        write(root.path(), "memory.usage_in_bytes", "40\n");
        assert_eq!(room_of_groups(root.path(), "/elsewhere", 0), Some(0));
    }
}
