//! A process from start to end: the verbs that steer it, signals, a reload that can't be done, a kill.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::gateway::{ADMIN_KEY, Gateway, SOON};
use testkit::http::{Client, get, request};
use testkit::load::Plan;
use testkit::ports;
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::{KEELGATE, does, refuses, route_all};

/// A node in the background, which must not outlive its test.
struct Background(Gateway);

impl Background {
    fn start(node: Gateway) -> Self {
        let node = Self(node);
        let said = does(&node.0, &["start"]);
        assert!(said.contains(&format!("keelgate runs as process {}", node.pid().unwrap())), "{said}");
        node
    }

    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    fn pid_file(&self) -> PathBuf {
        self.0.home().join("logs/keelgate.pid")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
        && !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ")
}

/// Each connection from a client may need one to an upstream, and a shell's soft limit is often 1024.
#[tokio::test]
async fn as_many_files_may_be_open_as_the_hard_limit_allows() {
    let folder = tempfile::tempdir().unwrap();
    let limited = folder.path().join("keelgate");
    fs::write(&limited, format!("#!/bin/sh\nulimit -Sn 256\nexec {KEELGATE} \"$@\"\n")).unwrap();
    fs::set_permissions(&limited, PermissionsExt::from_mode(0o755)).unwrap();
    let mut node = Gateway::traditional(&limited);
    node.start().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.process().pid())).unwrap();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<u64> = open_files.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(*numbers, [soft, hard] if soft == hard && soft > 256), "{open_files}");
}

#[tokio::test]
async fn a_life_in_the_background() {
    let upstream = Upstream::start();
    let node = Gateway::traditional(KEELGATE);
    assert!(refuses(&node, &["status"], 1).contains("is it running?"));
    assert!(refuses(&node, &["reload"], 1).contains("nothing is running"));
    assert!(refuses(&node, &["stop"], 1).contains("nothing is running"));

    let node = Background::start(node);
    let first = node.pid().unwrap();
    route_all(&node.0, &upstream).await;
    assert!(refuses(&node.0, &["start"], 1).contains("it is running already"));
    assert!(does(&node.0, &["status"]).contains("traditional"));
    let view: Value = serde_json::from_str(&does(&node.0, &["status", "--json"])).unwrap();
    assert_eq!((&view["role"], &view["source"]), (&"traditional".into(), &"control_plane".into()));
    assert_eq!(does(&node.0, &["reload"]), "the new configuration is in force\n");
    assert_eq!(node.pid(), Some(first), "a reload keeps the process");
    assert!(
        fs::read_to_string(node.0.home().join("logs/error.log")).unwrap().contains("keelgate has started")
    );

    does(&node.0, &["restart"]);
    let second = node.pid().unwrap();
    assert!(second != first && !is_alive(first) && is_alive(second));
    node.0.serves("/ip").await;
    does(&node.0, &["quit"]);
    assert!(!is_alive(second) && !node.pid_file().exists());
    assert!(get(&node.0.url("/ip")).await.is_err());

    does(&node.0, &["restart"]);
    let third = node.pid().unwrap();
    does(&node.0, &["stop"]);
    assert!(!is_alive(third) && !node.pid_file().exists());
}

#[test]
fn a_start_that_fails_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let node = Gateway::traditional(KEELGATE)
        .with(json!({ "apisix": { "node_listen": [{ "ip": "127.0.0.1", "port": port }] } }));
    let said = refuses(&node, &["start"], 1);
    assert!(said.contains("it did not start") && said.contains(&format!("127.0.0.1:{port}")), "{said}");
}

#[tokio::test]
async fn a_link_named_apisix_is_the_same_program() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("apisix");
    std::os::unix::fs::symlink(KEELGATE, &link).unwrap();
    let node = Background::start(Gateway::traditional(&link));
    route_all(&node.0, &upstream).await;
    does(&node.0, &["test"]);
    does(&node.0, &["reload"]);
    does(&node.0, &["quit"]);
    let version = Command::new(&link).arg("version").output().unwrap();
    assert_eq!(version.status.code(), Some(0));
}

#[tokio::test]
async fn a_graceful_stop_finishes_what_is_in_flight_and_takes_nothing_new() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let upstream = Upstream::start();
        let mut node = Gateway::traditional(KEELGATE);
        node.start().await;
        route_all(&node, &upstream).await;
        let mut client = Client::connect(&node.url("/")).await.unwrap();
        let slow = tokio::spawn(async move { client.get("/delay/1").await });
        in_flight(&upstream).await;
        node.process().signal(signal);
        eventually(SOON, "a closed port", async || match get(&node.url("/ip")).await {
            Ok(answer) => Err(answer.status),
            Err(_) => Ok(()),
        })
        .await;
        assert!(!slow.is_finished(), "the request is still under way");
        let answer = slow.await.unwrap().unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{signal}");
        assert!(node.process().wait(SOON).await.success(), "{signal}");
    }
}

