//! One seed is one world.

use super::chatter::{PORT, bind, message, serve};
use crate::Runtime;
use crate::disk::OpenMode;
use crate::sim::{Crash, DiskFaults, NetworkFaults, World};
use cairn_common::wire::master::Role;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A messy little world: servers that crash and come back, clients that call, write and sleep, links that break.
fn messy_world(seed: u64) -> (u64, Vec<String>) {
    let world = World::new(seed);
    world.collect_trace();
    world.network().set_faults(NetworkFaults::lossy());
    let handle = world.clone();
    world.run_until(async move {
        let servers: Vec<_> = (0..3).map(|number| handle.node(&format!("server-{number}"))).collect();
        for server in &servers {
            serve(&server.runtime(), server.name());
            server.disk().set_faults(DiskFaults { write_error: 0.05, sync_error: 0.05, ..DiskFaults::default() });
        }
        for number in 0..3 {
            let runtime = handle.node(&format!("client-{number}")).runtime();
            let addresses = servers.iter().map(|server| server.address(PORT)).collect();
            runtime.clone().spawn("talk", talk(runtime, addresses));
        }
        for round in 0..6 {
            handle.sleep(Duration::from_millis(700)).await;
            let server = &servers[round % 3];
            server.crash(if round % 2 == 0 { Crash::Kill } else { Crash::PowerLoss });
            handle.network().partition(&servers[(round + 1) % 3], &handle.node("client-1"));
            handle.sleep(Duration::from_millis(300)).await;
            serve(&server.runtime(), server.name());
            handle.network().heal();
        }
        handle.sleep(Duration::from_secs(15)).await;
    });
    (world.trace_digest(), world.trace())
}

async fn talk(runtime: Runtime, servers: Vec<SocketAddr>) {
    let endpoint = bind(&runtime, 0, Role::Client, "talker");
    loop {
        let server = servers[(runtime.random_u64() % servers.len() as u64) as usize];
        let Ok(connection) = endpoint.connect(server, Role::Chunkserver).await else { continue };
        for _ in 0..runtime.random_u64() % 20 {
            let call = connection.call(message(&runtime.random_bytes::<24>()));
            let Ok(Ok(reply)) = runtime.timeout(Duration::from_millis(200), call).await else { break };
            let disk = runtime.disk.clone();
            let written = runtime.blocking(move || {
                let file = disk.open(Path::new("/log"), OpenMode::CreateOrOpen)?;
                file.write_at(&[&reply.head], file.len()?)?;
                file.sync_data()
            });
            if written.await.is_err() {
                runtime.sleep(Duration::from_millis(runtime.random_u64() % 50)).await;
            }
        }
    }
}

#[test]
fn the_same_seed_twice_is_the_same_world() {
    let (first, first_text) = messy_world(11);
    let (second, second_text) = messy_world(11);
    for (number, (a, b)) in first_text.iter().zip(&second_text).enumerate() {
        assert_eq!(a, b, "event {number} differs");
    }
    assert_eq!(first, second);
    assert!(first_text.len() > 5_000, "only {} events: the world is not messy", first_text.len());
    for expected in ["Retransmitted", "Held", "LifeEnded", "ConnectionEnded", "DiskFault", "Lost"] {
        assert!(first_text.iter().any(|line| line.contains(expected)), "no {expected} in the trace");
    }
}

#[test]
fn another_seed_is_another_world() {
    assert_ne!(messy_world(11).0, messy_world(12).0);
}
