//! The time of day as it is written into logs.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Local};

/// A moment, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    seconds: u64,
    millis: u32,
}

/// What a second looks like in one format; kept per worker, as a second sees many requests.
type Kept = RefCell<(u64, String)>;

thread_local! {
    static LOCAL: Kept = const { RefCell::new((0, String::new())) };
    static ISO: Kept = const { RefCell::new((0, String::new())) };
}

impl Clock {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs(), millis: since.subsec_millis() }
    }

    /// nginx's `$msec`: `1700000000.123`.
    pub fn msec(self) -> String {
        format!("{}.{:03}", self.seconds, self.millis)
    }

    /// nginx's `$time_local`: `14/Nov/2023:22:13:20 +0000`.
    pub fn local(self) -> String {
        LOCAL.with(|kept| self.written(kept, "%d/%b/%Y:%H:%M:%S %z"))
    }

    /// nginx's `$time_iso8601`: `2023-11-14T22:13:20+00:00`.
    pub fn iso8601(self) -> String {
        ISO.with(|kept| self.written(kept, "%Y-%m-%dT%H:%M:%S%:z"))
    }

    fn written(self, kept: &Kept, format: &str) -> String {
        let mut kept = kept.borrow_mut();
        if kept.0 != self.seconds || kept.1.is_empty() {
            let time: DateTime<Local> = (UNIX_EPOCH + std::time::Duration::from_secs(self.seconds)).into();
            *kept = (self.seconds, time.format(format).to_string());
        }
        kept.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_nginx_writes_them() {
        let clock = Clock { seconds: 1_700_000_000, millis: 7 };
        assert_eq!(clock.msec(), "1700000000.007");
        let (local, iso) = (clock.local(), clock.iso8601());
        assert_eq!((local.len(), iso.len()), (26, 25), "{local} {iso}");
        assert!(local.contains("/Nov/2023:") && iso.starts_with("2023-11-1"), "{local} {iso}");
        assert_eq!(clock.local(), local);
        assert_ne!(Clock { seconds: 1_700_000_001, millis: 0 }.local(), local);
    }
}
