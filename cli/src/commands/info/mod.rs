//! `cairn info` and `cairn locate`: what a path is, and where its bytes are.
//!
//! | part | noun |
//! |---|---|
//! | [`place`] | a path, inside a mount or `cairn://`, and the inode that it names |
//! | [`survey`] | the extents of a file, their chunks, and which disk has which shard |
//! | [`report`] | what is printed |

pub mod place;
mod report;
mod survey;

use self::place::Place;
use self::report::{Located, Report};
use self::survey::Survey;
use super::link::Link;
use crate::arguments::{Info, Locate};
use anyhow::Result;

pub fn run(options: Info) -> Result<()> {
    super::in_role("info", move |runtime| async move {
        let mut link = Link::new(&runtime, options.operator.membership(&runtime).await?)?;
        let place = Place::find(&mut link, &options.path).await?;
        let survey = Survey::make(&mut link, &place.attributes).await?;
        link.close();
        let report = Report::new(&place, &survey, &link.map);
        if options.json {
            return super::print(&(serde_json::to_string_pretty(&report)? + "\n"));
        }
        super::print(&report.text(options.chunks))
    })
}

pub fn locate(options: Locate) -> Result<()> {
    super::in_role("locate", move |runtime| async move {
        let mut link = Link::new(&runtime, options.operator.membership(&runtime).await?)?;
        let mut all = Vec::new();
        for path in &options.paths {
            let place = Place::find(&mut link, path).await?;
            let survey = Survey::make(&mut link, &place.attributes).await?;
            all.push(Located::new(&place, &survey, &link.map));
        }
        link.close();
        if options.json {
            return super::print(&(serde_json::to_string_pretty(&all)? + "\n"));
        }
        super::print(&all.iter().map(Located::text).collect::<Vec<_>>().join("\n"))
    })
}
