//! The mirror as etcd keys: `/apisix/routes/1`, in the order of their bytes.
//!
//! The rule to know: besides resources there are three sorts of keys, none of them in the store: `init_dir`
//! placeholders that APISIX data planes expect, `<prefix>/keelgate/store_id`, and instance keys that data planes
//! write about themselves under `<prefix>/data_plane/`.

use std::sync::Arc;

use bytes::Bytes;
use model::{Key, Kind, Resource, Snapshot};
use store::etcd::proto::{KeyValue, PutRequest};

use super::instances::Instances;

/// What APISIX's own `init_etcd` writes at every folder.
const PLACEHOLDER: &str = "init_dir";

/// The folders in the order of their names.
const FOLDERS: [&str; 14] = [
    "consumer_groups",
    "consumers",
    "data_plane",
    "global_rules",
    "keelgate",
    "plugin_configs",
    "plugin_metadata",
    "protos",
    "routes",
    "secrets",
    "services",
    "ssls",
    "stream_routes",
    "upstreams",
];

/// A span of keys as etcd names it.
pub struct Span {
    start: Vec<u8>,
    end: End,
}

enum End {
    /// Just the start.
    One,
    /// Everything from the start on.
    Open,
    Before(Vec<u8>),
}

impl Span {
    /// From a request's `key` and `range_end`.
    pub fn new(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => End::One,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        Self { start: key.to_vec(), end }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && !self.is_past(key)
    }

    fn is_past(&self, key: &[u8]) -> bool {
        match &self.end {
            End::One => key > self.start.as_slice(),
            End::Open => false,
            End::Before(end) => key >= end.as_slice(),
        }
    }
}

/// Everything there is to read at one revision.
pub struct Keyspace<'a> {
    pub prefix: &'a str,
    pub snapshot: &'a Snapshot,
    pub instances: &'a Instances,
}

/// One key on its way out; the value is copied only when it is sent.
pub enum Entry<'a> {
    Resource(String, &'a Arc<Resource>),
    Other { key: String, value: Bytes, revision: u64, lease: i64 },
}

impl Entry<'_> {
    pub fn key(&self) -> &str {
        match self {
            Entry::Resource(key, _) | Entry::Other { key, .. } => key,
        }
    }

    pub fn modified(&self) -> u64 {
        match self {
            Entry::Resource(_, resource) => resource.modified,
            Entry::Other { revision, .. } => *revision,
        }
    }

    pub fn created(&self) -> u64 {
        match self {
            Entry::Resource(_, resource) => resource.created,
            Entry::Other { revision, .. } => *revision,
        }
    }

    /// As etcd sends it.
    pub fn kv(&self, keys_only: bool) -> KeyValue {
        match self {
            Entry::Resource(key, resource) => resource_kv(key, resource, keys_only),
            Entry::Other { key, value, revision, lease } => KeyValue {
                key: Bytes::copy_from_slice(key.as_bytes()),
                create_revision: signed(*revision),
                mod_revision: signed(*revision),
                version: 1,
                value: if keys_only { Bytes::new() } else { value.clone() },
                lease: *lease,
            },
        }
    }
}

pub fn resource_kv(key: &str, resource: &Resource, keys_only: bool) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        create_revision: signed(resource.created),
        mod_revision: signed(resource.modified),
        // etcd counts writes; nobody here does. More than one is told apart from one.
        version: if resource.created == resource.modified { 1 } else { 2 },
        value: if keys_only { Bytes::new() } else { Bytes::copy_from_slice(resource.value.as_bytes()) },
        lease: 0,
    }
}

/// etcd's revisions are signed on the wire.
pub fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The etcd key of a resource.
pub fn path(prefix: &str, key: &Key) -> String {
    format!("{prefix}/{key}")
}

/// The resource an etcd key names.
pub fn parse(prefix: &str, key: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(key).ok()?;
    text.strip_prefix(prefix)?.strip_prefix('/')?.parse().ok()
}

/// Whether a put would write just the placeholder of a folder.
pub fn is_placeholder(prefix: &str, put: &PutRequest) -> bool {
    let folder = put.key.strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    let folder = folder.and_then(|rest| rest.strip_suffix(b"/"));
    put.value == PLACEHOLDER && folder.is_some_and(|name| !name.is_empty() && !name.contains(&b'/'))
}

impl<'a> Keyspace<'a> {
    /// Calls `each` with every entry of the span, in order of keys.
    pub fn walk(&self, span: &Span, mut each: impl FnMut(&Entry<'a>)) {
        for folder in FOLDERS {
            let base = format!("{}/{folder}/", self.prefix);
            let after_folder = format!("{}/{folder}0", self.prefix); // '0' follows '/'
            if span.is_past(base.as_bytes()) {
                return;
            }
            if span.start.as_slice() >= after_folder.as_bytes() {
                continue;
            }
            self.walk_folder(folder, &base, span, &mut |entry| {
                if span.contains(entry.key().as_bytes()) {
                    each(entry);
                }
            });
        }
    }

    fn walk_folder(&self, folder: &str, base: &str, span: &Span, each: &mut dyn FnMut(&Entry<'a>)) {
        match folder {
            "data_plane" => {
                for (key, instance) in self.instances.keys() {
                    let value = instance.value;
                    each(&Entry::Other { key, value, revision: instance.revision, lease: instance.lease });
                }
            }
            "keelgate" => each(&Entry::Other {
                key: format!("{base}store_id"),
                value: Bytes::copy_from_slice(self.snapshot.store_id.as_bytes()),
                revision: 1,
                lease: 0,
            }),
            _ => {
                let value = Bytes::from_static(PLACEHOLDER.as_bytes());
                each(&Entry::Other { key: base.to_owned(), value, revision: 1, lease: 0 });
                self.walk_resources(folder, base, span, each);
            }
        }
    }

    fn walk_resources(&self, folder: &str, base: &str, span: &Span, each: &mut dyn FnMut(&Entry<'a>)) {
        let Some(kind) = Kind::from_name(folder) else { return };
        let from = span.start.strip_prefix(base.as_bytes()).unwrap_or_default();
        let from = String::from_utf8_lossy(from);
        // Credentials live among consumers: two sorted runs become one.
        let credentials = (kind == Kind::Consumers).then(|| self.snapshot.of_from(Kind::Credentials, &from));
        let mut credentials = credentials.into_iter().flatten().peekable();
        let mut owners = self.snapshot.of_from(kind, &from).peekable();
        loop {
            let resource = match (owners.peek(), credentials.peek()) {
                (None, None) => return,
                (Some(_), None) => owners.next(),
                (None, Some(_)) => credentials.next(),
                (Some(owner), Some(credential)) if owner.key.id < credential.key.id => owners.next(),
                (Some(_), Some(_)) => credentials.next(),
            };
            let Some(resource) = resource else { return };
            let key = format!("{base}{}", resource.key.id);
            if span.is_past(key.as_bytes()) {
                return;
            }
            each(&Entry::Resource(key, resource));
        }
    }
}
