//! The binary at a prompt: verbs, exit codes, what it says, and what signals do to a running one.
//!
//! The one rule: exit 0 is yes, 1 is no, 2 is a wrong call, 78 a wrong configuration, and a reader of stderr knows
//! which line to change.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

const KEELGATE: &str = env!("CARGO_BIN_EXE_keelgate");

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command on a node, which must succeed, and gives what it prints.
#[track_caller]
fn does(node: &Gateway, args: &[&str]) -> String {
    let output = node.command(args);
    let log = fs::read_to_string(node.home().join("logs/error.log")).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}\n{log}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// Runs a command that must answer no, and gives what it says.
#[track_caller]
fn refuses(node: &Gateway, args: &[&str], code: i32) -> String {
    let output = node.command(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output) + &stderr(&output)
}

/// One route for everything.
async fn route_all(node: &Gateway, upstream: &Upstream) {
    let nodes = json!({ upstream.node(): 1 });
    node.put("routes/all", &json!({ "uri": "/*", "upstream": { "type": "roundrobin", "nodes": nodes } }))
        .await;
    node.serves("/ip").await;
}

#[test]
fn wrong_calls_and_the_version() {
    let call = |args: &[&str]| Command::new(KEELGATE).args(args).output().unwrap();
    for args in [&[][..], &["frobnicate"], &["test", "--nonsense"], &["config"], &["backup", "show"]] {
        let output = call(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{args:?}");
    }
    let version = format!("keelgate {}\n", env!("CARGO_PKG_VERSION"));
    for args in [["version"], ["--version"]] {
        let output = call(&args);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), version.clone()));
    }
    let help = call(&["help"]);
    assert_eq!(help.status.code(), Some(0));
    for verb in
        ["run", "start", "stop", "quit", "restart", "reload", "test", "quickstart", "status", "backup"]
    {
        assert!(stdout(&help).contains(&format!("  {verb}")), "{verb} is not in the help");
    }
}

#[test]
fn a_bad_file_is_told_by_line_and_key() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("conf")).unwrap();
    let file = home.path().join("conf/config.yaml");
    for (text, expected) in [
        ("apisix:\n  node_listen: [oops]\n", "config.yaml:2: apisix.node_listen"),
        ("apisix:\n  ssl:\n    ssl_protocols: SSLv3\n", "config.yaml:3: apisix.ssl.ssl_protocols: "),
        ("deployment:\n  role: captain\n", "config.yaml:2: deployment.role: "),
        (
            "deployment:\n  role: data_plane\n  role_data_plane:\n    config_provider: embedded\n",
            "config.yaml:4: ",
        ),
        ("deployment:\n  etcd:\n    host: [\"127.0.0.1:2379\"]\n", "config.yaml:3: deployment.etcd.host: "),
        (
            "deployment:\n  role: control_plane\nfallback_cp:\n  cron_spec: sometimes\n",
            "config.yaml:4: fallback_cp.cron_spec: ",
        ),
        ("apisix:\n  - nonsense: [\n", "config.yaml:"),
        ("keelgate:\n  gateway_group: ${{KEELGATE_TEST_NOT_SET}}\n", "KEELGATE_TEST_NOT_SET"),
    ] {
        fs::write(&file, text).unwrap();
        for verb in ["test", "run", "start", "reload", "status"] {
            let output = Command::new(KEELGATE).args([verb, "-c"]).arg(&file).output().unwrap();
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(78), "{verb}: {text}: {told}");
            assert!(told.contains(expected), "{verb}: {text}: {told}");
        }
    }
    let output = Command::new(KEELGATE).args(["test", "-c", "/nowhere/config.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("/nowhere/config.yaml: it can't be read"), "{}", stderr(&output));
}

#[test]
fn a_file_is_found_where_it_is_looked_for() {
    let node = Gateway::traditional(KEELGATE);
    let test = |command: &mut Command| command.arg("test").env_remove("KEELGATE_CONFIG").output().unwrap();
    let here = test(Command::new(KEELGATE).current_dir(node.home()));
    assert_eq!(here.status.code(), Some(0), "{}", stderr(&here));
    assert_eq!(stdout(&here), "configuration file ./conf/config.yaml test is successful\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let lost = test(Command::new(KEELGATE).current_dir(elsewhere.path()));
    assert_eq!(lost.status.code(), Some(78));
    assert!(stderr(&lost).contains("no config.yaml"), "{}", stderr(&lost));
    let mut command = Command::new(KEELGATE);
    command.current_dir(elsewhere.path()).arg("test").env("KEELGATE_CONFIG", node.config_file());
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn keys_that_do_nothing_are_told_with_their_path() {
    let node = Gateway::traditional(KEELGATE).with(json!({ "apisix": { "flux_capacitor": true } }));
    let output = node.command(&["test"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("apisix.flux_capacitor: this key is not used by Keelgate"),
        "{}",
        stderr(&output)
    );
}

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
