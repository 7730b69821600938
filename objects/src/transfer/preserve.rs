//! Mode, times and extended attributes of copies.

use super::spot::Spot;
use super::traits::Traits;
use crate::failure::{At, Failure};
use crate::local;
use crate::store::{Follow, Store};
use cairn_common::attributes::{AttributeChange, FileKind, TimeChange};
use cairn_common::ids::Ino;
use cairn_common::wire::master::XattrMode;

/// Names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of users. Those of a namespace of the system mean nothing on the other side.
pub async fn xattrs_of(store: &Store, spot: &Spot, traits: &Traits) -> Result<Xattrs, Failure> {
    if !traits.may_have_xattrs || !matches!(traits.kind, FileKind::Regular | FileKind::Directory) {
        return Ok(Vec::new());
    }
    match spot {
        Spot::Local(path) => {
            let path = path.clone();
            store.runtime.blocking(move || local::read_xattrs(&path)).await
        }
        Spot::Remote(path) => {
            let ino = Ino(traits.identity.1);
            let names = store.fs.list_xattr(ino).await.at(path)?;
            let mut found = Vec::new();
            for name in names.into_iter().filter(|name| name.starts_with(b"user.")) {
                let value = store.fs.get_xattr(ino, &name).await.at(path)?;
                found.push((name, value));
            }
            Ok(found)
        }
        Spot::Stream => Ok(Vec::new()),
    }
}

/// Those that the source does not have go.
async fn drop_remote_xattrs(store: &Store, object: &Spot, ino: Ino, wanted: &Xattrs) -> Result<(), Failure> {
    let names = store.fs.list_xattr(ino).await.at(object)?;
    for name in names.iter().filter(|name| name.starts_with(b"user.") && !wanted.iter().any(|(wanted, _)| wanted == *name)) {
        store.fs.remove_xattr(ino, name).await.at(object)?;
    }
    Ok(())
}

pub async fn set_remote_xattrs(store: &Store, object: &Spot, ino: Ino, xattrs: &Xattrs) -> Result<(), Failure> {
    for (name, value) in xattrs {
        store.fs.set_xattr(ino, name, value, XattrMode::Set).await.at(object)?;
    }
    Ok(())
}

/// Sets mode, time and extended attributes of what is at a spot as they are at the source.
pub async fn set_traits(store: &Store, source: &Spot, traits: &Traits, target: &Spot) -> Result<(), Failure> {
    let xattrs = xattrs_of(store, source, traits).await?;
    let mode = store.caller.mode_of_copy(traits.mode, traits.uid, true);
    match target {
        Spot::Remote(path) => {
            let found = store.find(path, Follow::AllButLast).await?;
            store.check_owner(path, &found.attributes)?;
            if found.attributes.has_xattrs {
                drop_remote_xattrs(store, target, found.ino(), &xattrs).await?;
            }
            set_remote_xattrs(store, target, found.ino(), &xattrs).await?;
            let mode = (traits.kind != FileKind::Symlink).then_some(mode);
            let change = AttributeChange { mode, mtime: Some(TimeChange::At(traits.mtime)), ..AttributeChange::default() };
            store.fs.set_attributes(found.ino(), change, None).await.map(|_| ()).at(path)
        }
        Spot::Local(path) => {
            let (path, traits) = (path.clone(), traits.clone());
            let set = move || {
                if traits.kind != FileKind::Symlink {
                    local::drop_xattrs(&path, &xattrs)?;
                }
                local::write_xattrs(&path, &xattrs)?;
                local::set_mode(&path, &traits, mode).and_then(|()| local::set_times(&path, traits.mtime)).at(path.display())
            };
            store.runtime.blocking(set).await
        }
        Spot::Stream => Ok(()),
    }
}
