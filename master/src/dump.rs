//! All rows of a stopped master as lines of text, and back: a backup that outlives versions of redb and can be read by people.
//!
//! ```text
//! {"format":1,"what":"cairn master dump","cluster":"<32 hex digits>","applied":17,"at":1795430000000000000}
//! {"t":"inodes","k":"<hex>","v":"<base64>"}
//! ...
//! {"rows":2,"blake3":"<64 hex digits>"}
//! ```
//!
//! Each line ends with a newline. The last one counts the rows and holds the BLAKE3 hash of every byte before it. Keys and
//! values are those of [`crate::keys`]. The private keys of the cluster are not in it: they are files of their own.

use crate::service::Namespace;
use crate::state::read;
use crate::store::tables::{Changes, Reader, StoreError, Table};
use crate::store::{Database, OpenError, Position, StoreSettings, lock_directory, make_directory, read_offline};
use cairn_common::ids::LogIndex;
use cairn_common::time::Timestamp;
use cairn_runtime::Runtime;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FORMAT_VERSION: u32 = 1;
const WHAT: &str = "cairn master dump";
/// Longest line that is read: a value is at most a message, and base64 and the frame add less than as much again.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of rows per commit when loading.
const COMMIT_BYTES: usize = 16 << 20;

/// Why there is no dump, or why one was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("{} holds no master's data", .0.display())]
    NoMaster(PathBuf),
    #[error("{} holds a master's data already: load into an empty directory", .0.display())]
    MasterExists(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("line {line} of the dump cannot be used: {problem}")]
    Line { line: u64, problem: String },
    #[error("the dump cannot be read or written: {0}")]
    Stream(#[from] io::Error),
}

impl From<StoreError> for DumpError {
    fn from(error: StoreError) -> Self {
        Self::Open(OpenError::Store(error))
    }
}

/// What was dumped or loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub cluster: [u8; 16],
    pub applied: LogIndex,
    pub rows: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows of cluster {} up to command {}", self.rows, HEXLOWER.encode(&self.cluster), self.applied)
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    what: String,
    cluster: String,
    applied: u64,
    at: i64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    t: String,
    k: String,
    v: String,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    rows: u64,
    blake3: String,
}

/// Writes everything in the directory of a stopped master. Blocks.
pub fn dump(runtime: &Runtime, data: &Path, out: &mut impl Write) -> Result<Summary, DumpError> {
    let settings = StoreSettings::new(data);
    if !exists(runtime, &settings.tables_path())? {
        return Err(DumpError::NoMaster(data.to_owned()));
    }
    let mut writer = HashingWriter { out: io::BufWriter::new(out), hasher: blake3::Hasher::new() };
    read_offline::<Namespace, _>(runtime, &settings, |reader, position| write_rows(reader, position, &mut writer))?
}

fn exists(runtime: &Runtime, path: &Path) -> Result<bool, DumpError> {
    Ok(runtime.disk.exists(path)?)
}

fn write_rows(reader: &dyn Reader, position: Position, out: &mut HashingWriter<impl Write>) -> Result<Summary, DumpError> {
    let cluster = read::cluster(reader)?.map_or([0; 16], |cluster| cluster.uuid);
    out.line(&Header {
        format: FORMAT_VERSION,
        what: WHAT.to_owned(),
        cluster: HEXLOWER.encode(&cluster),
        applied: position.applied.0,
        at: position.at.nanos(),
    })?;
    let mut rows = 0;
    for table in Table::ALL {
        let mut written = Ok(());
        reader.scan(*table, &[], None, false, &mut |key, value| {
            rows += 1;
            written = out.line(&Row { t: table.name().to_owned(), k: HEXLOWER.encode(key), v: BASE64.encode(value) });
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
    }
    let blake3 = out.hasher.finalize().to_hex().to_string();
    out.line(&Footer { rows, blake3 })?;
    out.out.flush()?;
    Ok(Summary { cluster, applied: position.applied, rows })
}

struct HashingWriter<W: Write> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> HashingWriter<W> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        self.hasher.update(&text);
        self.out.write_all(&text)
    }
}

