//! POSIX access lists (acl(5)), as Linux keeps them in two extended attributes: [`ACCESS`] is part of who may do what with an inode,
//! [`DEFAULT`] of a directory is what is made in it starts with. Pure.
//!
//! The permission bits of a mode and the access list say the same thing twice. In the mode, the bits of the group are those of the list's mask, if it has
//! one. Whoever changes one of the two must change the other: [`Acl::mode`], [`Acl::with_mode`], [`Acl::inherited`].
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | version: 2 |
//! | then for each entry 0..2 | tag: whom it is about |
//! | 2..4 | permissions: 4 read, 2 write, 1 execute |
//! | 4..8 | uid or gid, for the tags that name one |
//!
//! Integers are little-endian. Entries are in the order of their tags.

use crate::error::FsError;

pub const ACCESS: &[u8] = b"system.posix_acl_access";
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
/// In entries whose tag names nobody.
const NO_ID: u32 = u32::MAX;
const PERMISSIONS: u16 = 0o7;
const MODE_PERMISSIONS: u16 = 0o777;

/// Whom an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner,
    User,
    OwningGroup,
    Group,
    /// The most that `User`, `OwningGroup` and `Group` can have.
    Mask,
    Other,
}

impl Tag {
    const ALL: [(Tag, u16); 6] =
        [(Tag::Owner, 0x01), (Tag::User, 0x02), (Tag::OwningGroup, 0x04), (Tag::Group, 0x08), (Tag::Mask, 0x10), (Tag::Other, 0x20)];

    fn of_number(number: u16) -> Option<Tag> {
        Tag::ALL.into_iter().find(|(_, known)| *known == number).map(|(tag, _)| tag)
    }

    fn number(self) -> u16 {
        Tag::ALL[self as usize].1
    }

    fn names_somebody(self) -> bool {
        matches!(self, Tag::User | Tag::Group)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    permissions: u16,
    id: u32,
}

/// An access list that makes sense: one entry each for the owner, the owning group and others, in order, and a mask if it names anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// Reads the value of the extended attribute. `Invalid` if it makes no sense.
    pub fn decode(value: &[u8]) -> Result<Self, FsError> {
        let (version, rest) = value.split_first_chunk::<4>().ok_or(FsError::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION || !rest.len().is_multiple_of(ENTRY_BYTES) {
            return Err(FsError::Invalid);
        }
        let entries: Option<Vec<Entry>> = rest.chunks_exact(ENTRY_BYTES).map(decode_entry).collect();
        let acl = Acl(entries.ok_or(FsError::Invalid)?);
        if acl.makes_sense() { Ok(acl) } else { Err(FsError::Invalid) }
    }

    pub fn encode(&self) -> Vec<u8> {
        let entries = self.0.iter().flat_map(|entry| {
            let [tag, permissions] = [entry.tag.number(), entry.permissions].map(u16::to_le_bytes);
            let id = if entry.tag.names_somebody() { entry.id } else { NO_ID }.to_le_bytes();
            [tag[0], tag[1], permissions[0], permissions[1], id[0], id[1], id[2], id[3]]
        });
        VERSION.to_le_bytes().into_iter().chain(entries).collect()
    }

    fn makes_sense(&self) -> bool {
        let count = |tag: Tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let names_somebody = self.0.iter().any(|entry| entry.tag.names_somebody());
        let is_in_order = self.0.is_sorted_by_key(|entry| entry.tag);
        let has_the_three = [Tag::Owner, Tag::OwningGroup, Tag::Other].into_iter().all(|tag| count(tag) == 1);
        is_in_order && has_the_three && count(Tag::Mask) <= 1 && (count(Tag::Mask) == 1 || !names_somebody)
    }

    /// Whether it says more than a mode can.
    pub fn is_extended(&self) -> bool {
        self.0.iter().any(|entry| entry.tag.names_somebody() || entry.tag == Tag::Mask)
    }

    /// The permission bits of a mode that go with this list.
    pub fn mode(&self) -> u16 {
        self.0.iter().fold(0, |mode, entry| match self.shift(entry.tag) {
            Some(shift) => mode | entry.permissions << shift,
            None => mode,
        })
    }

    /// The list after chmod.
    #[must_use]
    pub fn with_mode(&self, mode: u16) -> Self {
        let entries = self.0.iter().map(|entry| match self.shift(entry.tag) {
            Some(shift) => Entry { permissions: mode >> shift & PERMISSIONS, ..*entry },
            None => *entry,
        });
        Acl(entries.collect())
    }

    /// What an inode that is made with `mode` starts with, where this is the default list of its directory: the list, and the permission bits. Nobody has more than
    /// both allow.
    pub fn inherited(&self, mode: u16) -> (Self, u16) {
        let entries = self.0.iter().map(|entry| match self.shift(entry.tag) {
            Some(shift) => Entry { permissions: entry.permissions & mode >> shift, ..*entry },
            None => *entry,
        });
        let list = Acl(entries.collect());
        let mode = mode & !MODE_PERMISSIONS | list.mode();
        (list, mode)
    }

    /// Where the permissions of an entry are in a mode, if they are.
    fn shift(&self, tag: Tag) -> Option<u16> {
        let has_mask = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        match tag {
            Tag::Owner => Some(6),
            Tag::Mask => Some(3),
            Tag::OwningGroup if !has_mask => Some(3),
            Tag::Other => Some(0),
            Tag::OwningGroup | Tag::User | Tag::Group => None,
        }
    }
}

fn decode_entry(bytes: &[u8]) -> Option<Entry> {
    let [tag_low, tag_high, low, high, id @ ..] = bytes else { return None };
    let tag = Tag::of_number(u16::from_le_bytes([*tag_low, *tag_high]))?;
    let permissions = u16::from_le_bytes([*low, *high]);
    let id = u32::from_le_bytes(id.try_into().ok()?);
    let has_id = !tag.names_somebody() || id != NO_ID;
    (permissions & !PERMISSIONS == 0 && has_id).then_some(Entry { tag, permissions, id })
}

#[cfg(test)]
mod tests {
    use super::{Acl, Entry, NO_ID, Tag};
    use crate::error::FsError;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    fn entry(tag: Tag, permissions: u16, id: u32) -> Entry {
        Entry { tag, permissions, id }
    }

