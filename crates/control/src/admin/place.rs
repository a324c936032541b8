//! Which resource a path names, and what each kind allows.
//!
//! The rule to know: the id may come from the path or the body; everything else about a resource's key comes from
//! the path.

use http::{Method, StatusCode};
use model::{Key, Kind};
use serde_json::Value;

use super::answer::Answer;

/// A path below `/apisix/admin` that names a kind, perhaps a resource, perhaps a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: Kind,
    /// The consumer of a credential, the manager of a secret.
    pub owner: Option<String>,
    pub id: Option<String>,
    /// What follows the id: where in the resource a PATCH applies.
    pub rest: Vec<String>,
}

impl Place {
    /// Reads `routes/1/upstream`, `consumers/jack/credentials/c1`, `secrets/vault/1`.
    pub fn read(segments: &[String]) -> Option<Self> {
        let (first, rest) = segments.split_first()?;
        let kind = Kind::from_name(first)?;
        let mut rest = rest.iter().cloned();
        let place = match kind {
            Kind::Consumers if segments.get(2).is_some_and(|third| third == Kind::Credentials.name()) => {
                let owner = rest.next();
                rest.next();
                Self { kind: Kind::Credentials, owner, id: rest.next(), rest: rest.collect() }
            }
            // A credential without its consumer has no place to be in.
            Kind::Credentials => return None,
            Kind::Secrets => Self { kind, owner: rest.next(), id: rest.next(), rest: rest.collect() },
            _ => Self { kind, owner: None, id: rest.next(), rest: rest.collect() },
        };
        Some(place)
    }

    /// The key of the resource with this id here.
    pub fn key(&self, id: &str) -> Key {
        match (self.kind, &self.owner) {
            (Kind::Credentials, Some(owner)) => Key::new(self.kind, format!("{owner}/credentials/{id}")),
            (Kind::Secrets, Some(owner)) => Key::new(self.kind, format!("{owner}/{id}")),
            _ => Key::new(self.kind, id),
        }
    }

    /// The key of the list that the resources here are in, without a prefix.
    pub fn folder(&self) -> String {
        match (self.kind, &self.owner) {
            (Kind::Credentials, Some(owner)) => format!("consumers/{owner}/credentials"),
            (Kind::Secrets, Some(manager)) => format!("secrets/{manager}"),
            (kind, _) => kind.to_string(),
        }
    }

    /// The key where the path must hold the id: to delete or change a resource.
    pub fn named_key(&self) -> Result<Key, Answer> {
        match &self.id {
            Some(id) => Ok(self.key(id)),
            None => Err(Answer::bad(format!("missing {} id", self.kind.singular()))),
        }
    }

    /// Refuses what this kind does not take.
    pub fn allow(&self, method: &Method) -> Result<(), Answer> {
        if refused_methods(self.kind).contains(method) {
            let reason = format!("not supported `{method}` method for {}", self.kind.singular());
            return Err(Answer::refusal(StatusCode::METHOD_NOT_ALLOWED, reason));
        }
        if *method != Method::PATCH && !self.rest.is_empty() {
            return Err(Answer::no_such_path());
        }
        Ok(())
    }
}

/// What APISIX answers with 405, by kind.
const fn refused_methods(kind: Kind) -> &'static [Method] {
    match kind {
        Kind::Consumers | Kind::Credentials | Kind::PluginMetadata => &[Method::POST, Method::PATCH],
        Kind::PluginConfigs | Kind::ConsumerGroups | Kind::GlobalRules | Kind::Secrets => &[Method::POST],
        Kind::Protos | Kind::StreamRoutes => &[Method::PATCH],
        Kind::Routes | Kind::Services | Kind::Upstreams | Kind::Ssls => &[],
    }
}

/// An id as text: ids may be strings or whole numbers.
pub fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                Some((float as i64).to_string())
            }
            _ => Some(number.to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Option<Place> {
        Place::read(&path.split('/').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn paths_name_resources() {
        let key = |path: &str| {
            let place = place(path).unwrap();
            place.named_key().map(|key| key.to_string()).unwrap_or_default()
        };
        assert_eq!(key("routes/1"), "routes/1");
        assert_eq!(key("consumers/jack"), "consumers/jack");
        assert_eq!(key("consumers/jack/credentials/c1"), "consumers/jack/credentials/c1");
        assert_eq!(key("consumers/jack/credentials"), "");
        assert_eq!(key("secrets/vault/1"), "secrets/vault/1");
        assert_eq!(key("secrets/vault"), "");
        assert_eq!(place("secrets/vault/1/token").unwrap().rest, ["token"]);
        assert_eq!(place("routes/1/upstream/nodes").unwrap().rest, ["upstream", "nodes"]);
        assert_eq!(place("credentials/1"), None);
        assert_eq!(place("routs/1"), None);
    }

    #[test]
    fn ids_are_strings_or_whole_numbers() {
        let text = |json: &str| id_text(&serde_json::from_str(json).unwrap());
        assert_eq!(text("1").as_deref(), Some("1"));
        assert_eq!(text("1.0").as_deref(), Some("1"));
        assert_eq!(text("\"a\"").as_deref(), Some("a"));
        assert_eq!(text("true"), None);
    }
}
