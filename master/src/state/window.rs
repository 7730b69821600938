//! How many extents a part of a file has. A file is cut into aligned windows; an extent belongs to the window in which it ends.
//!
//! Windows with few extents have no row, so that most files cost nothing here. Invariants:
//!
//! - a window has a row <=> it has at least `Rules::window_counted` extents; the row counts them exactly;
//! - its row is in the queue of windows to be rewritten, under its `due` <=> there is a `due`.
//!
//! | extents, of which those above twice the `floor` count | due |
//! |---|---|
//! | fewer than `window_many` | never |
//! | from `window_many` on | after `window_patience`, from the moment when there were so many |
//! | from `window_too_many` on | at once |

use crate::keys;
use crate::state::edit::Edit;
use crate::state::record::{Rules, Window, WindowName};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::ids::Ino;
use cairn_common::limits::MIB;
use cairn_common::time::Timestamp;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// Small in tests, so that their files have several.
const WINDOW_BYTES: u64 = if cfg!(test) { 64 } else { 4 * MIB };

/// The window of the extent that ends at `end`.
pub fn name_of(ino: Ino, end: u64) -> WindowName {
    WindowName { ino, number: end.saturating_sub(1) / WINDOW_BYTES }
}

impl WindowName {
    /// The part of the file.
    pub fn range(&self) -> Range<u64> {
        let start = self.number.saturating_mul(WINDOW_BYTES);
        start..start.saturating_add(WINDOW_BYTES)
    }
}

/// Extents that end in a window.
pub fn count(reader: &dyn Reader, name: WindowName) -> Result<u32, StoreError> {
    let range = name.range();
    let (from, until) = (keys::extent(name.ino, range.start.saturating_add(1)), keys::extent(name.ino, range.end.saturating_add(1)));
    let mut extents = 0;
    reader.scan(Table::Extents, &from, Some(&until), false, &mut |_, _| {
        extents += 1;
        ControlFlow::Continue(())
    })?;
    Ok(extents)
}

/// Brings the counts up to date with what a command has added and removed; the extents themselves are staged already.
pub fn settle(edit: &mut Edit<'_, '_>, changes: BTreeMap<WindowName, i64>) -> Result<(), StoreError> {
    if changes.values().all(|change| *change == 0) {
        return Ok(());
    }
    let rules = Rules::of(edit.reader())?;
    for (name, change) in changes.into_iter().filter(|(_, change)| *change != 0) {
        let known: Option<Window> = edit.fetch(Table::Meta, &keys::window(name))?;
        let extents = match &known {
            Some(window) => {
                let sum = i64::from(window.extents) + change;
                u32::try_from(sum).map_err(|_| StoreError::Corrupt(format!("window {name:?} counts fewer extents than it had")))?
            }
            // It had few, and has fewer.
            None if change < 0 => continue,
            None => count(edit.reader(), name)?,
        };
        store(edit, &rules, name, known, extents);
    }
    Ok(())
}

/// Notes that rewriting the window would not make its extents fewer.
pub fn pass_over(edit: &mut Edit<'_, '_>, rules: &Rules, name: WindowName) -> Result<(), StoreError> {
    if let Some(known) = edit.fetch::<Window>(Table::Meta, &keys::window(name))? {
        let extents = known.extents;
        store(edit, rules, name, Some(Window { floor: extents, ..known }), extents);
    }
    Ok(())
}

/// Counts a window whose row was found to be wrong, and puts it into the queue if it is due.
pub fn recount(edit: &mut Edit<'_, '_>, name: WindowName) -> Result<(), StoreError> {
    let rules = Rules::of(edit.reader())?;
    let known: Option<Window> = edit.fetch(Table::Meta, &keys::window(name))?;
    let extents = count(edit.reader(), name)?;
    if let Some(due) = known.and_then(|known| known.due) {
        // It may be missing there.
        edit.put_raw(Table::Meta, &keys::due_window(due, name), Vec::new());
    }
    store(edit, &rules, name, known, extents);
    Ok(())
}

fn store(edit: &mut Edit<'_, '_>, rules: &Rules, name: WindowName, known: Option<Window>, extents: u32) {
    let known_due = known.and_then(|known| known.due);
    let floor = known.map_or(0, |known| known.floor.min(extents));
    let is_counted = extents >= rules.window_counted();
    let due = if is_counted { due(rules, known_due, extents, floor, edit.at) } else { None };
    if due != known_due {
        known_due.into_iter().for_each(|due| edit.delete(Table::Meta, &keys::due_window(due, name)));
        due.into_iter().for_each(|due| edit.put_raw(Table::Meta, &keys::due_window(due, name), Vec::new()));
    }
    if is_counted {
        edit.put(Table::Meta, &keys::window(name), &Window { extents, floor, due });
    } else if known.is_some() {
        edit.delete(Table::Meta, &keys::window(name));
    }
}

fn due(rules: &Rules, known: Option<Timestamp>, extents: u32, floor: u32, at: Timestamp) -> Option<Timestamp> {
    let above_floor = floor.saturating_mul(2);
    if extents >= rules.window_too_many.max(above_floor) {
        Some(known.map_or(at, |known| known.min(at)))
    } else if extents >= rules.window_many.max(above_floor) {
        Some(known.unwrap_or(at.plus(rules.window_patience)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Rules, due};
    use cairn_common::time::Timestamp;

    #[test]
    fn a_window_is_due_when_it_has_many_extents() {
        let rules = Rules::default();
        let at = Timestamp::from_parts(1000, 0);
        let later = at.plus(rules.window_patience);
        assert_eq!(due(&rules, None, 127, 0, at), None);
        assert_eq!(due(&rules, None, 128, 0, at), Some(later));
        assert_eq!(due(&rules, Some(at), 130, 0, later), Some(at), "its patience began when there were many");
        assert_eq!(due(&rules, Some(later), 512, 0, at), Some(at));
        assert_eq!(due(&rules, Some(at), 127, 0, later), None);
        // Islands between holes can't be joined.
        assert_eq!(due(&rules, None, 600, 600, at), None);
        assert_eq!(due(&rules, None, 1199, 600, at), None);
        assert_eq!(due(&rules, None, 1200, 600, at), Some(at));
        assert_eq!(due(&rules, None, 300, 150, at), Some(later));
    }
}
