//! The set-user-id and set-group-id bits. A file loses them when its content or its owner changes, for they stand for what it was.
//!
//! The kernel leaves this to us. Did it take care of it by itself, it would ask for `security.capability` before each write.

use super::start::FileSystem;
use cairn_common::attributes::{AttributeChange, Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;

const SET_USER: u16 = 0o4000;
const SET_GROUP: u16 = 0o2000;
const GROUP_EXECUTES: u16 = 0o0010;

/// The mode without the bits. Set-group-id without a group that may execute means something else (mandatory locks), and stays;
/// so do the bits of directories.
fn mode_without(attributes: &Attributes) -> u16 {
    match attributes.kind {
        FileKind::Directory => attributes.mode,
        _ if attributes.mode & GROUP_EXECUTES != 0 => attributes.mode & !(SET_USER | SET_GROUP),
        _ => attributes.mode & !SET_USER,
    }
}

fn has_set_id(attributes: &Attributes) -> bool {
    mode_without(attributes) != attributes.mode
}

impl FileSystem {
    /// Whether `clear_set_id` has anything to do, or would have to ask for that.
    pub fn may_have_set_id(&self, ino: Ino) -> bool {
        self.0.cache.attributes(ino).is_none_or(|known| has_set_id(&known))
    }

    /// To be called before a file is given an access list by one who is not of its group: chmod by such a one takes the bit, too.
    pub async fn clear_set_group_id(&self, ino: Ino) -> Result<(), FsError> {
        let attributes = self.attributes(ino).await?;
        if attributes.mode & SET_GROUP != 0 {
            let change = AttributeChange { mode: Some(attributes.mode & !SET_GROUP), ..AttributeChange::default() };
            self.set_attributes(ino, change, None).await?;
        }
        Ok(())
    }

    /// To be called before the content or the owner of a file is changed. Whether it had any of the bits.
    pub async fn clear_set_id(&self, ino: Ino) -> Result<bool, FsError> {
        let attributes = self.attributes(ino).await?;
        let has_set_id = has_set_id(&attributes);
        if has_set_id {
            let change = AttributeChange { mode: Some(mode_without(&attributes)), ..AttributeChange::default() };
            self.set_attributes(ino, change, None).await?;
        }
        Ok(has_set_id)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::world::Pair;
    use cairn_common::attributes::FileKind;
    use cairn_runtime::sim::block_on_world;

    #[test]
    fn files_lose_the_bits_and_directories_keep_them() {
        block_on_world(1, |world| async move {
            let pair = Pair::new(world).await;
            let cases = [
                (FileKind::Regular, 0o6755, 0o755),
                (FileKind::Regular, 0o2666, 0o2666),
                (FileKind::Regular, 0o4644, 0o644),
                (FileKind::Fifo, 0o6777, 0o777),
                (FileKind::Directory, 0o2777, 0o2777),
            ];
            for (number, (kind, before, after)) in cases.into_iter().enumerate() {
                let ino = pair.master.make(&format!("f{number}"));
                pair.master
                    .with(|state| state.change(ino, |attributes| (attributes.kind, attributes.mode) = (kind, before)))
                    .expect("it is there");
                assert!(pair.fs.may_have_set_id(ino), "nobody knows yet");
                assert_eq!(pair.fs.clear_set_id(ino).await, Ok(before != after));
                assert_eq!(pair.fs.attributes(ino).await.map(|attributes| attributes.mode), Ok(after), "{kind:?} {before:o}");
                assert!(!pair.fs.may_have_set_id(ino), "{kind:?} {before:o}");
            }
        });
    }
}
