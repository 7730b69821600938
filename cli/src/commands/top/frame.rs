//! How it is shown. Pure.

use super::sample::{Activity, Percentiles, Teller, View};
use crate::commands::status::Report;
use anyhow::Result;
use cairn_common::wire::master::Status;
use cairn_objects::size::human;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};
use ratatui::{Frame, Terminal};
use std::time::Duration;

const COLUMNS: [&str; 10] = ["role", "where", "read/s", "written/s", "ops/s", "queue", "read p50", "read p99", "write p50", "write p99"];
const WIDTHS: [Constraint; 10] = [
    Constraint::Length(8),
    Constraint::Min(22),
    Constraint::Length(10),
    Constraint::Length(10),
    Constraint::Length(8),
    Constraint::Length(5),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(9),
    Constraint::Length(9),
];

/// One picture as text, as high as it needs to be.
pub fn text(view: &View, width: u16) -> Result<String> {
    let height = (head(view).len() + rows(view).len() + 2) as u16;
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| draw(frame, view))?;
    let buffer = terminal.backend().buffer();
    let line = |row| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    Ok((0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect())
}

pub fn draw(frame: &mut Frame<'_>, view: &View) {
    let head = head(view);
    let areas = Layout::vertical([Constraint::Length(head.len() as u16 + 1), Constraint::Min(0)]).split(frame.area());
    frame.render_widget(Paragraph::new(head), areas[0]);
    let header = Row::new(COLUMNS).style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(rows(view).into_iter().map(Row::new), WIDTHS).header(header).column_spacing(1);
    frame.render_widget(table, areas[1]);
}

/// The lines above the table.
fn head(view: &View) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(trouble) = &view.trouble {
        lines.push(Line::styled(trouble.clone(), Style::new().fg(Color::Red)));
    }
    let Some(status) = &view.status else { return lines };
    let report = Report::new(status);
    let colour = if report.is_healthy() { Color::Green } else { Color::Yellow };
    lines.push(Line::styled(report.verdict(), Style::new().fg(colour)));
    let Activity { read_bytes, written_bytes, operations, .. } = view.clients();
    let (used, total) = space(status);
    lines.push(Line::from(format!(
        "clients: {} read/s, {} written/s, {operations:.0} ops/s    disks: {} of {}    {} inodes",
        human(read_bytes as u64),
        human(written_bytes as u64),
        human(used),
        human(total),
        status.inodes
    )));
    let repair = view.repair();
    lines.push(Line::from(repair.sentence().unwrap_or_else(|| {
        format!("repair: nothing is left; {} shards, {} restored so far", repair.shards_repaired, human(repair.bytes_repaired))
    })));
    let scrub = view.scrub();
    lines.push(Line::from(format!(
        "scrub: {} shards, {} read; {} damaged found, {} repaired; every disk {} times",
        scrub.shards_scrubbed,
        human(scrub.bytes_scrubbed),
        scrub.corrupt_found,
        scrub.damaged_repaired,
        scrub.passes
    )));
    lines
}

fn space(status: &Status) -> (u64, u64) {
    let reports = status.servers.iter().flat_map(|server| &server.targets).filter_map(|(_, report)| report.as_ref());
    reports.fold((0, 0), |sum, report| (sum.0 + report.used_bytes, sum.1 + report.total_bytes))
}

/// One row for the master, each chunkserver and each client.
fn rows(view: &View) -> Vec<[String; 10]> {
    let Some(status) = &view.status else { return Vec::new() };
    let mut rows = vec![row("master".to_owned(), status.master_address.to_string(), view.activity(Teller::Master))];
    for server in &status.servers {
        let place = match server.state.is_serving() {
            true => server.address.to_string(),
            false => format!("{} {}", server.address, format!("{:?}", server.state).to_lowercase()),
        };
        rows.push(row(server.id.to_string(), place, view.activity(Teller::Server(server.id))));
    }
    for session in &status.sessions {
        rows.push(row(session.id.to_string(), session.description.clone(), view.activity(Teller::Session(session.id))));
    }
    rows
}

fn row(role: String, place: String, activity: Option<Activity>) -> [String; 10] {
    let Some(activity) = activity else {
        return [role, place, "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into()];
    };
    let Percentiles { half: read_half, most: read_most } = activity.reads;
    let Percentiles { half: write_half, most: write_most } = activity.writes;
    [
        role,
        place,
        human(activity.read_bytes as u64),
        human(activity.written_bytes as u64),
        format!("{:.0}", activity.operations),
        activity.queue.to_string(),
        time(read_half),
        time(read_most),
        time(write_half),
        time(write_most),
    ]
}

fn time(duration: Option<Duration>) -> String {
    match duration.map(|duration| duration.as_micros()) {
        None => "-".to_owned(),
        Some(micros @ 0..1_000) => format!("{micros} us"),
        Some(micros @ 1_000..1_000_000) => format!("{:.1} ms", micros as f64 / 1e3),
        Some(micros) => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{text, time};
    use crate::commands::top::sample::tests::status;
    use crate::commands::top::sample::{Sample, View};
    use cairn_common::ids::SessionId;
    use cairn_common::wire::load::{Load, LoadReport};
    use cairn_common::wire::master::SessionStatus;
    use std::time::Duration;

    #[test]
    fn times_are_readable() {
        let shown = |micros| time(Some(Duration::from_micros(micros)));
        assert_eq!([shown(7), shown(1500), shown(2_500_000), time(None)], ["7 us", "1.5 ms", "2.5 s", "-"]);
    }

    #[test]
    fn a_picture_has_a_row_for_everybody() {
        let mut view = View::default();
        for seconds in [1, 2] {
            let mut status = status();
            let session = SessionStatus {
                id: SessionId(7),
                description: "mount on /m".into(),
                address: None,
                silent_ms: None,
                open_inodes: 0,
                locks: 0,
                leases: 0,
                requests: 0,
            };
            status.sessions.push(session);
            let load = Load { at_ms: seconds * 1000, queue: 2, written_bytes: seconds << 20, ..Load::default() };
            view.take(Sample { status, loads: LoadReport { sessions: vec![(SessionId(7), load)], ..LoadReport::default() } });
        }
        let picture = text(&view, 120).unwrap();
        assert!(picture.contains("clients: 0 B read/s, 1.0 MiB written/s"), "{picture}");
        let row = picture.lines().find(|line| line.starts_with("c7")).unwrap_or_else(|| panic!("{picture}"));
        assert_eq!(row.split_whitespace().collect::<Vec<_>>()[..8], ["c7", "mount", "on", "/m", "0", "B", "1.0", "MiB"], "{row}");
        assert!(picture.lines().any(|line| line.starts_with("master") && line.contains("10.0.0.1:7440")), "{picture}");
    }
}
