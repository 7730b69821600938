//! The page that Prometheus reads: its text format, version 0.0.4.

use super::histogram::{self, Latencies};
use std::fmt::{Display, Write};

/// What a page is, in HTTP's words.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written. Families are written one after the other, each with all its samples.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// Labels of a sample: names, which are constants, and values, which may be anything.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Exposition {
    pub fn finish(self) -> String {
        self.text
    }

    /// One count.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help).sample(&[], value);
    }

    /// One value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help).sample(&[], value);
    }

    /// A family of counts.
    pub fn counters<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.begin(name, help, Kind::Counter)
    }

    pub fn gauges<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.begin(name, help, Kind::Gauge)
    }

    /// A family of histograms of seconds.
    pub fn histograms<'a>(&'a mut self, name: &'a str, help: &str) -> Samples<'a> {
        self.begin(name, help, Kind::Histogram)
    }

    fn begin<'a>(&'a mut self, name: &'a str, help: &str, kind: Kind) -> Samples<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.trim().replace('\\', "\\\\").replace('\n', " ");
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Samples { text: &mut self.text, name }
    }
}

/// The samples of one family.
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Samples<'_> {
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    pub fn histogram(&mut self, labels: Labels<'_>, latencies: &Latencies) {
        let mut below = 0u64;
        for (bucket, count) in latencies.buckets.iter().enumerate() {
            below = below.saturating_add(*count);
            let bound = histogram::bound(bucket).map_or_else(|| "+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            self.line("_bucket", labels, Some(("le", &bound)), below);
        }
        self.line("_sum", labels, None, latencies.nanos as f64 / 1e9);
        self.line("_count", labels, None, below);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&str, &str)>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut mark = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.text.push(mark);
            mark = ',';
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // Writing to a String can't fail.
            let _ = write!(self.text, "{name}=\"{value}\"");
        }
        if mark == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::Exposition;
    use crate::metrics::Histogram;
    use std::time::Duration;

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let mut page = Exposition::default();
        page.counter("cairn_things_total", "Things,\nof all kinds.", 5);
        let mut disks = page.gauges("cairn_disk_bytes", "Of each disk.");
        disks.sample(&[("disk", "a\"b\\c\nd"), ("state", "good")], 7);
        disks.sample(&[("disk", "e"), ("state", "full")], 1.5);
        let expected = "# HELP cairn_things_total Things, of all kinds.\n# TYPE cairn_things_total counter\ncairn_things_total 5\n\
                        # HELP cairn_disk_bytes Of each disk.\n# TYPE cairn_disk_bytes gauge\n\
                        cairn_disk_bytes{disk=\"a\\\"b\\\\c\\nd\",state=\"good\"} 7\ncairn_disk_bytes{disk=\"e\",state=\"full\"} 1.5\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn buckets_are_added_up() {
        let histogram = Histogram::default();
        for micros in [5, 5, 10, 40_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut page = Exposition::default();
        page.histograms("cairn_wait_seconds", "How long.").histogram(&[("who", "x")], &histogram.snapshot());
        let page = page.finish();
        for line in [
            "cairn_wait_seconds_bucket{who=\"x\",le=\"0.000008\"} 2",
            "cairn_wait_seconds_bucket{who=\"x\",le=\"0.000016\"} 3",
            "cairn_wait_seconds_bucket{who=\"x\",le=\"16.777216\"} 3",
            "cairn_wait_seconds_bucket{who=\"x\",le=\"+Inf\"} 4",
            "cairn_wait_seconds_sum{who=\"x\"} 40.00002",
            "cairn_wait_seconds_count{who=\"x\"} 4",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}
