//! Standard output. It may be a pipe that nobody empties for a while, so writing never happens on the thread that talks to the cluster.

use anyhow::{Context, Result};
use bytes::Bytes;
use cairn_runtime::Runtime;
use std::io::{ErrorKind, Write};

/// So much text is gathered before it is written, unless `flush` is called.
const PENDING_BYTES_MAX: usize = 64 << 10;

pub struct Output {
    runtime: Runtime,
    pending: Vec<u8>,
}

impl Output {
    pub fn new(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), pending: Vec::new() }
    }

    pub async fn text(&mut self, text: &str) -> Result<()> {
        self.pending.extend_from_slice(text.as_bytes());
        if self.pending.len() >= PENDING_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    pub async fn bytes(&mut self, bytes: Bytes) -> Result<()> {
        self.flush().await?;
        self.write(move || bytes).await
    }

    pub async fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.write(move || pending).await
    }

    async fn write<B: AsRef<[u8]>>(&self, bytes: impl FnOnce() -> B + Send + 'static) -> Result<()> {
        let written = self.runtime.blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes().as_ref()).and_then(|()| stdout.flush())
        });
        written.await.context("cannot write to standard output")
    }
}

/// Whether an error is that nobody reads standard output any more (`| head`).
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|error| error.kind() == ErrorKind::BrokenPipe)
}
