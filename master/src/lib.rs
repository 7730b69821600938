//! The master: it keeps the namespace, and knows who takes part in the cluster.
//!
//! - [`state`]: a deterministic state machine, `apply(command) -> outcome` over ordered tables; its keys are in [`keys`].
//! - [`store`]: those tables on a disk: a command log, and a memtable over redb behind it.
//! - [`service`]: the role: sessions, chunkservers, the network, and what is done in the background.
//! - [`dump`]: all rows as text, and back.

pub mod dump;
pub mod keys;
pub mod service;
pub mod state;
pub mod store;

#[cfg(test)]
mod temporary_timing {
    use crate::service::Namespace;
    use crate::state::command::NewCluster;
    use crate::state::{Command, Outcome, Stamped};
    use crate::store::{Store, StoreSettings};
    use cairn_common::attributes::{FileKind, NewInode, Owner};
    use cairn_common::ids::{Ino, Sequence};
    use cairn_common::wire::master::Mutation;

    #[test]
    fn timing() {
        let directory = tempfile::tempdir_in("/work/main/target").unwrap();
        cairn_runtime::real::run_role_here("t", |runtime| async move {
            let store = Store::<Namespace>::open(runtime.clone(), StoreSettings::new(directory.path())).await.unwrap();
            let submit = |command| store.submit(&Stamped { at: store.next_time(runtime.wall()), command }).unwrap();
            submit(Command::Initialise(NewCluster { cluster: [1; 16], pool_name: "d".into(), scheme: "4+2".parse().unwrap(), prefix_bits: 8, root_owner: Owner { uid: 0, gid: 0 }, placement_seed: 1 }));
            let (Outcome::Session { session, .. }, _) = submit(Command::OpenSession { previous: None, description: String::new(), open: vec![] }) else { panic!() };
            for round in 0..4u64 {
                let start = runtime.now();
                let mut worst = std::time::Duration::ZERO;
                for n in 0..100_000u64 {
                    let i = round * 100_000 + n;
                    let before = runtime.now();
                    store.admit().await.unwrap();
                    let inode = NewInode { kind: FileKind::Regular, mode: 0o644, owner: Owner { uid: 0, gid: 0 }, rdev: 0, symlink_target: vec![] };
                    let mutation = Mutation::Create { parent: Ino::ROOT, name: format!("file number {i}").into_bytes(), inode, open: false, or_existing: false };
                    submit(Command::Mutate { session, sequence: Sequence(i + 1), acknowledged: Sequence(i), holders: vec![], mutation });
                    worst = worst.max(runtime.now().since(before));
                    if n % 32 == 0 { crate::service::yield_now().await; }
                }
                eprintln!("100k creates in {:?}, worst {worst:?}", runtime.now().since(start));
                let start = runtime.now();
                for i in 0..100_000u64 {
                    store.read(|reader| crate::state::read::lookup(reader, Ino::ROOT, format!("file number {}", i * 4 % ((round + 1) * 100_000)).as_bytes())).unwrap();
                }
                eprintln!("100k lookups in {:?}", runtime.now().since(start));
            }
            let start = runtime.now();
            store.flush().await.unwrap();
            eprintln!("flush {:?}", runtime.now().since(start));
            for _ in 0..3 {
                let i = store.last();
                let start = runtime.now();
                for _ in 0..200 { submit(Command::Place { scope: crate::state::command::PlacementScope::Vacant }); store.synced(store.last()).await.unwrap(); }
                eprintln!("200 durable in {:?} {i}", runtime.now().since(start));
            }
        }).unwrap();
    }
}
