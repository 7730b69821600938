//! Two real endpoints on the loopback interface, and peers that break the rules.

use super::frame::{self, FrameLimits};
use super::settings::{ANONYMOUS_MESSAGE_BYTES_MAX, CONNECT_LIMIT, REQUEST_BYTES_MAX, Side, Transports, endpoint_config};
use super::{socket, tls};
use crate::network::{CallError, ConnectError, Connection, Credentials, Endpoint, Identity, IncomingCall, Message, Peer, Trust};
use crate::pki::{Authority, generate_key, names};
use crate::real::{machine, run_role_here};
use crate::{Elapsed, Runtime};
use bytes::Bytes;
use cairn_common::limits::{MESSAGE_BODY_BYTES_MAX, MESSAGE_HEAD_BYTES_MAX};
use cairn_common::wire::master::Role;
use futures_util::future::join_all;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const TEST_LIMIT: Duration = Duration::from_secs(30);

fn run<F: Future<Output = ()>>(test: impl FnOnce(Runtime) -> F) {
    let result: Result<(), Elapsed> = run_role_here("network-test", |runtime| async move {
        let test = test(runtime.clone());
        runtime.timeout(TEST_LIMIT, test).await
    })
    .unwrap();
    result.expect("the test hangs");
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

struct Cluster(Authority);

impl Cluster {
    fn new(runtime: &Runtime) -> Self {
        Self(Authority::create(runtime.wall()).unwrap())
    }

    fn trust(&self) -> Trust {
        Trust::Authority(self.0.certificate_der().to_vec())
    }

    fn identity(&self, runtime: &Runtime, role: Role, name: &str) -> Identity {
        let key = generate_key().unwrap();
        let certificate = self.0.issue(role, name, &key.public_key_spki_der, runtime.wall()).unwrap();
        Identity { role, name: name.to_owned(), certificate, private_key: key.private_key_der }
    }

    fn credentials(&self, runtime: &Runtime, role: Role, name: &str) -> Credentials {
        Credentials { identity: Some(self.identity(runtime, role, name)), trust: self.trust() }
    }

    fn bind(&self, runtime: &Runtime, role: Role, name: &str) -> Arc<dyn Endpoint> {
        runtime.network.bind(local(), self.credentials(runtime, role, name)).unwrap()
    }

    /// A master that answers each request with the request, and a client connected to it.
    async fn with_echo(runtime: &Runtime) -> (Arc<dyn Endpoint>, Arc<dyn Endpoint>, Arc<dyn Connection>) {
        let cluster = Cluster::new(runtime);
        let master = cluster.bind(runtime, Role::Master, "m");
        serve_echo(runtime, master.clone());
        let client = cluster.bind(runtime, Role::Client, "c");
        let connection = client.connect(master.local_address(), Role::Master).await.unwrap();
        (master, client, connection)
    }
}

fn serve_echo(runtime: &Runtime, endpoint: Arc<dyn Endpoint>) {
    let tasks = runtime.clone();
    runtime.spawn("echo", async move {
        while let Some(connection) = endpoint.accept().await {
            let calls = tasks.clone();
            tasks.spawn("echo connection", async move {
                while let Some(IncomingCall { request, reply }) = connection.accept().await {
                    calls.spawn("echo call", reply.send(request));
                }
            });
        }
    });
}

fn message(head: usize, body: usize) -> Message {
    let bytes = |len: usize, seed: usize| (0..len).map(|i| (i.wrapping_mul(31) + i / 251 + seed) as u8).collect::<Bytes>();
    Message { head: bytes(head, 1), body: bytes(body, 2) }
}

/// A QUIC client that is not bound to our frames.
async fn raw_client(credentials: &Credentials, address: SocketAddr) -> (quinn::Endpoint, quinn::Connection) {
    let tls = tls::client_config(credentials.identity.as_ref(), &credentials.trust).unwrap();
    let socket = socket::bind(local()).unwrap();
    let endpoint = quinn::Endpoint::new(endpoint_config(None), None, socket, Arc::new(quinn::TokioRuntime)).unwrap();
    let mut config = quinn::ClientConfig::new(tls);
    config.transport_config(Transports::new(Side::Client).towards(address));
    let connection = endpoint.connect_with(config, address, &names::role_name(Role::Master)).unwrap().await.unwrap();
    (endpoint, connection)
}

#[test]
fn messages_of_every_size_go_both_ways() {
    run(|runtime| async move {
        let (_master, _client, connection) = Cluster::with_echo(&runtime).await;
        for body in [0, 1, 2047, 2048, 5000, 1 << 20, MESSAGE_BODY_BYTES_MAX] {
            for head in [0, 1, 300, 4096, 4097, 100_000] {
                let request = message(head, body);
                assert_eq!(connection.call(request.clone()).await.as_ref(), Ok(&request), "head {head}, body {body}");
            }
        }
        let largest_head = message(MESSAGE_HEAD_BYTES_MAX, 0);
        assert_eq!(connection.call(largest_head.clone()).await, Ok(largest_head));
    });
}

#[test]
fn calls_run_side_by_side() {
    run(|runtime| async move {
        let (_master, _client, connection) = Cluster::with_echo(&runtime).await;
        let calls = (0..100).map(|i| {
            let request = message(i, i * 700);
            let call = connection.call(request.clone());
            async move { assert_eq!(call.await, Ok(request), "{i}") }
        });
        join_all(calls).await;
    });
}

#[test]
fn a_small_call_overtakes_large_ones() {
    run(|runtime| async move {
        let (_master, _client, connection) = Cluster::with_echo(&runtime).await;
        let body = message(0, MESSAGE_BODY_BYTES_MAX).body;
        let large = async {
            let calls = (0..6).map(|_| connection.call(Message { head: Bytes::new(), body: body.clone() }));
            assert!(join_all(calls).await.iter().all(Result::is_ok));
            runtime.now()
        };
        let small = async {
            assert!(connection.call(message(10, 10)).await.is_ok());
            runtime.now()
        };
        let (large, small) = futures_util::join!(large, small);
        assert!(small < large, "the small call took {:?} longer", small.since(large));
    });
}

#[test]
fn both_sides_know_each_other_and_both_may_call() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "Laptop_7"));
        let near = client.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        assert_eq!(near.peer(), &Peer::Member { role: Role::Master, name: "m".to_owned() });
        assert_eq!(far.peer(), &Peer::Member { role: Role::Client, name: "Laptop_7".to_owned() });
        assert_eq!(far.remote_address(), client.local_address());
        let answer = async {
            let call = near.accept().await.unwrap();
            assert_eq!(&call.request.head[..], b"recall");
            call.reply.send(Message { head: Bytes::from_static(b"done"), body: Bytes::new() }).await;
        };
        let ask = far.call(Message { head: Bytes::from_static(b"recall"), body: Bytes::new() });
        let (reply, ()) = futures_util::join!(ask, answer);
        assert_eq!(&reply.unwrap().head[..], b"done");
    });
}

