//! Numbers of bytes and times, as people write and read them.

use cairn_common::time::Timestamp;

/// `1.5 GiB`; below a KiB exact.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `4096`, `64k`, `10M`, `2GiB`: powers of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write a number of bytes, or one with K, M, G or T, for example 10M");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A day and a time of day, in UTC.
struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    nanos: u32,
}

impl Calendar {
    /// The civil calendar from days, by eras of 400 years that begin on a first of March.
    fn of(time: Timestamp) -> Self {
        let (seconds, nanos) = time.parts();
        let days = seconds.div_euclid(86_400) + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day: day_of_year - (153 * shifted_month + 2) / 5 + 1, second_of_day: seconds.rem_euclid(86_400), nanos }
    }

    fn time_of_day(&self) -> String {
        let second = self.second_of_day;
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }
}

/// `2026-11-26 02:12:22`, in UTC.
pub fn time(time: Timestamp) -> String {
    let calendar = Calendar::of(time);
    format!("{:04}-{:02}-{:02} {}", calendar.year, calendar.month, calendar.day, calendar.time_of_day())
}

/// `2026-11-26T02:12:22.123456789Z`.
pub fn exact_time(time: Timestamp) -> String {
    let calendar = Calendar::of(time);
    let Calendar { year, month, day, nanos, .. } = calendar;
    format!("{year:04}-{month:02}-{day:02}T{}.{nanos:09}Z", calendar.time_of_day())
}

#[cfg(test)]
mod tests {
    use super::{exact_time, human, parse, time};
    use cairn_common::time::Timestamp;

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!([human(0), human(1023), human(1536), human(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(["17", "64k", "10M", "2GiB", "1kb"].map(parse), [Ok(17), Ok(65_536), Ok(10 << 20), Ok(2 << 30), Ok(1024)]);
        assert!(["", "k", "5x", "-1", "1.5M", "99999999999999T"].iter().all(|text| parse(text).is_err()));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let at = |seconds| time(Timestamp::from_parts(seconds, 0));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_795_659_142), "2026-11-26 02:12:22");
        assert_eq!(at(-1), "1969-12-31 23:59:59");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00");
        assert_eq!(exact_time(Timestamp::from_parts(0, 5)), "1970-01-01T00:00:00.000000005Z");
    }
}
