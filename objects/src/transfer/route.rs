//! From what stands on the command line to what is copied where.
//!
//! | source | target | becomes |
//! |---|---|---|
//! | a file | a name | that name |
//! | a file | `DIR/`, or a directory that is there | `DIR/NAME` |
//! | a directory, with `-r` | any | its content below the target, as `aws s3` and `rclone` do it |
//! | several | any | each under its own name below the target |

use super::plan::{Job, Plan, Rules};
use super::spot::{Spot, Tree, traits_of};
use super::traits::Traits;
use crate::failure::{Failure, Reason};
use crate::place::Place;
use crate::store::Store;
use cairn_common::attributes::FileKind;
use cairn_common::time::Timestamp;
use std::os::unix::ffi::OsStrExt;

/// One source on its way.
pub enum Route {
    File(Job),
    Tree(Box<Plan>),
}

/// What is asked for.
pub struct Routing<'a> {
    pub sources: &'a [Place],
    pub target: &'a Place,
    pub recursive: bool,
    /// A source that is a symlink stands for what it leads to.
    pub follow: bool,
    pub rules: Rules,
}

/// A route for each source, or why there is none.
pub async fn route(store: &Store, routing: &Routing<'_>) -> Vec<Result<Route, Failure>> {
    let is_directory = match is_directory(store, routing.target).await {
        Ok(is_directory) => is_directory,
        Err(failure) => return vec![Err(failure)],
    };
    let into = is_directory || routing.target.means_folder() || routing.sources.len() > 1;
    let mut routes = Vec::new();
    for source in routing.sources {
        routes.push(route_of(store, routing, source, into).await);
    }
    routes
}

async fn route_of(store: &Store, routing: &Routing<'_>, source: &Place, into: bool) -> Result<Route, Failure> {
    let (target, is_one) = (routing.target, routing.sources.len() == 1);
    if matches!((source, target), (Place::Local(_) | Place::Stream, Place::Local(_) | Place::Stream)) {
        return Err(Failure::said(source, "neither it nor the target is in CairnFS: write cairn://BUCKET/KEY for one of them"));
    }
    let traits = match spot_of(source)? {
        Spot::Stream => unknown(),
        spot => traits_of(store, &spot, routing.follow).await?,
    };
    if !traits.is_directory() {
        let target = if into { below(target, &name_of(source)?) } else { target.clone() };
        return Ok(Route::File(Job { source: spot_of(source)?, traits, target: spot_of(&target)? }));
    }
    if !routing.recursive {
        return Err(Failure::said(source, "it is a directory: pass -r to copy it with everything in it"));
    }
    let target = if is_one { target.clone() } else { below(target, &name_of(source)?) };
    if let (Place::Remote(source), Place::Remote(target)) = (source, &target)
        && target.is_within(source)
    {
        return Err(Failure::said(source, format!("it can't be copied into itself ({target})")));
    }
    Ok(Route::Tree(Box::new(Plan::new(tree_of(source)?, tree_of(&target)?, routing.rules.clone()))))
}

/// Of a stream nothing is known.
fn unknown() -> Traits {
    let mtime = Timestamp::EPOCH;
    Traits { kind: FileKind::Regular, size: 0, mode: 0, uid: 0, mtime, links: 1, identity: (0, 0), may_have_xattrs: false }
}

/// Whether a directory is there. A bucket that is not is a failure at once, not one for each file.
async fn is_directory(store: &Store, place: &Place) -> Result<bool, Failure> {
    let Ok(spot) = spot_of(place) else { return Ok(false) };
    match traits_of(store, &spot, true).await {
        Ok(traits) => Ok(traits.is_directory()),
        Err(failure) if failure.reason.is_not_found() => Ok(false),
        Err(failure @ Failure { reason: Reason::NoBucket(_), .. }) => Err(failure),
        // Whatever it is, it will be met again by whoever writes there.
        Err(_) => Ok(false),
    }
}

fn spot_of(place: &Place) -> Result<Spot, Failure> {
    match place {
        Place::Remote(path) => Ok(Spot::Remote(path.clone())),
        Place::Local(path) => Ok(Spot::Local(path.clone())),
        Place::Stream => Ok(Spot::Stream),
    }
}

fn tree_of(place: &Place) -> Result<Tree, Failure> {
    match place {
        Place::Remote(path) => Ok(Tree::Remote(path.clone())),
        Place::Local(path) => Ok(Tree::Local(path.clone())),
        Place::Stream => Err(Failure::said(place, "a directory can't go to a stream")),
    }
}

fn name_of(place: &Place) -> Result<Vec<u8>, Failure> {
    let name = match place {
        Place::Remote(path) => path.name().map(<[u8]>::to_vec),
        Place::Local(path) => path.file_name().map(|name| name.as_bytes().to_vec()),
        Place::Stream => None,
    };
    name.ok_or_else(|| Failure::said(place, "it has no name of its own: say which the copy shall have"))
}

fn below(place: &Place, name: &[u8]) -> Place {
    match place {
        Place::Remote(path) => Place::Remote(path.child(name)),
        Place::Local(path) => Place::Local(path.join(std::ffi::OsStr::from_bytes(name))),
        Place::Stream => Place::Stream,
    }
}
