//! `cairn completions` and `cairn man`: made from the command line's own grammar, so that they can't say anything else.

use crate::arguments::{Arguments, Completions, Manual};
use anyhow::{Context, Result};
use cairn_runtime::disk::Disk;
use cairn_runtime::real::disk::RealDisk;
use clap::CommandFactory;

pub fn completions(options: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "cairn", &mut script);
    super::print(&String::from_utf8(script).context("the script is not text")?)
}

pub fn manual(options: &Manual) -> Result<()> {
    let Some(directory) = &options.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page).context("cannot make the page")?;
        return super::print(&String::from_utf8(page).context("the page is not text")?);
    };
    let cannot = || format!("cannot write to {}", directory.display());
    RealDisk.create_directory_all(directory).with_context(cannot)?;
    clap_mangen::generate_to(Arguments::command(), directory).with_context(cannot)
}
