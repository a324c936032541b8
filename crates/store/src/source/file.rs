//! Watches a local `apisix.yaml` or `apisix.json`.
//!
//! The rule to know: a file is looked at every second, as APISIX does, and read when it looks different. One that
//! can't be read changes nothing: what is served stays, and the log says which line is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::Utc;
use model::{FileError, Snapshot, substitute};

use super::{Origin, Update, digest::Digest, notice::Board};

const EVERY: Duration = Duration::from_secs(1);

/// What tells that a file was written, without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    modified: SystemTime,
    size: u64,
    /// A file moved into the place of another may be as old and as large.
    inode: u64,
}

/// Follows the file for ever.
pub(super) async fn follow(path: PathBuf, board: Board) {
    let mut seen = None;
    loop {
        let found = look(&path);
        match found {
            Ok(found) if seen.as_ref() == Some(&found) => {}
            Ok(found) => {
                let revision = found.modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
                let reading = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&reading, revision)).await;
                match read.unwrap_or_else(|panic| Err(panic.to_string())) {
                    Ok(update) => board.offer(update, true, None),
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
fn read(path: &Path, revision: u64) -> Result<Update, String> {
    let place = |line: Option<u64>| line.map_or_else(String::new, |line| format!("{line}:"));
    let error = |line, reason: String| format!("{}:{} {reason}", path.display(), place(line));
    let bytes = fs::read(path).map_err(|io| error(None, io.to_string()))?;
    let lookup = |name: &str| std::env::var(name).ok();
    let parsed = if path.extension().is_some_and(|ending| ending == "json") {
        let filled = substitute::in_json(&bytes, &lookup);
        let filled = filled.map_err(|wrong| error(line_of_json(&wrong), wrong.to_string()))?;
        Snapshot::from_json(&filled, "", revision)
    } else {
        let text = std::str::from_utf8(&bytes).map_err(|utf8| error(None, utf8.to_string()))?;
        Snapshot::from_yaml(text, &lookup, "", revision)
    };
    let (snapshot, rejected) = parsed.map_err(|wrong| error(line_of(&wrong), wrong.to_string()))?;
    Ok(Update {
        origin: Origin::File,
        digest: Digest::of(&snapshot).to_string(),
        instance: None,
        sequence: None,
        verified_at: Some(Utc::now()),
        by_hand: false,
        snapshot,
        rejected,
    })
}

fn line_of(error: &FileError) -> Option<u64> {
    match error {
        FileError::Json(error) => Some(error.line() as u64),
        FileError::Yaml { line, .. } => Some(*line),
        FileError::Unset(unset) => Some(unset.line as u64),
        FileError::NoEndMark => None,
    }
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
            ("apisix.yaml", "a: 1\nb: ${{KEELGATE_NOT_SET}}\n#END\n", "apisix.yaml:2: "),
            ("apisix.json", "{\n\"routes\": [\n{]\n}", "apisix.json:3: not valid JSON"),
            ("apisix.json", "{\"a\": \"${{KEELGATE_NOT_SET}}\"}", "apisix.json: can't find"),
        ] {
            let (_dir, path) = written(name, text);
            let error = read(&path, 1).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_broken_file_changes_nothing_until_it_is_whole_again() {
        let (_dir, path) = written("apisix.yaml", "routes:\n  - id: 1\n    uri: /a\n#END\n");
        let (board, mut notice) = Board::new();
        let task = tokio::spawn(follow(path.clone(), board));
        let first = notice.wait_for(|notice| notice.update.is_some()).await.unwrap().clone();
        fs::write(&path, "routes:\n  - id: 1\n  - id: 2\n").unwrap();
        let broken = notice.wait_for(|notice| notice.error.is_some()).await.unwrap().clone();
        assert_eq!(broken.update.unwrap().digest, first.update.unwrap().digest);
        fs::write(&path, "routes:\n  - id: 1\n  - id: 2\n#END\n").unwrap();
        let whole = notice.wait_for(|notice| notice.reading == 2).await.unwrap().clone();
        assert_eq!((whole.error, whole.update.unwrap().snapshot.len()), (None, 2));
        task.abort();
    }
}
