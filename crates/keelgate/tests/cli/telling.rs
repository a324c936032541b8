//! What `status`, `/v1/config` and metrics say of a node: ready or not, whose process it is, what is wrong with a file.

use std::fs;

use serde_json::json;
use testkit::gateway::{Gateway, SOON};
use testkit::wait::{eventually, expect};

use crate::{KEELGATE, does, refuses, stdout};

const ROUTE: &str = "routes:\n- {id: 1, uri: /a, plugins: {redirect: {uri: /there, ret_code: 302}}}\n#END\n";

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_and_changes_nothing() {
    let mut node = Gateway::new(KEELGATE, "data_plane", "yaml");
    let file = node.home().join("conf/apisix.yaml");
    let write = |text: &str| {
        // Moved into its place, so that it is never seen half written.
        fs::write(file.with_extension("new"), text).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
    };
    // The file that comes with APISIX's image.
    write("routes:\n  -\n#END\n");
    node.start().await;
    let view = node.config_view().await.unwrap();
    assert_eq!((&view["rejected"], &view["file"]["last_error"]), (&json!([]), &json!(null)));
    write(ROUTE);
    node.config_when("the route", |view| view["resources"] == 1).await;

    // Every one of these would end all routes.
    for text in ["routes:\n#END\n", "routes:\n  id: 1\n  uri: /b\n#END\n"] {
        write(text);
        let view = node.config_when("a list that is none", |view| view["rejected"][0]["id"] == "").await;
        assert_eq!(view["resources"], 1, "{text}");
        write(ROUTE);
        node.config_when("a good file", |view| view["rejected"] == json!([])).await;
    }
    let told = node.process().mark();
    for text in ["routes: []\n", "routes:\n\t- id: 1\n#END\n"] {
        write(text);
        let view = node.config_when("a bad file", |view| view["file"]["last_error"].is_string()).await;
        assert!(view["file"]["since"].is_string() && view["resources"] == 1 && view["ready"] == true);
        assert_eq!(node.metric("keelgate_config_file_error").await.unwrap(), Some(1.0));
        let said = does(&node, &["status"]);
        assert!(said.contains("what there was before is served"), "{said}");
        write(ROUTE);
        node.config_when("a good file", |view| view["file"]["last_error"].is_null()).await;
        node.process().wait_for_log_since(told, "it can be heard again", SOON).await;
    }
    fs::remove_file(&file).unwrap();
    node.config_when("no file", |view| view["file"]["last_error"].is_string()).await;
    write("rotes: []\nroutes: []\n#END\n");
    node.config_when("no routes", |view| view["resources"] == 0).await;
    node.process().wait_for_log("apisix.yaml:1: rotes: this key is not known", SOON).await;
}

/// An alert on the control plane must not fire for ever on a node that has none.
#[tokio::test]
async fn a_node_without_a_control_plane_tells_nothing_of_one() {
    let mut node = Gateway::new(KEELGATE, "data_plane", "yaml");
    fs::write(node.home().join("conf/apisix.yaml"), ROUTE).unwrap();
    node.start().await;
    for name in ["keelgate_cp_connected", "apisix_etcd_reachable"] {
        assert_eq!(node.metric(name).await.unwrap(), None, "{name}");
    }
    let said = does(&node, &["status"]);
    assert!(said.contains("source     file") && !said.contains("\ncp "), "{said}");
    assert_eq!(node.metric("apisix_nginx_metric_errors_total").await.unwrap(), Some(0.0));
}

#[tokio::test]
async fn status_says_no_for_a_node_that_serves_nothing() {
    let mut node = Gateway::data_plane(KEELGATE)
        .follow_hosts(&["http://127.0.0.1:1"])
        .with(json!({ "deployment": { "etcd": { "timeout": 1 } } }));
    node.spawn();
    eventually(SOON, "an answer that it is not ready", async || {
        let output = node.command(&["status"]);
        expect(output.status.code() == Some(1) && stdout(&output).contains("ready      no"), stdout(&output))
    })
    .await;
}

#[tokio::test]
async fn status_needs_no_control_api_and_a_control_plane_is_no_data_plane() {
    let mut node = Gateway::control_plane(KEELGATE);
    node.start().await;
    let said = does(&node, &["status"]);
    assert!(said.contains("not a data plane") && !said.contains("\nsource"), "{said}");
    node.merge_config(json!({ "apisix": { "enable_control": false } }));
    node.restart().await;
    assert!(does(&node, &["status"]).starts_with("ready      yes"));
    node.stop().await;
    assert!(refuses(&node, &["status"], 1).contains("is it running?"));
}

#[tokio::test]
async fn a_port_of_somebody_else_is_not_taken_for_this_node() {
    let mut first = Gateway::control_plane(KEELGATE);
    first.start().await;
    let at = json!({ "ip": "127.0.0.1", "port": first.ports().control });
    let mut second = Gateway::control_plane(KEELGATE);
    second.start().await;
    second.merge_config(json!({ "apisix": { "control": at } }));
    for args in [&["status"][..], &["config", "accept"]] {
        let said = refuses(&second, args, 1);
        assert!(said.contains("another keelgate answers at") && said.contains("control_plane"), "{said}");
    }
}

#[tokio::test]
async fn a_second_process_of_the_same_files_is_refused() {
    let mut node = Gateway::control_plane(KEELGATE);
    node.start().await;
    let said = refuses(&node, &["run"], 1);
    assert!(said.contains("it is running already") && said.contains("keelgate.pid"), "{said}");
    assert!(does(&node, &["status"]).contains("control_plane"));
    // What APISIX's image calls before it starts.
    for verb in ["init", "init_etcd"] {
        assert!(does(&node, &[verb]).contains("there is nothing to do"));
    }
}

/// A manager that can't be used from the start must be seen where one that fails later is.
#[tokio::test]
async fn metrics_tell_of_secrets_without_a_manager_and_what_apisixs_dashboards_look_for() {
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    let vault =
        json!({ "uri": "http://127.0.0.1:1", "prefix": "kv", "token": "$ENV://KEELGATE_TEST_NOT_SET" });
    node.put("secrets/vault/1", &vault).await;
    let key = json!({ "key-auth": { "key": "$secret://vault/1/jack/key" } });
    node.put("consumers", &json!({ "username": "jack", "plugins": key })).await;
    let view = node.config_when("the secret", |view| view["secrets"]["vault/1"]["unresolved"] == 1).await;
    let error = view["secrets"]["vault/1"]["last_error"].as_str().unwrap();
    assert!(
        error.contains("secrets/vault/1 was refused") && error.contains("KEELGATE_TEST_NOT_SET"),
        "{error}"
    );
    for name in ["followed", "failing", "unresolved"] {
        let name = format!("keelgate_secrets_{name}{{manager=\"vault/1\"}}");
        assert_eq!(node.metric(&name).await.unwrap(), Some(1.0), "{name}");
    }
    let index = async |key: &str| {
        let name = format!("apisix_etcd_modify_indexes{{key=\"{key}\"}}");
        node.metric(&name).await.unwrap()
    };
    assert!(index("consumers").await > Some(0.0));
    assert_eq!(index("consumers").await, index("max_modify_index").await);
    for key in ["routes", "services", "ssls", "global_rules", "upstreams", "stream_routes", "protos"] {
        assert_eq!(index(key).await, Some(0.0), "{key}");
    }
    let url = format!("http://127.0.0.1:{}/apisix/prometheus/metrics", node.ports().prometheus);
    let page = testkit::http::get(&url).await.unwrap().text();
    assert!(page.contains("\napisix_node_info{hostname=\""), "{page}");
}
