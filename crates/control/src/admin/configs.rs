//! `/configs`: the whole configuration of a group, read and replaced at once, as in APISIX's API-driven mode.
//!
//! The rule to know: a kind is replaced when its `…_conf_version` grows or is not given, and left alone when it
//! stays the same; so is a resource with its `modifiedIndex`. Versions, indexes and digest are those of the last
//! replacement through this process; they start at 0.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode, header::ACCEPT};
use model::{Key, Kind, Resource};
use serde_json::{Map, Number, Value, json};
use store::{Commit, Expect, Write};

use super::{
    answer::{Answer, Outcome},
    conf::now,
    group::{Group, put as write},
    place::id_text,
    rules::Rules,
    validate,
};

/// What is remembered of the last replacement.
#[derive(Default)]
pub struct Whole {
    digest: Option<String>,
    modified: u64,
    versions: BTreeMap<Kind, Number>,
    /// The client's own, of resources that came with one.
    indexes: HashMap<Key, Number>,
}

/// What the store is to have of the kinds that are replaced.
struct Wanted {
    kinds: Vec<Kind>,
    resources: HashMap<Key, Value>,
    indexes: HashMap<Key, Number>,
}

/// `GET` and `HEAD`: everything, in plain text but for private keys.
pub async fn get(group: &Group, rules: &Rules, headers: &HeaderMap) -> Outcome {
    let snapshot = group.store.snapshot().await?;
    let mut whole = Map::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Credentials) {
        let mut resources: Vec<Value> = snapshot.of(kind).map(|one| group.shown(one, rules)).collect();
        if kind == Kind::Consumers {
            resources.extend(snapshot.of(Kind::Credentials).map(|one| group.shown(one, rules)));
        }
        if !resources.is_empty() {
            whole.insert(kind.to_string(), Value::Array(resources));
        }
        whole.insert(version_name(kind), Value::Number(group.remembered().version(kind)));
    }
    group.remembered().tell_in(&mut whole);
    let wants_yaml =
        headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/yaml"));
    let answer = match wants_yaml.then(|| serde_saphyr::to_string(&whole)) {
        Some(Ok(yaml)) => Answer::text(StatusCode::OK, yaml).with("content-type", "application/yaml"),
        Some(Err(error)) => {
            return Err(Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
        }
        None => Answer::ok(Value::Object(whole)),
    };
    Ok(group.remembered().tell(answer))
}

/// `PUT`: everything is checked, then replaced in one commit.
pub async fn put(group: &Group, rules: &Rules, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let digest = headers.get("x-digest").and_then(|digest| digest.to_str().ok());
    let Some(digest) = digest else { return Err(Answer::bad("missing digest header")) };
    let whole = &validate::whole(headers, body)?;
    if group.remembered().digest.as_deref() == Some(digest) {
        return Ok(Answer::empty(StatusCode::NO_CONTENT));
    }
    validate::versions(whole).map_err(Answer::bad)?;
    if let Some(first) = validate::errors(rules, whole).first() {
        return Err(Answer::bad(first["error"].as_str().unwrap_or_default()));
    }
    let _lock = group.lock(true).await?;
    let versions = group.remembered().next(whole)?;
    let replaced = |kind: &Kind| versions.get(kind) != Some(&group.remembered().version(*kind));
    let wanted = Wanted::read(whole, versions.keys().copied().filter(replaced).collect());
    let wanted = &wanted;
    let answer = group
        .commit(
            || async move { Ok((wanted.changes(group, rules).await?, Answer::empty(StatusCode::ACCEPTED))) },
        )
        .await?;
    let mut remembered = group.remembered();
    remembered.indexes.retain(|key, _| !wanted.kinds.contains(&kept_with(key.kind)));
    remembered.indexes.extend(wanted.indexes.clone());
    remembered.digest = Some(digest.to_owned());
    remembered.modified = now();
    remembered.versions = versions;
    Ok(remembered.tell(answer))
}

impl Wanted {
    fn read(whole: &Value, kinds: Vec<Kind>) -> Self {
        let (mut resources, mut indexes) = (HashMap::new(), HashMap::new());
        for kind in &kinds {
            let list = whole.get(kind.name()).and_then(Value::as_array);
            for (at, conf) in list.into_iter().flatten().enumerate() {
                let Some((key, conf, index)) = keyed(*kind, at, conf) else { continue };
                if let Some(index) = index {
                    indexes.insert(key.clone(), index);
                }
                resources.insert(key, conf);
            }
        }
        Self { kinds, resources, indexes }
    }