    /// user::rwx, user:7:r-x, group::r-x, mask::rwx, other::---
    fn named() -> Acl {
        Acl(vec![
            entry(Tag::Owner, 7, NO_ID),
            entry(Tag::User, 5, 7),
            entry(Tag::OwningGroup, 5, NO_ID),
            entry(Tag::Mask, 7, NO_ID),
            entry(Tag::Other, 0, NO_ID),
        ])
    }

    fn plain(mode: u16) -> Acl {
        Acl(vec![entry(Tag::Owner, mode >> 6, NO_ID), entry(Tag::OwningGroup, mode >> 3 & 7, NO_ID), entry(Tag::Other, mode & 7, NO_ID)])
    }

    #[test]
    fn the_bytes_are_those_of_linux() {
        let bytes = named().encode();
        assert_eq!(bytes[..12], [2, 0, 0, 0, 1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[12..20], [2, 0, 5, 0, 7, 0, 0, 0]);
        assert_eq!(Acl::decode(&bytes), Ok(named()));
    }

    #[test]
    fn the_mask_stands_for_the_group_in_the_mode() {
        assert_eq!(named().mode(), 0o770);
        let changed = named().with_mode(0o641);
        assert_eq!(changed.mode(), 0o641);
        assert_eq!(changed.0[2].permissions, 5, "the group's own entry stays as it is");
        assert_eq!((plain(0o640).mode(), plain(0o640).is_extended(), named().is_extended()), (0o640, false, true));
    }

    #[test]
    fn what_is_inherited_is_what_both_allow() {
        let (list, mode) = named().inherited(0o2666);
        assert_eq!((list.mode(), mode), (0o660, 0o2660), "the umask has no say, the mode of the call has");
        assert_eq!(list.0[1].permissions, 5, "named entries stay; the mask limits them");
        assert_eq!(plain(0o750).inherited(0o666), (plain(0o640), 0o640));
    }

    #[test]
    fn nonsense_is_refused() {
        let without = |tag: Tag| Acl(named().0.into_iter().filter(|entry| entry.tag != tag).collect());
        for tag in [Tag::Owner, Tag::OwningGroup, Tag::Other, Tag::Mask] {
            assert_eq!(Acl::decode(&without(tag).encode()), Err(FsError::Invalid), "without {tag:?}");
        }
        let reversed = Acl(named().0.into_iter().rev().collect());
        let twice = Acl(named().0.into_iter().flat_map(|entry| [entry, entry]).collect());
        let too_much = Acl(vec![entry(Tag::Owner, 8, NO_ID), entry(Tag::OwningGroup, 0, NO_ID), entry(Tag::Other, 0, NO_ID)]);
        for wrong in [reversed, twice, too_much] {
            assert_eq!(Acl::decode(&wrong.encode()), Err(FsError::Invalid), "{wrong:?}");
        }
        let cut = named().encode();
        assert_eq!(Acl::decode(&cut[..cut.len() - 1]), Err(FsError::Invalid));
        assert_eq!(Acl::decode(&[]), Err(FsError::Invalid));
    }

    fn lists() -> impl Strategy<Value = Acl> {
        let named = proptest::collection::vec((any::<bool>(), 0u16..8, 0u32..50), 0..6);
        (0u16..0o1000, proptest::option::of(0u16..8), named).prop_map(|(mode, mask, named)| {
            let mut entries = plain(mode).0;
            let mask = if named.is_empty() { mask } else { mask.or(Some(7)) };
            entries.extend(mask.map(|permissions| entry(Tag::Mask, permissions, NO_ID)));
            entries
                .extend(named.into_iter().map(|(user, permissions, id)| entry(if user { Tag::User } else { Tag::Group }, permissions, id)));
            entries.sort_by_key(|entry| entry.tag);
            Acl(entries)
        })
    }

    proptest! {
        #[test]
        fn any_list_survives_its_bytes_and_agrees_with_its_mode(acl in lists(), mode in 0u16..0o10000) {
            prop_assert_eq!(Acl::decode(&acl.encode()), Ok(acl.clone()));
            prop_assert_eq!(acl.with_mode(acl.mode()), acl.clone());
            prop_assert_eq!(acl.with_mode(mode).mode(), mode & 0o777);
            let (list, inherited) = acl.inherited(mode);
            prop_assert_eq!(list.mode(), inherited & 0o777);
            prop_assert_eq!(inherited & !0o777, mode & !0o777);
            prop_assert_eq!(inherited & 0o777, acl.mode() & mode & 0o777);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(acl) = Acl::decode(&bytes) {
                prop_assert!(Acl::decode(&acl.encode()) == Ok(acl));
            }
        }
    }
}
