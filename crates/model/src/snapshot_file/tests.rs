use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    kind::Key,
    snapshot::{Resource, Snapshot},
};

fn resource(key: &str, value: &str) -> Resource {
    Resource { key: key.parse().unwrap(), value: value.into(), created: 0, modified: 0 }
}

fn read(text: &str) -> (Vec<(String, String)>, Vec<Rejected>) {
    let (snapshot, rejected) = Snapshot::from_json(text.as_bytes(), "s", 1).unwrap();
    (snapshot.iter().map(|r| (r.key.to_string(), r.value.to_string())).collect(), rejected)
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn a_snapshot_is_written_as_apisix_reads_it() {
    let snapshot: Snapshot = [
        resource("routes/1", r#"{"id":1,"uri":"/a b"}"#),
        resource("routes/r 2", r#"{"uri":"\/"}"#),
        resource("consumers/jack", r#"{"username":"jack"}"#),
        resource("consumers/jack/credentials/c1", r#"{"id":"c1","plugins":{}}"#),
        resource("plugin_metadata/http-logger", r#"{"log_format":{}}"#),
        resource("plugin_metadata/cors", "{}"),
        resource("secrets/vault/1", r#"{"uri":"x","id":"vault/1"}"#),
        resource("services/torn", r#"{"id":"#),
    ]
    .into_iter()
    .collect();
    let mut bytes = Vec::new();
    let rejected = snapshot.write_json(&mut bytes).unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].kind, &*rejected[0].id), (Kind::Services, "torn"));
    let expected = r#"{
"secrets":[
{"uri":"x","id":"vault/1"}
],
"plugin_metadata":[
{"id":"cors"},
{"id":"http-logger","log_format":{}}
],
"consumers":[
{"username":"jack"},
{"id":"jack/credentials/c1","plugins":{}}
],
"routes":[
{"id":1,"uri":"/a b"},
{"id":"r 2","uri":"\/"}
]
}
"#;
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    assert_eq!(Snapshot::default().to_json(), b"{}\n");
}

#[test]
fn a_foreign_file_reads_as_apisix_reads_it() {
    let (resources, rejected) = read(
        r#"{"routes": [ {"uri": "/a b"}, {"id": 7, "uri": "\" /"}, {"uri":"/c","modifiedIndex":5}, 3, {"id":"a/b"}, {"id":[]} ],
            "routes_conf_version": 4, "upstreams": {}, "services": null, "protos": "x",
            "consumers": [{"username":"jack"}, {"id":"jack/credentials/c1","plugins":{}}],
            "plugin_metadata": [{"log_format":1, "id":"x"}, {"log_format":1}],
            "secrets": [{"id":"vault/1"}, {"id":"1"}], "ssl": 1}"#,
    );
    let expected = [
        pair("secrets/vault/1", r#"{"id":"vault/1"}"#),
        pair("plugin_metadata/x", r#"{"log_format":1,"id":"x"}"#),
        pair("consumers/jack", r#"{"username":"jack"}"#),
        pair("consumers/jack/credentials/c1", r#"{"id":"c1","plugins":{}}"#),
        pair("routes/7", r#"{"id":7,"uri":"\" /"}"#),
        pair("routes/arr_1", r#"{"id":"arr_1","uri":"/a b"}"#),
        pair("routes/arr_3", r#"{"id":"arr_3","uri":"/c"}"#),
    ];
    assert_eq!(resources, expected);
    let rejected: Vec<_> = rejected.iter().map(|r| format!("{} {}: {}", r.kind, r.id, r.reason)).collect();
    assert_eq!(
        rejected,
        [
            "plugin_metadata arr_2: the id is missing: it is the name of the plugin",
            "protos : `protos` should be a list: what there was before stays (for none, write `[]`)",
            "routes arr_4: it should be an object",
            "routes a/b: `a/b` cannot be the id of a route",
            "routes arr_6: its id should be a text or a whole number",
            "secrets 1: `1` cannot be the id of a secret",
        ]
    );
}

#[test]
fn a_torn_file_is_refused_with_its_place() {
    let error = Snapshot::from_json(b"{\"routes\":[\n{]}", "s", 1).unwrap_err().to_string();
    assert!(error.contains("line 2 column 2"), "{error}");
    assert!(Snapshot::from_json(b"[]", "s", 1).is_err());
    assert!(Snapshot::from_json(b"", "s", 1).is_err());
    assert!(Snapshot::from_json(b"{}{}", "s", 1).is_err());
}

fn yaml(text: &str) -> Result<(Snapshot, Vec<Rejected>), FileError> {
    Snapshot::from_yaml(text, &|name| (name == "PORT").then(|| "1980".to_owned()), "", 0)
}

#[test]
fn yaml_reads_with_variables() {
    let (snapshot, rejected) = yaml(
        "routes:\n  - uri: /hello\n    upstream:\n      nodes:\n        \"127.0.0.1:${{PORT}}\": 1\n      type: roundrobin\n\
         \x20   enable_websocket: true\n    priority: ${{PORT}}\n    name: \"${{PORT}}\"\n  - 1\nservices: {}\n#END\n",
    )
    .unwrap();
    let route = snapshot.get(&Key::new(Kind::Routes, "arr_1")).unwrap();
    let value: serde_json::Value = route.read().unwrap();
    let expected = json!({"id": "arr_1", "uri": "/hello", "upstream": {"nodes": {"127.0.0.1:1980": 1}, "type": "roundrobin"},
        "enable_websocket": true, "priority": 1980, "name": "1980"});
    assert_eq!(value, expected);
    assert_eq!(rejected.len(), 1);
    assert!(yaml("#END").unwrap().0.is_empty());
}

#[test]
fn yaml_that_is_not_whole_is_refused() {
    assert!(matches!(yaml("routes: []\n"), Err(FileError::NoEndMark)));
    assert!(matches!(yaml("a: ${{NONE}}\n#END"), Err(FileError::Unset(_))));
    match yaml("routes:\n  - uri: [\n#END").unwrap_err() {
        error @ FileError::Yaml { line: 2, .. } => {
            assert_eq!(error.to_string(), "not valid YAML: unclosed bracket '[' (line 2 column 10)");
        }
        other => panic!("{other}"),
    }
    assert!(matches!(yaml("- 1\n#END"), Err(FileError::Yaml { .. })));
}

#[test]
fn aliases_cannot_blow_a_file_up() {
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, before) in ('b'..='z').zip('a'..) {
        text += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(","));
    }
    text += "#END";
    assert!(matches!(yaml(&text), Err(FileError::Yaml { .. })));
}

#[test]
fn a_hundred_thousand_routes_read_quickly() {
    let snapshot: Snapshot = (0..100_000)
        .map(|n| {
            let value = format!(
                r#"{{"id":"r{n}","uri":"/service/{n}/*","methods":["GET"],"plugins":{{"limit-count":{{"count":2}}}},"upstream_id":"u{n}"}}"#
            );
            resource(&format!("routes/r{n}"), &value)
        })
        .collect();
    let bytes = snapshot.to_json();
    let start = std::time::Instant::now();
    let (read, rejected) = Snapshot::from_json(&bytes, "", 0).unwrap();
    let took = start.elapsed();
    assert!(rejected.is_empty() && read.changes_since(&snapshot).is_empty());
    // Generous: a debug build on a busy machine. What it guards against is a reader that is quadratic.
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_key_without_a_value_is_an_empty_table_in_yaml() {
    let (snapshot, rejected) =
        yaml("routes:\n- id: 1\n  plugins:\n    key-auth:\nservices: []\n#END").unwrap();
    assert!(rejected.is_empty());
    let texts: Vec<_> = snapshot.iter().map(|r| r.value.to_string()).collect();
    assert_eq!(texts, [r#"{"id":1,"plugins":{"key-auth":{}}}"#]);
}

#[test]
fn a_list_that_is_none_is_told_and_an_empty_entry_is_not() {
    let read = |text: &str| Reading::yaml(text, &|_| None, "", 0).unwrap();
    for text in ["routes:\n#END", "routes:\n  id: 1\n  uri: /a\n#END", "routes: all\n#END"] {
        let reading = read(text);
        assert_eq!(reading.unlisted().collect::<Vec<_>>(), [Kind::Routes], "{text}");
        assert!(reading.rejected[0].reason.starts_with("`routes` should be a list"));
    }
    // The file that comes with APISIX's image.
    let reading = read("routes:\n  -\n#END\n");
    assert!(reading.rejected.is_empty() && reading.unknown.is_empty() && reading.snapshot.is_empty());
}

#[test]
fn keys_that_mean_nothing_and_ids_that_are_taken_are_told() {
    let text = "rotes: []\nroutes_conf_version: 1\nplugins: []\nplugins_conf_version: 2\ncredentials: []\n\
                rotes_conf_version: 1\nroutes:\n- {id: 1, uri: /a}\n- {id: 1, uri: /b}\n#END";
    let mut reading = Reading::yaml(text, &|_| None, "", 0).unwrap();
    reading.unknown.sort();
    assert_eq!(reading.unknown, ["credentials", "rotes", "rotes_conf_version"]);
    assert_eq!((reading.rejected.len(), &*reading.rejected[0].id), (1, "1"));
    let kept = reading.snapshot.get(&Key::new(Kind::Routes, "1")).unwrap();
    assert_eq!(&*kept.value, r#"{"id":1,"uri":"/b"}"#);
    let text = br#"{"rotes":[],"routes":[{"id":1},{"id":1}]}"#;
    let reading = Reading::json(text, "", 0).unwrap();
    assert_eq!((reading.unknown, reading.rejected.len()), (vec!["rotes".to_owned()], 1));
}

#[test]
fn yaml_is_found_wrong_in_plain_words() {
    for (text, words) in [
        ("routes: []\nroutes: []\n#END", "the key `routes` is there twice"),
        ("routes: []\n---\na: 1\n#END", "there is more than one document: remove the `---`"),
        ("- 1\n#END", "keys with values are expected here, such as `key: value`"),
    ] {
        let error = yaml(text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Any JSON value, small.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        "\\PC*".prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| json!(v)),
            prop::collection::btree_map("[a-z\"\\\\ ]{0,3}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

/// A resource as the Admin API stores it: compact, with its id where its kind has one in its text.
fn any_resource() -> impl Strategy<Value = Resource> {
    let kind = prop::sample::select(Kind::ALL.as_slice());
    (
        kind,
        "[a-zA-Z0-9._-]{1,8}",
        "[a-z]{1,4}",
        prop::collection::btree_map("[b-h]{1,5}", any_json(), 0..4),
        any::<bool>(),
    )
        .prop_map(|(kind, id, owner, members, last)| {
            let key = match kind {
                Kind::Credentials => format!("consumers/{owner}/credentials/{id}"),
                Kind::Secrets => format!("secrets/{owner}/{id}"),
                kind => format!("{kind}/{id}"),
            };
            let key: Key = key.parse().unwrap();
            let own = match kind {
                Kind::Consumers => ("username", &*key.id),
                Kind::Credentials => ("id", id.as_str()),
                _ => ("id", &*key.id),
            };
            let mut object: serde_json::Map<_, _> = members.into_iter().collect();
            let place = if last { object.len() } else { 0 };
            object.shift_insert(place, own.0.to_owned(), json!(own.1));
            Resource { key, value: json!(object).to_string().into(), created: 0, modified: 0 }
        })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_letter_for_letter(resources in prop::collection::vec(any_resource(), 0..12)) {
        let snapshot: Snapshot = resources.into_iter().collect();
        let bytes = snapshot.to_json();
        let (read, rejected) = Snapshot::from_json(&bytes, "lineage", 9).unwrap();
        prop_assert_eq!(rejected, []);
        prop_assert_eq!(snapshot.iter().collect::<Vec<_>>(), read.iter().collect::<Vec<_>>());
        prop_assert_eq!((&*read.store_id, read.revision), ("lineage", 9));
        prop_assert_eq!(read.to_json(), bytes);
    }

    #[test]
    fn yaml_reads_what_json_reads(resources in prop::collection::vec(any_resource(), 0..6)) {
        let snapshot: Snapshot = resources.into_iter().collect();
        let mut text = String::from_utf8(snapshot.to_json()).unwrap();
        prop_assume!(!text.contains("${{"));
        text.push_str("#END");
        let (read, _) = yaml(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        let values = |s: &Snapshot| s.iter().map(|r| (r.key.clone(), r.read().unwrap())).collect::<Vec<(Key, serde_json::Value)>>();
        let mut expected = values(&snapshot);
        expected.iter_mut().for_each(|(_, value)| read::nothing_is_empty(value));
        prop_assert_eq!(expected, values(&read));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC*#END") {
        let _ = Snapshot::from_json(&bytes, "", 0);
        let _ = yaml(&text);
    }
}
