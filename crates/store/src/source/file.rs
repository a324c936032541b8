//! Watches a local `apisix.yaml` or `apisix.json`.
//!
//! The rule to know: a file is looked at every second, as APISIX does, and read when it looks different. One that
//! can't be read changes nothing: what is served stays, and the log says which line is wrong. A list in it that is
//! none costs no other: what it had before stays.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::Utc;
use model::{FileError, Snapshot, snapshot_file::Reading, substitute};

use super::{Origin, Update, digest::Digest, disk, notice::Board};

const EVERY: Duration = Duration::from_secs(1);

/// What tells that a file was written, without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    modified: SystemTime,
    size: u64,
    /// A file moved into the place of another may be as old and as large.
    inode: u64,
}

/// So many entries of a file that are no resources are told one by one.
const TOLD: usize = 10;

/// What a list had that can't be read any more.
#[derive(Clone)]
pub(super) struct Before {
    /// What was last served from a file.
    pub served: Option<Snapshot>,
    /// Where that is kept over a restart.
    pub kept: Option<disk::Folder>,
}

impl Before {
    /// Only what came from a file: other sources know their store.
    fn snapshot(&mut self) -> Option<&Snapshot> {
        if let Some(folder) = self.kept.take()
            && self.served.is_none()
        {
            self.served = folder.read().ok().flatten().map(|kept| kept.snapshot);
        }
        self.served.as_ref().filter(|served| served.store_id.is_empty())
    }
}

