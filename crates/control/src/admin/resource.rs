//! The one handler for all kinds: put, post, patch, delete, get.
//!
//! The rule to know: a write is kept as the client gave it (defaults are the reader's business), with its secrets
//! encrypted, its id and times set; and it is committed only if all it was checked against still holds.

use http::{Method, StatusCode};
use model::{Key, Kind, Resource};
use serde_json::{Value, json};
use store::{Commit, Expect, Write};

use super::{
    answer::{Answer, Outcome},
    call::Args,
    conf::{self, Conf, now},
    group::{Group, put},
    list, patch,
    place::{Place, id_text},
    references,
    rules::Rules,
    shared_limits, unique,
};

/// A request for a resource, taken apart.
pub struct Handler<'a> {
    pub group: &'a Group,
    pub rules: &'a Rules,
    pub place: Place,
    pub args: &'a Args,
}

impl Handler<'_> {
    pub async fn answer(&self, method: &Method, body: Option<Value>) -> Outcome {
        self.place.allow(method)?;
        match *method {
            Method::GET => self.get().await,
            Method::PUT => self.put(body).await,
            Method::POST => self.post(body).await,
            Method::PATCH => self.patch(body).await,
            Method::DELETE => self.delete().await,
            _ => Err(Answer::no_such_path()),
        }
    }

    async fn get(&self) -> Outcome {
        let Some(id) = &self.place.id else { return self.list().await };
        let resource = self.group.get(&self.place.key(id)).await?;
        Ok(Answer::ok(list::shown(&resource, self.rules)))
    }

    async fn list(&self) -> Outcome {
        let store = &self.group.store;
        let resources = match (self.place.kind, &self.place.owner) {
            (Kind::Credentials, Some(owner)) => {
                let credentials = self.group.credentials(owner).await?;
                if credentials.is_empty() {
                    return Err(Answer::no_such_key());
                }
                credentials
            }
            (Kind::Secrets, Some(manager)) => {
                let mut secrets = store.list(Kind::Secrets).await?;
                secrets.retain(|secret| secret.key.id.split('/').next() == Some(manager));
                secrets
            }
            (kind, _) => store.list(kind).await?,
        };
        list::answer(resources, self.args, self.rules)
    }

    async fn put(&self, body: Option<Value>) -> Outcome {
        let mut conf = conf::configuration(body)?;
        self.settle_id(&mut conf)?;
        conf::forbid_times(&conf)?;
        let conf = Value::Object(conf);
        self.check(&conf)?;
        let key = self.place.key(&self.id_of(&conf)?);
        self.write(key, conf, false).await
    }

    async fn post(&self, body: Option<Value>) -> Outcome {
        let mut conf = conf::configuration(body)?;
        if self.place.id.is_some() || conf.contains_key("id") {
            return Err(Answer::bad(format!("wrong {} id, do not need it", self.place.kind.singular())));
        }
        conf::forbid_times(&conf)?;
        let id = conf::new_id();
        conf.insert("id".to_owned(), Value::String(id.clone()));
        let conf = Value::Object(conf);
        self.check(&conf)?;
        self.write(self.place.key(&id), conf, true).await
    }

    /// Commits a checked configuration given as a whole.
    async fn write(&self, key: Key, conf: Value, must_be_new: bool) -> Outcome {
        let ttl = self.args.ttl()?;
        let _lock = self.group.lock(looks_through_a_kind(key.kind, &conf)).await?;
        let (key, conf) = (&key, &conf);
        self.group
            .commit(|| async move {
                let mut expect = self.expectations(key, conf).await?;
                let old = self.group.store.get(key).await?;
                expect.push((key.clone(), state_of(old.as_deref())));
                if must_be_new && old.is_some() {
                    return Err(Answer::refusal(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the new id is taken, try again",
                    ));
                }
                let mut conf = conf.clone();
                self.rules.conceal(key.kind, &mut conf);
                if key.kind != Kind::PluginMetadata {
                    conf::stamp(&mut conf, old.as_deref());
                }
                let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
                Ok((
                    commit(key, &conf, ttl, expect),
                    Answer::json(status, written(self.rules.path_of(key), conf)),
                ))
            })
            .await
    }

    async fn patch(&self, body: Option<Value>) -> Outcome {
        if self.place.kind == Kind::Secrets && self.place.id.is_none() {
            return Err(Answer::bad("no secret id"));
        }
        let key = &self.place.named_key()?;
        let change = &body.ok_or_else(|| Answer::bad("missing new configuration"))?;
        let ttl = self.args.ttl()?;
        let _turn = self.group.turn(key).await?;
        let _lock = self.group.lock(looks_through_a_kind(key.kind, change)).await?;
        self.group
            .commit(|| async move {
                let old = self.group.get(key).await?;
                let mut conf = self.patched(&old, change)?;
                let mut expect = self.expectations(key, &conf).await?;
                expect.push((key.clone(), Expect::At(old.modified)));
                self.rules.conceal(key.kind, &mut conf);
                Ok((commit(key, &conf, ttl, expect), Answer::ok(written(self.rules.path_of(key), conf))))
            })
            .await
    }

    /// The old resource with the change applied, in plain text and checked.
    fn patched(&self, old: &Resource, change: &Value) -> Result<Value, Answer> {
        let mut conf: Value = old.read().map_err(|error| unreadable(&old.key, &error))?;
        self.rules.reveal(old.key.kind, &mut conf);
        let Value::Object(mut fields) = conf else { return Err(Answer::bad("invalid configuration")) };
        let mut keeps_time = false;
        if self.place.rest.is_empty() {
            let Value::Object(change) = change else { return Err(Answer::bad("invalid configuration")) };
            keeps_time = change.get("update_time").is_some_and(|time| !time.is_null());
            patch::merge(&mut fields, change.clone());
        } else {
            patch::replace(&mut fields, &self.place.rest, change.clone()).map_err(Answer::bad)?;
        }
        if !keeps_time {
            fields.insert("update_time".to_owned(), json!(now()));
        }
        fields.entry("create_time").or_insert_with(|| json!(now()));
        self.settle_id(&mut fields)?;
        let conf = Value::Object(fields);
        self.check(&conf)?;
        Ok(conf)
    }

    async fn delete(&self) -> Outcome {
        let key = &self.place.named_key()?;
        let checked = references::may_be_used(key.kind) && self.args.get("force") != Some("true");
        let _lock = self.group.lock(checked || key.kind == Kind::Consumers).await?;
        if checked {
            references::check_unused(&*self.group.store, key).await?;
        }
        self.group
            .commit(|| async move {
                self.group.get(key).await?;
                let mut commit = Commit::delete(key.clone()).expecting(key.clone(), Expect::Present);
                if key.kind == Kind::Consumers {
                    let credentials = self.group.credentials(&key.id).await?;
                    commit
                        .writes
                        .extend(credentials.iter().map(|one| Write::Delete { key: one.key.clone() }));
                }
                Ok((commit, Answer::ok(json!({ "key": self.rules.path_of(key), "deleted": "1" }))))
            })
            .await
    }

    /// Puts the id of the path into the configuration, or finds it there.
    fn settle_id(&self, conf: &mut Conf) -> Result<(), Answer> {
        let noun = self.place.kind.singular();
        match (self.place.kind, &self.place.id, &self.place.owner) {
            (Kind::Consumers, ..) => return Ok(()),
            (Kind::PluginMetadata, None, _) => return Err(Answer::bad("missing plugin name")),
            (Kind::PluginMetadata, Some(name), _) => {
                conf.insert("id".to_owned(), json!(name));
                return Ok(());
            }
            (Kind::Secrets, _, None) => return Err(Answer::bad("missing secret type")),
            (Kind::Secrets, None, _) => return Err(Answer::bad("missing secret id")),
            _ => {}
        }
        let Some(id) = &self.place.id else {
            let missing = || Answer::bad(format!("missing {noun} id"));
            return conf.contains_key("id").then_some(()).ok_or_else(missing);
        };
        let id = match (self.place.kind, &self.place.owner) {
            (Kind::Secrets, Some(manager)) => format!("{manager}/{id}"),
            _ => id.clone(),
        };
        if conf.get("id").is_some_and(|given| id_text(given).as_deref() != Some(&id)) {
            return Err(Answer::bad(format!("wrong {noun} id")));
        }
        conf.insert("id".to_owned(), Value::String(id));
        Ok(())
    }

    /// The id in a checked configuration.
    fn id_of(&self, conf: &Value) -> Result<String, Answer> {
        if let Some(id) = &self.place.id {
            return Ok(id.clone());
        }
        let id = conf.get(self.place.kind.id_field()).and_then(id_text).filter(|id| !id.is_empty());
        id.ok_or_else(|| Answer::bad(format!("missing {} id", self.place.kind.singular())))
    }

    /// What can be told without looking at other resources.
    fn check(&self, conf: &Value) -> Result<(), Answer> {
        let named = (&self.place.id, conf.get("username").and_then(Value::as_str));
        self.rules.check(self.place.kind, conf).map_err(Answer::bad)?;
        match (self.place.kind, named) {
            (Kind::Consumers, (Some(in_path), Some(in_body))) if in_path != in_body => {
                Err(Answer::bad("wrong username"))
            }
            _ => Ok(()),
        }
    }

    /// What must hold of other resources, looked up now and expected of the commit.
    async fn expectations(&self, key: &Key, conf: &Value) -> Result<Vec<(Key, Expect)>, Answer> {
        let store = &*self.group.store;
        let mut expect = references::expectations(store, key, conf).await?;
        shared_limits::check(store, self.rules, key, conf).await?;
        match key.kind {
            Kind::GlobalRules => unique::check_global_rule(store, key, conf).await?,
            Kind::Consumers | Kind::Credentials => {
                self.group.auth_keys.check(store, self.rules, key, conf).await?;
            }
            _ => {}
        }
        if let Some(owner) = key.owner() {
            let consumer = Key::new(Kind::Consumers, owner);
            if store.get(&consumer).await?.is_none() {
                return Err(Answer::refusal(StatusCode::NOT_FOUND, "consumer not found"));
            }
            expect.push((consumer, Expect::Present));
        }
        Ok(expect)
    }
}

/// Whether writing this asks if anyone else has something already.
fn looks_through_a_kind(kind: Kind, conf: &Value) -> bool {
    match kind {
        _ if shared_limits::concerns(conf) => true,
        Kind::GlobalRules => true,
        Kind::Consumers | Kind::Credentials => !unique::auth_keys(conf).is_empty(),
        _ => false,
    }
}

fn state_of(resource: Option<&Resource>) -> Expect {
    resource.map_or(Expect::Absent, |found| Expect::At(found.modified))
}

fn commit(key: &Key, conf: &Value, ttl: Option<u64>, expect: Vec<(Key, Expect)>) -> Commit {
    Commit { expect, writes: vec![put(key.clone(), conf.to_string(), ttl)] }
}

/// The answer to a write: what was written.
fn written(path: String, conf: Value) -> Value {
    [("key".to_owned(), Value::String(path)), ("value".to_owned(), conf)].into_iter().collect()
}

fn unreadable(key: &Key, error: &serde_json::Error) -> Answer {
    Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{key} can't be read: {error}"))
}
