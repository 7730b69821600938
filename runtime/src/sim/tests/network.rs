use super::chatter::{PORT, bind, message, serve};
use crate::Runtime;
use crate::clock::Moment;
use crate::network::{CallError, ConnectError, Connection, Message, Peer};
use crate::sim::{Crash, NetworkFaults, Node, World, block_on_world};
use cairn_common::limits::MESSAGE_BODY_BYTES_MAX;
use cairn_common::wire::master::Role;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// A server and a client that is connected to it.
struct Pair {
    server: Node,
    client: Node,
    runtime: crate::Runtime,
    endpoint: Arc<dyn crate::network::Endpoint>,
    connection: Arc<dyn Connection>,
}

impl Pair {
    async fn new(world: &World) -> Self {
        let (server, client) = (world.node("server"), world.node("client"));
        serve(&server.runtime(), "s1");
        let runtime = client.runtime();
        let endpoint = bind(&runtime, 0, Role::Client, "c1");
        let connection = endpoint.connect(server.address(PORT), Role::Chunkserver).await.expect("a healthy network");
        Self { server, client, runtime, endpoint, connection }
    }

    async fn call(&self) -> Result<Message, CallError> {
        self.connection.call(message(b"ab")).await
    }

    fn lost(&self) -> CallError {
        CallError::ConnectionLost(self.server.address(PORT))
    }

    fn elapsed(&self, since: Moment) -> Duration {
        self.runtime.now().since(since)
    }
}

/// Both ends of a connection.
struct Ends {
    server: Node,
    client: Node,
    server_runtime: Runtime,
    client_runtime: Runtime,
    listener: Arc<dyn crate::network::Endpoint>,
    endpoint: Arc<dyn crate::network::Endpoint>,
    ours: Arc<dyn Connection>,
    theirs: Arc<dyn Connection>,
}

impl Ends {
    async fn new(world: &World) -> Self {
        let (server, client) = (world.node("server"), world.node("client"));
        let (server_runtime, client_runtime) = (server.runtime(), client.runtime());
        let listener = bind(&server_runtime, PORT, Role::Master, "m");
        let endpoint = bind(&client_runtime, 0, Role::Client, "c");
        let ours = endpoint.connect(server.address(PORT), Role::Master).await.expect("a healthy network");
        let theirs = listener.accept().await.expect("somebody connects");
        Self { server, client, server_runtime, client_runtime, listener, endpoint, ours, theirs }
    }
}

#[test]
fn calls_are_answered_and_peers_are_known() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        assert_eq!(pair.connection.peer(), &Peer::Member { role: Role::Chunkserver, name: "s1".to_owned() });
        assert_eq!(pair.call().await.unwrap(), message(b"abab"));
        let begin = pair.runtime.now();
        let replies = join_all((0..100).map(|_| pair.call())).await;
        assert!(replies.iter().all(Result::is_ok));
        assert!(pair.elapsed(begin) < Duration::from_millis(2), "calls must run side by side");
    });
}

#[test]
fn nobody_there_gives_no_answer_after_a_few_seconds() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        let address = world.node("empty").address(PORT);
        let begin = pair.runtime.now();
        let refused = pair.endpoint.connect(address, Role::Chunkserver).await.err();
        assert_eq!(refused, Some(ConnectError::NoAnswer(address)));
        assert_eq!(pair.elapsed(begin), Duration::from_secs(3));
    });
}

#[test]
fn another_role_is_not_trusted() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        let refused = pair.endpoint.connect(pair.server.address(PORT), Role::Master).await.err();
        assert!(matches!(refused, Some(ConnectError::Untrusted { expected: Role::Master, .. })), "{refused:?}");
    });
}

#[test]
fn a_port_has_one_owner_until_it_is_let_go() {
    block_on_world(1, |world| async move {
        let runtime = world.node("a").runtime();
        let address = "0.0.0.0:7".parse().unwrap();
        let credentials = super::chatter::credentials(Role::Client, "c");
        let first = runtime.network.bind(address, credentials.clone()).unwrap();
        assert!(matches!(runtime.network.bind(address, credentials.clone()), Err(ConnectError::Local { .. })));
        first.close();
        assert!(first.accept().await.is_none());
        assert!(runtime.network.bind(address, credentials).is_ok());
    });
}

