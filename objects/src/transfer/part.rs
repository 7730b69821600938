//! Names of files on their way.
//!
//! `.NAME.SIZE-MTIME.cairn-part` beside the final name, with size and time of the source in hexadecimal: the same source leads to the same name,
//! a changed one to another. How far the content has come is not in the name; the file's own map, or its own bytes, say it.

use super::traits::Traits;
use cairn_common::limits::NAME_BYTES_MAX;

const SUFFIX: &str = ".cairn-part";

/// Whether a name is that of a file on its way: such are never copied, compared or removed as if they were anybody's content.
pub fn is_part(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(SUFFIX.as_bytes())
}

/// For a copy that can go on later.
pub fn resumable_name(name: &[u8], source: &Traits) -> Vec<u8> {
    part_name(name, &format!("{:x}-{:x}", source.size, source.mtime.nanos()))
}

/// For a copy that can't; `random` keeps it apart from others.
pub fn passing_name(name: &[u8], random: u64) -> Vec<u8> {
    part_name(name, &format!("{random:016x}"))
}

fn part_name(name: &[u8], mark: &str) -> Vec<u8> {
    let tail = format!(".{mark}{SUFFIX}");
    if 1 + name.len() + tail.len() <= NAME_BYTES_MAX {
        return [b".", name, tail.as_bytes()].concat();
    }
    // A long name is cut; its hash tells it from others that begin alike.
    let tail = format!("~{}{tail}", &blake3::hash(name).to_hex()[..16]);
    let room = NAME_BYTES_MAX - 1 - tail.len();
    [b".", &name[..room], tail.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::{is_part, passing_name, resumable_name};
    use crate::transfer::Traits;
    use cairn_common::attributes::FileKind;
    use cairn_common::time::Timestamp;

    fn source(size: u64, nanos: i64) -> Traits {
        let mtime = Timestamp::from_nanos(nanos);
        Traits { kind: FileKind::Regular, size, mode: 0o644, uid: 0, mtime, links: 1, identity: (1, 2), may_have_xattrs: false }
    }

    #[test]
    fn a_part_says_of_which_source_it_is() {
        assert_eq!(resumable_name(b"big.bin", &source(4096, 255)), b".big.bin.1000-ff.cairn-part");
        assert_ne!(resumable_name(b"f", &source(1, 2)), resumable_name(b"f", &source(1, 3)));
        assert_ne!(resumable_name(b"f", &source(1, 2)), resumable_name(b"f", &source(2, 2)));
        assert!(is_part(&resumable_name(b"f", &source(1, -1))) && is_part(&passing_name(b"f", 7)));
        assert!(!is_part(b"f.cairn-part") && !is_part(b".hidden"));
    }

    #[test]
    fn long_names_stay_names() {
        let (one, other) = ([b'x'; 255], [[b'x'; 254].as_slice(), b"y"].concat());
        let names = [&one[..], &other].map(|name| resumable_name(name, &source(u64::MAX, i64::MIN)));
        assert!(names.iter().all(|name| name.len() == 255 && is_part(name)) && names[0] != names[1]);
    }
}
