//! One side of a connection, as the code of a role holds it.

use super::Net;
use super::link::{Packet, Transit};
use super::state::{CallId, ConnectionId, WaitingCall};
use crate::network::{CallError, Connection, IncomingCall, Message, Peer, ReplySlot};
use crate::sim::node::NodeId;
use crate::task::BoxFuture;
use cairn_common::limits::{MESSAGE_BODY_BYTES_MAX, MESSAGE_HEAD_BYTES_MAX};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// One side of a connection. Like a real one it closes when the last handle, call and unanswered request of it are dropped.
pub(super) struct Side {
    pub(super) net: Arc<Net>,
    pub(super) connection: ConnectionId,
    pub(super) index: usize,
    pub(super) node: NodeId,
    pub(super) remote_node: NodeId,
    pub(super) peer: Peer,
    pub(super) remote_address: SocketAddr,
    /// Permits for calls; closed when this side ends.
    pub(super) credit: Arc<Semaphore>,
}

impl Side {
    fn lost(&self) -> CallError {
        CallError::ConnectionLost(self.remote_address)
    }

    fn is_closed(&self) -> bool {
        self.net.state.lock().open_side(self.connection, self.index).is_none()
    }

    /// Sends a packet to the other side, unless this one has ended.
    fn send(&self, packet: Packet) {
        let mut state = self.net.state.lock();
        if state.open_side(self.connection, self.index).is_some() {
            self.net.send(&mut state, Transit { from: self.node, to: self.remote_node, packet });
        }
    }

    fn start_call(
        &self,
        message: Message,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Message, CallError>>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.net.state.lock();
        let call = state.fresh_id();
        let side = state.open_side(self.connection, self.index).ok_or_else(|| self.lost())?;
        side.pending.insert(call, sender);
        let packet = Packet::Request { connection: self.connection, side: 1 - self.index, call, message, permit };
        self.net.send(&mut state, Transit { from: self.node, to: self.remote_node, packet });
        Ok(receiver)
    }

    fn close(&self, reason: &str) {
        let mut state = self.net.state.lock();
        if state.open_side(self.connection, self.index).is_some() {
            let packet = Packet::Close { connection: self.connection, side: 1 - self.index };
            self.net.send(&mut state, Transit { from: self.node, to: self.remote_node, packet });
            self.net.end_side(&mut state, self.connection, self.index, reason);
        }
    }

    /// The next request; `None` once this side has ended.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Option<WaitingCall>> {
        let mut state = self.net.state.lock();
        let Some(side) = state.open_side(self.connection, self.index) else { return Poll::Ready(None) };
        match side.incoming.pop_front() {
            Some(call) => Poll::Ready(Some(call)),
            None => {
                side.wakers.add(context.waker());
                Poll::Pending
            }
        }
    }

    fn poll_closed(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.net.state.lock();
        match state.open_side(self.connection, self.index) {
            None => Poll::Ready(()),
            Some(side) => {
                side.wakers.add(context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.close("dropped");
    }
}

/// The handle that a role gets.
pub(super) struct SimConnection(pub(super) Arc<Side>);

impl Connection for SimConnection {
    fn peer(&self) -> &Peer {
        &self.0.peer
    }

    fn remote_address(&self) -> SocketAddr {
        self.0.remote_address
    }

    fn call(&self, request: Message) -> BoxFuture<'static, Result<Message, CallError>> {
        let side = self.0.clone();
        Box::pin(async move {
            check_size(&request)?;
            let permit = side.credit.clone().acquire_owned().await.map_err(|_| side.lost())?;
            let reply = side.start_call(request, permit)?;
            reply.await.unwrap_or_else(|_| Err(side.lost()))
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<IncomingCall>> {
        let side = &self.0;
        Box::pin(async move {
            let WaitingCall { call, request, permit } = poll_fn(|context| side.poll_accept(context)).await?;
            let slot = SimReplySlot { side: side.clone(), call, is_answered: false, _permit: permit };
            Some(IncomingCall { request, reply: Box::new(slot) })
        })
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        let side = self.0.clone();
        Box::pin(async move { poll_fn(|context| side.poll_closed(context)).await })
    }

    fn close(&self, reason: &str) {
        self.0.close(reason);
    }
}

/// Where the reply to a call goes.
struct SimReplySlot {
    side: Arc<Side>,
    call: CallId,
    is_answered: bool,
    /// Lets the caller make another call once this one is answered.
    _permit: OwnedSemaphorePermit,
}

impl SimReplySlot {
    fn answer(&mut self, result: Result<Message, CallError>) {
        self.is_answered = true;
        let Side { connection, index, .. } = *self.side;
        self.side.send(Packet::Reply { connection, side: 1 - index, call: self.call, result });
    }

    /// How the caller knows this side: that is how its error names it.
    fn dropped(&self) -> CallError {
        let mut state = self.side.net.state.lock();
        let caller = state.open_side(self.side.connection, 1 - self.side.index);
        CallError::Dropped(caller.map_or(self.side.remote_address, |caller| caller.remote_address))
    }
}

impl ReplySlot for SimReplySlot {
    fn send(mut self: Box<Self>, reply: Message) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let result = check_size(&reply).map(|()| reply).map_err(|_| self.dropped());
            self.answer(result);
        })
    }
}

impl Drop for SimReplySlot {
    fn drop(&mut self) {
        if !self.is_answered {
            let result = Err(self.dropped());
            self.answer(result);
        }
    }
}

fn check_size(message: &Message) -> Result<(), CallError> {
    let (head, body) = (message.head.len(), message.body.len());
    if head > MESSAGE_HEAD_BYTES_MAX || body > MESSAGE_BODY_BYTES_MAX {
        return Err(CallError::TooLarge(format!("its head has {head} bytes and its body {body}")));
    }
    Ok(())
}