#[test]
fn a_dropped_call_leaves_the_connection_usable() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "c"));
        let near = client.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        // The caller gives up while the master thinks.
        assert!(runtime.timeout(Duration::from_millis(50), near.call(message(3, 1 << 20))).await.is_err());
        let abandoned = far.accept().await.unwrap();
        abandoned.reply.send(message(1, 1 << 20)).await;
        // The master gives up.
        let (result, ()) = futures_util::join!(near.call(message(1, 1)), async { drop(far.accept().await.unwrap()) });
        assert_eq!(result, Err(CallError::Dropped(master.local_address())));
        // And then it works.
        let (result, ()) = futures_util::join!(near.call(message(1, 2)), async {
            let call = far.accept().await.unwrap();
            call.reply.send(call.request).await;
        });
        assert_eq!(result, Ok(message(1, 2)));
    });
}

#[test]
fn unanswered_requests_wait_instead_of_filling_memory() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "c"));
        let near = client.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        let body = Bytes::from(vec![7; 1 << 20]);
        let count = REQUEST_BYTES_MAX / body.len() + 10;
        let calls = join_all((0..count).map(|_| near.call(Message { head: Bytes::new(), body: body.clone() })));
        let master = async {
            // All that fits is taken in and no more; then answers make room for the rest.
            let mut waiting = Vec::new();
            while let Ok(Some(call)) = runtime.timeout(Duration::from_millis(500), far.accept()).await {
                waiting.push(call);
            }
            assert_eq!(waiting.len(), count - 10);
            for call in waiting {
                call.reply.send(Message::default()).await;
            }
            for _ in 0..10 {
                far.accept().await.unwrap().reply.send(Message::default()).await;
            }
        };
        let (results, ()) = futures_util::join!(calls, master);
        assert!(results.iter().all(Result::is_ok));
    });
}