    /// What must be written so that the store has this and nothing else.
    async fn changes(&self, group: &Group, rules: &Rules) -> Result<Commit, Answer> {
        let snapshot = group.store.snapshot().await?;
        let mut commit = Commit::default();
        for old in snapshot.iter().filter(|old| self.kinds.contains(&kept_with(old.key.kind))) {
            if !self.resources.contains_key(&old.key) {
                commit.expect.push((old.key.clone(), Expect::At(old.modified)));
                commit.writes.push(Write::Delete { key: old.key.clone() });
            }
        }
        for (key, conf) in &self.resources {
            let (mut conf, old) = (conf.clone(), snapshot.get(key));
            rules.reveal(key.kind, &mut conf);
            match old {
                Some(old) if self.is_unchanged(group, key) || is_same(old, &conf, rules) => continue,
                Some(old) => commit.expect.push((key.clone(), Expect::At(old.modified))),
                None => commit.expect.push((key.clone(), Expect::Absent)),
            }
            rules.conceal(key.kind, &mut conf);
            commit.writes.push(write(key.clone(), conf.to_string(), None));
        }
        Ok(commit)
    }

    /// Whether the client says that it is what it was.
    fn is_unchanged(&self, group: &Group, key: &Key) -> bool {
        self.indexes.get(key).is_some_and(|index| group.remembered().indexes.get(key) == Some(index))
    }
}

fn is_same(old: &Resource, conf: &Value, rules: &Rules) -> bool {
    let mut plain: Value = old.read().unwrap_or_default();
    rules.reveal(old.key.kind, &mut plain);
    plain == *conf
}

/// A checked resource of a whole configuration: its key, how it is kept, and its index. One without an id gets
/// APISIX's: `arr_` and its place in the list.
fn keyed(kind: Kind, at: usize, conf: &Value) -> Option<(Key, Value, Option<Number>)> {
    let mut conf = conf.clone();
    let index = match conf.as_object_mut()?.shift_remove(validate::INDEX) {
        Some(Value::Number(index)) => Some(index),
        _ => None,
    };
    let id = conf.get("id").and_then(id_text);
    let key = match (kind, id) {
        (Kind::Consumers, Some(id)) if id.contains("/credentials/") => {
            conf["id"] = json!(id.rsplit('/').next()?);
            Key::new(Kind::Credentials, id)
        }
        (Kind::Consumers, _) => Key::new(kind, conf.get("username")?.as_str()?),
        (_, Some(id)) => Key::new(kind, id),
        (_, None) => {
            let id = format!("arr_{}", at + 1);
            conf["id"] = json!(id);
            Key::new(kind, id)
        }
    };
    Some((key, conf, index))
}

/// The list in which a kind stands: credentials are among the consumers.
const fn kept_with(kind: Kind) -> Kind {
    match kind {
        Kind::Credentials => Kind::Consumers,
        other => other,
    }
}

fn version_name(kind: Kind) -> String {
    format!("{kind}_conf_version")
}

impl Group {
    fn shown(&self, resource: &Resource, rules: &Rules) -> Value {
        let mut conf: Value = resource.read().unwrap_or_default();
        // A private key stays what it is in the store; a PUT takes it back like that.
        rules.reveal_plugins(resource.key.kind, &mut conf);
        if let Value::Object(fields) = &mut conf {
            if resource.key.kind == Kind::Credentials {
                fields.insert("id".to_owned(), json!(resource.key.id));
            }
            if let Some(index) = self.remembered().indexes.get(&resource.key) {
                fields.insert(validate::INDEX.to_owned(), Value::Number(index.clone()));
            }
        }
        conf
    }

    fn remembered(&self) -> MutexGuard<'_, Whole> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Whole {
    fn version(&self, kind: Kind) -> Number {
        self.versions.get(&kind).cloned().unwrap_or_else(|| 0.into())
    }

    /// The versions after this replacement, refused if one went back.
    fn next(&self, whole: &Value) -> Result<BTreeMap<Kind, Number>, Answer> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Credentials);
        kinds
            .map(|kind| {
                let (name, old) = (version_name(kind), self.version(kind));
                let value = |number: &Number| number.as_f64().unwrap_or_default();
                match whole.get(&name) {
                    Some(Value::Number(new)) if value(new) < value(&old) => {
                        Err(Answer::bad(format!("{name} must be greater than or equal to ({old})")))
                    }
                    Some(Value::Number(new)) => Ok((kind, new.clone())),
                    _ => Ok((kind, old.as_u64().map_or_else(|| 1.into(), |old| Number::from(old + 1)))),
                }
            })
            .collect()
    }

    /// As APISIX does, in the body too.
    fn tell_in(&self, whole: &mut Map<String, Value>) {
        if let Some(digest) = &self.digest {
            whole.insert("X-Digest".to_owned(), json!(digest));
            whole.insert("X-Last-Modified".to_owned(), json!(self.modified));
        }
    }

    fn tell(&self, answer: Answer) -> Answer {
        match &self.digest {
            Some(digest) => {
                answer.with("x-digest", digest).with("x-last-modified", &self.modified.to_string())
            }
            None => answer,
        }
    }
}
