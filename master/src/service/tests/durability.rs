//! What survives what, and the end of a master.

use super::support::{Asker, creation, settings, start, start_with};
use crate::check::check;
use crate::dump::{DumpError, dump, load};
use crate::service::Namespace;
use crate::store::{StoreSettings, read_offline};
use bytes::Bytes;
use cairn_common::codec::{decode, encode};
use cairn_common::error::FsError;
use cairn_common::ids::Sequence;
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Role};
use cairn_runtime::network::Message;
use cairn_runtime::sim::{Crash, DiskFaults, Node, block_on_world};
use std::path::Path;
use std::time::Duration;

fn problems(node: &Node) -> Vec<String> {
    let runtime = node.runtime();
    read_offline::<Namespace, _>(&runtime, &StoreSettings::new("/master"), |reader, _| check(reader)).unwrap().unwrap()
}

#[test]
fn durable_answers_survive_a_power_loss_at_once_and_others_soon() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        client.create("soon", false).await;
        world.sleep(Duration::from_millis(15)).await;
        client.create("with the next", false).await;
        client.mutate(true, creation("at once", false)).await.unwrap();
        client.create("unsynced", false).await;
        node.crash(Crash::PowerLoss);

        let master = start(&node).await;
        let client = client.come_back(master.address, &[]).await;
        for name in ["soon", "with the next", "at once"] {
            assert!(client.lookup(name).await.is_ok(), "{name}");
        }
        client.create("again", false).await;
        client.ask(MasterRequest::SyncLog).await.unwrap();
        node.crash(Crash::PowerLoss);
        let master = start(&node).await;
        assert!(client.come_back(master.address, &[]).await.lookup("again").await.is_ok());
        node.crash(Crash::Kill);
        assert_eq!(problems(&node), Vec::<String>::new());
    });
}

#[test]
fn a_master_whose_disk_fails_stops_and_acknowledges_nothing() {
    block_on_world(2, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        client.create("before", false).await;
        client.ask(MasterRequest::SyncLog).await.unwrap();
        node.disk().set_faults(DiskFaults { sync_error: 1.0, ..DiskFaults::default() });
        let request = MasterRequest::Mutate {
            session: client.session,
            sequence: client.next_sequence(),
            acknowledged: Sequence(0),
            durable: true,
            mutation: creation("lost", false),
        };
        // It may be told why, or find the connection closed, but nothing else.
        if let Ok(reply) = client.connection.call(Message { head: encode(&request).into(), body: Bytes::new() }).await {
            let answer: MasterAnswer = decode("an answer", &reply.head).unwrap();
            assert!(matches!(answer, Err(MasterError::Unavailable(_))), "{answer:?}");
        }
        world.sleep(Duration::from_millis(10)).await;
        let end = master.end.lock().take();
        assert!(matches!(&end, Some(Err(reason)) if reason.contains("had to stop")), "{end:?}");
        node.disk().set_faults(DiskFaults::default());
        node.crash(Crash::PowerLoss);
        let master = start(&node).await;
        assert!(client.come_back(master.address, &[]).await.lookup("before").await.is_ok());
    });
}

#[test]
fn a_dump_loads_into_an_empty_directory_and_is_the_same_cluster() {
    block_on_world(3, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        for number in 0..300 {
            client.create(&format!("file {number}"), false).await;
        }
        client.unlink("file 7").await;
        let Ok(MasterReply::Status(before)) = client.ask(MasterRequest::Status).await else { panic!("no status") };
        let refusal = dump(&client.runtime, Path::new("/nothing"), &mut Vec::new());
        assert!(matches!(refusal, Err(DumpError::NoMaster(_))));
        master.stop(&world).await;

        let runtime = node.runtime();
        let mut text = Vec::new();
        let summary = dump(&runtime, Path::new("/master"), &mut text).unwrap();
        assert!(summary.rows > 600, "{summary}");
        assert!(matches!(load(&runtime, Path::new("/master"), &mut &text[..]), Err(DumpError::MasterExists(_))));

        let copy = world.node("copy");
        let runtime = copy.runtime();
        for damage in [text.len() / 2, text.len() - 20, 10] {
            let mut damaged = text.clone();
            damaged[damage] ^= 1;
            assert!(load(&runtime, Path::new("/master"), &mut &damaged[..]).is_err(), "byte {damage}");
        }
        assert!(load(&runtime, Path::new("/master"), &mut &text[..text.len() / 3]).is_err(), "cut off");
        assert_eq!(load(&runtime, Path::new("/master"), &mut &text[..]).unwrap(), summary);
        let mut again = Vec::new();
        dump(&runtime, Path::new("/master"), &mut again).unwrap();
        assert!(again == text, "the dump of the copy is another");
        copy.crash(Crash::PowerLoss);

        let master = start(&copy).await;
        let client = client.come_back(master.address, &[]).await;
        assert!(client.lookup("file 299").await.is_ok());
        assert_eq!(client.lookup("file 7").await, Err(FsError::NotFound));
        let Ok(MasterReply::Status(after)) = client.ask(MasterRequest::Status).await else { panic!("no status") };
        assert_eq!((after.cluster, after.inodes, after.epoch), (before.cluster, before.inodes, before.epoch));
    });
}

#[test]
fn an_orderly_end_leaves_nothing_to_replay() {
    block_on_world(4, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        client.create("a", false).await;
        master.stop(&world).await;
        let runtime = node.runtime();
        let tables = Path::new("/master/tables.redb");
        let database = crate::store::Database::open(&*runtime.disk, tables, 1 << 20).unwrap();
        let replayed = database.position().unwrap();
        drop(database);
        let (position, problems) =
            read_offline::<Namespace, _>(&runtime, &StoreSettings::new("/master"), |reader, position| (position, check(reader).unwrap()))
                .unwrap();
        assert_eq!((replayed, problems), (position, Vec::new()));
    });
}

#[test]
fn one_seed_is_one_world() {
    let run = |seed| {
        block_on_world(seed, |world| async move {
            let node = world.node("master");
            let master = start_with(&node, settings(&node)).await;
            let client = Asker::client(&world, "client", master.address).await;
            for number in 0..50 {
                client.create(&format!("file {number}"), number % 3 == 0).await;
            }
            world.sleep(Duration::from_secs(12)).await;
            node.crash(Crash::PowerLoss);
            let master = start(&node).await;
            let server = Asker::connect(&world.node("server"), Some(Role::Chunkserver), master.address).await;
            server.ask(MasterRequest::Usage).await.unwrap();
            world.trace_digest()
        })
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