#[test]
fn requests_that_wait_end_with_their_connection() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "c"));
        let near = client.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        let body = Bytes::from(vec![7; MESSAGE_BODY_BYTES_MAX]);
        let calls = (0..REQUEST_BYTES_MAX / body.len() + 2).map(|_| near.call(Message { head: Bytes::new(), body: body.clone() }));
        assert!(runtime.timeout(Duration::from_secs(1), join_all(calls)).await.is_err());
        near.close("enough");
        let end = async {
            let mut held = Vec::new();
            while let Some(call) = far.accept().await {
                held.push(call);
            }
            held.len()
        };
        assert_eq!(runtime.timeout(Duration::from_secs(5), end).await, Ok(REQUEST_BYTES_MAX / body.len()));
    });
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    run(|runtime| async move {
        let (_master, _client, connection) = Cluster::with_echo(&runtime).await;
        for (head, body) in [(0, MESSAGE_BODY_BYTES_MAX + 1), (MESSAGE_HEAD_BYTES_MAX + 1, 0)] {
            assert!(matches!(connection.call(message(head, body)).await, Err(CallError::TooLarge(_))));
        }
        assert!(connection.call(message(1, 1)).await.is_ok());
    });
}

#[test]
fn a_peer_that_breaks_the_frame_loses_its_connection() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let master = cluster.bind(&runtime, Role::Master, "m");
        serve_echo(&runtime, master.clone());
        let credentials = cluster.credentials(&runtime, Role::Client, "c");
        let too_long = [0xff; 8];
        let longer_than_announced = [1, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        let shorter_than_announced = [9, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        for bytes in [&too_long[..], &longer_than_announced, &shorter_than_announced, &[1, 2, 3]] {
            let (_endpoint, connection) = raw_client(&credentials, master.local_address()).await;
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            send.finish().unwrap();
            let reason = runtime.timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
            assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
        }
        let good = cluster.bind(&runtime, Role::Client, "d").connect(master.local_address(), Role::Master).await.unwrap();
        assert!(good.call(message(1, 1)).await.is_ok());
    });
}

#[test]
fn a_stalled_request_holds_up_no_other() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let master = cluster.bind(&runtime, Role::Master, "m");
        serve_echo(&runtime, master.clone());
        let (_endpoint, connection) = raw_client(&cluster.credentials(&runtime, Role::Client, "c"), master.local_address()).await;
        let mut stalled = Vec::new();
        for _ in 0..20 {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.write_all(&[5, 0, 0, 0, 0, 0, 16, 0, 1]).await.unwrap();
            stalled.push((send, receive));
        }
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        frame::write(&mut send, message(10, 1000)).await.unwrap();
        send.finish().unwrap();
        assert_eq!(frame::read(&mut receive, FrameLimits::FULL).await.unwrap(), message(10, 1000));
    });
}

#[test]
fn strangers_are_refused_with_a_reason() {
    run(|runtime| async move {
        let (ours, theirs) = (Cluster::new(&runtime), Cluster::new(&runtime));
        let master = ours.bind(&runtime, Role::Master, "m");
        let connect = async |credentials: Credentials, expected: Role| {
            let endpoint = runtime.network.bind(local(), credentials).unwrap();
            endpoint.connect(master.local_address(), expected).await.map(|_| ()).unwrap_err()
        };
        // We do not believe the master.
        let error = connect(theirs.credentials(&runtime, Role::Client, "c"), Role::Master).await;
        assert!(matches!(&error, ConnectError::Untrusted { reason, .. } if reason.contains("another cluster")), "{error}");
        // It is not what we look for.
        let error = connect(ours.credentials(&runtime, Role::Client, "c"), Role::Chunkserver).await;
        assert!(matches!(&error, ConnectError::Untrusted { reason, .. } if reason.contains("another role")), "{error}");
        // The master does not believe us.
        let stranger = Credentials { identity: Some(theirs.identity(&runtime, Role::Client, "c")), trust: ours.trust() };
        let error = connect(stranger, Role::Master).await;
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("certificate")), "{error}");
    });
}

