//! `cairn umount`

use crate::arguments::Umount;
use anyhow::Result;
use cairn_fuse::Unmounting;

pub fn run(options: Umount) -> Result<()> {
    let unmounting = match (options.force, options.lazy) {
        (true, _) => Unmounting::ByForce,
        (false, true) => Unmounting::Lazily,
        (false, false) => Unmounting::IfUnused,
    };
    Ok(cairn_fuse::unmount(&options.directory, unmounting)?)
}
