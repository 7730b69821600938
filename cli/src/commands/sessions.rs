//! `cairn session list` and `evict`

use super::ask_first::go_on;
use super::status::SessionReport;
use crate::arguments::{Operator, SessionAction, SessionEvict};
use crate::identity::ask;
use anyhow::{Context, Result, bail};
use cairn_common::ids::SessionId;
use cairn_common::wire::master::{MasterReply, MasterRequest, SessionStatus, Status};

pub fn run(action: SessionAction) -> Result<()> {
    match action {
        SessionAction::List { operator, json } => list(operator, json),
        SessionAction::Evict(options) => evict(options),
    }
}

fn list(operator: Operator, json: bool) -> Result<()> {
    super::in_role("session", move |runtime| async move {
        let status = super::status::fetch(&runtime, &operator).await?;
        if json {
            let sessions: Vec<_> = status.sessions.iter().map(SessionReport::new).collect();
            return super::print(&(serde_json::to_string_pretty(&sessions)? + "\n"));
        }
        super::print(&table(&status))
    })
}

fn table(status: &Status) -> String {
    let mut text = "session      address                silent    open files  what\n".to_owned();
    for session in &status.sessions {
        let address = session.address.map_or("away".to_owned(), |address| address.to_string());
        let silent = session.silent_ms.map_or("-".to_owned(), |silent| format!("{:.1} s", silent as f64 / 1000.0));
        text += &format!("{:<12} {address:<22} {silent:<9} {:>10}  {}\n", session.id.to_string(), session.open_inodes, session.description);
    }
    text
}

fn evict(options: SessionEvict) -> Result<()> {
    super::in_role("session", move |runtime| async move {
        let status = super::status::fetch(&runtime, &options.operator).await?;
        let id = SessionId(options.session);
        let found = status.sessions.iter().find(|session| session.id == id);
        let session = found.with_context(|| format!("there is no session {id}: `cairn session list` shows them all"))?;
        if !go_on(&preview(session), options.yes)? {
            return Ok(());
        }
        let member = options.operator.membership(&runtime).await?;
        match ask(&runtime, member.master, member.credentials, &MasterRequest::EndSession { session: id }).await? {
            MasterReply::Closed => {}
            other => bail!("the master answered something else to the end of {id}: {other:?}"),
        }
        println!("{id} has ended; if its client lives, it comes back with a new one");
        Ok(())
    })
}

fn preview(session: &SessionStatus) -> String {
    let SessionStatus { id, description, open_inodes, .. } = session;
    let address = session.address.map_or("away".to_owned(), |address| format!("at {address}"));
    format!(
        "{id} is {description:?} ({address}) with {open_inodes} open files: if it is evicted, files that were removed while it had them open are gone, and \
         what it has under way may fail"
    )
}

#[cfg(test)]
mod tests {
    use super::preview;
    use cairn_common::ids::SessionId;
    use cairn_common::wire::master::SessionStatus;

    #[test]
    fn who_is_evicted_is_named() {
        let session = SessionStatus {
            id: SessionId(7),
            description: "mount on /m".to_owned(),
            address: None,
            silent_ms: None,
            open_inodes: 3,
            locks: 0,
            leases: 0,
            requests: 0,
        };
        assert!(preview(&session).starts_with("c7 is \"mount on /m\" (away) with 3 open files: if it is evicted"), "{}", preview(&session));
    }
}
