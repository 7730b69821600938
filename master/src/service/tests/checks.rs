//! `cairn fsck`, the master's part.

use super::support::{Asker, start};
use crate::keys::{self, Record};
use crate::state::record::{Counters, Dentry, Inode, fetch};
use crate::store::tables::{Changes, Table};
use crate::store::{Database, Position};
use cairn_common::ids::Ino;
use cairn_common::wire::check::{CheckEnd, CheckReport, CheckWork, Fate, Finding};
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Role};
use cairn_runtime::sim::{Crash, Node, World, block_on_world};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

async fn begin(asker: &Asker, repair: bool) -> Result<u64, MasterError> {
    match asker.ask(MasterRequest::BeginCheck { work: CheckWork::Tables { repair } }).await? {
        MasterReply::CheckBegun { check } => Ok(check),
        other => panic!("{other:?}"),
    }
}

async fn follow(asker: &Asker, check: u64, from: u64) -> MasterAnswer {
    asker.ask(MasterRequest::FollowCheck { check, from }).await
}

/// Follows a check to its end: the last report, and all findings.
async fn finish(world: &World, asker: &Asker, check: u64) -> (CheckReport, Vec<Finding>) {
    let mut findings = Vec::new();
    loop {
        let Ok(MasterReply::Check(mut report)) = follow(asker, check, findings.len() as u64).await else { panic!("no report") };
        findings.append(&mut report.findings);
        if report.end.is_some() {
            return (report, findings);
        }
        world.sleep(Duration::from_millis(20)).await;
    }
}

async fn check(world: &World, asker: &Asker, repair: bool) -> Vec<Finding> {
    let check = begin(asker, repair).await.unwrap();
    let (report, findings) = finish(world, asker, check).await;
    assert_eq!((report.end, report.found), (Some(CheckEnd::Complete), findings.len() as u64));
    findings
}

/// Changes rows of a master that does not run.
fn plant(node: &Node, change: impl FnOnce(&Database, &mut Changes)) {
    let runtime = node.runtime();
    let database = Database::open(&*runtime.disk, Path::new("/master/tables.redb"), 1 << 20).unwrap();
    let (position, mut changes): (Position, _) = (database.position().unwrap(), Changes::default());
    change(&database, &mut changes);
    database.write(&changes, position).unwrap();
}

fn put(changes: &mut Changes, table: Table, key: &[u8], record: &impl Record) {
    changes.set(table, key.into(), Some(Arc::from(record.encode())));
}

#[test]
fn tables_are_clean_while_clients_are_at_work() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let (client, operator) =
            (Asker::client(&world, "client", master.address).await, Asker::client(&world, "operator", master.address).await);
        for round in 0..5 {
            let check = begin(&operator, round % 2 == 0).await.unwrap();
            assert!(matches!(begin(&operator, false).await, Err(MasterError::Unwise(_))), "one at a time");
            for number in 0..30 {
                client.create(&format!("{round}.{number}"), number % 3 == 0).await;
                if number % 3 == 1 {
                    client.unlink(&format!("{round}.{}", number - 1)).await;
                }
            }
            let (report, findings) = finish(&world, &operator, check).await;
            assert_eq!((findings, &report.end), (Vec::new(), &Some(CheckEnd::Complete)));
            assert!(report.rows_done > 0 && report.rows >= report.rows_done, "{report:?}");
        }
    });
}

#[test]
fn damage_is_found_online_and_mended_for_good() {
    block_on_world(2, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        let (twice, lost) = (client.create("twice", false).await.ino, client.create("lost", false).await.ino);
        master.stop(&world).await;
        plant(&node, |database, changes| {
            let view = database.view().unwrap();
            let mut inode: Inode = fetch(&view, Table::Inodes, &keys::inode(twice)).unwrap().unwrap();
            inode.nlink = 4;
            put(changes, Table::Inodes, &keys::inode(twice), &inode);
            let dentry: Dentry = fetch(&view, Table::Dentries, &keys::dentry(Ino::ROOT, b"lost")).unwrap().unwrap();
            changes.set(Table::Dentries, (&*keys::dentry(Ino::ROOT, b"lost")).into(), None);
            changes.set(Table::DirectoryIndex, (&*keys::directory_index(Ino::ROOT, dentry.cookie)).into(), None);
            let counters: Counters = fetch(&view, Table::Meta, &keys::counters()).unwrap().unwrap();
            put(changes, Table::Meta, &keys::counters(), &Counters { inodes: 77, ..counters });
        });

        let master = start(&node).await;
        let client = client.come_back(master.address, &[]).await;
        let found = check(&world, &client, false).await;
        let mut classes: Vec<&str> = found.iter().map(|finding| finding.class.as_str()).collect();
        classes.sort_unstable();
        assert_eq!(classes, ["entry-count", "inode-count", "link-count", "unreachable"]);
        assert!(found.iter().all(|finding| finding.fate == Fate::Found));
        let links = found.iter().find(|finding| finding.class == "link-count").unwrap();
        assert_eq!((links.path.as_deref(), links.inode), (Some(b"/twice".as_slice()), Some(twice)));

        // A client goes on between the check and the repair, and meanwhile.
        client.create("other", false).await;
        let mended = check(&world, &client, true).await;
        assert!(mended.len() == 4 && mended.iter().all(|finding| finding.fate == Fate::Mended), "{mended:?}");
        node.crash(Crash::PowerLoss);
        let master = start(&node).await;
        let client = client.come_back(master.address, &[]).await;
        assert_eq!(check(&world, &client, false).await, Vec::new());
        assert_eq!(client.attributes(twice).await.unwrap().nlink, 1);
        assert_eq!(client.attributes(lost).await.unwrap().nlink, 1);
        assert!(client.lookup("lost+found").await.is_ok());
    });
}

#[test]
fn checks_are_for_operators_and_known_until_the_next() {
    block_on_world(3, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        let server = Asker::connect(&world.node("server"), Some(Role::Chunkserver), master.address).await;
        assert!(matches!(begin(&server, true).await, Err(MasterError::Denied { .. })));
        let too_many = CheckWork::Users { chunks: vec![cairn_common::ids::ChunkId([1; 32]); 2000] };
        assert!(matches!(client.ask(MasterRequest::BeginCheck { work: too_many }).await, Err(MasterError::Malformed(_))));
        assert!(matches!(follow(&client, 7, 0).await, Err(MasterError::Malformed(_))), "there is none");
        let first = begin(&client, false).await.unwrap();
        assert!(begin(&client, false).await.is_err());
        world.sleep(Duration::from_secs(16)).await;
        let second = begin(&client, false).await.unwrap();
        assert!(matches!(follow(&client, first, 0).await, Err(MasterError::Malformed(_))), "another took its place");
        assert_eq!(finish(&world, &client, second).await.0.end, Some(CheckEnd::Complete));
        node.crash(Crash::Kill);
        let master = start(&node).await;
        let client = client.come_back(master.address, &[]).await;
        assert!(matches!(follow(&client, second, 0).await, Err(MasterError::Malformed(_))), "another life");
    });
}