#[tokio::test]
async fn an_interrupt_or_a_second_signal_stops_at_once() {
    for signals in [&[Signal::SIGINT][..], &[Signal::SIGTERM, Signal::SIGTERM]] {
        let upstream = Upstream::start();
        let mut node = Gateway::traditional(KEELGATE);
        node.start().await;
        route_all(&node, &upstream).await;
        let mut client = Client::connect(&node.url("/")).await.unwrap();
        let slow = tokio::spawn(async move { client.get("/delay/25").await });
        in_flight(&upstream).await;
        node.process().signal(signals[0]);
        node.process().wait_for_log("stop", SOON).await;
        signals[1..].iter().for_each(|signal| node.process().signal(*signal));
        assert!(node.process().wait(SOON).await.success());
        assert!(slow.await.unwrap().is_err(), "it was not waited for");
    }
}

/// Waits until the upstream has the slow request.
async fn in_flight(upstream: &Upstream) {
    eventually(SOON, "a slow request at the upstream", async || {
        let seen = upstream.seen();
        expect(seen.iter().any(|one| one.uri.path().starts_with("/delay")), seen.len())
    })
    .await;
}

#[tokio::test]
async fn a_reload_that_can_not_be_done_changes_nothing() {
    let upstream = Upstream::start();
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    route_all(&node, &upstream).await;
    let load = Plan::new(node.url("/ip")).start();
    load.more(50).await;
    let (good, own) = (fs::read_to_string(node.config_file()).unwrap(), node.ports().http);
    let before = node.config_view().await.unwrap();

    fs::write(node.config_file(), "apisix:\n  node_listen: nowhere\n").unwrap();
    assert!(refuses(&node, &["reload"], 78).contains("config.yaml:2: apisix.node_listen"));
    let told = node.process().mark();
    node.reload();
    node.process().wait_for_log_since(told, "the old ones stay in force", SOON).await;

    // A port that another process has, found out only when it is taken.
    let [taken, free] = ports::several();
    let _listener = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    for (key, port) in [("apisix.node_listen", taken), ("deployment.admin.admin_listen", taken)] {
        fs::write(node.config_file(), &good).unwrap();
        let listen = |port: u16| json!({ "ip": "127.0.0.1", "port": port });
        let mut wanted: Value = serde_json::from_str(&good).unwrap();
        wanted["apisix"]["node_listen"] = json!([listen(own), listen(free)]);
        match key {
            "apisix.node_listen" => wanted["apisix"]["node_listen"][1] = listen(port),
            _ => wanted["deployment"]["admin"]["admin_listen"] = listen(port),
        }
        fs::write(node.config_file(), wanted.to_string()).unwrap();
        let said = refuses(&node, &["reload"], 1);
        assert!(said.contains(&taken.to_string()), "{key}: {said}");
        assert!(get(&format!("http://127.0.0.1:{free}/ip")).await.is_err(), "{key}: half of it was done");
    }
    fs::write(node.config_file(), &good).unwrap();
    let after = node.config_view().await.unwrap();
    assert_eq!((&before["revision"], &before["digest"]), (&after["revision"], &after["digest"]));
    does(&node, &["reload"]);
    load.more(50).await;
    load.stop().await.assert_clean(100);
}

#[tokio::test]
async fn a_control_plane_that_is_killed_loses_no_write_it_has_acknowledged() {
    let mut cp = Gateway::control_plane(KEELGATE);
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..4 {
        cp.start().await;
        let url = format!("http://127.0.0.1:{}/apisix/admin/routes", cp.ports().admin);
        for id in &acknowledged {
            let found = cp.admin(Method::GET, &format!("routes/{id}"), &Value::Null).await;
            assert_eq!(found.status, 200, "{id} was acknowledged and is lost");
        }
        let mut writers = Vec::new();
        for writer in 0..4 {
            writers.push(tokio::spawn(write_until_dead(url.clone(), format!("{round}-{writer}"))));
        }
        // Not at a moment of its choosing: each round a little later in what it is writing.
        let enough = 5 + round * 7;
        eventually(SOON, "some writes", async || {
            let view = cp.config_view().await.map_err(|error| format!("{error:#}"))?;
            let written = view["resources"].as_u64().unwrap_or_default();
            expect(written >= acknowledged.len() as u64 + enough, written)
        })
        .await;
        cp.kill9();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    assert!(acknowledged.len() > 40, "only {} writes", acknowledged.len());
}

/// Writes routes one after the other until there is no answer, and gives those that were acknowledged.
async fn write_until_dead(url: String, name: String) -> Vec<String> {
    let body = json!({ "uri": "/x", "upstream": { "type": "roundrobin", "nodes": { "127.0.0.1:1": 1 } } });
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let id = format!("{name}-{number}");
        let headers = [("X-API-KEY", ADMIN_KEY), ("Content-Type", "application/json")];
        let answer = request(Method::PUT, &format!("{url}/{id}"), &headers, body.to_string()).await;
        match answer {
            Ok(answer) if answer.status == 201 => acknowledged.push(id),
            Ok(answer) => panic!("{} {}", answer.status, answer.text()),
            Err(_) => break,
        }
    }
    acknowledged
}
