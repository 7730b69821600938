//! A connection and its calls.
//!
//! Tasks and ownership: [`QuicConnection`] is what the user holds. When it and the reply slots of its calls are dropped, the connection closes
//! ([`Link`]). One task takes the peer's streams as they come; each stream is read by a task of its own, so a slow one holds up
//! nobody. Bounds: QUIC's own limit on open streams, the queue of read calls, and the share of [`REQUEST_BYTES_MAX`] that each
//! larger request holds from before its memory is taken until its reply is sent or its slot dropped.

use crate::network::{CallError, Connection, IncomingCall, Message, Peer, ReplySlot};
use crate::real::network::frame::{self, FrameError, FrameLimits, FrameReader};
use crate::real::network::settings::{
    ANONYMOUS_MESSAGE_BYTES_MAX, CALLS_QUEUED_MAX, REPLY_LIMIT, REQUEST_BYTES_MAX, REQUEST_LIMIT, SMALL_REQUEST_BYTES,
};
use crate::real::network::within;
use crate::real::spin;
use crate::task::BoxFuture;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

/// Why a stream or a connection ends, as the peer hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCode {
    /// Nobody needs it any more.
    Done = 0,
    /// The call was given up.
    Dropped = 1,
    /// The peer sent what no member of this cluster sends.
    Malformed = 2,
    /// A limit was reached.
    Busy = 3,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> VarInt {
        VarInt::from_u32(code as u32)
    }
}

/// A connection to a member of the cluster, or from a machine that wants to become one.
pub struct QuicConnection {
    link: Arc<Link>,
    peer: Peer,
    incoming: Mutex<mpsc::Receiver<IncomingCall>>,
}

/// The connection as the user's objects share it: it closes with the last of them.
struct Link {
    connection: quinn::Connection,
    /// The place among the connections without a certificate, if it is one.
    _anonymous: Option<OwnedSemaphorePermit>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let path = self.connection.stats().path;
        tracing::debug!(
            peer = %self.connection.remote_address(),
            round_trip = ?path.rtt,
            datagram_bytes = path.current_mtu,
            sent_packets = path.sent_packets,
            lost_packets = path.lost_packets,
            "a connection ends"
        );
        self.connection.close(CloseCode::Done.into(), b"no longer needed");
    }
}

impl QuicConnection {
    /// Starts to take the peer's calls. `anonymous`: what is given back when the connection ends.
    pub fn start(handle: &Handle, connection: quinn::Connection, peer: Peer, anonymous: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        let limits = match peer {
            Peer::Member { .. } => FrameLimits::FULL,
            Peer::Anonymous => FrameLimits { head: ANONYMOUS_MESSAGE_BYTES_MAX, body: 0 },
        };
        let (queue, incoming) = mpsc::channel(CALLS_QUEUED_MAX);
        let link = Arc::new(Link { connection: connection.clone(), _anonymous: anonymous });
        let intake = Intake { link: Arc::downgrade(&link), limits, budget: Arc::new(Semaphore::new(REQUEST_BYTES_MAX)), queue };
        handle.spawn(take_calls(handle.clone(), connection, Arc::new(intake)));
        Arc::new(Self { link, peer, incoming: Mutex::new(incoming) })
    }
}

impl Connection for QuicConnection {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn remote_address(&self) -> SocketAddr {
        self.link.connection.remote_address()
    }

    fn call(&self, request: Message) -> BoxFuture<'static, Result<Message, CallError>> {
        Box::pin(call(self.link.clone(), request))
    }

    fn accept(&self) -> BoxFuture<'_, Option<IncomingCall>> {
        Box::pin(async { self.incoming.lock().await.recv().await })
    }

    fn is_closed(&self) -> bool {
        self.link.connection.close_reason().is_some()
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        // Not the link: whoever only waits for the end must not put it off.
        let connection = self.link.connection.clone();
        Box::pin(async move { _ = connection.closed().await })
    }

    fn close(&self, reason: &str) {
        self.link.connection.close(CloseCode::Done.into(), reason.as_bytes());
    }
}

async fn call(link: Arc<Link>, request: Message) -> Result<Message, CallError> {
    if let Some(excess) = FrameLimits::FULL.excess(request.head.len(), request.body.len()) {
        return Err(CallError::TooLarge(excess));
    }
    let connection = &link.connection;
    let address = connection.remote_address();
    let lost = |_: ConnectionError| CallError::ConnectionLost(address);
    let (send, mut receive) = connection.open_bi().await.map_err(lost)?;
    let mut send = OpenStream::new(send);
    frame::write(&mut send.stream, request).await.map_err(|error| write_failed(address, &error))?;
    // Fails only if the peer stopped the stream; the read below then tells why.
    _ = send.stream.finish();
    spin::touch();
    match frame::read(&mut receive, FrameLimits::FULL).await {
        Ok(reply) => {
            spin::touch();
            send.settle();
            Ok(reply)
        }
        Err(FrameError::Transport(error)) => Err(read_failed(address, &error)),
        Err(FrameError::Malformed(reason)) => {
            blame(connection, &reason);
            Err(CallError::ConnectionLost(address))
        }
    }
}

