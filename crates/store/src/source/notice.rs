//! How a source tells what it has: it keeps one notice up to date.
//!
//! The rule to know: a notice is a state, not a message. Whoever was busy while ten changes came sees the tenth, so
//! changes never queue up, and a single one is seen at once.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::Update;

/// What a source last had to say.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    pub state: State,
    /// What is wrong: always where it is lost, and sometimes where it is not.
    pub error: Option<Arc<str>>,
    /// The newest it has. Stays when the source is lost.
    pub update: Option<Arc<Update>>,
    /// Grows with each snapshot that was read afresh; the same number is the same snapshot plus changes.
    pub reading: u64,
    /// When it was last asked, where it is asked again and again.
    pub asked_at: Option<DateTime<Utc>>,
}

/// Whether a source can be heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Asking,
    Up,
    /// It was heard, and has nothing.
    Nothing,
    /// `refused`: nobody is there.
    Lost {
        refused: bool,
    },
}

/// Where a source puts its notice.
#[derive(Clone, Debug)]
pub struct Board(watch::Sender<Notice>);

impl Board {
    pub fn new() -> (Self, watch::Receiver<Notice>) {
        let (board, reader) = watch::channel(Notice::default());
        (Self(board), reader)
    }

    /// A new update; `afresh` if it is not the last one plus changes.
    pub fn offer(&self, update: Update, afresh: bool, error: Option<String>) {
        self.0.send_modify(|notice| {
            notice.state = State::Up;
            notice.error = error.map(Arc::from);
            notice.update = Some(Arc::new(update));
            notice.reading += u64::from(afresh);
        });
    }

    /// It is heard, and what it has is what it had.
    pub fn confirm(&self, error: Option<String>) {
        self.0.send_modify(|notice| (notice.state, notice.error) = (State::Up, error.map(Arc::from)));
    }

    /// It can be heard, and was not asked what it has.
    pub fn heard(&self) {
        self.0.send_modify(|notice| {
            notice.state = if notice.update.is_some() { State::Up } else { State::Asking };
            (notice.error, notice.asked_at) = (None, Some(Utc::now()));
        });
    }

    pub fn nothing(&self, error: &str) {
        self.0.send_modify(|notice| (notice.state, notice.error) = (State::Nothing, Some(error.into())));
    }

    pub fn lost(&self, error: &str, refused: bool) {
        self.0.send_modify(|notice| {
            (notice.state, notice.error) = (State::Lost { refused }, Some(error.into()));
        });
    }

    pub fn asked(&self) {
        self.0.send_modify(|notice| notice.asked_at = Some(Utc::now()));
    }
}
