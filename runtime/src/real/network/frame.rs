//! What a call sends each way over its stream: `[u32 head length][u32 body length][head][body]`, little endian, then the end of the stream.
//!
//! Lengths are checked against the limits of the reader before any memory is taken for them.

use crate::network::Message;
use crate::real::network::settings::{BULK_BYTES_MIN, BULK_PRIORITY};
use bytes::{Bytes, BytesMut};
use cairn_common::buffer::Buffer;
use cairn_common::limits::{MESSAGE_BODY_BYTES_MAX, MESSAGE_HEAD_BYTES_MAX};
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};

const PREFIX_BYTES: usize = 8;
/// Heads up to this length are copied behind the prefix, so that small messages are one piece.
const JOINED_HEAD_BYTES_MAX: usize = 4 << 10;
/// Bodies from this length on are received into pooled, page-aligned memory.
const POOLED_BODY_BYTES_MIN: usize = 2 << 10;

/// The longest head and body that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    pub head: usize,
    pub body: usize,
}

impl FrameLimits {
    /// Of members of the cluster.
    pub const FULL: FrameLimits = FrameLimits { head: MESSAGE_HEAD_BYTES_MAX, body: MESSAGE_BODY_BYTES_MAX };

    /// A sentence about what of these lengths is too large, if anything is.
    pub fn excess(self, head: usize, body: usize) -> Option<String> {
        let excess = |what: &str, found: usize, limit: usize| {
            (found > limit).then(|| format!("its {what} has {found} bytes, and {limit} are allowed"))
        };
        excess("head", head, self.head).or_else(|| excess("body", body, self.body))
    }
}

/// Why no frame was read.
#[derive(Debug)]
pub enum FrameError {
    /// The stream or the connection ended early: the peer gave up, or is gone.
    Transport(ReadError),
    /// What came is not a frame; the peer is not what it should be.
    Malformed(String),
}

/// Sends a message; the end of the stream is the caller's to send. Neither head (unless short) nor body is copied.
pub async fn write(stream: &mut SendStream, message: Message) -> Result<(), WriteError> {
    let Message { head, body } = message;
    if head.len() + body.len() > BULK_BYTES_MIN {
        // Fails only if the stream is over already, as the write will too.
        _ = stream.set_priority(BULK_PRIORITY);
    }
    let joined = head.len() <= JOINED_HEAD_BYTES_MAX;
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES + if joined { head.len() } else { 0 });
    prefix.extend_from_slice(&length(&head));
    prefix.extend_from_slice(&length(&body));
    if joined {
        prefix.extend_from_slice(&head);
        stream.write_all_chunks(&mut [prefix.freeze(), body]).await
    } else {
        stream.write_all_chunks(&mut [prefix.freeze(), head, body]).await
    }
}

fn length(part: &Bytes) -> [u8; 4] {
    u32::try_from(part.len()).expect("the sender checked the length against the limits").to_le_bytes()
}

/// Reads a whole message and the end of the stream.
pub async fn read(stream: &mut RecvStream, limits: FrameLimits) -> Result<Message, FrameError> {
    let mut reader = FrameReader::new(stream);
    let lengths = reader.lengths(limits).await?;
    reader.message(lengths).await
}

/// Lengths that were announced and are within the limits.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    head: usize,
    body: usize,
}

impl Lengths {
    pub fn total(self) -> usize {
        self.head + self.body
    }
}

/// Reads a frame in two steps, so that its length is known before its memory is taken.
pub struct FrameReader<'a> {
    stream: &'a mut RecvStream,
    /// Received, and not yet given out.
    chunk: Bytes,
}

impl<'a> FrameReader<'a> {
    pub fn new(stream: &'a mut RecvStream) -> Self {
        Self { stream, chunk: Bytes::new() }
    }

    pub async fn lengths(&mut self, limits: FrameLimits) -> Result<Lengths, FrameError> {
        let mut prefix = [0; PREFIX_BYTES];
        self.fill(&mut prefix).await?;
        let [h0, h1, h2, h3, b0, b1, b2, b3] = prefix;
        let length = |bytes| u32::from_le_bytes(bytes) as usize;
        let (head, body) = (length([h0, h1, h2, h3]), length([b0, b1, b2, b3]));
        match limits.excess(head, body) {
            None => Ok(Lengths { head, body }),
            Some(excess) => Err(FrameError::Malformed(format!("a message is too large: {excess}"))),
        }
    }

    pub async fn message(mut self, lengths: Lengths) -> Result<Message, FrameError> {
        // Copied, even where the chunk could be shared: a chunk keeps alive all packets that arrived together with it.
        let mut head = BytesMut::zeroed(lengths.head);
        self.fill(&mut head).await?;
        let body = if lengths.body < POOLED_BODY_BYTES_MIN {
            let mut body = BytesMut::zeroed(lengths.body);
            self.fill(&mut body).await?;
            body.freeze()
        } else {
            let mut body = Buffer::with_len(lengths.body);
            self.fill(&mut body).await?;
            body.freeze()
        };
        self.end().await?;
        Ok(Message { head: head.freeze(), body })
    }

    async fn fill(&mut self, out: &mut [u8]) -> Result<(), FrameError> {
        let mut filled = self.take(out);
        if filled == out.len() {
            return Ok(());
        }
        // The first packet may hold more than is wanted now; of a long body the rest comes straight from the stream.
        if filled == 0 {
            self.chunk = self.next_chunk().await?.ok_or_else(short)?;
            filled = self.take(out);
        }
        self.stream.read_exact(&mut out[filled..]).await.map_err(|error| match error {
            ReadExactError::ReadError(error) => FrameError::Transport(error),
            ReadExactError::FinishedEarly(_) => short(),
        })
    }

    /// Moves what the current chunk has.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.chunk.len());
        out[..len].copy_from_slice(&self.chunk.split_to(len));
        len
    }

    async fn end(mut self) -> Result<(), FrameError> {
        let nothing_left = self.chunk.is_empty() && self.next_chunk().await?.is_none();
        if nothing_left { Ok(()) } else { Err(FrameError::Malformed("a message is longer than it announced".to_owned())) }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, FrameError> {
        let chunk = self.stream.read_chunk(usize::MAX, true).await.map_err(FrameError::Transport)?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

fn short() -> FrameError {
    FrameError::Malformed("a message is shorter than it announced".to_owned())
}
