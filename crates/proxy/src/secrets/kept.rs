//! The last values, kept on this machine: a restart while a manager is dead goes by them.
//!
//! The rule to know: the file is a help, never a must. It is replaced whole, encrypted where there is a keyring, and
//! one that can't be read is as none. A value counts only for the reference and the manager that it came from.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, Weak},
    time::{Duration, SystemTime},
};

use model::secrets::Keyring;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use super::{Followed, Inner, lock};
use crate::kept_file;

/// The format written, and the only one read.
const FORMAT: u32 = 1;
/// How long changes are gathered before they are written.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a value is kept that nobody refers to any more: a configuration may come back.
const WEEK: u64 = 7 * 24 * 60 * 60;

/// The last values, and the file where they lie.
#[derive(Default)]
pub(super) struct Kept {
    file: Option<PathBuf>,
    values: Mutex<Option<Values>>,
    woken: Notify,
}

/// By reference.
type Values = BTreeMap<Box<str>, Entry>;

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    manager: Box<str>,
    value: Value,
    /// Seconds of the epoch; when it was last written and referred to.
    at: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    /// The values as JSON, by the keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Values>,
}

impl Kept {
    pub fn new(file: PathBuf) -> Self {
        Self { file: Some(file), ..Self::default() }
    }

    /// Reads the file, the first time.
    pub fn read(&self, keyring: &Keyring) {
        let mut values = lock(&self.values);
        let Some(file) = self.file.as_ref().filter(|_| values.is_none()) else { return };
        *values = Some(match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Values::new(),
            Err(error) => unreadable(file, &error.to_string()),
            Ok(bytes) => unlocked(&bytes, keyring).unwrap_or_else(|error| unreadable(file, error)),
        });
    }

    pub fn find(&self, reference: &str, identity: &str) -> Option<Value> {
        let values = lock(&self.values);
        let entry = values.as_ref()?.get(reference).filter(|entry| *entry.manager == *identity)?;
        Some(entry.value.clone())
    }

    pub fn put(&self, followed: &Followed, value: Value) {
        let entry = Entry { manager: followed.identity.clone(), value, at: now() };
        lock(&self.values).get_or_insert_default().insert(followed.reference.clone(), entry);
        self.wake();
    }

    /// Something has changed.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// What is to be written: without what nobody has referred to for long.
    fn current(&self, followed: &[std::sync::Arc<Followed>]) -> Values {
        let mut values = lock(&self.values);
        let values = values.get_or_insert_default();
        let now = now();
        for one in followed {
            if let Some(entry) = values.get_mut(&one.reference) {
                entry.at = now;
            }
        }
        values.retain(|_, entry| now.saturating_sub(entry.at) < WEEK);
        values.clone()
    }
}

fn unlocked(bytes: &[u8], keyring: &Keyring) -> Result<Values, &'static str> {
    let damaged = "it is damaged";
    let written: Written = serde_json::from_slice(bytes).map_err(|_| damaged)?;
    match written {
        Written { format: FORMAT, sealed: Some(sealed), .. } => {
            let plain = keyring
                .unseal(&sealed)
                .ok_or("it is damaged, or encrypted with a key that is not in the keyring")?;
            serde_json::from_str(&plain).map_err(|_| damaged)
        }
        Written { format: FORMAT, values, .. } => values.ok_or(damaged),
        _ => Err("it is of another version"),
    }
}

fn unreadable(file: &Path, error: &str) -> Values {
    tracing::warn!(file = %file.display(), error, "the kept secrets can't be read; they are asked for anew");
    Values::new()
}

/// Writes what has changed, for as long as somebody follows secrets.
pub(super) async fn keep(secrets: Weak<Inner>) {
    loop {
        let Some(inner) = secrets.upgrade() else { return };
        tokio::select! {
            () = inner.kept.woken.notified() => {}
            // Looks now and then whether anybody is still there.
            () = tokio::time::sleep(Duration::from_secs(60)) => continue,
        }
        tokio::time::sleep(PAUSE).await;
        let (Some(file), Some(config)) = (inner.kept.file.clone(), inner.config.borrow().clone()) else {
            continue;
        };
        let values = inner.kept.current(&inner.all());
        drop(inner);
        let written = tokio::task::spawn_blocking(move || {
            if values.is_empty() && !file.exists() {
                return Ok(());
            }
            write(&file, values, &config.keyring).map_err(|error| (file, error))
        });
        if let Ok(Err((file, error))) = written.await {
            tracing::warn!(file = %file.display(), %error, "secrets can't be kept; a restart must ask for them");
        }
    }
}

fn write(file: &Path, values: Values, keyring: &Keyring) -> io::Result<()> {
    let sealed = keyring.seal(&serde_json::to_string(&values)?);
    let values = sealed.is_none().then_some(values);
    kept_file::replace(file, &serde_json::to_vec(&Written { format: FORMAT, sealed, values })?)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use model::instance::DataEncryption;

    use super::*;

    fn keyring(keys: &[&str]) -> Keyring {
        let keyring = keys.iter().map(|key| (*key).to_owned()).collect();
        Keyring::new(&DataEncryption { keyring, ..DataEncryption::default() }).unwrap()
    }

    #[test]
    fn what_is_written_is_read_with_its_key_only_and_not_after_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below/secrets.json");
        let entry = Entry { manager: "v".into(), value: "s3cret".into(), at: now() };
        let values = Values::from([("$secret://vault/1/a/b".into(), entry)]);
        for keys in [&["sixteen-letters!"][..], &[]] {
            write(&file, values.clone(), &keyring(keys)).unwrap();
            let read = |keys: &[&str]| {
                let kept = Kept::new(file.clone());
                kept.read(&keyring(keys));
                kept.find("$secret://vault/1/a/b", "v")
            };
            assert_eq!(read(keys), Some("s3cret".into()));
            let text = fs::read_to_string(&file).unwrap();
            assert_eq!(text.contains("s3cret"), keys.is_empty(), "{text}");
            if !keys.is_empty() {
                assert_eq!(read(&["another-letters!"]), None);
            }
            fs::write(&file, text.replace("\"format\":1", "\"format\":2")).unwrap();
            assert_eq!(read(keys), None);
            fs::write(&file, &text.as_bytes()[..text.len() / 2]).unwrap();
            assert_eq!(read(keys), None);
        }
    }

    #[test]
    fn another_manager_and_another_reference_have_other_values() {
        let kept = Kept::default();
        let entry = Entry { manager: "v".into(), value: "s".into(), at: now() };
        *lock(&kept.values) = Some(Values::from([("$secret://vault/1/a/b".into(), entry)]));
        assert!(kept.find("$secret://vault/1/a/b", "v").is_some());
        assert!(
            kept.find("$secret://vault/1/a/b", "w").is_none()
                && kept.find("$secret://vault/1/a", "v").is_none()
        );
        lock(&kept.values).as_mut().unwrap().values_mut().for_each(|entry| entry.at -= WEEK);
        assert!(kept.current(&[]).is_empty());
    }
}
