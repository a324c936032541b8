//! How a secret manager is reached: a resource of kind `secrets`.

use model::resource::Hidden;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::reference::{Reference, of_environment, replace};

/// A secret manager: the resource `secrets/vault/1` and the like.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    /// `vault/1`.
    pub id: Box<str>,
    /// Which secrets it has, whoever asks for them: what it once said is believed for as long as this is the same.
    pub identity: Box<str>,
    pub access: Access,
}

/// APISIX's fields and defaults, by kind. Any text may be `$env://NAME`.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    Vault(Vault),
    Aws(Aws),
    Gcp(Gcp),
}

/// HashiCorp Vault's key-value engine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Vault {
    /// With its scheme: `https://127.0.0.1:8200`.
    pub uri: String,
    /// Where secrets lie below `/v1/`; for version 2 of the engine with its `data`: `kv/data/apisix`.
    pub prefix: String,
    pub token: Hidden,
    pub namespace: Option<String>,
}

/// AWS Secrets Manager.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Aws {
    pub access_key_id: String,
    pub secret_access_key: Hidden,
    pub session_token: Option<Hidden>,
    /// Default: us-east-1.
    pub region: Option<String>,
    /// Default: `https://secretsmanager.{region}.amazonaws.com`.
    pub endpoint_url: Option<String>,
}

/// Google Cloud's Secret Manager: one of both must be there.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gcp {
    pub auth_config: Option<Account>,
    /// Of the machine that runs the data plane; the JSON that Google gives for a service account.
    pub auth_file: Option<String>,
    /// Default: true.
    pub ssl_verify: Option<bool>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Account {
    pub client_email: String,
    /// PEM.
    pub private_key: Hidden,
    pub project_id: String,
    /// Default: Google's.
    pub token_uri: Option<String>,
    /// Default: Google's.
    pub entries_uri: Option<String>,
    #[serde(default)]
    pub scope: Scope,
}

/// What an access token is for: one, or a list.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Scope {
    #[default]
    All,
    One(String),
    Many(Vec<String>),
}

impl Vault {
    fn identity(&self) -> String {
        format!("{} {} {}", self.uri, self.prefix, self.namespace.as_deref().unwrap_or_default())
    }
}

impl Aws {
    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }

    pub fn endpoint(&self) -> String {
        match &self.endpoint_url {
            Some(url) => url.clone(),
            None => format!("https://secretsmanager.{}.amazonaws.com", self.region()),
        }
    }
}

impl Account {
    pub fn entries_uri(&self) -> &str {
        self.entries_uri.as_deref().unwrap_or("https://secretmanager.googleapis.com/v1")
    }

    pub fn token_uri(&self) -> &str {
        self.token_uri.as_deref().unwrap_or("https://oauth2.googleapis.com/token")
    }

    pub fn scope(&self) -> String {
        match &self.scope {
            Scope::All => "https://www.googleapis.com/auth/cloud-platform".to_owned(),
            Scope::One(one) => one.clone(),
            Scope::Many(many) => many.join(" "),
        }
    }
}

impl Manager {
    /// From the resource `secrets/{id}`, which was checked when it was written.
    pub fn read(id: &str, mut conf: Value) -> Result<Self, String> {
        let mut known = |text: &str| match Reference::read(text) {
            None => Ok(None),
            Some(Ok(Reference::Environment { name, key })) => of_environment(name, key).map(Some),
            Some(Ok(Reference::Kept { .. })) => {
                Err("how a manager is reached can't be kept by one: write it, or $env://NAME".to_owned())
            }
            Some(Err(error)) => Err(error),
        };
        replace(&mut conf, "", &mut known)?;
        let (access, identity) = match id.split('/').next() {
            Some("vault") => {
                let vault: Vault = read(conf)?;
                let identity = vault.identity();
                (Access::Vault(vault), identity)
            }
            Some("aws") => {
                let aws: Aws = read(conf)?;
                let identity = format!("{} {}", aws.endpoint(), aws.region());
                (Access::Aws(aws), identity)
            }
            Some("gcp") => {
                let gcp: Gcp = read(conf)?;
                let identity = match (&gcp.auth_config, &gcp.auth_file) {
                    (Some(account), _) => format!("{} {}", account.entries_uri(), account.project_id),
                    (None, Some(file)) => file.clone(),
                    (None, None) => return Err("say auth_config or auth_file".to_owned()),
                };
                (Access::Gcp(gcp), identity)
            }
            _ => return Err(format!("{id} is of no kind there is: vault, aws or gcp")),
        };
        Ok(Self { id: id.into(), identity: identity.into(), access })
    }

