//! The last good snapshot, kept on this machine: what a data plane starts from when all else is gone.
//!
//! The rule to know: nothing is ever overwritten. A snapshot is written whole beside the one before, then a small
//! header that names it by digest takes the place of the old header, which is kept as the previous one. So whatever
//! a crash tears, one of two generations can be read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, SecondsFormat, Utc};
use model::{Instance, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Origin, Update, digest::Digest, failover::Marks};

const CURRENT: &str = "current.json";
const PREVIOUS: &str = "previous.json";
const BODY: &str = ".json.zst";
/// The format written, and the newest that is read.
const FORMAT: u32 = 1;

/// Where one group's last good snapshot is kept.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
    group: String,
}

/// A header as it is written: what it says, and the proof that it is all there.
#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    header: Box<RawValue>,
}

/// All but the resources.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    group: String,
    /// Where it came from before it was kept.
    origin: Origin,
    store_id: Arc<str>,
    revision: u64,
    sequence: Option<u64>,
    /// The marks.
    highest_sequence: Option<u64>,
    accepted_at: Option<String>,
    verified_at: Option<String>,
    by_hand: bool,
    digest: String,
    instance: Option<Arc<Instance>>,
    /// Of the packed `apisix.json`, whose name it is.
    sha256: String,
    plain_size: u64,
}

/// What is to be kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub update: Arc<Update>,
    pub marks: Marks,
}

impl Folder {
    pub fn new(data_dir: &Path, group: &str) -> Self {
        Self { dir: data_dir.join("last_good"), group: group.to_owned() }
    }

    /// What earlier lives of this node have left.
    pub fn marks(&self) -> Marks {
        let headers = [CURRENT, PREVIOUS].map(|name| self.header(name).ok());
        headers.iter().flatten().fold(Marks::default(), |marks, header| Marks {
            sequence: marks.sequence.max(header.highest_sequence),
            accepted_at: marks.accepted_at.max(header.accepted_at.as_deref().and_then(time)),
        })
    }

    /// Whether anything was ever kept for this group that may still be read.
    pub fn has_one(&self) -> bool {
        [CURRENT, PREVIOUS].iter().any(|name| self.header(name).is_ok())
    }

    /// The newest generation that is whole; none where nothing was ever kept for this group. An error says why
    /// there is one and none can be read.
    pub fn read(&self) -> Result<Option<Update>, String> {
        let current = match self.generation(CURRENT) {
            Ok(update) => return Ok(Some(update)),
            Err(error) => error,
        };
        match self.generation(PREVIOUS) {
            Ok(update) => {
                tracing::warn!(error = %current, "the last good snapshot is damaged, the one before it is taken");
                Ok(Some(update))
            }
            Err(previous) if [&current, &previous].iter().all(|e| e.kind() == io::ErrorKind::NotFound) => {
                Ok(None)
            }
            Err(_) => Err(current.to_string()),
        }
    }

    /// Keeps it, and the generation before. Durable when it returns. An error names the folder.
    pub fn write(&self, kept: &Kept) -> io::Result<()> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.dir.display()));
        self.write_whole(kept).map_err(named)
    }

    fn write_whole(&self, kept: &Kept) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let current = self.header(CURRENT).ok();
        let update = &*kept.update;
        let same = current.as_ref().filter(|header| header.digest == update.digest);
        let (sha256, plain_size) = match same.filter(|header| self.dir.join(body(&header.sha256)).exists()) {
            Some(header) => (header.sha256.clone(), header.plain_size),
            None => self.write_body(&update.snapshot)?,
        };
        let header = Header {
            format: FORMAT,
            group: self.group.clone(),
            origin: update.origin,
            store_id: update.snapshot.store_id.clone(),
            revision: update.snapshot.revision,
            sequence: update.sequence,
            highest_sequence: kept.marks.sequence,
            accepted_at: kept.marks.accepted_at.map(text),
            verified_at: update.verified_at.map(text),
            by_hand: update.by_hand,
            digest: update.digest.clone(),
            instance: update.instance.clone(),
            sha256,
            plain_size,
        };
        // A header with the same body is not another generation: the previous one must not be lost to it.
        let replaces = current.is_some_and(|current| current.sha256 != header.sha256);
        self.write_header(&header, replaces)?;
        self.sweep();
        Ok(())
    }

    fn write_body(&self, snapshot: &Snapshot) -> io::Result<(String, u64)> {
        let plain = snapshot.to_json();
        let packed = zstd::bulk::compress(&plain, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        let sha256 = sha256(&packed);
        self.put(&body(&sha256), &packed, || Ok(()))?;
        Ok((sha256, plain.len() as u64))
    }

    fn write_header(&self, header: &Header, replaces: bool) -> io::Result<()> {
        let header = serde_json::value::to_raw_value(header)?;
        let sealed = Sealed { sha256: sha256(header.get().as_bytes()), header };
        self.put(CURRENT, &serde_json::to_vec(&sealed)?, || match replaces {
            true => fs::rename(self.dir.join(CURRENT), self.dir.join(PREVIOUS)),
            false => Ok(()),
        })
    }

    /// Writes a file under a name of its own, calls `before`, and gives it its name.
    fn put(&self, name: &str, bytes: &[u8], before: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let unfinished = self.dir.join(format!("{name}.{}.new", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        before()?;
        fs::rename(&unfinished, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes what no header names. What can't be removed now is removed next time.
    fn sweep(&self) {
        let named: Vec<String> = [CURRENT, PREVIOUS]
            .into_iter()
            .filter_map(|name| self.header(name).ok())
            .map(|header| body(&header.sha256))
            .chain([CURRENT.to_owned(), PREVIOUS.to_owned()])
            .collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(|name| named.iter().any(|kept| kept == name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn header(&self, name: &str) -> io::Result<Header> {
        let sealed: Sealed = serde_json::from_slice(&fs::read(self.dir.join(name))?)?;
        if sha256(sealed.header.get().as_bytes()) != sealed.sha256 {
            return Err(damaged(name, "its digest is wrong"));
        }
        let header: Header = serde_json::from_str(sealed.header.get())?;
        if header.format > FORMAT {
            return Err(damaged(name, "a newer version wrote it"));
        }
        if header.group != self.group {
            // Another group's is none of ours.
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(header)
    }

    fn generation(&self, name: &str) -> io::Result<Update> {
        let header = self.header(name)?;
        let file = body(&header.sha256);
        let packed = fs::read(self.dir.join(&file)).map_err(|error| damaged(&file, &error.to_string()))?;
        if sha256(&packed) != header.sha256 {
            return Err(damaged(&file, "its digest is wrong"));
        }
        let mut plain = Vec::with_capacity(usize::try_from(header.plain_size).unwrap_or_default());
        zstd::Decoder::with_buffer(&*packed)?.take(header.plain_size + 1).read_to_end(&mut plain)?;
        let (snapshot, rejected) = Snapshot::from_json(&plain, &header.store_id, header.revision)
            .map_err(|error| damaged(&file, &error.to_string()))?;
        Ok(Update {
            origin: Origin::Disk,
            digest: Digest::of(&snapshot).to_string(),
            instance: header.instance,
            sequence: header.sequence,
            verified_at: header.verified_at.as_deref().and_then(time),
            by_hand: header.by_hand,
            snapshot,
            rejected,
        })
    }
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

fn damaged(file: &str, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("last_good/{file}: {reason}"))
}

fn body(sha256: &str) -> String {
    format!("{sha256}{BODY}")
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