#[test]
fn a_short_partition_only_delays() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        world.network().partition(&pair.server, &pair.client);
        let begin = pair.runtime.now();
        let network = world.network();
        let healer = pair.runtime.clone();
        pair.runtime.spawn("heal", async move {
            healer.sleep(Duration::from_secs(5)).await;
            network.heal();
        });
        assert_eq!(pair.call().await.unwrap(), message(b"abab"));
        assert!(pair.elapsed(begin) >= Duration::from_secs(5));
        assert!(!pair.connection.is_closed());
        world.sleep(Duration::from_secs(20)).await;
        assert!(pair.call().await.is_ok(), "a healed connection must stay");
    });
}

#[test]
fn a_long_partition_kills_the_connection_on_both_sides() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        world.network().partition(&pair.server, &pair.client);
        let begin = pair.runtime.now();
        assert_eq!(pair.call().await, Err(pair.lost()));
        let elapsed = pair.elapsed(begin);
        assert!(elapsed >= Duration::from_secs(10) && elapsed <= Duration::from_secs(11), "{elapsed:?}");
        assert!(pair.connection.is_closed());
        pair.connection.closed().await;
        assert_eq!(pair.call().await, Err(pair.lost()));
        world.network().heal();
        assert!(pair.endpoint.connect(pair.server.address(PORT), Role::Chunkserver).await.is_ok());
    });
}

#[test]
fn a_one_way_partition_ends_the_deaf_side_first() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        world.network().partition_one_way(&pair.client, &pair.server);
        let begin = pair.runtime.now();
        assert_eq!(pair.call().await, Err(pair.lost()));
        // The server hears nothing for ten seconds; only then does the client hear nothing.
        let elapsed = pair.elapsed(begin);
        assert!(elapsed >= Duration::from_secs(20) && elapsed <= Duration::from_secs(22), "{elapsed:?}");
    });
}

#[test]
fn calls_to_a_crashed_node_wait_for_the_silence() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        pair.server.crash(Crash::Kill);
        let begin = pair.runtime.now();
        assert_eq!(pair.call().await, Err(pair.lost()));
        let elapsed = pair.elapsed(begin);
        assert!(elapsed >= Duration::from_secs(10) && elapsed <= Duration::from_secs(11), "{elapsed:?}");
    });
}

#[test]
fn the_next_life_of_a_server_refuses_the_connections_of_the_last() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        let idle = pair.endpoint.connect(pair.server.address(PORT), Role::Chunkserver).await.unwrap();
        pair.server.crash(Crash::Kill);
        serve(&pair.server.runtime(), "s1");
        let begin = pair.runtime.now();
        assert_eq!(pair.call().await, Err(pair.lost()));
        assert!(pair.elapsed(begin) < Duration::from_millis(1), "{:?}", pair.elapsed(begin));
        idle.closed().await;
        let elapsed = pair.elapsed(begin);
        assert!(elapsed > Duration::from_millis(1) && elapsed < Duration::from_millis(2_001), "{elapsed:?}");
        let again = pair.endpoint.connect(pair.server.address(PORT), Role::Chunkserver).await.unwrap();
        assert!(again.call(message(b"x")).await.is_ok());
    });
}

#[test]
fn a_refusal_must_get_through() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        pair.server.crash(Crash::Kill);
        serve(&pair.server.runtime(), "s1");
        world.network().partition_one_way(&pair.server, &pair.client);
        let network = world.network();
        let healer = pair.runtime.clone();
        pair.runtime.spawn("heal", async move {
            healer.sleep(Duration::from_secs(5)).await;
            network.heal();
        });
        let begin = pair.runtime.now();
        assert_eq!(pair.call().await, Err(pair.lost()));
        let elapsed = pair.elapsed(begin);
        assert!(elapsed >= Duration::from_secs(5) && elapsed < Duration::from_secs(6), "{elapsed:?}");
    });
}

#[test]
fn a_side_that_was_given_up_is_refused_once_the_link_is_back() {
    block_on_world(1, |world| async move {
        let ends = Ends::new(&world).await;
        world.network().partition_one_way(&ends.client, &ends.server);
        ends.theirs.closed().await;
        assert!(!ends.ours.is_closed());
        world.network().heal();
        let begin = world.now();
        ends.ours.closed().await;
        assert!(world.now().since(begin) <= Duration::from_millis(2_001), "{:?}", world.now().since(begin));
    });
}

