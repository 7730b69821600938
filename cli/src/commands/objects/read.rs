//! `cairn cat` and `cairn head`.

use super::output::Output;
use super::tally::Tally;
use super::with_store;
use crate::object_arguments::{Cat, Head};
use anyhow::Result;
use bytes::Bytes;
use cairn_objects::content::OpenObject;
use cairn_objects::store::Follow;
use cairn_objects::{Failure, RemotePath, Store};
use futures_util::StreamExt;
use std::process::ExitCode;

pub fn cat(options: Cat) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        for path in &options.paths {
            print_file(&store, &tally, path).await?;
        }
        Ok(())
    })
}

/// Writes a file to standard output.
pub async fn print_file(store: &Store, tally: &Tally, path: &RemotePath) -> Result<()> {
    let mut output = Output::new(&store.runtime);
    let Some(object) = tally.take(opened(store, path).await) else { return Ok(()) };
    let mut parts = std::pin::pin!(object.parts(u64::MAX));
    while let Some(part) = parts.next().await {
        let Some(part) = tally.take(part) else { break };
        output.bytes(part).await?;
    }
    Ok(())
}

pub fn head(options: Head) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        let mut output = Output::new(&store.runtime);
        for path in &options.paths {
            let Some(object) = tally.take(opened(&store, path).await) else { continue };
            if options.paths.len() > 1 {
                output.text(&format!("==> {path} <==\n")).await?;
            }
            let mut parts = std::pin::pin!(object.parts(options.bytes.unwrap_or(u64::MAX)));
            let mut lines = options.lines;
            while let Some(part) = parts.next().await {
                let Some(part) = tally.take(part) else { break };
                let part = if options.bytes.is_some() { part } else { first_lines(part, &mut lines) };
                output.bytes(part).await?;
                if options.bytes.is_none() && lines == 0 {
                    break;
                }
            }
        }
        output.flush().await
    })
}

async fn opened(store: &Store, path: &RemotePath) -> Result<OpenObject, Failure> {
    let found = store.find(path, Follow::Last).await?;
    store.open(&found).await
}

/// What of a part belongs to the first `lines` lines; how many are still wanted after it.
fn first_lines(part: Bytes, lines: &mut u64) -> Bytes {
    let mut end = 0;
    while *lines > 0 {
        match part[end..].iter().position(|byte| *byte == b'\n') {
            Some(newline) => end += newline + 1,
            None => return part,
        }
        *lines -= 1;
    }
    part.slice(..end)
}

#[cfg(test)]
mod tests {
    use super::first_lines;
    use bytes::Bytes;

    #[test]
    fn lines_are_counted_across_parts() {
        let mut lines = 3;
        assert_eq!(first_lines(Bytes::from_static(b"a\nb"), &mut lines), "a\nb");
        assert_eq!(first_lines(Bytes::from_static(b"b\nc\nd\n"), &mut lines), "b\nc\n");
        assert_eq!((lines, first_lines(Bytes::from_static(b"x\n"), &mut lines).len()), (0, 0));
    }
}
