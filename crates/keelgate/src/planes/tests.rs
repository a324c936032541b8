//! Starting and reloading, in this process.

use std::{net::TcpListener, path::Path, time::Duration};

use http::Method;

use super::*;
use crate::{reload::Reloader, settings};

fn parsed(dir: &Path, text: &str) -> Settings {
    settings::parse(text, &dir.join("conf/config.yaml"), &|_| None).unwrap().settings
}

/// A traditional node on free ports, and the port of its Admin API.
struct Node {
    dir: tempfile::TempDir,
    proxy: u16,
    admin: u16,
    dp: u16,
}

impl Node {
    fn new() -> Self {
        let [proxy, admin, dp] = std::array::from_fn(|_| testkit::ports::free());
        Self { dir: tempfile::tempdir().unwrap(), proxy, admin, dp }
    }

    fn settings(&self, proxy: u16, admin_ip: &str, more: &str) -> Settings {
        let Self { admin, dp, .. } = self;
        let text = format!(
            "apisix: {{node_listen: {proxy}, ssl: {{enable: false}}, enable_control: false, status: {{port: 0}}}}
plugin_attr: {{prometheus: {{enable_export_server: false}}}}
deployment:
  admin:
    admin_listen: {{ip: {admin_ip}, port: {admin}}}
    admin_key: [{{name: admin, key: k, role: admin}}]
keelgate: {{dp_listen: {{ip: 127.0.0.1, port: {dp}}}}}
{more}"
        );
        parsed(self.dir.path(), &text)
    }

    /// A write reaches the proxy.
    async fn works(&self, id: &str) {
        let url = format!("http://127.0.0.1:{}/apisix/admin/routes/{id}", self.admin);
        let body = format!(r#"{{"uri":"/{id}","plugins":{{"redirect":{{"uri":"/there","ret_code":302}}}}}}"#);
        let put = testkit::http::request(Method::PUT, &url, &[("X-API-KEY", "k")], body).await.unwrap();
        assert_eq!(put.status, 201, "{}", put.text());
        let url = format!("http://127.0.0.1:{}/{id}", self.proxy);
        until(async || testkit::http::get(&url).await.is_ok_and(|answer| answer.status == 302)).await;
    }
}

async fn started(settings: Settings) -> Planes {
    let mut planes = Box::pin(Planes::start(settings, Reloader::new().0)).await.unwrap();
    Box::pin(planes.open()).await.unwrap();
    planes
}

async fn until(holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it comes about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_changes_nothing() {
    let node = Node::new();
    let mut planes = started(node.settings(node.proxy, "127.0.0.1", "")).await;
    node.works("1").await;

    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = planes.reload(node.settings(port, "127.0.0.1", "")).await.unwrap_err();
    assert!(format!("{error:#}").contains(&port.to_string()), "{error:#}");
    node.works("2").await;

    let unsigned = "fallback_cp: {local: {config_dir: backup, resource_dir: snapshots}, signing: {private_key_file: none.pem}}\n";
    let prepared = planes.prepare(node.settings(node.proxy, "127.0.0.1", unsigned), None);
    assert!(prepared.is_err());
    planes.reload(node.settings(node.proxy, "127.0.0.1", unsigned)).await.unwrap_err();
    node.works("3").await;
    planes.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_changes_its_address_and_keeps_its_port() {
    let node = Node::new();
    let mut planes = started(node.settings(node.proxy, "0.0.0.0", "")).await;
    node.works("1").await;
    planes.reload(node.settings(node.proxy, "127.0.0.1", "")).await.unwrap();
    let elsewhere = ("127.0.0.2", node.admin);
    until(async || tokio::net::TcpStream::connect(elsewhere).await.is_err()).await;
    node.works("2").await;
    planes.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_change_places() {
    let node = Node::new();
    let mut planes = started(node.settings(node.proxy, "127.0.0.1", "")).await;
    node.works("1").await;
    let changed = Node { admin: node.dp, dp: node.admin, ..node };
    planes.reload(changed.settings(changed.proxy, "127.0.0.1", "")).await.unwrap();
    changed.works("2").await;
    planes.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_settings_count_for_what_is_served_without_a_word_from_its_source() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("conf")).unwrap();
    let routes = "routes: [{id: 1, uri: /a, plugins: {redirect: {uri: /b}}}]\n#END\n";
    fs::write(dir.path().join("conf/apisix.yaml"), routes).unwrap();
    let [proxy, nobody] = std::array::from_fn(|_| testkit::ports::free());
    let with = |more: &str| {
        let text = format!(
            "apisix: {{node_listen: {proxy}, ssl: {{enable: false}}, enable_control: false, status: {{port: 0}}}}
plugin_attr: {{prometheus: {{enable_export_server: false}}}}
{more}"
        );
        parsed(dir.path(), &text)
    };
    let from_file = "deployment: {role: data_plane, role_data_plane: {config_provider: yaml}}\n";
    let mut planes = started(with(from_file)).await;
    let data = planes.data.clone().unwrap();
    until(async || data.plan().snapshot.len() == 1).await;
    assert!(data.report.load().rejected.is_empty());

    let cut_off = format!(
        "deployment: {{role: data_plane, etcd: {{host: ['http://127.0.0.1:{nobody}']}}}}\nplugins: [cors]\n"
    );
    planes.reload(with(&cut_off)).await.unwrap();
    assert_eq!(data.report.load().rejected.len(), 1, "a plugin that is not allowed any more");
    planes.finish().await;
}

#[test]
fn the_plugins_of_equal_settings_are_listed_once() {
    let settings = |text: &str| parsed(Path::new("/srv"), text);
    let all = plugin_facts(&settings(""));
    assert!(std::ptr::eq(all, plugin_facts(&settings("apisix: {node_listen: 1}\n"))));
    assert_eq!(plugin_facts(&settings("plugins: [cors]\n")).len(), 1);
}
