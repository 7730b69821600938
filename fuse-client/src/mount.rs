//! Mounting and unmounting.

use crate::adapter::Adapter;
use crate::kernel::Kernel;
use crate::options::MountOptions;
use cairn_client::FileSystem;
use cairn_common::ids::Ino;
use cairn_runtime::Runtime;
use fuser::{BackgroundSession, Session};
use rustix::mount::UnmountFlags;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Threads that read the FUSE device. Two, each with a descriptor of its own, measured best on small machines.
const DEVICE_THREADS: usize = 2;
/// What the kernel may read ahead of a sequential reader; its own default is 128 KiB.
const KERNEL_READ_AHEAD_KIB: u32 = 1024;

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("mount point {0} does not exist: make the directory first")]
    Missing(PathBuf),
    #[error("mount point {0} is not a directory")]
    NotDirectory(PathBuf),
    #[error("mount point {0} is not empty: choose an empty directory, or insist with -o nonempty")]
    NotEmpty(PathBuf),
    #[error("{0} is a mount point already: unmount it first (cairn umount {0})")]
    Busy(PathBuf),
    #[error("/dev/fuse does not exist: load the kernel module with `modprobe fuse`, and in a container pass --device /dev/fuse")]
    NoDevice,
    #[error(
        "this user may not open /dev/fuse ({0}): let everybody, as distributions do, with `chmod 666 /dev/fuse` as root, or mount as root"
    )]
    ClosedDevice(io::Error),
    #[error("cannot mount on {directory}: {reason}")]
    Refused { directory: PathBuf, reason: io::Error },
    #[error("cannot unmount {directory}: {reason}")]
    NotUnmounted { directory: PathBuf, reason: String },
}

/// A mount in service. Dropping it unmounts.
pub struct Mounted {
    session: BackgroundSession,
    directory: PathBuf,
}

/// Mounts `root` of the file system on `directory`; it is usable when this returns. Blocks, so not for an async thread.
pub fn mount(runtime: Runtime, fs: FileSystem, root: Ino, directory: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
    check(directory, options)?;
    let refused = |reason| MountError::Refused { directory: directory.to_owned(), reason };
    let kernel = Kernel::new(runtime.clone(), root);
    fs.is_mounted_by(Arc::new(kernel.clone()));
    let adapter = Adapter::new(runtime, fs, root, kernel.clone());
    let session = Session::new(adapter, directory, &options.config("cairn", DEVICE_THREADS)).map_err(refused)?;
    kernel.listens_to(session.notifier());
    let session = session.spawn().map_err(refused)?;
    raise_read_ahead(directory);
    Ok(Mounted { session, directory: directory.to_owned() })
}

fn check(directory: &Path, options: &MountOptions) -> Result<(), MountError> {
    check_device()?;
    if is_abandoned(directory) {
        tracing::warn!("the mount on {} had lost its process, and is removed", directory.display());
        unmount(directory, Unmounting::Lazily)?;
    }
    let metadata = std::fs::metadata(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(directory.to_owned()),
        _ => MountError::Refused { directory: directory.to_owned(), reason: error },
    })?;
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory(directory.to_owned()));
    }
    if is_mount_point(directory, metadata.dev()) {
        return Err(MountError::Busy(directory.to_owned()));
    }
    let refused = |reason| MountError::Refused { directory: directory.to_owned(), reason };
    if !options.nonempty && directory.read_dir().map_err(refused)?.next().is_some() {
        return Err(MountError::NotEmpty(directory.to_owned()));
    }
    Ok(())
}

fn check_device() -> Result<(), MountError> {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::NoDevice),
        Err(error) => Err(MountError::ClosedDevice(error)),
    }
}

/// Whether there is a FUSE mount whose process died: of no use to anybody, and in the way of a new one.
fn is_abandoned(directory: &Path) -> bool {
    let lost = |error: io::Error| error.kind() == io::ErrorKind::NotConnected;
    match std::fs::metadata(directory) {
        Err(error) => lost(error),
        // The kernel may remember the attributes for a moment longer.
        Ok(metadata) => is_mount_point(directory, metadata.dev()) && directory.read_dir().err().is_some_and(lost),
    }
}

fn is_mount_point(directory: &Path, device: u64) -> bool {
    directory.canonicalize().ok().and_then(|full| full.parent()?.metadata().ok()).is_some_and(|parent| parent.dev() != device)
}

/// Lets the kernel read ahead further than its default. Needs root; without it sequential reads are a little slower.
fn raise_read_ahead(directory: &Path) {
    let Ok(metadata) = std::fs::metadata(directory) else { return };
    let device = metadata.dev();
    let setting = format!("/sys/class/bdi/{}:{}/read_ahead_kb", rustix::fs::major(device), rustix::fs::minor(device));
    #[expect(clippy::disallowed_methods, reason = "a setting of this machine's kernel, meaningless in a simulated world")]
    if let Err(error) = std::fs::write(&setting, KERNEL_READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%setting, %error, "read-ahead stays at the kernel's default");
    }
}

impl Mounted {
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether somebody else has unmounted it (`umount`, `fusermount3 -u`).
    pub fn is_gone(&self) -> bool {
        self.session.guard.is_finished()
    }

    /// Unmounts and waits until the kernel has handed in everything. Blocks. A busy mount is detached: it goes away when
    /// the last file on it is closed.
    pub fn unmount(self) -> Result<(), MountError> {
        let Self { session, directory } = self;
        if session.guard.is_finished() {
            // fuser takes a mount that is gone for one that is there: dropped, it would unmount whoever has mounted there since.
            std::mem::forget(session);
            return Ok(());
        }
        session.umount_and_join().or_else(|_| unmount(&directory, Unmounting::Lazily))
    }
}

/// What to do about those who use a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounting {
    /// Refuse.
    IfUnused,
    /// Let them go on; the mount goes away when they have closed their files.
    Lazily,
    /// End whatever they wait for, with an error.
    ByForce,
}

/// Unmounts a directory that any process has mounted.
pub fn unmount(directory: &Path, unmounting: Unmounting) -> Result<(), MountError> {
    let failed = |reason: String| MountError::NotUnmounted { directory: directory.to_owned(), reason };
    let flags = match unmounting {
        Unmounting::IfUnused => UnmountFlags::empty(),
        Unmounting::Lazily => UnmountFlags::DETACH,
        Unmounting::ByForce => UnmountFlags::FORCE | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(directory, flags) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::PERM) if unmounting == Unmounting::ByForce => {
            return Err(failed("only root may use force: end the process that serves the mount instead".to_owned()));
        }
        Err(rustix::io::Errno::PERM) => {}
        Err(rustix::io::Errno::INVAL) => return Err(failed("nothing is mounted there".to_owned())),
        Err(rustix::io::Errno::NOENT) => return Err(failed("there is no such directory".to_owned())),
        Err(rustix::io::Errno::BUSY) => {
            return Err(failed("it is in use: close the files on it and leave it with every shell, or pass --lazy or --force".to_owned()));
        }
        Err(error) => return Err(failed(error.to_string())),
    }
    // Without root, fusermount3 may unmount what the same user has mounted.
    let mut command = Command::new("fusermount3");
    command.arg("-u").args((unmounting == Unmounting::Lazily).then_some("-z")).arg(directory);
    let output = command.output().map_err(|error| failed(format!("fusermount3 cannot be run: {error}")))?;
    if output.status.success() { Ok(()) } else { Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())) }
}