/// Makes a master's directory from a dump; there must be none yet. After a crash or an error there is still none. Blocks.
pub fn load(runtime: &Runtime, data: &Path, input: &mut impl BufRead) -> Result<Summary, DumpError> {
    let settings = StoreSettings::new(data);
    make_directory(&*runtime.disk, data)?;
    let _lock = lock_directory(runtime, data)?;
    let has_log = exists(runtime, &settings.log_path())? && !runtime.disk.list(&settings.log_path())?.is_empty();
    if has_log || exists(runtime, &settings.tables_path())? {
        return Err(DumpError::MasterExists(data.to_owned()));
    }
    let mut lines = Lines { input, number: 0, hasher: blake3::Hasher::new() };
    let header: Header = lines.next()?;
    if header.what != WHAT || header.format != FORMAT_VERSION {
        return Err(lines.problem(format!("it is {:?} of format {}, not {WHAT:?} of format {FORMAT_VERSION}", header.what, header.format)));
    }
    let cluster = HEXLOWER.decode(header.cluster.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let cluster = cluster.ok_or_else(|| lines.problem("the cluster's id is not 32 hexadecimal digits".to_owned()))?;
    let position = Position { applied: LogIndex(header.applied), at: Timestamp::from_nanos(header.at) };
    let mut outcome = Ok(0);
    let created = Database::create(&*runtime.disk, &settings.tables_path(), settings.cache_bytes, |database| {
        outcome = read_rows(&mut lines, database, position);
        // The real error is in `outcome`; any error keeps the file from getting its name.
        outcome.as_ref().map(|_| ()).map_err(|error| StoreError::Corrupt(error.to_string()))
    });
    let rows = outcome?;
    created?;
    Ok(Summary { cluster, applied: position.applied, rows })
}

fn read_rows(lines: &mut Lines<'_, impl BufRead>, database: &Database, position: Position) -> Result<u64, DumpError> {
    let (mut changes, mut bytes, mut rows) = (Changes::default(), 0, 0);
    loop {
        let hash = lines.hasher.finalize();
        let (table, key, value) = match lines.row_or_footer()? {
            RowOrFooter::Row(table, key, value) => (table, key, value),
            RowOrFooter::Footer(footer) => {
                if footer.rows != rows || footer.blake3 != hash.to_hex().as_str() {
                    return Err(lines.problem("the dump is damaged: count or hash of its rows is another".to_owned()));
                }
                database.write(&changes, position)?;
                return Ok(rows);
            }
        };
        rows += 1;
        bytes += key.len() + value.len();
        changes.set(table, key.into(), Some(Arc::from(value)));
        if bytes > COMMIT_BYTES {
            database.write(&std::mem::take(&mut changes), position)?;
            bytes = 0;
        }
    }
}

enum RowOrFooter {
    Row(Table, Vec<u8>, Vec<u8>),
    Footer(Footer),
}

struct Lines<'a, R: BufRead> {
    input: &'a mut R,
    number: u64,
    hasher: blake3::Hasher,
}

impl<R: BufRead> Lines<'_, R> {
    fn problem(&self, problem: String) -> DumpError {
        DumpError::Line { line: self.number, problem }
    }

    fn text(&mut self) -> Result<Vec<u8>, DumpError> {
        self.number += 1;
        let mut text = Vec::new();
        io::Read::take(&mut *self.input, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if text.last() != Some(&b'\n') {
            return Err(self.problem("the dump ends here, or the line is too long".to_owned()));
        }
        self.hasher.update(&text);
        Ok(text)
    }

    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, DumpError> {
        let text = self.text()?;
        serde_json::from_slice(&text).map_err(|error| self.problem(error.to_string()))
    }

    fn row_or_footer(&mut self) -> Result<RowOrFooter, DumpError> {
        let text = self.text()?;
        if let Ok(footer) = serde_json::from_slice(&text) {
            return Ok(RowOrFooter::Footer(footer));
        }
        let row: Row = serde_json::from_slice(&text).map_err(|error| self.problem(error.to_string()))?;
        let table = Table::from_name(&row.t).ok_or_else(|| self.problem(format!("there is no table {:?}", row.t)))?;
        let key = HEXLOWER.decode(row.k.as_bytes()).map_err(|error| self.problem(format!("the key: {error}")))?;
        let value = BASE64.decode(row.v.as_bytes()).map_err(|error| self.problem(format!("the value: {error}")))?;
        Ok(RowOrFooter::Row(table, key, value))
    }
}
