use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    certs::Ca,
    secret_manager::{Kind as Fake, SECRET, SecretManager},
};
use tokio::runtime::Runtime;

use super::*;
use crate::{lasting::Lasting, testing::Lab, upstream::discovery::Directory};

/// A plan that follows secrets, as a data plane does it.
struct Story {
    lab: Lab,
    runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Story {
    fn new() -> Self {
        Self::again(tempfile::tempdir().unwrap())
    }

    /// As after a restart.
    fn again(folder: tempfile::TempDir) -> Self {
        let runtime = Runtime::new().unwrap();
        let secrets = Secrets::new(runtime.handle(), folder.path().join("secrets.json"));
        let second = Duration::from_secs(1);
        let times = Times { ttl: second / 20, neg_ttl: second };
        secrets.configure(Config { times, roots: Arc::new(RootCertStore::empty()), keyring: Arc::default() });
        let lasting = Lasting::new(Directory::default(), secrets);
        Self { lab: Lab { lasting, ..Lab::default() }, runtime, folder }
    }

    fn restart(self) -> Self {
        let Self { lab, runtime, folder } = self;
        drop(lab);
        runtime.shutdown_background();
        Self::again(folder)
    }

    /// Puts resources and compiles, again once secrets have come that were never asked for.
    fn put(&mut self, resources: &[(&str, Value)]) {
        self.lab.change(resources);
        if self.lab.lasting.secrets.wait(Duration::from_secs(10)) {
            self.lab.compile(false);
        }
    }

    /// Waits until something changes, and compiles; for as long as `until` is not so.
    fn wait(&mut self, until: impl Fn(&Lab) -> bool) {
        let secrets = self.lab.lasting.secrets.clone();
        let limit = Duration::from_secs(20);
        while !until(&self.lab) {
            let changed = async { tokio::time::timeout(limit, secrets.changed()).await };
            self.runtime.block_on(changed).expect("a change");
            self.lab.compile(false);
        }
    }
}

fn vault(manager: &SecretManager) -> (&'static str, Value) {
    ("secrets/vault/1", json!({"uri": manager.url(), "prefix": "kv", "token": SECRET}))
}

fn jack(key: &str) -> (&'static str, Value) {
    ("consumers/jack", json!({"username": "jack", "plugins": {"auth": {"key": key}}}))
}

fn knows(lab: &Lab, key: &str) -> bool {
    lab.plan.consumers.by_key("auth", key).is_some()
}

#[test]
fn a_reference_stands_for_its_value_and_follows_it() {
    let (manager, mut story) = (SecretManager::start(Fake::Vault), Story::new());
    manager.set("kv/jack", &json!({"key": "one", "other": "x"}));
    manager.set("kv/data/rose", &json!({"key": "two"}));
    let reference = "$secret://vault/1/jack/key";
    story.put(&[
        vault(&manager),
        jack(reference),
        (
            "consumers/rose",
            json!({"username": "rose", "plugins": {"auth": {"key": "$secret://vault/1/data/rose/key"}}}),
        ),
        ("consumers/plain", json!({"username": "plain", "plugins": {"auth": {"key": "three"}}})),
    ]);
    assert_eq!(story.lab.refused(), [""; 0]);
    for (key, known) in [("one", true), ("two", true), ("three", true), (reference, false)] {
        assert_eq!(knows(&story.lab, key), known, "{key}");
    }
    manager.set("kv/jack", &json!({"key": "changed"}));
    story.wait(|lab| knows(lab, "changed"));
    assert!(!knows(&story.lab, "one") && knows(&story.lab, "two"));
    // Nobody else was compiled.
    assert_eq!(story.lab.report.compiled, 1);
    // What is not given any more keeps its last value.
    manager.set("kv/jack", &Value::Null);
    let failing = |lab: &Lab| lab.lasting.secrets.heard()[0].failing == 1;
    while !failing(&story.lab) {
        std::thread::yield_now();
    }
    story.lab.compile(true);
    assert!(knows(&story.lab, "changed"));
    let [heard] = &*story.lab.lasting.secrets.heard() else { panic!() };
    assert_eq!((heard.followed, heard.unresolved), (2, 0));
    assert!(heard.last_error.as_ref().unwrap().contains("jack/key: there is no such secret"), "{heard:?}");
}

#[test]
fn what_can_not_be_had_is_refused_by_name_until_it_can() {
    let (manager, mut story) = (SecretManager::start(Fake::Vault), Story::new());
    let reference = "$secret://vault/1/jack/key";
    story.put(&[jack(reference)]);
    let why = |story: &Story| story.lab.refused().join("\n");
    assert!(
        why(&story).contains("key: $secret://vault/1/jack/key: secret manager vault/1 is missing"),
        "{}",
        why(&story)
    );
    let (name, mut conf) = vault(&manager);
    conf["token"] = "wrong".into();
    story.put(&[(name, conf)]);
    assert!(
        why(&story).contains("can't be had from vault/1: status 403: permission denied"),
        "{}",
        why(&story)
    );
    assert!(!knows(&story.lab, reference));
    story.put(&[vault(&manager)]);
    story.wait(|lab| lab.refused().join("").contains("there is no such secret"));
    manager.set("kv/jack", &json!({"other": "one"}));
    story.wait(|lab| lab.refused().join("").contains("it has no key key"));
    manager.set("kv/jack", &json!({"key": "one"}));
    story.wait(|lab| knows(lab, "one"));
    assert_eq!(story.lab.refused(), [""; 0]);
    for (bad, says) in [
        ("$secret://vault/1/key", "names no secret"),
        ("$secret://vault/1", "is no reference"),
        ("$env://KEELGATE_NOT_SET", "the environment has no"),
    ] {
        story.put(&[jack(bad)]);
        assert!(why(&story).contains(says), "{}", why(&story));
        assert!(knows(&story.lab, "one"), "the last good form stays");
    }
    story.put(&[jack("$secret://vault/1/jack/key"), ("secrets/vault/1", Value::Null)]);
    assert!(knows(&story.lab, "one"));
}

#[test]
fn a_route_without_its_secret_keeps_its_requests_from_others() {
    let (manager, mut story) = (SecretManager::start(Fake::Vault), Story::new());
    let plugins = json!({"mark-low": {"label": "$secret://vault/1/a/label"}});
    let to = json!({"nodes": {"127.0.0.1:1": 1}});
    story.put(&[
        vault(&manager),
        ("routes/all", json!({"uri": "/*", "upstream": to})),
        ("routes/own", json!({"uri": "/own", "upstream": to, "plugins": plugins})),
        ("services/s", json!({"plugins": plugins, "upstream": to})),
        ("routes/of", json!({"uri": "/of", "service_id": "s", "upstream": to})),
    ]);
    let served = |lab: &Lab, path: &str| {
        let ctx = lab.request(path, &[]);
        let route = ctx.route.as_ref().unwrap();
        (route.id.to_string(), route.lacks.map(|status| status.as_u16()), ctx.upstream.is_some())
    };
    assert_eq!(story.lab.report.rejected.len(), 3, "{:?}", story.lab.refused());
    assert_eq!(served(&story.lab, "/own"), ("own".to_owned(), Some(503), false));
    assert_eq!(served(&story.lab, "/of"), ("of".to_owned(), Some(503), false));
    manager.set("kv/a", &json!({"label": "one"}));
    story.wait(|lab| lab.refused().is_empty());
    assert_eq!(served(&story.lab, "/own"), ("own".to_owned(), None, true));
    assert_eq!(served(&story.lab, "/of"), ("of".to_owned(), None, true));
}

#[test]
fn a_restart_without_the_manager_goes_by_the_last_values() {
    let (manager, mut story) = (SecretManager::start(Fake::Vault), Story::new());
    manager.set("kv/jack", &json!({"key": "one"}));
    let reference = "$secret://vault/1/jack/key";
    story.put(&[vault(&manager), jack(reference)]);
    assert!(knows(&story.lab, "one"));
    let file = story.folder.path().join("secrets.json");
    while !std::fs::read_to_string(&file).unwrap_or_default().contains("\"one\"") {
        std::thread::yield_now();
    }
    manager.stop();
    story = story.restart();
    story.put(&[vault(&manager), jack(reference)]);
    assert!(knows(&story.lab, "one"));
    // Another token is no other manager, another address is.
    let (name, mut conf) = vault(&manager);
    conf["token"] = "other".into();
    story = story.restart();
    story.put(&[(name, conf.clone()), jack(reference)]);
    assert!(knows(&story.lab, "one"));
    conf["uri"] = "http://127.0.0.1:9".into();
    story = story.restart();
    story.put(&[(name, conf), jack(reference)]);
    assert!(!knows(&story.lab, "one"));
    assert!(story.lab.refused().join("").contains("Connection refused"), "{:?}", story.lab.refused());
}

#[test]
fn a_manager_that_is_down_is_not_asked_for_each_of_its_secrets() {
    let (manager, mut story) = (SecretManager::start(Fake::Vault), Story::new());
    manager.refuse(Some(503));
    let names: Vec<String> = (0..100).map(|at| format!("c{at}")).collect();
    let consumers = names.iter().map(|name| {
        manager.set(&format!("kv/{name}"), &json!({"key": format!("key of {name}")}));
        let reference = format!("$secret://vault/1/{name}/key");
        let conf = json!({"username": name, "plugins": {"auth": {"key": reference}}});
        (format!("consumers/{name}"), conf)
    });
    let mut resources: Vec<_> = consumers.collect();
    resources.push((vault(&manager).0.to_owned(), vault(&manager).1));
    let resources: Vec<_> = resources.iter().map(|(key, conf)| (&**key, conf.clone())).collect();
    story.put(&resources);
    assert_eq!(story.lab.report.rejected.len(), 100);
    assert!(
        story.lab.refused()[0].contains("can't be had from vault/1: status 503"),
        "{:?}",
        story.lab.refused()
    );
    assert!(manager.requests().len() < 50, "{}", manager.requests().len());
    manager.refuse(None);
    story.wait(|lab| lab.refused().is_empty());
    assert!(names.iter().all(|name| knows(&story.lab, &format!("key of {name}"))));
}

#[test]
fn google_is_asked_with_a_token_for_the_account() {
    let (manager, mut story) = (SecretManager::start(Fake::Gcp), Story::new());
    manager.set("jack", &json!("{\"key\": \"one\"}"));
    manager.set("rose", &json!("two"));
    let file = story.folder.path().join("account.json");
    std::fs::write(&file, manager.account().to_string()).unwrap();
    let consumer =
        |name: &str, reference: &str| json!({"username": name, "plugins": {"auth": {"key": reference}}});
    story.put(&[
        ("secrets/gcp/1", json!({"auth_config": manager.account()})),
        ("secrets/gcp/file", json!({"auth_file": file, "ssl_verify": false})),
        ("consumers/jack", consumer("jack", "$secret://gcp/1/jack/key")),
        ("consumers/rose", consumer("rose", "$secret://gcp/file/rose")),
        ("consumers/none", consumer("none", "$secret://gcp/1/none")),
    ]);
    assert!(knows(&story.lab, "one") && knows(&story.lab, "two"), "{:?}", story.lab.refused());
    assert_eq!(story.lab.refused().len(), 1, "{:?}", story.lab.refused());
    assert_eq!(manager.requests().iter().filter(|path| *path == "/token").count(), 2);
    // What does not sign as the account does gets no token.
    let other = SecretManager::start(Fake::Gcp).account();
    let mut account = manager.account();
    account["private_key"] = other["private_key"].clone();
    story.put(&[
        ("secrets/gcp/2", json!({"auth_config": account})),
        ("consumers/rose", consumer("rose", "$secret://gcp/2/rose")),
    ]);
    let refused = story.lab.refused().join("\n");
    assert!(refused.contains("no access token: invalid_grant"), "{refused}");
    assert!(!refused.contains("PRIVATE KEY") && knows(&story.lab, "two"), "{refused}");
}

#[test]
fn certificates_of_either_side_may_be_kept_elsewhere() {
    let (manager, mut story, ca) = (SecretManager::start(Fake::Vault), Story::new(), Ca::new("keel"));
    let pair = ca.server(&["a.com"]);
    let (cert, key) = ("$secret://vault/1/a/cert", "$secret://vault/1/a/key");
    let upstream = json!({"scheme": "https", "nodes": {"10.0.0.1": 1}, "tls": {"client_cert_id": "c"}});
    let inline =
        json!({"scheme": "https", "nodes": {"10.0.0.1": 1}, "tls": {"client_cert": cert, "client_key": key}});
    let resources = [
        vault(&manager),
        ("ssls/1", json!({"cert": cert, "key": key, "sni": "a.com"})),
        ("ssls/c", json!({"type": "client", "cert": cert, "key": key})),
        ("routes/1", json!({"uri": "/1", "upstream": upstream})),
        ("routes/2", json!({"uri": "/2", "upstream": inline})),
    ];
    story.put(&resources);
    assert!(story.lab.plan.certificates.is_empty());
    assert_eq!(story.lab.report.rejected.len(), 4, "{:?}", story.lab.refused());
    manager.set("kv/a", &json!({"cert": pair.cert, "key": pair.key}));
    story.wait(|lab| lab.refused().is_empty());
    assert!(story.lab.plan.certificates.find("a.com").is_some());
    let is_whole = |id: &str| story.lab.plan.route(id).is_some_and(|route| route.lacks.is_none());
    assert!(is_whole("1") && is_whole("2"));
    // What is no key is refused, and what it is is not told.
    manager.set("kv/a", &json!({"cert": pair.cert, "key": "not-so-secret-any-more"}));
    story.wait(|lab| lab.report.rejected.iter().any(|one| one.serving_stale));
    assert!(!story.lab.refused().join("").contains("not-so-secret"), "{:?}", story.lab.refused());
    assert!(story.lab.plan.certificates.find("a.com").is_some());

    // A plan that serves nobody does without.
    let mut proof = Lab { lasting: Lasting::blind(), ..Lab::default() };
    proof.change(&resources);
    assert_eq!(proof.refused(), [""; 0]);
    assert!(proof.plan.certificates.is_empty());
}
