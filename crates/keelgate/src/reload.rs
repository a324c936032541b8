//! Asking the process for what SIGHUP asks of it: to read its settings again.

use tokio::sync::{mpsc, oneshot};

/// Why the settings were not taken, if they were not.
pub type Outcome = Result<(), String>;

/// Where the process hears of it; the answer goes to who asked.
pub type Asked = mpsc::Receiver<oneshot::Sender<Outcome>>;

/// Asks for reloads. They are done one after another.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<oneshot::Sender<Outcome>>);

impl Reloader {
    pub fn new() -> (Self, Asked) {
        let (ask, asked) = mpsc::channel(8);
        (Self(ask), asked)
    }

    /// Waits until the settings are in force, or refused.
    pub async fn ask(&self) -> Outcome {
        let ending = || "the process is about to end".to_owned();
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }
}
