//! Files as objects, on simulated clusters: trees that come back the same, transfers whose machine dies, and users who may not.

use cairn_common::error::FsError;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::Role;
use cairn_objects::filter::Filter;
use cairn_objects::store::Follow;
use cairn_objects::transfer::{Comparison, Counts, Deed, Engine, Options, Routing, Rules, Stop, Ticket, Watch, route};
use cairn_objects::walk::{Order, Walk};
use cairn_objects::{Caller, Failure, Place, Reason, RemotePath, Store};
use cairn_runtime::Runtime;
use cairn_runtime::sim::Crash;
use cairn_tests::cluster::{SimCluster, credentials, live};
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn caller(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: Vec::new(), umask: 0o022 }
}

fn remote(text: &str) -> RemotePath {
    RemotePath::parse(OsStr::new(text)).expect("a path")
}

async fn store(cluster: &SimCluster, name: &str, uid: u32) -> Store {
    let (runtime, fs) = cluster.client(name).await;
    Store::new(fs, runtime, caller(uid))
}

/// Notes failures.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn planned(&self, _files: u64, _bytes: u64) {}
    fn begun(&self, _ticket: Ticket, _name: &str, _bytes: u64) {}
    fn moved(&self, _ticket: Option<Ticket>, _bytes: u64) {}
    fn ended(&self, _ticket: Ticket) {}
    fn done(&self, _deed: Deed, _source: &str, _target: &str) {}
    fn failed(&self, failure: &Failure) {
        self.0.lock().push(failure.to_string());
    }
}

fn options() -> Options {
    Options { jobs: 4, preserve: true, replace: true, dry_run: false, moves: false, bytes_per_second: None }
}

/// Copies or syncs; what it came to, and what failed.
async fn transfer(store: &Store, source: &str, target: &str, comparison: Comparison, options: Options) -> (Counts, Vec<String>) {
    let place = |text: &str| Place::parse(OsStr::new(text)).expect("a place");
    let rules = Rules { filter: Filter::default(), comparison, delete: false, keep_existing: false, links: true };
    let sources = [place(source)];
    let routing = Routing { sources: &sources, target: &place(target), recursive: true, follow: true, rules };
    let routes = route(store, &routing).await;
    let heard = Arc::new(Heard::default());
    let engine = Engine::new(store, options, Stop::default(), Arc::clone(&heard) as _);
    engine.run(routes).await;
    let failed = heard.0.lock().clone();
    (engine.sums.get(), failed)
}

fn write(path: &Path, content: &[u8]) {
    std::fs::DirBuilder::new().recursive(true).create(path.parent().expect("a parent")).expect("made");
    OpenOptions::new().write(true).create(true).truncate(true).open(path).and_then(|mut file| file.write_all(content)).expect("written");
}

fn content(path: &Path) -> Vec<u8> {
    let mut file = OpenOptions::new().read(true).open(path).expect("there");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).expect("read");
    bytes
}

/// Bytes that do not repeat.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

async fn names(store: &Store, path: &str) -> Vec<String> {
    let start = store.find_directory(&remote(path)).await.expect("a directory");
    let mut walk = Walk::below(store, &start, Order::ByName, usize::MAX);
    let mut names = Vec::new();
    while let Some(next) = walk.next().await {
        names.push(next.expect("readable").path.to_string());
    }
    names
}

