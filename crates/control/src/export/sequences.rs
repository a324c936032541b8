//! Which sequences were given out, for all back ends and for the lives of this node that come.
//!
//! The rule to know: readers refuse a sequence lower than one they have seen, in whichever bucket. So a bucket that is
//! new, or was emptied, goes on from the highest one ever seen, and back ends give one number to one snapshot.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::Snapshot;
use tokio::sync::Mutex;

/// The highest sequence of each group.
type Highest = BTreeMap<String, u64>;

#[derive(Debug)]
pub(super) struct Sequences {
    /// Where they are kept; none: nowhere.
    file: Option<PathBuf>,
    group: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    highest: u64,
    /// The last snapshot that got a number, by lineage and revision.
    given: Option<((Arc<str>, u64), u64)>,
    /// Why the file could not be written the last time.
    error: Option<String>,
}

impl Sequences {
    pub fn load(file: Option<PathBuf>, group: &str) -> Self {
        let highest =
            file.as_deref().and_then(read).and_then(|all| all.get(group).copied()).unwrap_or_default();
        let known = Mutex::new(Known { highest, ..Known::default() });
        Self { file, group: group.to_owned(), known }
    }

    /// A publication was found or made.
    pub async fn saw(&self, sequence: u64) {
        let mut known = self.known.lock().await;
        if sequence > known.highest {
            known.highest = sequence;
            self.keep(&mut known).await;
        }
    }

    /// The sequence that a snapshot should have, at least.
    pub async fn of(&self, snapshot: &Snapshot) -> u64 {
        let mut known = self.known.lock().await;
        let name = (snapshot.store_id.clone(), snapshot.revision);
        match &known.given {
            Some((given, sequence)) if *given == name => *sequence,
            _ => {
                let sequence = known.highest.saturating_add(1);
                known.given = Some((name, sequence));
                sequence
            }
        }
    }

    async fn keep(&self, known: &mut Known) {
        let Some(file) = self.file.clone() else { return };
        let (group, highest) = (self.group.clone(), known.highest);
        let written = tokio::task::spawn_blocking(move || write(&file, group, highest)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        if let Some(error) = error.as_ref().filter(|error| known.error.as_ref() != Some(error)) {
            let file = self.file.as_deref().unwrap_or(Path::new("")).display();
            tracing::error!(%file, error, "the backup's sequence can't be kept");
        }
        known.error = error;
    }
}

fn read(file: &Path) -> Option<Highest> {
    let text = fs::read_to_string(file).ok()?;
    let read = serde_json::from_str(&text);
    read.map_err(
        |error| tracing::warn!(file = %file.display(), %error, "the backup's sequence can't be read"),
    )
    .ok()
}

/// A reader sees what was there before or what is there now.
fn write(file: &Path, group: String, highest: u64) -> io::Result<()> {
    let mut all = read(file).unwrap_or_default();
    all.insert(group, highest);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension("new");
    fs::write(&draft, serde_json::to_vec(&all)?)?;
    fs::File::open(&draft)?.sync_all()?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_go_on_in_the_next_life_and_one_snapshot_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("data/backup.json"));
        let first = Sequences::load(file.clone(), "g");
        let snapshot = |revision: u64| Snapshot::new("s", revision);
        assert_eq!(first.of(&snapshot(5)).await, 1);
        first.saw(41).await;
        first.saw(7).await;
        assert_eq!((first.of(&snapshot(5)).await, first.of(&snapshot(6)).await), (1, 42));
        assert_eq!(first.of(&snapshot(6)).await, 42, "another back end publishes the same");
        assert_eq!(Sequences::load(file.clone(), "g").of(&snapshot(6)).await, 42);
        assert_eq!(Sequences::load(file.clone(), "other").of(&snapshot(6)).await, 1);
        fs::write(file.as_ref().unwrap(), "torn").unwrap();
        assert_eq!(Sequences::load(file, "g").of(&snapshot(6)).await, 1);
    }
}