/// Follows the file for ever.
pub(super) async fn follow(path: PathBuf, mut before: Before, board: Board) {
    let mut seen = None;
    loop {
        let found = look(&path);
        match found {
            Ok(found) if seen.as_ref() == Some(&found) => {}
            Ok(found) => {
                let revision = found.modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
                let reading = path.clone();
                let mut base = Before { served: before.served.clone(), kept: before.kept.clone() };
                let read = tokio::task::spawn_blocking(move || read(&reading, revision, &mut base)).await;
                match read.unwrap_or_else(|panic| Err(panic.to_string())) {
                    Ok(update) => {
                        before.served = Some(update.snapshot.clone());
                        board.offer(update, true, None);
                    }
                    Err(error) => board.lost(&error, true),
                }
                seen = Some(found);
            }
            Err(error) => {
                seen = None;
                board.lost(&format!("{}: {error}", path.display()), true);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn look(path: &Path) -> std::io::Result<Look> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path)?;
    Ok(Look { modified: found.modified()?, size: found.len(), inode: found.ino() })
}

/// Reads the file by its ending. An error says where it is: `file:line: what`.
fn read(path: &Path, revision: u64, before: &mut Before) -> Result<Update, String> {
    let bytes = fs::read(path).map_err(|io| at(path, None, io))?;
    let mut reading = parse(path, &bytes, revision)?;
    let unlisted: Vec<_> = reading.unlisted().collect();
    if let Some(before) = (!unlisted.is_empty()).then(|| before.snapshot()).flatten() {
        for resource in unlisted.into_iter().flat_map(|kind| before.of(kind)) {
            reading.snapshot.put_shared(resource.clone());
        }
    }
    tell(path, &bytes, &reading);
    Ok(Update {
        origin: Origin::File,
        digest: Digest::of(&reading.snapshot).to_string(),
        instance: None,
        sequence: None,
        verified_at: Some(Utc::now()),
        by_hand: false,
        snapshot: reading.snapshot,
        rejected: reading.rejected,
    })
}

fn parse(path: &Path, bytes: &[u8], revision: u64) -> Result<Reading, String> {
    let lookup = |name: &str| std::env::var(name).ok();
    let parsed = if path.extension().is_some_and(|ending| ending == "json") {
        let filled = substitute::in_json(bytes, &lookup);
        let filled = filled.map_err(|wrong| at(path, line_of_json(&wrong), wrong))?;
        Reading::json(&filled, "", revision)
    } else {
        let text = std::str::from_utf8(bytes).map_err(|utf8| at(path, None, utf8))?;
        Reading::yaml(text, &lookup, "", revision)
    };
    parsed.map_err(|wrong| match wrong {
        FileError::Yaml { line, column, reason } => {
            at(path, Some(line), format!("column {column}: not valid YAML: {reason}"))
        }
        FileError::Unset(unset) => at(path, Some(unset.line as u64), unset),
        FileError::Json(error) => at(path, Some(error.line() as u64), format!("not valid JSON: {error}")),
        FileError::NoEndMark => at(path, None, wrong),
    })
}

/// `file:line: what`.
fn at(path: &Path, line: Option<u64>, what: impl std::fmt::Display) -> String {
    let line = line.map_or_else(String::new, |line| format!("{line}:"));
    format!("{}:{line} {what}", path.display())
}

/// What a file has that is not served, into the log.
fn tell(path: &Path, bytes: &[u8], reading: &Reading) {
    let place = |key: &str, what: &str| at(path, line_of_key(bytes, key), what);
    for key in &reading.unknown {
        tracing::warn!("{}", place(key, &format!("{key}: this key is not known: nothing of it is served")));
    }
    for rejected in reading.rejected.iter().take(TOLD) {
        let (kind, id) = (rejected.kind.name(), &rejected.id);
        let name = if id.is_empty() { kind.to_owned() } else { format!("{kind}/{id}") };
        tracing::warn!("{}", place(kind, &format!("{name}: {}", rejected.reason)));
    }
    if let Some(more @ 1..) = reading.rejected.len().checked_sub(TOLD) {
        tracing::warn!("{}", at(path, None, format!("{more} more entries are refused: see the status")));
    }
}

/// Where a key of the whole file stands.
fn line_of_key(bytes: &[u8], key: &str) -> Option<u64> {
    let quoted = format!("\"{key}\"");
    let starts = |line: &str| {
        let rest = [key, &quoted].into_iter().find_map(|key| line.strip_prefix(key));
        rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let text = str::from_utf8(bytes).ok()?;
    (1..).zip(text.lines()).find(|(_, line)| starts(line)).map(|(line, _)| line)
}

fn line_of_json(error: &substitute::InJson) -> Option<u64> {
    match error {
        substitute::InJson::Syntax(error) => Some(error.line() as u64),
        // The line is counted inside one value, not in the file.
        substitute::InJson::Unset(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Before {
        Before { served: None, kept: None }
    }

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn errors_name_file_and_line() {
        for (name, text, expected) in [
            ("apisix.yaml", "routes:\n  - id: 1\n", "apisix.yaml: the end mark `#END`"),
            ("apisix.yaml", "routes:\n  - id: 1\n    uri: [\n#END\n", "apisix.yaml:"),
            ("apisix.yaml", "a: 1\nb: ${{KEELGATE_NOT_SET}}\n#END\n", "apisix.yaml:2: can't find"),
            ("apisix.json", "{\n\"routes\": [\n{]\n}", "apisix.json:3: not valid JSON"),
            ("apisix.json", "{\"a\": \"${{KEELGATE_NOT_SET}}\"}", "apisix.json: can't find"),
        ] {
            let (_dir, path) = written(name, text);
            let error = read(&path, 1, &mut nothing()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_broken_file_changes_nothing_until_it_is_whole_again() {
        let (_dir, path) = written("apisix.yaml", "routes:\n  - id: 1\n    uri: /a\n#END\n");
        let (board, mut notice) = Board::new();
        let task = tokio::spawn(follow(path.clone(), nothing(), board));
        let first = notice.wait_for(|notice| notice.update.is_some()).await.unwrap().clone();
        fs::write(&path, "routes:\n  - id: 1\n  - id: 2\n").unwrap();
        let broken = notice.wait_for(|notice| notice.error.is_some()).await.unwrap().clone();
        assert_eq!(broken.update.unwrap().digest, first.update.unwrap().digest);
        fs::write(&path, "routes:\n  - id: 1\n  - id: 2\n#END\n").unwrap();
        let whole = notice.wait_for(|notice| notice.reading == 2).await.unwrap().clone();
        assert_eq!((whole.error, whole.update.unwrap().snapshot.len()), (None, 2));
        task.abort();
    }

    #[tokio::test]
    async fn a_list_that_is_none_keeps_what_it_had_over_a_restart_too() {
        let (dir, path) = written("apisix.yaml", "routes:\n- {id: 1, uri: /a}\nservices: []\n#END\n");
        let folder = || Some(disk::Folder::new(dir.path(), "default"));
        let first = read(&path, 1, &mut nothing()).unwrap();
        let (board, mut notice) = Board::new();
        let task = tokio::spawn(follow(path.clone(), nothing(), board));
        notice.wait_for(|notice| notice.reading == 1).await.unwrap();
        fs::write(&path, "routes:\n  id: 1\n  uri: /b\nservices: [{id: 2}]\n#END\n").unwrap();
        let second = notice.wait_for(|notice| notice.reading == 2).await.unwrap().update.clone().unwrap();
        task.abort();
        let keys: Vec<_> = second.snapshot.iter().map(|resource| resource.key.to_string()).collect();
        assert_eq!(keys, ["services/2", "routes/1"]);
        assert_eq!((second.rejected.len(), &*second.rejected[0].id), (1, ""));

        // A process that has just begun has it from the disk; not from another store's.
        let kept = |update: Update| disk::Kept {
            update: update.into(),
            marks: super::super::failover::Marks::default(),
        };
        folder().unwrap().write(&kept(first.clone())).unwrap();
        let restarted = read(&path, 1, &mut Before { served: None, kept: folder() }).unwrap();
        assert_eq!(restarted.digest, second.digest);
        let mut other = first;
        other.snapshot.store_id = "a-store".into();
        other.digest = "other".into();
        folder().unwrap().write(&kept(other)).unwrap();
        let strange = read(&path, 1, &mut Before { served: None, kept: folder() }).unwrap();
        assert_eq!(strange.snapshot.len(), 1);
    }

    #[test]
    fn the_line_of_a_key_is_found_in_both_notations() {
        assert_eq!(line_of_key(b"# rotes\nroutes: []\nrotes:\n", "rotes"), Some(3));
        assert_eq!(line_of_key(b"{\n\"rotes\" : []}\n", "rotes"), Some(2));
        assert_eq!(line_of_key(b"{\"rotes\": []}", "rotes"), None);
    }
}