#[test]
fn a_client_certificate_does_not_make_a_server() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let client = cluster.credentials(&runtime, Role::Client, "c");
        // A modified program may listen all the same; the certificate gives it away.
        let server = tls::server_config(client.identity.as_ref().unwrap(), &client.trust).unwrap();
        let socket = socket::bind(local()).unwrap();
        let config = quinn::ServerConfig::with_crypto(server);
        let rogue = quinn::Endpoint::new(endpoint_config(None), Some(config), socket, Arc::new(quinn::TokioRuntime)).unwrap();
        let address = rogue.local_addr().unwrap();
        let other = cluster.bind(&runtime, Role::Client, "d");
        for expected in [Role::Master, Role::Client] {
            let (result, ()) = futures_util::join!(other.connect(address, expected), accept_again(&rogue));
            let error = result.map(|_| ()).unwrap_err();
            assert!(matches!(error, ConnectError::Untrusted { .. }), "{error}");
        }
    });
}

async fn accept_again(endpoint: &quinn::Endpoint) {
    _ = endpoint.accept().await.unwrap().await;
}

#[test]
fn a_machine_without_a_certificate_is_anonymous_and_must_be_brief() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let master = cluster.bind(&runtime, Role::Master, "m");
        let newcomer = runtime.network.bind(local(), Credentials { identity: None, trust: cluster.trust() }).unwrap();
        let near = newcomer.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        assert_eq!(far.peer(), &Peer::Anonymous);
        let (reply, ()) = futures_util::join!(near.call(message(300, 0)), async {
            let call = far.accept().await.unwrap();
            call.reply.send(message(2, 3)).await;
        });
        assert_eq!(reply, Ok(message(2, 3)));
        let long = near.call(message(ANONYMOUS_MESSAGE_BYTES_MAX + 1, 0)).await;
        assert_eq!(long, Err(CallError::ConnectionLost(master.local_address())));
        assert!(far.accept().await.is_none());
    });
}

#[test]
fn a_fingerprint_is_enough_to_know_the_cluster() {
    run(|runtime| async move {
        let (ours, theirs) = (Cluster::new(&runtime), Cluster::new(&runtime));
        let master = ours.bind(&runtime, Role::Master, "m");
        let join = async |fingerprint: [u8; 32], expected: Role| {
            let credentials = Credentials { identity: None, trust: Trust::Fingerprint(fingerprint) };
            runtime.network.bind(local(), credentials).unwrap().connect(master.local_address(), expected).await.map(|_| ())
        };
        assert_eq!(join(ours.0.fingerprint(), Role::Master).await, Ok(()));
        let error = join(theirs.0.fingerprint(), Role::Master).await.unwrap_err();
        assert!(matches!(&error, ConnectError::Untrusted { reason, .. } if reason.contains("another cluster")), "{error}");
        let error = join(ours.0.fingerprint(), Role::Chunkserver).await.unwrap_err();
        assert!(matches!(error, ConnectError::Untrusted { .. }), "{error}");
    });
}

#[test]
fn a_server_needs_the_whole_authority() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let identity = cluster.identity(&runtime, Role::Master, "m");
        let credentials = Credentials { identity: Some(identity), trust: Trust::Fingerprint(cluster.0.fingerprint()) };
        let error = runtime.network.bind(local(), credentials).map(|_| ()).unwrap_err();
        assert!(matches!(error, ConnectError::Local { .. }), "{error}");
    });
}

#[test]
fn garbage_on_the_port_does_no_harm() {
    run(|runtime| async move {
        let (master, _client, connection) = Cluster::with_echo(&runtime).await;
        let noise = socket::bind(local()).unwrap();
        for i in 0..2000_usize {
            let mut bytes = vec![0; i % 1400];
            runtime.entropy.fill(&mut bytes);
            if let (true, Some(first)) = (i % 3 == 0, bytes.first_mut()) {
                // The form of a first packet of a handshake.
                *first = 0xc0 | (*first & 0x0f);
            }
            noise.send_to(&bytes, master.local_address()).unwrap();
            if i % 100 == 0 {
                assert!(connection.call(message(1, i)).await.is_ok());
            }
        }
        assert!(connection.call(message(1, 1)).await.is_ok());
    });
}