fn write_failed(address: SocketAddr, error: &WriteError) -> CallError {
    match error {
        WriteError::Stopped(_) => CallError::Dropped(address),
        WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => CallError::ConnectionLost(address),
    }
}

fn read_failed(address: SocketAddr, error: &ReadError) -> CallError {
    match error {
        ReadError::Reset(_) => CallError::Dropped(address),
        ReadError::ConnectionLost(_) | ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            CallError::ConnectionLost(address)
        }
    }
}

/// Ends the connection to a peer that broke the protocol.
fn blame(connection: &quinn::Connection, reason: &str) {
    tracing::warn!(peer = %connection.remote_address(), reason, "a peer broke the protocol; its connection is closed");
    connection.close(CloseCode::Malformed.into(), reason.as_bytes());
}

/// A sending half that tells the peer when it is given up. (quinn would finish it, as if all had been said.)
struct OpenStream {
    stream: SendStream,
    settled: bool,
}

impl OpenStream {
    fn new(stream: SendStream) -> Self {
        Self { stream, settled: false }
    }

    /// All has been said, and the end of it too.
    fn settle(&mut self) {
        self.settled = true;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if !self.settled {
            // An error means that the stream is over already.
            _ = self.stream.reset(CloseCode::Dropped.into());
        }
    }
}

/// What the tasks that read the peer's requests share.
struct Intake {
    link: Weak<Link>,
    limits: FrameLimits,
    /// Bytes that larger requests may still take.
    budget: Arc<Semaphore>,
    queue: mpsc::Sender<IncomingCall>,
}

/// Takes the peer's streams until the connection ends.
async fn take_calls(handle: Handle, connection: quinn::Connection, intake: Arc<Intake>) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        handle.spawn(take_call(connection.clone(), intake.clone(), send, receive));
    }
    // Requests that still wait for their share will not come: their tasks must not put off the end of `accept`.
    intake.budget.close();
}

/// Reads one request and queues it. Whatever goes wrong, the caller hears of it by the reset of the reply's stream.
async fn take_call(connection: quinn::Connection, intake: Arc<Intake>, send: SendStream, mut receive: RecvStream) {
    let reply = OpenStream::new(send);
    let (request, share) = match within(REQUEST_LIMIT, read_request(&intake, &mut receive)).await {
        Some(Ok(read)) => read,
        Some(Err(FrameError::Malformed(reason))) => return blame(&connection, &reason),
        // The caller gave up, is gone, or stalled.
        Some(Err(FrameError::Transport(_))) | None => return,
    };
    spin::touch();
    let Some(link) = intake.link.upgrade() else { return };
    let reply = Box::new(QuicReply { stream: reply, _share: share, _link: link });
    // Fails when nobody takes calls any more; then the slot is dropped with it.
    _ = intake.queue.send(IncomingCall { request, reply }).await;
}

async fn read_request(intake: &Intake, receive: &mut RecvStream) -> Result<(Message, Option<OwnedSemaphorePermit>), FrameError> {
    let mut reader = FrameReader::new(receive);
    let lengths = reader.lengths(intake.limits).await?;
    let share = if lengths.total() <= SMALL_REQUEST_BYTES {
        None
    } else {
        let bytes = u32::try_from(lengths.total()).expect("lengths are within the limits of a message");
        let share = intake.budget.clone().acquire_many_owned(bytes).await;
        Some(share.map_err(|_| FrameError::Transport(ReadError::ClosedStream))?)
    };
    Ok((reader.message(lengths).await?, share))
}

/// Where the reply to a request of the peer goes.
struct QuicReply {
    stream: OpenStream,
    _share: Option<OwnedSemaphorePermit>,
    /// A connection stays open while a call of it is unanswered.
    _link: Arc<Link>,
}

impl ReplySlot for QuicReply {
    fn send(mut self: Box<Self>, reply: Message) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(excess) = FrameLimits::FULL.excess(reply.head.len(), reply.body.len()) {
                tracing::error!(excess, "a reply is too large and was not sent");
                return;
            }
            if let Some(Ok(())) = within(REPLY_LIMIT, frame::write(&mut self.stream.stream, reply)).await {
                _ = self.stream.stream.finish();
                spin::touch();
                self.stream.settle();
            }
        })
    }
}
