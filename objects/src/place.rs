//! Where something is: `cairn://bucket/key`, a path of this machine, or a stream (`-`).
//!
//! A bucket is a directory at the top of the file system, and a key the path below it, byte for byte: nothing is escaped. `.` and `..` are
//! refused rather than interpreted, for S3 users mean names by them and others mean directories.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const SCHEME: &[u8] = b"cairn://";

/// A path from the root of CairnFS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RemotePath {
    names: Vec<Vec<u8>>,
    /// Written with a slash at the end: it means a directory.
    pub is_folder: bool,
}

/// Why something is not a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("write cairn://BUCKET/KEY, or a path of this machine (./{0} if it is one)")]
    OtherScheme(String),
    #[error("the names . and .. have no meaning in a cairn:// path")]
    Dots,
    #[error("write cairn://BUCKET or cairn://BUCKET/KEY")]
    NotRemote,
    #[error("an empty path names nothing")]
    Empty,
}

impl RemotePath {
    pub fn root() -> Self {
        Self::default()
    }

    pub fn parse(text: &OsStr) -> Result<Self, PlaceError> {
        let path = text.as_bytes().strip_prefix(SCHEME).ok_or(PlaceError::NotRemote)?;
        let names: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
        if names.iter().any(|name| name == b"." || name == b"..") {
            return Err(PlaceError::Dots);
        }
        Ok(Self { is_folder: names.is_empty() || path.ends_with(b"/"), names })
    }

    pub fn names(&self) -> &[Vec<u8>] {
        &self.names
    }

    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    pub fn is_bucket(&self) -> bool {
        self.names.len() == 1
    }

    /// The bucket's name; empty for the root.
    pub fn bucket(&self) -> String {
        self.names.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }

    /// The last name.
    pub fn name(&self) -> Option<&[u8]> {
        self.names.last().map(Vec::as_slice)
    }

    pub fn child(&self, name: &[u8]) -> Self {
        let mut names = self.names.clone();
        names.push(name.to_vec());
        Self { names, is_folder: false }
    }

    /// What is at a relative path, with slashes, below this.
    pub fn below(&self, relative: &[u8]) -> Self {
        let further = relative.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec);
        Self { names: self.names.iter().cloned().chain(further).collect(), is_folder: false }
    }

    /// The same path without the slash at the end.
    pub fn without_slash(self) -> Self {
        Self { is_folder: false, ..self }
    }

    pub fn parent(&self) -> Option<Self> {
        let (_, rest) = self.names.split_last()?;
        Some(Self { names: rest.to_vec(), is_folder: true })
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.names.starts_with(&other.names)
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cairn://{}", String::from_utf8_lossy(&self.names.join(&b'/')))
    }
}

impl From<RemotePath> for OsString {
    fn from(path: RemotePath) -> Self {
        OsString::from_vec([SCHEME, &path.names.join(&b'/')].concat())
    }
}

/// A place as it is given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Remote(RemotePath),
    Local(PathBuf),
    /// `-`: standard input or output.
    Stream,
}

impl Place {
    pub fn parse(text: &OsStr) -> Result<Self, PlaceError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(PlaceError::Empty);
        }
        if bytes == b"-" {
            return Ok(Place::Stream);
        }
        if bytes.starts_with(SCHEME) {
            return RemotePath::parse(text).map(Place::Remote);
        }
        let scheme_end =
            bytes.windows(3).position(|window| window == b"://").filter(|end| bytes[..*end].iter().all(u8::is_ascii_alphanumeric));
        match scheme_end {
            Some(_) => Err(PlaceError::OtherScheme(text.to_string_lossy().into_owned())),
            None => Ok(Place::Local(PathBuf::from(text))),
        }
    }

    /// Written with a slash at the end, or a directory by its very name.
    pub fn means_folder(&self) -> bool {
        match self {
            Place::Remote(path) => path.is_folder,
            Place::Local(path) => {
                let bytes = path.as_os_str().as_bytes();
                bytes.ends_with(b"/") || path.file_name().is_none() || bytes.ends_with(b"/.") || bytes == b"."
            }
            Place::Stream => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Remote(path) => path.fmt(f),
            Place::Local(path) => path.display().fmt(f),
            Place::Stream => f.write_str("-"),
        }
    }
}

/// A relative path of a tree, with slashes, as a path below a local directory.
pub fn local_below(directory: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() { directory.to_owned() } else { directory.join(OsStr::from_bytes(relative)) }
}

#[cfg(test)]
mod tests {
    use super::{Place, PlaceError, RemotePath};
    use std::ffi::OsStr;

    fn parsed(text: &str) -> String {
        match Place::parse(OsStr::new(text)) {
            Ok(place) => format!("{place}{}", if place.means_folder() { " folder" } else { "" }),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn places_are_told_apart() {
        assert_eq!(parsed("cairn://b/a//c"), "cairn://b/a/c");
        assert_eq!(parsed("cairn://b/a/"), "cairn://b/a folder");
        assert_eq!(parsed("cairn://"), "cairn:// folder");
        assert_eq!(parsed("cairn://b/a b?#%20"), "cairn://b/a b?#%20");
        assert_eq!(parsed("-"), "-");
        assert_eq!(parsed("a/b"), "a/b");
        assert_eq!(["a/", ".", "..", "/", "x/."].map(parsed), ["a/ folder", ". folder", ".. folder", "/ folder", "x/. folder"]);
        assert_eq!(Place::parse(OsStr::new("cairn://b/../c")), Err(PlaceError::Dots));
        assert!(parsed("s3://bucket/x").starts_with("write cairn://BUCKET/KEY"));
        assert!(matches!(Place::parse(OsStr::new("./s3://x")), Ok(Place::Local(_))));
        assert_eq!(Place::parse(OsStr::new("")), Err(PlaceError::Empty));
    }

    #[test]
    fn paths_have_parents_and_children() {
        let path = RemotePath::parse(OsStr::new("cairn://b/x/y")).expect("a path");
        assert_eq!(path.parent().expect("a parent").to_string(), "cairn://b/x");
        assert_eq!(path.child(b"z").to_string(), "cairn://b/x/y/z");
        assert_eq!(path.below(b"p/q").to_string(), "cairn://b/x/y/p/q");
        assert!(path.is_within(&path.parent().expect("a parent")) && !path.parent().expect("a parent").is_within(&path));
        assert_eq!((path.bucket().as_str(), path.name()), ("b", Some(&b"y"[..])));
    }
}
