//! `cairn umount`

use crate::arguments::Umount;
use anyhow::Result;

pub fn run(options: Umount) -> Result<()> {
    Ok(cairn_fuse::unmount(&options.directory, options.lazy)?)
}
