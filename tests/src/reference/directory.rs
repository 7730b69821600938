//! What a directory of one client may look like: the tree of names after each operation that returned, for as long as a loss of the master's
//! power could undo it, and the operation that is under way.

use cairn_common::error::FsError;
use std::collections::BTreeMap;

/// A file of the reference, in order of making.
pub type FileId = usize;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    File(FileId),
    Symlink(String),
    Directory,
}

/// Names below the directory of a client: `a`, `d`, `d/b`.
pub type Tree = BTreeMap<String, Node>;

/// Changes of a tree, as a client asks for them.
#[derive(Debug, Clone)]
pub enum Change {
    /// Makes a file, or opens the one that is there.
    Create {
        path: String,
        file: FileId,
    },
    MakeDirectory {
        path: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Link {
        from: String,
        to: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    RemoveDirectory {
        path: String,
    },
}

fn parent_exists(tree: &Tree, path: &str) -> Result<(), FsError> {
    match path.rsplit_once('/') {
        None => Ok(()),
        Some((parent, _)) => match tree.get(parent) {
            Some(Node::Directory) => Ok(()),
            Some(_) => Err(FsError::NotDirectory),
            None => Err(FsError::NotFound),
        },
    }
}

fn has_entries(tree: &Tree, path: &str) -> bool {
    let below = format!("{path}/");
    tree.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
}

/// The tree after a change, or the error that it must give.
pub fn apply(tree: &Tree, change: &Change) -> Result<Tree, FsError> {
    let mut after = tree.clone();
    match change {
        Change::Create { path, file } => {
            parent_exists(tree, path)?;
            match tree.get(path) {
                Some(Node::File(_)) => {}
                Some(_) => return Err(FsError::Exists),
                None => drop(after.insert(path.clone(), Node::File(*file))),
            }
        }
        Change::MakeDirectory { path } => make(&mut after, path, Node::Directory)?,
        Change::Symlink { path, target } => make(&mut after, path, Node::Symlink(target.clone()))?,
        Change::Link { from, to } => {
            let node = tree.get(from).cloned().ok_or(FsError::NotFound)?;
            make(&mut after, to, node)?;
        }
        Change::Rename { from, to } => rename(&mut after, from, to)?,
        Change::Remove { path } => match tree.get(path) {
            Some(Node::Directory) => return Err(FsError::IsDirectory),
            Some(_) => drop(after.remove(path)),
            None => return Err(FsError::NotFound),
        },
        Change::RemoveDirectory { path } => match tree.get(path) {
            Some(Node::Directory) if has_entries(tree, path) => return Err(FsError::NotEmpty),
            Some(Node::Directory) => drop(after.remove(path)),
            Some(_) => return Err(FsError::NotDirectory),
            None => return Err(FsError::NotFound),
        },
    }
    Ok(after)
}

fn make(tree: &mut Tree, path: &str, node: Node) -> Result<(), FsError> {
    parent_exists(tree, path)?;
    if tree.contains_key(path) {
        return Err(FsError::Exists);
    }
    tree.insert(path.to_owned(), node);
    Ok(())
}

fn rename(tree: &mut Tree, from: &str, to: &str) -> Result<(), FsError> {
    let source = tree.get(from).cloned().ok_or(FsError::NotFound)?;
    parent_exists(tree, to)?;
    if from == to {
        return Ok(());
    }
    let target = tree.get(to).cloned();
    match (&source, &target) {
        (Node::Directory, None) => {}
        (Node::Directory, Some(Node::Directory)) if has_entries(tree, to) => return Err(FsError::NotEmpty),
        (Node::Directory, Some(Node::Directory)) => {}
        (Node::Directory, Some(_)) => return Err(FsError::NotDirectory),
        (_, Some(Node::Directory)) => return Err(FsError::IsDirectory),
        // Two names of one file: POSIX says that nothing happens.
        (Node::File(a), Some(Node::File(b))) if a == b => return Ok(()),
        _ => {}
    }
    let below = format!("{from}/");
    let moved: Vec<String> =
        tree.range(below.clone()..).map(|(name, _)| name.clone()).take_while(|name| name.starts_with(&below)).collect();
    for name in moved {
        let node = tree.remove(&name);
        let renamed = format!("{to}/{}", &name[below.len()..]);
        tree.extend(node.map(|node| (renamed, node)));
    }
    tree.remove(from);
    tree.insert(to.to_owned(), source);
    Ok(())
}

/// See the module.
#[derive(Debug, Clone)]
pub struct DirectoryModel {
    /// Trees and since when they were in force; the last is the present one.
    history: Vec<(u64, Tree)>,
    under_way: Option<Change>,
    /// The trees that it may be, once nobody works in it any more.
    frozen: Option<Vec<Tree>>,
}

/// Older trees are surely superseded: a hundred times the promise of the log.
const FORGOTTEN_AFTER_NANOS: u64 = 1_000_000_000;

impl Default for DirectoryModel {
    fn default() -> Self {
        Self { history: vec![(0, Tree::new())], under_way: None, frozen: None }
    }
}

impl DirectoryModel {
    pub fn tree(&self) -> &Tree {
        &self.history.last().expect("there is always a present tree").1
    }

    /// A change was asked for. What its answer must be.
    pub fn begin(&mut self, change: &Change) -> Result<(), FsError> {
        apply(self.tree(), change)?;
        self.under_way = Some(change.clone());
        Ok(())
    }

    /// The change that was begun has returned, without an error.
    pub fn done(&mut self, now: u64) {
        let after = self.under_way.take().and_then(|change| apply(self.tree(), &change).ok());
        if let Some(after) = after {
            let kept = self.history.iter().rposition(|(since, _)| since + FORGOTTEN_AFTER_NANOS < now).unwrap_or(0);
            self.history.drain(..kept);
            self.history.push((now, after));
        }
    }

    /// An fsync has returned: nothing before it can be undone.
    pub fn synced(&mut self) {
        let present = self.history.len() - 1;
        self.history.drain(..present);
    }

    /// Nobody works here any more. With `undone_since`, the master has lost power and may have forgotten what came later.
    pub fn freeze(&mut self, undone_since: Option<u64>) {
        let first = match undone_since {
            None => self.history.len() - 1,
            Some(since) => self.history.iter().rposition(|(at, _)| *at < since).unwrap_or(0),
        };
        let mut possible: Vec<Tree> = self.history[first..].iter().map(|(_, tree)| tree.clone()).collect();
        // What is under way may be done on whatever is left.
        if let Some(change) = self.under_way.take() {
            let done: Vec<Tree> = possible.iter().filter_map(|tree| apply(tree, &change).ok()).collect();
            possible.extend(done);
        }
        match &mut self.frozen {
            // What a second blow leaves is a part of what the first one left.
            Some(frozen) => frozen.extend(possible),
            None => self.frozen = Some(possible),
        }
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// What it may look like.
    pub fn possible(&self) -> Vec<Tree> {
        match &self.frozen {
            Some(frozen) => frozen.clone(),
            None => vec![self.tree().clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, DirectoryModel, Node, Tree, apply};
    use cairn_common::error::FsError;

    fn create(path: &str, file: usize) -> Change {
        Change::Create { path: path.to_owned(), file }
    }

    #[test]
    fn a_tree_does_what_posix_says() {
        let mut tree = Tree::new();
        for change in [create("a", 0), Change::MakeDirectory { path: "d".into() }, create("d/b", 1)] {
            tree = apply(&tree, &change).unwrap();
        }
        assert_eq!(apply(&tree, &Change::RemoveDirectory { path: "d".into() }), Err(FsError::NotEmpty));
        let moved = apply(&tree, &Change::Rename { from: "d".into(), to: "e".into() }).unwrap();
        assert_eq!(moved.get("e/b"), Some(&Node::File(1)));
        assert_eq!(moved.len(), 3);
        assert_eq!(apply(&tree, &Change::Rename { from: "a".into(), to: "d".into() }), Err(FsError::IsDirectory));
        assert_eq!(apply(&tree, &create("x/y", 2)), Err(FsError::NotFound));
    }

    #[test]
    fn a_loss_of_power_undoes_only_what_was_not_synced() {
        let mut directory = DirectoryModel::default();
        for (at, name) in [(1, "a"), (2, "b"), (3, "c")] {
            directory.begin(&create(name, 0)).unwrap();
            directory.done(at);
            if name == "a" {
                directory.synced();
            }
        }
        let mut late = directory.clone();
        late.freeze(Some(3));
        assert_eq!(late.possible().iter().map(Tree::len).collect::<Vec<_>>(), [2, 3]);
        directory.begin(&create("d", 0)).unwrap();
        directory.freeze(Some(0));
        assert_eq!(directory.possible().iter().map(Tree::len).collect::<Vec<_>>(), [1, 2, 3, 2, 3, 4]);
    }
}
