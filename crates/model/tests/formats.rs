//! Every format ever written still reads. A new format adds a file to `fixtures/`; none is changed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use model::{InstanceEnvelope, Key, Kind, Manifest, Snapshot, resource, schema::Checker, secrets::Keyring};
use serde_json::{Value, json};

const SNAPSHOT_V1: &[u8] = include_bytes!("fixtures/snapshot-v1.json");
const YAML: &str = include_str!("fixtures/apisix.yaml");
const MANIFEST_V1: &[u8] = include_bytes!("fixtures/manifest-v1.json");
const INSTANCE_V1: &[u8] = include_bytes!("fixtures/instance-v1.json");

fn value(snapshot: &Snapshot, key: &str) -> Value {
    let key: Key = key.parse().unwrap();
    snapshot.get(&key).unwrap_or_else(|| panic!("{key}")).read().unwrap()
}

#[test]
fn snapshots_of_format_1_read_and_are_written_the_same() {
    let (snapshot, rejected) = Snapshot::from_json(SNAPSHOT_V1, "lineage", 42).unwrap();
    assert_eq!(rejected, []);
    assert_eq!(snapshot.len(), 15);
    assert_eq!(snapshot.counts().len(), Kind::ALL.len(), "one of every kind");
    assert_eq!(snapshot.to_json(), SNAPSHOT_V1);
    for resource in snapshot.iter() {
        let value: Value = resource.read().unwrap();
        assert_eq!(resource::readable(resource.key.kind, &value), Ok(()), "{}", resource.key);
    }
    assert_eq!(value(&snapshot, "consumers/jack/credentials/c1")["id"], "c1");
    let upstream: resource::Upstream = snapshot.get(&"upstreams/1".parse().unwrap()).unwrap().read().unwrap();
    assert_eq!(&*upstream.nodes[1].host, "[::1]");
    assert_eq!(upstream.nodes[1].weight, 2);
}

#[test]
fn files_written_for_apache_apisix_read() {
    let lookup = |name: &str| (name == "PORT").then(|| "1980".to_owned());
    let (snapshot, rejected) = Snapshot::from_yaml(YAML, &lookup, "", 0).unwrap();
    assert_eq!(rejected, []);
    assert_eq!(snapshot.len(), 8);
    assert_eq!(value(&snapshot, "upstreams/1")["nodes"], json!({"127.0.0.1:1980": 1}));
    let route = value(&snapshot, "routes/arr_1");
    assert_eq!(route["labels"], json!({"version": "1980", "on": "yes"}));
    assert_eq!((&route["priority"], &route["enable_websocket"]), (&json!(7), &json!(true)));
    assert_eq!(value(&snapshot, "routes/folded")["desc"], "two lines");
    assert_eq!(value(&snapshot, "routes/aliased")["upstream"], value(&snapshot, "routes/folded")["upstream"]);
    assert_eq!(value(&snapshot, "consumers/jack/credentials/c1")["plugins"]["key-auth"]["key"], "auth-two");
    let checker = Checker::new(&[]).unwrap();
    for kind in [Kind::Upstreams, Kind::Routes, Kind::Secrets] {
        for resource in snapshot.of(kind) {
            assert_eq!(checker.check(kind, &resource.read().unwrap()), Ok(()), "{}", resource.key);
        }
    }
}

#[test]
fn manifests_of_format_1_read() {
    let manifest: Manifest = serde_json::from_slice(MANIFEST_V1).unwrap();
    assert_eq!((manifest.format, manifest.revision, manifest.sequence), (1, 42, 7));
    assert_eq!(manifest.resource.counts[&Kind::Routes], 2);
    assert!(manifest.instance.counts.is_empty());
    assert_eq!(manifest.signature.as_ref().unwrap().alg, "ed25519");
    let again: Manifest = serde_json::from_value(serde_json::to_value(&manifest).unwrap()).unwrap();
    assert_eq!(again, manifest);
}

#[test]
fn instance_configuration_of_version_1_reads_and_keeps_what_it_does_not_know() {
    let read: InstanceEnvelope = serde_json::from_slice(INSTANCE_V1).unwrap();
    assert_eq!(read.config.config_version, 3);
    let as_written: Value = serde_json::from_slice(INSTANCE_V1).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), as_written);
    let encryption = read.config.config_payload.apisix.unwrap().data_encryption;
    assert_eq!(
        Keyring::new(&encryption).unwrap().decrypt("77+NmbYqNfN+oLm0aX5akg==").as_deref(),
        Some("bar")
    );
}
