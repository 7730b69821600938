//! Files of the user's, outside any store of ours.

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::path::{Path, PathBuf};

pub fn file_to_read(path: &Path) -> Result<BufReader<File>> {
    let file = OpenOptions::new().read(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(BufReader::new(file))
}

/// Makes a file that is there whole, and on stable storage, or not at all: half a backup must not look like one. Never replaces one.
pub fn whole_new_file<T>(path: &Path, write: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    let cannot = || format!("cannot make {}", path.display());
    if path.try_exists().with_context(cannot)? {
        bail!("{} exists already: choose another name, or remove it", path.display());
    }
    let unfinished = Unfinished(unfinished_name(path)?);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished.0).with_context(cannot)?;
    let result = write(&mut file)?;
    file.sync_all().with_context(cannot)?;
    give_name(&unfinished.0, path).with_context(cannot)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OpenOptions::new().read(true).open(directory).and_then(|directory| directory.sync_all()).with_context(cannot)?;
    Ok(result)
}

#[expect(clippy::disallowed_methods, reason = "a file of the user's, outside any store of ours")]
fn give_name(unfinished: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(unfinished, path)
}

fn unfinished_name(path: &Path) -> Result<PathBuf> {
    let mut name = path.file_name().with_context(|| format!("{} is not the name of a file", path.display()))?.to_owned();
    name.push(".unfinished");
    Ok(path.with_file_name(name))
}

/// Removed at the end, however that comes.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    #[expect(clippy::disallowed_methods, reason = "a file of the user's, outside any store of ours")]
    fn drop(&mut self) {
        // It may not have been made; and what is left of it is only in the way, not wrong.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::whole_new_file;
    use std::io::Write;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backup");
        let failed: anyhow::Result<()> = whole_new_file(&path, |file| {
            file.write_all(b"half")?;
            anyhow::bail!("the rest is missing")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the rest is missing");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);

        whole_new_file(&path, |file| Ok(file.write_all(b"whole")?)).unwrap();
        let again = whole_new_file(&path, |file| Ok(file.write_all(b"other")?)).unwrap_err();
        assert!(again.to_string().contains("exists already"), "{again}");
        assert_eq!(std::io::read_to_string(std::fs::OpenOptions::new().read(true).open(&path).unwrap()).unwrap(), "whole");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