#[test]
fn a_tree_comes_back_as_it_was_and_only_changes_move() {
    live(2, |world| async move {
        let cluster = SimCluster::start(world, Scheme::new(2, 1).expect("a scheme"), 3).await;
        let store = store(&cluster, "user", 0).await;
        store.make_bucket(&remote("cairn://b"), false).await.expect("a bucket");
        let work = tempfile::tempdir().expect("a directory");
        let (tree, back) = (work.path().join("tree"), work.path().join("back"));
        for number in 0..40usize {
            write(&tree.join(format!("d{}/f{number}", number % 3)), &noise(number * 97));
        }
        write(&tree.join("long"), &noise(3 * MIB + 5));
        std::os::unix::fs::symlink("d1/f1", tree.join("soft")).expect("made");
        std::fs::hard_link(tree.join("d0/f0"), tree.join("d1/again")).expect("made");
        std::fs::set_permissions(tree.join("d0/f3"), std::fs::Permissions::from_mode(0o640)).expect("set");

        let (tree_text, back_text) = (tree.display().to_string(), back.display().to_string());
        let first = transfer(&store, &tree_text, "cairn://b/tree", Comparison::SizeAndTime, options()).await;
        assert_eq!((first.0.copied, first.0.linked, first.0.failed), (42, 1, 0), "{:?}", first.1);
        let second = transfer(&store, &tree_text, "cairn://b/tree", Comparison::SizeAndTime, options()).await;
        assert_eq!((second.0.copied, second.0.linked, second.0.unchanged), (0, 0, 43), "{:?}", second.1);
        write(&tree.join("d2/f5"), b"changed");
        let third = transfer(&store, &tree_text, "cairn://b/tree", Comparison::SizeAndTime, options()).await;
        assert_eq!((third.0.copied, third.0.unchanged), (1, 42), "{:?}", third.1);
        let checked = transfer(&store, &tree_text, "cairn://b/tree", Comparison::Checksum, options()).await;
        assert_eq!((checked.0.copied, checked.0.failed), (0, 0), "{:?}", checked.1);

        let down = transfer(&store, "cairn://b/tree", &back_text, Comparison::SizeAndTime, options()).await;
        assert_eq!((down.0.copied, down.0.linked, down.0.failed), (42, 1, 0), "{:?}", down.1);
        for name in ["d0/f3", "d1/f40", "d2/f5", "long", "d1/again"].into_iter().filter(|name| tree.join(name).exists()) {
            let (one, other) = (tree.join(name), back.join(name));
            assert_eq!(content(&one), content(&other), "{name}");
            let (one, other) = (one.metadata().expect("there"), other.metadata().expect("there"));
            assert_eq!((one.mode(), one.mtime(), one.mtime_nsec()), (other.mode(), other.mtime(), other.mtime_nsec()), "{name}");
        }
        let inode = |name: &str| back.join(name).metadata().expect("there").ino();
        assert_eq!(inode("d0/f0"), inode("d1/again"));
        assert_eq!(back.join("soft").read_link().expect("a symlink"), Path::new("d1/f1"));
        store.fs.shutdown().await.expect("all is stored");
    });
}

#[test]
fn an_upload_whose_machine_dies_is_taken_up_again() {
    live(2, |world| async move {
        let cluster = SimCluster::start(world.clone(), Scheme::new(2, 1).expect("a scheme"), 3).await;
        let work = tempfile::tempdir().expect("a directory");
        let path = work.path().join("long");
        let bytes = noise(24 * MIB);
        write(&path, &bytes);
        let text = path.display().to_string();

        let node = world.node("victim");
        let settings = cairn_client::Settings::new(cluster.master_address(), credentials(Role::Client, "victim"));
        let runtime: Runtime = node.runtime();
        let (spawner, source) = (runtime.clone(), text.clone());
        spawner.spawn("upload", async move {
            let fs = cairn_client::FileSystem::connect(runtime.clone(), settings).await.expect("a master");
            let store = Store::new(fs, runtime, caller(0));
            store.make_bucket(&remote("cairn://b"), false).await.expect("a bucket");
            let slow = Options { bytes_per_second: Some(2 << 20), ..options() };
            transfer(&store, &source, "cairn://b/long", Comparison::Never, slow).await;
        });
        world.sleep(Duration::from_secs(8)).await;
        node.crash(Crash::Kill);

        let store = store(&cluster, "user", 0).await;
        let left = names(&store, "cairn://b").await;
        assert!(matches!(left.as_slice(), [part] if part.ends_with(".cairn-part")), "{left:?}");
        let (counts, failed) = transfer(&store, &text, "cairn://b/long", Comparison::Never, options()).await;
        assert!(counts.copied == 1 && failed.is_empty(), "{failed:?}");
        assert!(counts.resumed_bytes >= 4 * MIB as u64 && counts.resumed_bytes < 24 * MIB as u64, "{}", counts.resumed_bytes);
        assert_eq!(names(&store, "cairn://b").await, ["cairn://b/long"]);
        let back = work.path().join("back");
        transfer(&store, "cairn://b/long", &back.display().to_string(), Comparison::Never, options()).await;
        assert!(content(&back) == bytes, "the content differs");
        store.fs.shutdown().await.expect("all is stored");
    });
}

