//! When to export: `cron_spec`, as robfig/cron reads it.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Local};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

/// A parsed `cron_spec`.
#[derive(Clone, Debug)]
pub struct CronSpec {
    text: String,
    when: When,
}

#[derive(Clone, Debug)]
enum When {
    Every(Duration),
    At(Box<Cron>),
}

/// The text is no `cron_spec`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{spec}` is no cron_spec: {reason}")]
pub struct BadSpec {
    spec: String,
    reason: String,
}

impl CronSpec {
    /// Reads `@every 1m30s`, `@hourly` and its like, or five fields.
    pub fn parse(spec: &str) -> Result<Self, BadSpec> {
        let trimmed = spec.trim();
        let bad = |reason: String| BadSpec { spec: spec.to_owned(), reason };
        let when = if let Some(duration) = trimmed.strip_prefix("@every ") {
            When::Every(every(duration.trim()).map_err(bad)?)
        } else {
            let fields = match trimmed {
                "@yearly" | "@annually" => "0 0 1 1 *",
                "@monthly" => "0 0 1 * *",
                "@weekly" => "0 0 * * 0",
                "@daily" | "@midnight" => "0 0 * * *",
                "@hourly" => "0 * * * *",
                other if other.starts_with('@') => {
                    return Err(bad(
                        "known are @every DURATION, @hourly, @daily, @weekly, @monthly, @yearly".into(),
                    ));
                }
                fields => fields,
            };
            When::At(Box::new(five_fields(fields).map_err(bad)?))
        };
        Ok(Self { text: trimmed.to_owned(), when })
    }

    /// How long after `now` the next time is; none if there is none.
    pub fn after(&self, now: DateTime<Local>) -> Option<Duration> {
        match &self.when {
            When::Every(duration) => Some(*duration),
            When::At(cron) => {
                let next = cron.find_next_occurrence(&now, false).ok()?;
                (next - now).to_std().ok()
            }
        }
    }
}

impl fmt::Display for CronSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for CronSpec {
    type Err = BadSpec;

    fn from_str(spec: &str) -> Result<Self, BadSpec> {
        Self::parse(spec)
    }
}

fn five_fields(fields: &str) -> Result<Cron, String> {
    let count = fields.split_whitespace().count();
    if count != 5 {
        return Err(format!("five fields are expected (minute hour day month weekday), there are {count}"));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(fields).map_err(|error| error.to_string())
}

/// A duration as Go writes it. Fractions of a second are dropped, as robfig/cron does; less than one is one.
fn every(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration, such as 30s, 1m30s or 2h");
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let (unit, after) =
            rest[end..].split_at(rest[end..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - end));
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        seconds += number * scale;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds.floor().max(1.0)).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn after(spec: &str) -> Duration {
        let now = Local.with_ymd_and_hms(2030, 3, 4, 10, 20, 30).unwrap();
        CronSpec::parse(spec).unwrap().after(now).unwrap()
    }

    #[test]
    fn what_robfig_cron_reads_is_read() {
        let minute = Duration::from_secs(60);
        assert_eq!(after("@every 1m"), minute);
        assert_eq!(after("@every 1h1m1s"), Duration::from_secs(3661));
        assert_eq!(after("@every 1.5m"), Duration::from_secs(90));
        assert_eq!(after("@every 1500ms"), Duration::from_secs(1));
        assert_eq!(after("@every 10ms"), Duration::from_secs(1));
        assert_eq!(after("@hourly"), Duration::from_secs(39 * 60 + 30));
        assert_eq!(after("*/5 * * * *"), Duration::from_secs(4 * 60 + 30));
        assert_eq!(after("21-25 10 * * MON"), Duration::from_secs(30));
        assert_eq!(after("0 12 ? * *"), Duration::from_secs((99 * 60) + 30));
        for known in ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight"] {
            assert!(after(known) > minute, "{known}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let reason = |spec: &str| CronSpec::parse(spec).unwrap_err().to_string();
        assert_eq!(
            reason("* * * *"),
            "`* * * *` is no cron_spec: five fields are expected (minute hour day month weekday), there are 4"
        );
        assert!(reason("0 0 0 * * *").ends_with("there are 6"));
        assert!(reason("@every").contains("@every DURATION"));
        assert!(reason("@every x").contains("`x` is no duration"));
        assert!(reason("@every 5").contains("no duration"));
        assert!(reason("@every -5s").contains("no duration"));
        assert!(reason("@often").contains("known are"));
        assert!(CronSpec::parse("61 * * * *").is_err());
        assert!(CronSpec::parse("").is_err());
    }
}
