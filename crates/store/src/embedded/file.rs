//! The file of the embedded store: a redb database with one table of resources and one of facts about the store.
//!
//! The rule to know: one transaction, one fsync, and the revision goes with the resources it is the revision of.

use std::{
    fmt::Display,
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{Change, Resource, Snapshot};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    backends::FileBackend,
};

use crate::{Batch, Error, tree::Tree};

/// Key → (created, modified, when its ttl ends or 0, value).
const RESOURCES: TableDefinition<'_, &str, (u64, u64, u64, &str)> = TableDefinition::new("resources");
/// `format`, `store_id`, `revision`.
const FACTS: TableDefinition<'_, &str, &str> = TableDefinition::new("facts");
/// Of the two tables. A file with another number is not touched.
const FORMAT: &str = "1";

/// redb keeps pages for reads; ours come from memory.
const CACHE: usize = 16 << 20;

pub(super) struct File {
    path: PathBuf,
    /// None after a failure from which it could not be reopened.
    db: Option<Database>,
    /// Held as long as we live: one process at a time.
    _lock: fs::File,
}

impl File {
    /// Opens the file in `dir`, or makes a new store there.
    pub fn open(dir: &Path) -> Result<(Self, Tree), Error> {
        let path = dir.join("store.redb");
        let io = |error: io::Error| unavailable(&path, error);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let lock = private().create(true).truncate(false).open(dir.join("lock")).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => unavailable(&path, "another process has it open"),
            fs::TryLockError::Error(error) => io(error),
        })?;
        if !path.try_exists().map_err(io)? {
            create(dir, &path)?;
        }
        let mut file = Self { path, db: None, _lock: lock };
        let tree = file.reopen()?;
        Ok((file, tree))
    }

    /// Closes the file and reads all of it anew.
    pub fn reopen(&mut self) -> Result<Tree, Error> {
        self.db = None;
        // redb trusts what it wrote, and panics where somebody else wrote too.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let db = open(&self.path)?;
            let tree = load(&db, &self.path)?;
            Ok((db, tree))
        }));
        let (db, tree) = read.unwrap_or_else(|_| Err(corrupt(&self.path, "the database is damaged")))?;
        self.db = Some(db);
        Ok(tree)
    }

    /// Writes what `batches` changed, as `tree` has it. Durable when it returns; after an error it may be or not.
    pub fn append(&mut self, tree: &Tree, batches: &[Arc<Batch>]) -> Result<(), String> {
        let db = self.db.as_ref().ok_or("the database is not open")?;
        append(db, tree, batches).map_err(|error| error.to_string())
    }

    pub fn is_open(&self) -> bool {
        self.db.is_some()
    }

    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn append(db: &Database, tree: &Tree, batches: &[Arc<Batch>]) -> Result<(), redb::Error> {
    // Durability::Immediate, redb's default.
    let transaction = db.begin_write()?;
    {
        let mut resources = transaction.open_table(RESOURCES)?;
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            match change {
                Change::Put(r) => {
                    let due = tree.due(&r.key).unwrap_or(0);
                    resources.insert(&*r.key.to_string(), (r.created, r.modified, due, &*r.value))?;
                }
                Change::Delete(key) => {
                    resources.remove(&*key.to_string())?;
                }
            }
        }
        transaction.open_table(FACTS)?.insert("revision", &*tree.snapshot.revision.to_string())?;
    }
    Ok(transaction.commit()?)
}

fn load(db: &Database, path: &Path) -> Result<Tree, Error> {
    let failed = |error: redb::Error| corrupt(path, error);
    let transaction = db.begin_read().map_err(|error| failed(error.into()))?;
    let facts = transaction.open_table(FACTS).map_err(|error| failed(error.into()))?;
    let fact = |name: &str| -> Result<String, Error> {
        let value = facts.get(name).map_err(|error| failed(error.into()))?;
        value
            .map(|value| value.value().to_owned())
            .ok_or_else(|| corrupt(path, format!("it has no `{name}`")))
    };
    let format = fact("format")?;
    if format != FORMAT {
        return Err(corrupt(path, format!("it has format {format}; this version reads format {FORMAT}")));
    }
    let revision = fact("revision")?.parse().map_err(|_| corrupt(path, "its revision is not a number"))?;
    let mut tree = Tree::new(Snapshot::new(fact("store_id")?, revision));

    let resources = transaction.open_table(RESOURCES).map_err(|error| failed(error.into()))?;
    for row in resources.iter().map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        // A newer version's kind: it stays in the file for that version.
        let Ok(key) = key.value().parse() else {
            tracing::warn!(key = key.value(), "the store has a resource of a kind unknown here");
            continue;
        };
        let (created, modified, due, value) = value.value();
        tree.set_due(&key, (due > 0).then_some(due));
        tree.snapshot.put(Resource { key, value: value.into(), created, modified });
    }
    Ok(tree)
}

/// Makes a new store beside `path` and moves it there whole: a half-made one is never opened.
fn create(dir: &Path, path: &Path) -> Result<(), Error> {
    let draft = path.with_extension("new");
    let io = |error: io::Error| unavailable(path, error);
    let file = private().create(true).truncate(true).open(&draft).map_err(io)?;
    let write = || -> Result<(), redb::Error> {
        let db = Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)?;
        let transaction = db.begin_write()?;
        transaction.open_table(RESOURCES)?;
        {
            let mut facts = transaction.open_table(FACTS)?;
            facts.insert("format", FORMAT)?;
            facts.insert("store_id", &*uuid::Uuid::new_v4().to_string())?;
            facts.insert("revision", "1")?;
        }
        transaction.commit()?;
        Ok(db.close()?)
    };
    write().map_err(|error| unavailable(path, error))?;
    fs::rename(&draft, path).map_err(io)?;
    // The name must be as durable as the content.
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

fn open(path: &Path) -> Result<Database, Error> {
    let file = private().open(path).map_err(|error| unavailable(path, error))?;
    if file.metadata().is_ok_and(|meta| meta.len() == 0) {
        // redb would take an empty file for a new one, and the store would be another.
        return Err(corrupt(path, "the file is empty"));
    }
    let mut builder = Database::builder();
    // All of it is read here anyway, and what is damaged is better found now than in an outage.
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    FileBackend::new(file).and_then(|file| builder.create_with_backend(file)).map_err(|error| match error {
        // A file that ends too early is as good as one with nonsense in it.
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            unavailable(path, error)
        }
        error @ (DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) => {
            unavailable(path, error)
        }
        error => corrupt(path, error),
    })
}

/// What is kept may be secret.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn unavailable(path: &Path, reason: impl Display) -> Error {
    Error::Unavailable { store: path.display().to_string(), reason: reason.to_string() }
}

fn corrupt(path: &Path, reason: impl Display) -> Error {
    Error::Corrupt { what: path.display().to_string(), reason: reason.to_string() }
}
