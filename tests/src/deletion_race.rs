//! The race between writing content again and deleting its chunk, at the moment at which the master collects: whoever was told that the content is
//! there must find it there.
//!
//! A file is written and removed; its chunk dies, and is due at a known round of the collector. About then the same content is written again:
//! some steps of the writer (put, commit) fall before and some after those of the collector (forget, sync, delete). Or the writer is cut off
//! between put and commit for so long that its chunk was deleted meanwhile.

use crate::cluster::SimCluster;
use crate::reference::content::stream;
use cairn_client::{FileSystem, OpenFlags};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::DELETION_GRACE;
use cairn_common::scheme::Scheme;
use cairn_runtime::sim::World;
use std::time::Duration;

/// The collector's rounds, since the start of the master.
const ROUND: Duration = Duration::from_secs(DELETION_GRACE.as_secs() / 15);
/// The round in which what died at once is due.
const DUE_ROUND: u32 = 16;
/// Writers begin within so much before or after a round.
const SPREAD: Duration = Duration::from_millis(15);

/// What goes wrong in the world of a seed, if anything.
pub fn race(seed: u64) -> Option<String> {
    let world = World::new(seed);
    world.run_until(story(world.clone())).err().map(|error| format!("seed {seed}: {error}"))
}

async fn story(world: World) -> Result<(), String> {
    let seed = world.seed();
    let cluster = SimCluster::start(world.clone(), Scheme::new(2, 1).map_err(|error| error.to_string())?, 3).await;
    let (_, writer) = cluster.client("writer").await;
    cluster.wait_until_whole(&writer).await;
    let content = stream(1, 0, if seed.is_multiple_of(2) { 30_000 } else { 150_000 });
    write(&writer, "first", &content).await.map_err(|error| format!("the first write: {error}"))?;
    writer.unlink(Ino::ROOT, b"first").await.map_err(|error| format!("the removal: {error}"))?;
    let due = (ROUND * DUE_ROUND).as_nanos() as u64;
    let offset = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (2 * SPREAD.as_nanos() as u64);
    if seed % 4 == 3 {
        return write_cut_off(&cluster, &writer, &content, due).await;
    }
    let begin = due + offset - SPREAD.as_nanos() as u64;
    world.sleep(Duration::from_nanos(begin - world.now().nanos())).await;
    write(&writer, "again", &content).await.map_err(|error| format!("writing again: {error}"))?;
    world.sleep(Duration::from_secs(5)).await;
    read_again(&cluster, &content).await
}

/// The writer loses the master right after its put, and finds it again when the chunk was deleted.
async fn write_cut_off(cluster: &SimCluster, writer: &FileSystem, content: &[u8], due: u64) -> Result<(), String> {
    let (world, node) = (&cluster.world, cluster.world.node("writer"));
    // More than half the grace period before, so that the ticket is too old to protect the put.
    let begin = due - DELETION_GRACE.as_nanos() as u64 / 2 - Duration::from_secs(20).as_nanos() as u64;
    world.sleep(Duration::from_nanos(begin - world.now().nanos())).await;
    let opened = open(writer, "again").await.map_err(|error| format!("opening again: {error}"))?;
    world.network().partition(&cluster.master, &node);
    writer.write(opened, 0, content).await.map_err(|error| format!("writing again: {error}"))?;
    let heal = async {
        world.sleep(Duration::from_nanos(due + ROUND.as_nanos() as u64 / 10 - world.now().nanos())).await;
        world.network().heal();
    };
    let (synced, ()) = futures_util::join!(writer.fsync(opened, false), heal);
    synced.map_err(|error| format!("fsync after a long absence: {error}"))?;
    world.sleep(Duration::from_secs(5)).await;
    read_again(cluster, content).await
}

async fn open(fs: &FileSystem, name: &str) -> Result<cairn_client::Handle, FsError> {
    let owner = Owner { uid: 0, gid: 0 };
    let inode = NewInode { kind: FileKind::Regular, mode: 0o644, owner, rdev: 0, symlink_target: Vec::new(), umask: 0 };
    let (_, opened) = fs.create_open(Ino::ROOT, name.as_bytes(), inode, true, OpenFlags::READ_WRITE).await?;
    Ok(opened.handle)
}

async fn write(fs: &FileSystem, name: &str, content: &[u8]) -> Result<(), FsError> {
    let handle = open(fs, name).await?;
    fs.write(handle, 0, content).await?;
    fs.fsync(handle, false).await?;
    fs.flush(handle).await?;
    fs.release(handle)
}

/// Reads through a client that has nothing in memory.
async fn read_again(cluster: &SimCluster, content: &[u8]) -> Result<(), String> {
    let (_, reader) = cluster.client("reader").await;
    let read = async {
        let ino = reader.lookup(Ino::ROOT, b"again").await?.ino;
        let opened = reader.open(ino, OpenFlags::READ).await?;
        reader.read(opened.handle, 0, content.len() + 1).await
    };
    match read.await {
        Ok(found) if found == content => Ok(()),
        Ok(found) => Err(format!("other bytes were read ({} instead of {})", found.len(), content.len())),
        Err(error) => Err(format!("what was synced can't be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::race;

    #[test]
    fn what_is_written_again_while_its_chunk_is_collected_stays() {
        let broken: Vec<String> = (0..24).filter_map(race).collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }
}