    /// As what a path may be read: the name of a secret, and a key of it; the first that there is counts.
    pub fn readings(&self, path: &str) -> Result<Vec<Reading>, String> {
        let of = |name: &str, key: Option<&str>| Reading { name: name.into(), key: key.map(Into::into) };
        let filled = |text: &str, what: &str| match text.is_empty() {
            true => Err(format!("{path} names no {what}")),
            false => Ok(()),
        };
        match &self.access {
            Access::Vault(_) => {
                let (name, key) = path.rsplit_once('/').unwrap_or(("", path));
                filled(name, "secret").and_then(|()| filled(key, "key of a secret"))?;
                Ok(vec![of(name, Some(key))])
            }
            Access::Gcp(_) => {
                let (name, key) = path.split_once('/').map_or((path, None), |(name, key)| (name, Some(key)));
                filled(name, "secret")?;
                Ok(vec![of(name, key)])
            }
            // A name may have slashes: the longest that there is counts.
            Access::Aws(_) => {
                filled(path.split('/').next().unwrap_or_default(), "secret")?;
                let cuts = path.rmatch_indices('/').map(|(at, _)| of(&path[..at], Some(&path[at + 1..])));
                Ok(std::iter::once(of(path, None)).chain(cuts).collect())
            }
        }
    }
}

/// One way to read a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub name: Box<str>,
    /// None: all of it.
    pub key: Option<Box<str>>,
}

fn read<T: DeserializeOwned>(conf: Value) -> Result<T, String> {
    serde_json::from_value(conf).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manager(id: &str) -> Manager {
        let conf = json!({
            "uri": "http://v:8200", "prefix": "kv", "token": "T", "access_key_id": "A", "secret_access_key": "S",
            "auth_file": "/f",
        });
        Manager::read(id, conf).unwrap()
    }

    #[test]
    fn paths_are_read_as_apisix_reads_them() {
        let readings = |id: &str, path: &str| {
            let shown = |one: Reading| format!("{}#{}", one.name, one.key.as_deref().unwrap_or_default());
            manager(id).readings(path).map(|all| all.into_iter().map(shown).collect::<Vec<_>>())
        };
        assert_eq!(readings("vault/1", "a/b/c").unwrap(), ["a/b#c"]);
        assert_eq!(readings("gcp/1", "a/b/c").unwrap(), ["a#b/c"]);
        assert_eq!(readings("gcp/1", "a").unwrap(), ["a#"]);
        assert_eq!(readings("aws/1", "a/b/c").unwrap(), ["a/b/c#", "a/b#c", "a#b/c"]);
        for (id, path) in
            [("vault/1", "a"), ("vault/1", "/a"), ("vault/1", "a/"), ("aws/1", "/a"), ("gcp/1", "/a")]
        {
            assert!(readings(id, path).is_err(), "{id} {path}");
        }
    }

    #[test]
    fn who_asks_is_no_part_of_who_is_asked() {
        let one = manager("vault/1");
        let mut other = manager("vault/1");
        let Access::Vault(vault) = &mut other.access else { panic!("{other:?}") };
        vault.token = "U".into();
        assert!(one != other && one.identity == other.identity);
        assert!(!format!("{one:?}").contains("\"T\""), "{one:?}");
        for (id, conf, why) in [
            ("vault/1", json!({"uri": "http://v"}), "missing field `prefix`"),
            ("vault/1", json!({"uri": "x", "prefix": "$secret://vault/1/a/b"}), "can't be kept by one"),
            (
                "vault/1",
                json!({"token": "$env://KEELGATE_NOT_SET"}),
                "token: the environment has no KEELGATE_NOT_SET",
            ),
            ("gcp/1", json!({}), "auth_config or auth_file"),
            ("other/1", json!({}), "no kind"),
        ] {
            let error = Manager::read(id, conf).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