/// How much of a local file is stored.
fn stored_bytes(path: &Path) -> u64 {
    path.metadata().expect("there").blocks() * 512
}

#[test]
fn holes_stay_holes_in_all_directions() {
    live(2, |world| async move {
        let cluster = SimCluster::start(world, Scheme::new(2, 1).expect("a scheme"), 3).await;
        let store = store(&cluster, "user", 0).await;
        store.make_bucket(&remote("cairn://b"), false).await.expect("a bucket");
        let work = tempfile::tempdir().expect("a directory");
        let file = |name: &str, size: u64, data: &[(u64, usize)]| {
            let path = work.path().join(name);
            let file = OpenOptions::new().write(true).create_new(true).open(&path).expect("made");
            file.set_len(size).expect("long");
            data.iter().for_each(|(at, bytes)| file.write_all_at(&noise(*bytes), *at).expect("written"));
        };
        let (kib, mib) = (1u64 << 10, 1u64 << 20);
        file("long", 40 * mib + 5, &[(3 * mib, MIB), (11 * mib + 4 * kib, 8192), (11 * mib + 64 * kib, 4096), (20 * mib, 9 * MIB)]);
        file("small", 600 * kib, &[(200 * kib, 4096)]);
        file("nothing", 30 * mib, &[]);
        file("little", 100 * kib, &[]);
        let source = work.path().display().to_string();
        let up = transfer(&store, &source, "cairn://b/up", Comparison::SizeAndTime, options()).await;
        assert_eq!((up.0.copied, up.0.failed), (4, 0), "{:?}", up.1);
        let across = transfer(&store, "cairn://b/up", "cairn://b/across", Comparison::SizeAndTime, options()).await;
        assert_eq!((across.0.copied, across.0.failed), (4, 0), "{:?}", across.1);
        for (name, most) in [("long", 10 * mib + 64 * kib), ("small", 4 * kib), ("nothing", 0), ("little", 0)] {
            for place in ["up", "across"] {
                let found = store.find(&remote(&format!("cairn://b/{place}/{name}")), Follow::Last).await.expect("there");
                assert!(found.attributes.allocated <= most, "{place}/{name} takes {} of {most}", found.attributes.allocated);
            }
            let back = work.path().join(format!("{name}.back"));
            let down =
                transfer(&store, &format!("cairn://b/across/{name}"), &back.display().to_string(), Comparison::Never, options()).await;
            assert_eq!((down.0.copied, down.0.failed), (1, 0), "{:?}", down.1);
            assert!(content(&back) == content(&work.path().join(name)), "{name} differs");
            assert!(stored_bytes(&back) <= most + 64 * kib, "{name} takes {} of {most} here", stored_bytes(&back));
        }
        store.fs.shutdown().await.expect("all is stored");
    });
}

