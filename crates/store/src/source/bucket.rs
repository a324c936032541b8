//! Reads a backup again and again, and offers what is new in it.

use std::time::Duration;

/// Which backup.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often it is asked; a few percent more or less each time, so that data planes don't ask all at once.
    pub poll_interval: Duration,
}
