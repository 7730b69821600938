//! The namespace: what a POSIX directory tree does, as mutations of inodes, names and extents.
//!
//! [`directory`] and [`extent_map`] are the two structures; every other module is one family of operations and opens with
//! the rule it follows. Permission is the kernel's business at the client; the master checks that an operation makes sense.

mod acl;
mod attributes;
mod commit;
mod compact;
mod copy_range;
pub mod create;
pub mod directory;
pub mod extent_map;
mod hole;
mod link;
mod policy;
mod rename;
pub mod shrink;
mod unlink;
pub mod xattr;

use crate::state::edit::Edit;
use crate::state::outcome::Attempt;
use cairn_common::ids::SessionId;
use cairn_common::wire::master::{Mutation, MutationReply, Puts};

pub use rename::Place;

/// Does one mutation.
pub fn mutate(edit: &mut Edit<'_, '_>, session: SessionId, holders: &[SessionId], mutation: &Mutation) -> Attempt<MutationReply> {
    match mutation {
        Mutation::Create { parent, name, inode, open: _, or_existing } => create::create(edit, *parent, name, inode, *or_existing),
        Mutation::CreateUnnamed { parent, inode } => create::create_unnamed(edit, session, *parent, inode),
        Mutation::Link { ino, parent, name } => link::link(edit, *ino, *parent, name),
        Mutation::Unlink { parent, name } => unlink::unlink(edit, *parent, name, holders),
        Mutation::RemoveDirectory { parent, name } => unlink::remove_directory(edit, *parent, name, holders),
        Mutation::Rename { from_parent, from_name, to_parent, to_name, mode } => {
            let from = Place { parent: *from_parent, name: from_name };
            let to = Place { parent: *to_parent, name: to_name };
            rename::rename(edit, from, to, *mode, holders)
        }
        Mutation::SetAttributes { ino, change } => attributes::set_attributes(edit, *ino, change),
        Mutation::SetXattr { ino, name, value, mode } => xattr::set(edit, *ino, name, value, *mode),
        Mutation::RemoveXattr { ino, name } => xattr::remove(edit, *ino, name),
        Mutation::Commit { files, chunks } => commit::commit(edit, files, chunks, Puts::Unsynced),
        Mutation::CommitSynced { files, chunks } => commit::commit(edit, files, chunks, Puts::Synced),
        Mutation::SetPolicy { ino, pool } => policy::set(edit, *ino, *pool),
        Mutation::PunchHole { ino, offset, bytes, extend } => hole::punch(edit, *ino, *offset, *bytes, *extend),
        Mutation::Compact { files, chunks } => compact::compact(edit, files, chunks),
        Mutation::NoteAccess { accesses } => attributes::note_access(edit, accesses),
        Mutation::CopyRange { from, from_offset, to, to_offset, bytes } => {
            copy_range::copy_range(edit, *from, *from_offset, *to, *to_offset, *bytes)
        }
    }
}
