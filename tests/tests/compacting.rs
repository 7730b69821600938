//! A file that is overwritten at random stays in few pieces, the disks get their space back, and nobody sees anything of it.

use cairn_client::{FileSystem, Handle, OpenFlags};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::ids::Ino;
use cairn_common::limits::DELETION_GRACE;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::Status;
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Crash, World};
use cairn_tests::cluster::{SimCluster, live};
use cairn_tests::operator::Operator;
use futures_util::future::join_all;
use std::time::Duration;

const BYTES: usize = 600_000;
/// Longer than it takes to rewrite what there is in these tests.
const A_WHILE: Duration = Duration::from_secs(30);

struct Story {
    world: World,
    cluster: SimCluster,
    operator: Operator,
    runtime: Runtime,
    fs: FileSystem,
}

impl Story {
    async fn begin(world: World) -> Self {
        let cluster = SimCluster::start(world.clone(), Scheme::new(2, 1).expect("a scheme"), 4).await;
        let operator = Operator::new(&cluster);
        let (runtime, fs) = cluster.client("client").await;
        cluster.wait_until_whole(&fs).await;
        Self { world, cluster, operator, runtime, fs }
    }

    async fn file(&self, name: &str, content: &[u8]) -> (Ino, Handle) {
        let (ino, handle) = self.unsynced_file(name, content).await;
        self.fs.fsync(handle, false).await.expect("synced");
        (ino, handle)
    }

    async fn unsynced_file(&self, name: &str, content: &[u8]) -> (Ino, Handle) {
        let inode = NewInode {
            kind: FileKind::Regular,
            mode: 0o644,
            owner: Owner { uid: 0, gid: 0 },
            rdev: 0,
            symlink_target: Vec::new(),
            umask: 0,
        };
        let made = self.fs.create_open(Ino::ROOT, name.as_bytes(), inode, true, OpenFlags::READ_WRITE).await.expect("made");
        self.write(made.1.handle, 0, content).await;
        (made.0.ino, made.1.handle)
    }

    async fn write(&self, handle: Handle, offset: u64, bytes: &[u8]) {
        let mut written = 0;
        while written < bytes.len() {
            written += self.fs.write(handle, offset + written as u64, &bytes[written..]).await.expect("written");
        }
    }

    /// Overwrites a file here and there, in `rounds` flushes.
    async fn scatter(&self, handle: Handle, content: &mut [u8], rounds: usize) {
        for _ in 0..rounds {
            for _ in 0..8 {
                let at = (self.runtime.random_u64() % (BYTES as u64 - 4096)) as usize;
                let bytes = pattern(self.runtime.random_u64(), 4096);
                self.write(handle, at as u64, &bytes).await;
                content[at..at + 4096].copy_from_slice(&bytes);
            }
            self.fs.fsync(handle, false).await.expect("synced");
        }
    }