#[test]
fn what_an_earlier_try_left_in_a_hole_goes() {
    live(1, |world| async move {
        let cluster = SimCluster::start(world, Scheme::new(2, 1).expect("a scheme"), 3).await;
        let store = store(&cluster, "user", 0).await;
        store.make_bucket(&remote("cairn://b"), false).await.expect("a bucket");
        let work = tempfile::tempdir().expect("a directory");
        let (full, sparse) = (work.path().join("f"), work.path().join("sparse"));
        write(&full, &noise(12 * MIB));
        let file = OpenOptions::new().write(true).create_new(true).open(&sparse).expect("made");
        file.set_len(12 << 20).expect("long");
        file.write_all_at(&noise(4 * MIB), 0).expect("written");
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for path in [&full, &sparse] {
            OpenOptions::new().write(true).open(path).and_then(|file| file.set_modified(at)).expect("dated");
        }
        // A copy of a file of the same name, length and time that does not come to its end.
        let stop = Stop::default();
        let heard = Arc::new(Heard::default());
        let engine = Engine::new(&store, Options { bytes_per_second: Some(2 << 20), ..options() }, stop.clone(), heard);
        let places = [Place::parse(full.as_os_str()).expect("a place")];
        let target = Place::parse(OsStr::new("cairn://b/f")).expect("a place");
        let rules = Rules { filter: Filter::default(), comparison: Comparison::Never, delete: false, keep_existing: false, links: true };
        let routing = Routing { sources: &places, target: &target, recursive: false, follow: true, rules };
        let routes = route(&store, &routing).await;
        futures_util::future::join(engine.run(routes), async {
            store.runtime.sleep(Duration::from_secs(5)).await;
            stop.set();
        })
        .await;
        assert!(matches!(names(&store, "cairn://b").await.as_slice(), [part] if part.ends_with(".cairn-part")));
        let (counts, failed) = transfer(&store, &sparse.display().to_string(), "cairn://b/f", Comparison::Never, options()).await;
        assert_eq!((counts.copied, failed), (1, Vec::new()));
        let found = store.find(&remote("cairn://b/f"), Follow::Last).await.expect("there");
        assert_eq!((found.attributes.size, found.attributes.allocated), (12 << 20, 4 << 20));
        let back = work.path().join("back");
        transfer(&store, "cairn://b/f", &back.display().to_string(), Comparison::Never, options()).await;
        assert!(content(&back) == content(&sparse), "the content differs");
        store.fs.shutdown().await.expect("all is stored");
    });
}

#[test]
fn modes_decide_what_a_user_may_do() {
    live(1, |world| async move {
        let cluster = SimCluster::start(world, Scheme::new(1, 1).expect("a scheme"), 2).await;
        let (root, user) = (store(&cluster, "root", 0).await, store(&cluster, "user", 7).await);
        root.make_bucket(&remote("cairn://b"), false).await.expect("a bucket");
        let work = tempfile::tempdir().expect("a directory");
        let path = work.path().join("secret");
        write(&path, b"secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let text = path.display().to_string();
        let denied = Reason::Fs(FsError::AccessDenied);
        transfer(&root, &text, "cairn://b/secret", Comparison::Never, options()).await;

        let found = user.find(&remote("cairn://b/secret"), Follow::Last).await.expect("its name may be seen");
        assert_eq!(user.open(&found).await.err().map(|failure| failure.reason), Some(denied.clone()));
        assert_eq!(user.remove_file(&found).await.unwrap_err().reason, denied);
        assert_eq!(user.touch(&remote("cairn://b/new"), true).await.unwrap_err().reason, denied);
        assert_eq!(user.touch(&remote("cairn://b/secret"), true).await.unwrap_err().reason, Reason::Fs(FsError::NotPermitted));
        let (counts, failed) = transfer(&user, &text, "cairn://b/mine", Comparison::Never, options()).await;
        assert_eq!((counts.copied, failed), (0, vec!["cairn://b/mine: permission denied".to_owned()]));
        let missing = user.find(&remote("cairn://nowhere/x"), Follow::Last).await.unwrap_err();
        assert_eq!(missing.reason, Reason::NoBucket("nowhere".to_owned()));
        for store in [root, user] {
            store.fs.shutdown().await.expect("all is stored");
        }
    });
}
