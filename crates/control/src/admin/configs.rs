//! `/configs`: the whole configuration of a group, read and replaced at once, as in APISIX's API-driven mode.
//!
//! The rule to know: a kind is replaced when its `…_conf_version` grows or is not given, and left alone when it
//! stays the same. Versions and digest are those of the last replacement through this process; they start at 0.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode, header::ACCEPT};
use model::{Key, Kind};
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
}

/// `GET` and `HEAD`: everything, in plain text but for private keys.
pub async fn get(group: &Group, rules: &Rules, headers: &HeaderMap) -> Outcome {
    let snapshot = group.store.snapshot().await?;
    let mut whole = Map::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Credentials) {
        let mut resources: Vec<Value> = snapshot.of(kind).map(|resource| shown(resource, rules)).collect();
        if kind == Kind::Consumers {
            resources.extend(snapshot.of(Kind::Credentials).map(|credential| shown(credential, rules)));
        }
        if !resources.is_empty() {
            whole.insert(kind.to_string(), Value::Array(resources));
        }
        whole.insert(version_name(kind), Value::Number(group.remembered().version(kind)));
    }
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
    if let Some(first) = validate::errors(rules, whole).first() {
        return Err(Answer::bad(first["error"].as_str().unwrap_or_default()));
    }
    let _lock = group.lock(true).await?;
    let versions = group.remembered().next(whole)?;
    let replaced = |kind: &Kind| versions.get(kind) != Some(&group.remembered().version(*kind));
    let kinds: Vec<Kind> = versions.keys().copied().filter(replaced).collect();
    let kinds = &kinds;
    group
        .commit(|| async move {
            Ok((changes(group, rules, whole, kinds).await?, Answer::empty(StatusCode::ACCEPTED)))
        })
        .await
        .map(|answer| {
            *group.remembered() = Whole { digest: Some(digest.to_owned()), modified: now(), versions };
            group.remembered().tell(answer)
        })
}

/// What must be written so that the store has what `whole` says of these kinds, and nothing else.
async fn changes(group: &Group, rules: &Rules, whole: &Value, kinds: &[Kind]) -> Result<Commit, Answer> {
    let snapshot = group.store.snapshot().await?;
    let mut wanted: HashMap<Key, Value> = HashMap::new();
    for kind in kinds {
        let resources = whole.get(kind.name()).and_then(Value::as_array);
        wanted.extend(resources.into_iter().flatten().filter_map(|conf| keyed(*kind, conf)));
    }
    let mut commit = Commit::default();
    for old in snapshot.iter().filter(|old| kinds.contains(&kept_with(old.key.kind))) {
        let mut plain: Value = old.read().unwrap_or_default();
        rules.reveal(old.key.kind, &mut plain);
        match wanted.get_mut(&old.key) {
            Some(new) => {
                rules.reveal(old.key.kind, new);
                if *new == plain {
                    wanted.remove(&old.key);
                    continue;
                }
            }
            None => commit.writes.push(Write::Delete { key: old.key.clone() }),
        }
        commit.expect.push((old.key.clone(), Expect::At(old.modified)));
    }
    for (key, mut conf) in wanted {
        if snapshot.get(&key).is_none() {
            commit.expect.push((key.clone(), Expect::Absent));
        }
        rules.conceal(key.kind, &mut conf);
        commit.writes.push(write(key, conf.to_string(), None));
    }
    Ok(commit)
}

/// A checked resource of a whole configuration with its key, as it is kept.
fn keyed(kind: Kind, conf: &Value) -> Option<(Key, Value)> {
    let mut conf = conf.clone();
    conf.as_object_mut()?.shift_remove("modifiedIndex");
    let id = conf.get("id").and_then(id_text);
    match (kind, id) {
        (Kind::Consumers, Some(id)) if id.contains("/credentials/") => {
            conf["id"] = json!(id.rsplit('/').next()?);
            Some((Key::new(Kind::Credentials, id), conf))
        }
        (Kind::Consumers, _) => Some((Key::new(kind, conf.get("username")?.as_str()?), conf)),
        (_, id) => Some((Key::new(kind, id?), conf)),
    }
}

/// The list in which a kind stands: credentials are among the consumers.
const fn kept_with(kind: Kind) -> Kind {
    match kind {
        Kind::Credentials => Kind::Consumers,
        other => other,
    }
}

fn shown(resource: &model::Resource, rules: &Rules) -> Value {
    let mut conf: Value = resource.read().unwrap_or_default();
    match resource.key.kind {
        // A private key stays what it is in the store; a PUT takes it back like that.
        Kind::Ssls => {}
        kind => rules.reveal(kind, &mut conf),
    }
    if let (Kind::Credentials, Value::Object(fields)) = (resource.key.kind, &mut conf) {
        fields.insert("id".to_owned(), json!(resource.key.id));
    }
    conf
}

fn version_name(kind: Kind) -> String {
    format!("{kind}_conf_version")
}

impl Group {
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

    fn tell(&self, answer: Answer) -> Answer {
        match &self.digest {
            Some(digest) => {
                answer.with("x-digest", digest).with("x-last-modified", &self.modified.to_string())
            }
            None => answer,
        }
    }
}
