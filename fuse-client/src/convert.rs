//! Between the kernel's structures and ours.

use cairn_common::attributes::{Attributes, FileKind, TimeChange};
use cairn_common::ids::Ino;
use cairn_common::time::Timestamp;
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `stat` reports as the preferred size of a request.
const PREFERRED_IO_BYTES: u32 = 1 << 20;

const S_IFMT: u32 = 0o170_000;

pub fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind that `mknod` asks for; `None` for directories and symlinks, which have calls of their own.
pub fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & S_IFMT {
        0 | 0o100_000 => Some(FileKind::Regular),
        0o010_000 => Some(FileKind::Fifo),
        0o140_000 => Some(FileKind::Socket),
        0o020_000 => Some(FileKind::CharDevice),
        0o060_000 => Some(FileKind::BlockDevice),
        _ => None,
    }
}

pub fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

pub fn system_time(time: Timestamp) -> SystemTime {
    let nanos = time.nanos();
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

pub fn timestamp(time: SystemTime) -> Timestamp {
    let nanos = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp::from_nanos(nanos(after)),
        Err(before) => Timestamp::from_nanos(-nanos(before.duration())),
    }
}

pub fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::At(timestamp(time)),
    }
}

pub fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino.0),
        size: attributes.size,
        blocks: attributes.allocated.div_ceil(512),
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: system_time(attributes.btime),
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_both_ways_on_both_sides_of_the_epoch() {
        for nanos in [0, 1, -1, 1_999_999_999, -1_999_999_999, i64::MAX, -i64::MAX] {
            let time = Timestamp::from_nanos(nanos);
            assert_eq!(timestamp(system_time(time)), time);
        }
    }

    #[test]
    fn mknod_makes_no_directory_or_symlink() {
        assert_eq!(kind_of_mode(0o040_755), None);
        assert_eq!(kind_of_mode(0o120_777), None);
        assert_eq!(kind_of_mode(0o644), Some(FileKind::Regular));
        assert_eq!(kind_of_mode(0o010_600), Some(FileKind::Fifo));
    }
}
