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

/// A column: its title, how wide it is, and whether a narrow terminal shows it, too.
struct Column(&'static str, Constraint, bool);

const COLUMNS: [Column; 10] = [
    Column("role", Constraint::Length(8), true),
    Column("where", Constraint::Min(22), true),
    Column("read/s", Constraint::Length(10), true),
    Column("written/s", Constraint::Length(10), true),
    Column("ops/s", Constraint::Length(6), true),
    Column("queue", Constraint::Length(5), false),
    Column("read p50", Constraint::Length(9), false),
    Column("read p99", Constraint::Length(8), true),
    Column("write p50", Constraint::Length(9), false),
    Column("write p99", Constraint::Length(9), true),
];
/// What all columns need. A number of which a part is cut off says something else.
const WIDE: u16 = 105;

/// One picture as text, as high as it needs to be.
pub fn text(view: &View, width: u16) -> Result<String> {
    let height = (head(view).len() + rows(view).len() + 3) as u16;
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| draw(frame, view))?;
    let buffer = terminal.backend().buffer();
    let line = |row| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    let text: String = (0..height).map(|row| line(row).trim_end().to_owned() + "\n").collect();
    Ok(text.trim_end().to_owned() + "\n")
}

pub fn draw(frame: &mut Frame<'_>, view: &View) {
    let (head, rows) = (head(view), rows(view));
    let area = frame.area();
    let is_shown = |column: &Column| column.2 || area.width >= WIDE;
    let header = COLUMNS.iter().filter(|column| is_shown(column)).map(|column| column.0);
    let widths = COLUMNS.iter().filter(|column| is_shown(column)).map(|column| column.1);
    let cells = |row: [String; 10]| Row::new(row.into_iter().zip(&COLUMNS).filter(|(_, column)| is_shown(column)).map(|(cell, _)| cell));
    let areas = Layout::vertical([Constraint::Length(head.len() as u16 + 1), Constraint::Min(0), Constraint::Length(1)]).split(area);
    // One line is the header.
    let hidden = rows.len().saturating_sub(areas[1].height.saturating_sub(1) as usize);
    frame.render_widget(Paragraph::new(head), areas[0]);
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows.into_iter().map(cells), widths).header(header).column_spacing(1), areas[1]);
    frame.render_widget(Paragraph::new(foot(view, hidden)).style(Style::new().add_modifier(Modifier::DIM)), areas[2]);
}

/// The line below the table.
fn foot(view: &View, hidden: usize) -> String {
    let keys = if view.is_live() { "q: quit" } else { "" };
    match hidden {
        0 => keys.to_owned(),
        _ => format!("{keys}    {hidden} more rows in a higher window").trim_start().to_owned(),
    }
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
    use super::{draw, text, time};
    use crate::commands::top::sample::tests::status;
    use crate::commands::top::sample::{Sample, View};
    use cairn_common::ids::SessionId;
    use cairn_common::wire::load::{Load, LoadReport};
    use cairn_common::wire::master::SessionStatus;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    #[test]
    fn times_are_readable() {
        let shown = |micros| time(Some(Duration::from_micros(micros)));
        assert_eq!([shown(7), shown(1500), shown(2_500_000), time(None)], ["7 us", "1.5 ms", "2.5 s", "-"]);
    }

    /// Of "426 us" a narrow terminal had shown "426 u".
    #[test]
    fn a_narrow_picture_has_fewer_columns_and_whole_numbers() {
        let mut view = View::default();
        view.take(Sample { status: status(), loads: LoadReport::default() });
        let titles =
            |width| text(&view, width).unwrap().lines().find(|line| line.starts_with("role")).map(|line| line.split_whitespace().count());
        // "read p50" is two words.
        assert_eq!((titles(120), titles(80)), (Some(14), Some(9)));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut view = View::new(false);
        view.take(Sample { status: status(), loads: LoadReport::default() });
        let mut terminal = Terminal::new(TestBackend::new(100, 7)).unwrap();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        let buffer = terminal.backend().buffer();
        let last: String = (0..100).map(|column| buffer[(column, 6)].symbol()).collect();
        let rows = super::rows(&view).len();
        assert_eq!(last.trim_end(), format!("q: quit    {rows} more rows in a higher window"));
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