#[test]
fn a_dead_port_is_given_up_in_time() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let client = cluster.bind(&runtime, Role::Client, "c");
        let dead = cluster.bind(&runtime, Role::Client, "not listening");
        let started = runtime.now();
        let error = client.connect(dead.local_address(), Role::Master).await.map(|_| ()).unwrap_err();
        assert_eq!(error, ConnectError::NoAnswer(dead.local_address()));
        assert!(runtime.now().since(started) < CONNECT_LIMIT + Duration::from_secs(1));
    });
}

#[test]
fn closing_is_told_to_the_peer() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "c"));
        let near = client.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        let pending = near.call(message(1, 1));
        let (result, ()) = futures_util::join!(pending, async {
            let _held = far.accept().await.unwrap();
            master.close();
            near.closed().await;
        });
        assert_eq!(result, Err(CallError::ConnectionLost(master.local_address())));
        assert!(near.is_closed() && far.is_closed());
        assert!(near.accept().await.is_none() && far.accept().await.is_none());
        assert!(master.accept().await.is_none());
        assert!(client.connect(master.local_address(), Role::Master).await.is_err());
        client.close();
        assert!(matches!(client.connect(master.local_address(), Role::Master).await.map(|_| ()), Err(ConnectError::Local { .. })));
    });
}

#[test]
fn a_connection_that_nobody_holds_closes() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "c"));
        let near = client.connect(master.local_address(), Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        // Calls that nobody took must not keep it.
        let (result, ()) = futures_util::join!(near.call(message(1, 1)), async {
            runtime.sleep(Duration::from_millis(50)).await;
            drop(far);
        });
        assert_eq!(result, Err(CallError::ConnectionLost(master.local_address())));
    });
}

#[test]
fn a_connection_outlives_the_endpoint_that_made_it() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let (master, client) = (cluster.bind(&runtime, Role::Master, "m"), cluster.bind(&runtime, Role::Client, "c"));
        let address = master.local_address();
        let near = client.connect(address, Role::Master).await.unwrap();
        let far = master.accept().await.unwrap();
        drop((client, master));
        let (result, ()) = futures_util::join!(near.call(message(1, 1)), async {
            let call = far.accept().await.unwrap();
            call.reply.send(call.request).await;
        });
        assert_eq!(result, Ok(message(1, 1)));
        let other = cluster.bind(&runtime, Role::Client, "d");
        assert!(other.connect(address, Role::Master).await.is_err(), "a dropped endpoint must let nobody in");
        drop((near, far));
        // Now the port is free again.
        while runtime.network.bind(address, cluster.credentials(&runtime, Role::Master, "m")).is_err() {
            runtime.sleep(Duration::from_millis(20)).await;
        }
    });
}

/// A server that was killed says nothing; the next one on its port, with its key, does.
#[test]
fn a_restarted_server_is_noticed_at_once() {
    run(|runtime| async move {
        let cluster = Cluster::new(&runtime);
        let credentials = cluster.credentials(&runtime, Role::Master, "m");
        let killed = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = machine(killed.handle().clone());
        let (kill, killing) = tokio::sync::oneshot::channel::<()>();
        let life = std::thread::Builder::new().spawn(move || {
            _ = killed.block_on(killing);
            killed.shutdown_background();
        });
        let master = first.network.bind(local(), credentials.clone()).unwrap();
        let address = master.local_address();
        serve_echo(&first, master.clone());
        let client = cluster.bind(&runtime, Role::Client, "c");
        let connection = client.connect(address, Role::Master).await.unwrap();
        assert!(connection.call(message(1, 1)).await.is_ok());

        drop(kill);
        life.unwrap().join().unwrap();
        drop((master, first));
        let _second = loop {
            runtime.sleep(Duration::from_millis(20)).await;
            if let Ok(endpoint) = runtime.network.bind(address, credentials.clone()) {
                break endpoint;
            }
        };
        let started = runtime.now();
        assert_eq!(connection.call(message(1, 1)).await, Err(CallError::ConnectionLost(address)));
        assert!(runtime.now().since(started) < Duration::from_secs(2), "{:?}", runtime.now().since(started));
    });
}