#[test]
fn closing_tells_the_peer_at_once() {
    block_on_world(1, |world| async move {
        let Ends { server, client_runtime: _alive, listener, endpoint, ours, theirs, .. } = Ends::new(&world).await;
        assert!(theirs.peer().has_role(Role::Client));

        let begin = world.now();
        drop(theirs);
        ours.closed().await;
        assert!(world.now().since(begin) < Duration::from_millis(1));
        assert!(ours.accept().await.is_none());

        let ours = endpoint.connect(server.address(PORT), Role::Master).await.unwrap();
        let theirs = listener.accept().await.unwrap();
        endpoint.close();
        assert!(ours.is_closed());
        theirs.closed().await;
    });
}

#[test]
fn an_unanswered_request_is_told_and_the_connection_lives() {
    block_on_world(1, |world| async move {
        let ends = Ends::new(&world).await;
        let (server_runtime, client_runtime) = (ends.server_runtime.clone(), ends.client_runtime.clone());
        let (ours, theirs) = (Arc::clone(&ends.ours), Arc::clone(&ends.theirs));
        let taker = theirs.clone();
        server_runtime.spawn("drop one", async move { drop(taker.accept().await) });
        assert_eq!(ours.call(message(b"x")).await, Err(CallError::Dropped(ends.server.address(PORT))));
        // The other direction works just as well.
        let asker = ours.clone();
        client_runtime.spawn("answer one", async move {
            let call = asker.accept().await.unwrap();
            call.reply.send(message(b"y")).await;
        });
        assert_eq!(theirs.call(message(b"x")).await, Ok(message(b"y")));
    });
}

#[test]
fn a_message_that_is_too_large_is_refused() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        let body = vec![0; MESSAGE_BODY_BYTES_MAX + 1].into();
        let result = pair.connection.call(Message { head: Default::default(), body }).await;
        assert!(matches!(result, Err(CallError::TooLarge(_))), "{result:?}");
    });
}

#[test]
fn loss_delays_calls_but_never_loses_them() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(&world).await;
        world.network().set_faults(NetworkFaults { loss: 0.3, reorder: 0.3, ..NetworkFaults::default() });
        let begin = pair.runtime.now();
        let replies = join_all((0..500).map(|_| pair.call())).await;
        assert!(replies.iter().all(Result::is_ok));
        assert!(pair.elapsed(begin) > Duration::from_millis(30));
    });
}

#[test]
fn a_peer_that_takes_nothing_holds_up_the_caller() {
    block_on_world(1, |world| async move {
        let ends = Ends::new(&world).await;
        let (server_runtime, client_runtime) = (ends.server_runtime.clone(), ends.client_runtime.clone());
        let (ours, theirs) = (Arc::clone(&ends.ours), Arc::clone(&ends.theirs));
        // Callers that give up do not make room: the requests are still with the peer.
        let impatient = (0..3000).map(|_| client_runtime.timeout(Duration::from_millis(10), ours.call(message(b"x"))));
        assert!(join_all(impatient).await.iter().all(Result::is_err));
        let mut arrived = 0;
        let mut calls = Vec::new();
        while let Ok(Some(call)) = server_runtime.timeout(Duration::from_millis(10), theirs.accept()).await {
            arrived += 1;
            calls.push(call);
        }
        assert_eq!(arrived, 1024);
        drop(calls);
        let asker = theirs.clone();
        server_runtime.spawn("answer one", async move {
            let call = asker.accept().await.unwrap();
            call.reply.send(message(b"y")).await;
        });
        assert_eq!(ours.call(message(b"x")).await, Ok(message(b"y")));
    });
}

#[test]
fn callers_that_wait_for_room_learn_that_the_connection_is_lost() {
    block_on_world(1, |world| async move {
        let ends = Ends::new(&world).await;
        let (server_runtime, client_runtime) = (ends.server_runtime.clone(), ends.client_runtime.clone());
        let (ours, theirs) = (Arc::clone(&ends.ours), Arc::clone(&ends.theirs));
        server_runtime.spawn("take and never answer", async move {
            let mut taken = Vec::new();
            while let Some(call) = theirs.accept().await {
                taken.push(call);
            }
            std::future::pending::<()>().await;
        });
        let network = world.network();
        client_runtime.spawn("cut", async move {
            world.sleep(Duration::from_millis(10)).await;
            network.partition(&ends.server, &ends.client);
        });
        let results = join_all((0..1100).map(|_| ours.call(message(b"x")))).await;
        assert!(results.iter().all(|result| matches!(result, Err(CallError::ConnectionLost(_)))));
    });
}