    async fn used(&self) -> u64 {
        let Status { servers, .. } = self.operator.status().await;
        servers.iter().flat_map(|server| &server.targets).filter_map(|(_, status)| status.as_ref()).map(|status| status.used_bytes).sum()
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (1..=len as u64).map(|at| (seed.wrapping_add(at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect()
}

async fn read(fs: &FileSystem, handle: Handle) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let part = fs.read(handle, content.len() as u64, 1 << 20).await.expect("read");
        if part.is_empty() {
            return content;
        }
        content.extend_from_slice(&part);
    }
}

#[test]
fn a_scattered_file_becomes_whole_and_gives_its_space_back() {
    live(3, |world| async move {
        let story = Story::begin(world).await;
        let mut content = pattern(1, BYTES);
        let (ino, handle) = story.file("file", &content).await;
        story.world.sleep(Duration::from_secs(2)).await;
        let (before, fresh) = (story.fs.attributes(ino).await.expect("there"), story.used().await);
        let mut written = before.clone();
        for _ in 0..5 {
            story.scatter(handle, &mut content, 10).await;
            written = story.fs.attributes(ino).await.expect("there");
            story.world.sleep(A_WHILE).await;
            let status = story.operator.status().await;
            assert!(status.compaction.extents < 6, "{:?}", status.compaction);
        }
        let after = story.fs.attributes(ino).await.expect("there");
        assert_eq!(after, written, "times and version are those of the last write");
        story.world.sleep(DELETION_GRACE + DELETION_GRACE / 10).await;
        let used = story.used().await;
        assert!(used < fresh + fresh / 4, "{fresh} bytes were used when the file was fresh, and {used} are now");
        let (_, other) = story.cluster.client("other").await;
        let opened = other.open(ino, OpenFlags::READ).await.expect("opened");
        assert!(read(&other, opened.handle).await == content);
    });
}

#[test]
fn a_pack_that_is_mostly_removed_is_rewritten() {
    live(2, |world| async move {
        let story = Story::begin(world).await;
        let mut files = Vec::new();
        for number in 0..20u64 {
            let content = pattern(number, 30_000);
            let name = format!("file {number}");
            let (ino, handle) = story.unsynced_file(&name, &content).await;
            files.push((name, ino, handle, content));
        }
        join_all(files.iter().map(|(_, _, handle, _)| story.fs.flush(*handle)))
            .await
            .into_iter()
            .for_each(|flushed| flushed.expect("flushed"));
        let packed = story.operator.status().await;
        assert!(packed.chunks < 20, "files are packed");
        for (name, _, handle, _) in &files[3..] {
            story.fs.release(*handle).expect("closed");
            story.fs.unlink(Ino::ROOT, name.as_bytes()).await.expect("removed");
        }
        story.world.sleep(A_WHILE + DELETION_GRACE + DELETION_GRACE / 10).await;
        let status = story.operator.status().await;
        assert!(status.chunk_bytes < 3 * 30_000 * 2, "{} bytes are kept for three small files", status.chunk_bytes);
        assert!(status.compaction.bytes_rewritten >= 3 * 30_000, "{:?}", status.compaction);
        let (_, other) = story.cluster.client("other").await;
        for (_, ino, _, content) in &files[..3] {
            let opened = other.open(*ino, OpenFlags::READ).await.expect("opened");
            assert!(read(&other, opened.handle).await == *content);
        }
    });
}

#[test]
fn a_reader_that_slept_reads_on() {
    live(3, |world| async move {
        let story = Story::begin(world).await;
        let mut content = pattern(1, BYTES);
        let (ino, handle) = story.file("file", &content).await;
        story.scatter(handle, &mut content, 2).await;
        // It knows all extents, has read nothing, and leaves compaction to others.
        let mut settings = story.cluster.client_settings("sleeper");
        settings.compaction_bytes_per_second = 0;
        let sleeper = FileSystem::connect(story.world.node("sleeper").runtime(), settings).await.expect("connected");
        let opened = sleeper.open(ino, OpenFlags::READ).await.expect("opened");
        story.world.sleep(A_WHILE + DELETION_GRACE * 2).await;
        assert!(story.operator.status().await.compaction.bytes_rewritten >= BYTES as u64);
        assert!(read(&sleeper, opened.handle).await == content);
    });
}

#[test]
fn a_master_or_compactor_that_dies_does_no_harm() {
    live(6, |world| async move {
        let story = Story::begin(world.clone()).await;
        let mut content = pattern(1, BYTES);
        let (ino, handle) = story.file("file", &content).await;
        for round in 0..4u64 {
            story.scatter(handle, &mut content, 3).await;
            world.sleep(Duration::from_millis(story.runtime.random_u64() % 1500)).await;
            let crash = if round % 2 == 0 { Crash::Kill } else { Crash::PowerLoss };
            story.cluster.crash_master(crash);
            story.cluster.start_master().await;
        }
        let (_, other) = story.cluster.client("other").await;
        story.scatter(handle, &mut content, 3).await;
        world.sleep(Duration::from_millis(story.runtime.random_u64() % 1500)).await;
        story.cluster.world.node("client").crash(Crash::Kill);
        world.sleep(A_WHILE * 5).await;
        let opened = other.open(ino, OpenFlags::READ).await.expect("opened");
        assert!(read(&other, opened.handle).await == content);
        assert!(story.operator.status().await.compaction.extents < 6);
    });
}
