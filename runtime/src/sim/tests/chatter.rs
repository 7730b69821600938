//! A small service for the tests: a server that answers every request with its own bytes, doubled.

use crate::Runtime;
use crate::network::{Connection, Credentials, Endpoint, Identity, Message, Trust};
use bytes::Bytes;
use cairn_common::wire::master::Role;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub(super) const PORT: u16 = 4000;

pub(super) fn credentials(role: Role, name: &str) -> Credentials {
    let identity = Identity { role, name: name.to_owned(), certificate: Vec::new(), private_key: Vec::new() };
    Credentials { identity: Some(identity), trust: Trust::Authority(Vec::new()) }
}

pub(super) fn bind(runtime: &Runtime, port: u16, role: Role, name: &str) -> Arc<dyn Endpoint> {
    runtime.network.bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), credentials(role, name)).expect("the port is free")
}

/// Serves on `PORT` as a chunkserver until the life ends.
pub(super) fn serve(runtime: &Runtime, name: &str) {
    let endpoint = bind(runtime, PORT, Role::Chunkserver, name);
    let spawner = runtime.clone();
    runtime.spawn("listen", async move {
        while let Some(connection) = endpoint.accept().await {
            spawner.spawn("serve", answer_all(connection));
        }
    });
}

async fn answer_all(connection: Arc<dyn Connection>) {
    while let Some(call) = connection.accept().await {
        let reply = message(&[call.request.head.as_ref(), call.request.head.as_ref()].concat());
        call.reply.send(reply).await;
    }
}

pub(super) fn message(head: &[u8]) -> Message {
    Message { head: Bytes::copy_from_slice(head), body: Bytes::new() }
}
