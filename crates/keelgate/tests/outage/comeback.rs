//! A control plane that comes back without what it had: neither data planes nor the backup follow it down.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::gateway::{Gateway, SOON};
use testkit::proxy::FaultProxy;
use testkit::servers::Moto;
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::setup::*;

const GUARD: &str = r#"keelgate_backup_guard_held{backend="aws_s3"}"#;

/// Waits until the exporter of a control plane holds, and gives what it says.
async fn backup_held(cp: &Gateway) -> Value {
    let view =
        cp.config_when("a held backup", |view| view["backup"]["backends"][0]["held"].is_object()).await;
    view["backup"]["backends"][0]["held"].clone()
}

/// Waits for what a data plane holds.
async fn held(dp: &Gateway, reason: &str) -> Value {
    dp.config_when(format!("held: {reason}"), |view| view["held"]["reason"] == reason).await["held"].clone()
}

/// Waits until nothing is held.
async fn released(dp: &Gateway) {
    dp.config_when("nothing held", |view| view["held"].is_null()).await;
    metric(dp, "keelgate_config_held", 0.0).await;
}

async fn answers(dp: &Gateway, path: &str, status: u16) {
    eventually(SOON, format!("{status} at {path}"), async || {
        let response = dp.get(path).await.map_err(|error| format!("{error:#}"))?;
        expect(response.status == status, format!("{} {}", response.status, response.text()))
    })
    .await;
}

/// Whether a route leads to the upstream, whatever that thinks of the path.
async fn reaches(dp: &Gateway, path: &str) -> bool {
    !dp.get(path).await.unwrap().header("x-upstream").is_empty()
}

#[tokio::test]
async fn what_is_served_survives_a_stop_at_once() {
    let upstream = Upstream::start();
    let mut cp = Gateway::control_plane(KEELGATE);
    cp.start().await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp);
    dp.start().await;
    publish(&cp, &upstream).await;
    dp.serves("/ip").await;
    // One after the other, so that the last is served before the first is on disk.
    for (id, path) in [("get", "/get"), ("headers", "/headers")] {
        route(&cp, id, path).await;
        dp.serves(path).await;
    }
    dp.process().signal(Signal::SIGINT);
    assert!(dp.process().wait(SOON).await.success());
    dp.kill9();
    cp.kill9();
    dp.spawn();
    dp.serves("/headers").await;
}

#[tokio::test]
async fn a_nodes_own_store_is_believed_over_an_older_copy() {
    let upstream = Upstream::start();
    let mut node = Gateway::traditional(KEELGATE);
    node.start().await;
    publish(&node, &upstream).await;
    node.serves("/ip").await;
    node.stop().await;
    // Killed right after the last change, it has not come to keep that.
    let (copy, older) = (node.data_dir().join("last_good"), node.home().join("older"));
    copy_folder(&copy, &older);
    node.start().await;
    node.delete("routes/ip").await;
    node.delete("services/httpbin").await;
    answers(&node, "/ip", 404).await;
    node.stop().await;
    fs::remove_dir_all(&copy).unwrap();
    copy_folder(&older, &copy);

    node.start().await;
    answers(&node, "/ip", 404).await;
    released(&node).await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn one_that_returns_empty_is_held_on_both_sides_until_somebody_accepts() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    let mut dp = data_plane(&cp, &moto);
    dp.start().await;
    dp.serves("/ip").await;
    let before = backed_up(&cp, &moto, 2).await;
    let load = load(&dp);

    cp.kill9();
    fs::remove_dir_all(cp.data_dir()).unwrap();
    cp.start().await;
    let found = held(&dp, "empty").await;
    assert_eq!((&found["offered"]["resources"], &found["current"]["resources"]), (&0.into(), &2.into()));
    metric(&dp, "keelgate_config_held", 1.0).await;
    let status = keelgate(&dp, &["status"]);
    let line = status.lines().find(|line| line.starts_with("held")).expect("a line on what is held");
    assert!(line.contains("empty") && line.contains("`keelgate config accept`"), "{status}");

    let reason = backup_held(&cp).await["reason"].to_string();
    assert!(reason.contains("empty"), "{reason}");
    metric(&cp, GUARD, 1.0).await;
    assert!(keelgate(&cp, &["status"]).contains("held"), "the control plane's status names it");
    cp.process().wait_for_log("the backup is held as it is", SOON).await;
    let told = cp.command(&["backup", "now"]);
    assert_eq!(told.status.code(), Some(1), "asking for a backup does not overcome the guard");
    assert_eq!(manifest(&moto).await["sequence"], before["sequence"], "the backup was overwritten");
    // A data plane that is started now believes the backup, not the empty control plane.
    let mut new = data_plane(&cp, &moto);
    new.start().await;
    new.serves("/ip").await;
    held(&new, "empty").await;
    load.more(200).await;
    load.stop().await.assert_clean(200);

    assert!(keelgate(&dp, &["config", "accept"]).contains("accepted"));
    answers(&dp, "/ip", 404).await;
    released(&dp).await;
    assert_eq!(dp.command(&["config", "accept"]).status.code(), Some(1), "nothing is held any more");
    assert_eq!(new.get("/ip").await.unwrap().status, 200, "one node's operator speaks for that node");

    keelgate(&cp, &["config", "accept"]);
    let after = backed_up(&cp, &moto, 0).await;
    assert_eq!(after["sequence"].as_u64(), before["sequence"].as_u64().map(|sequence| sequence + 1));
    assert_ne!(after["store_id"], before["store_id"]);
    metric(&cp, GUARD, 0.0).await;
}

#[tokio::test]
async fn one_that_returns_with_less_than_half_is_held_until_it_grows_back() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let (mut cp, line, dp) = eleven_resources(&upstream, &moto).await;
    let load = load(&dp);

    line.kill();
    dp.config_when("the control plane is missed", |view| view["cp"]["connected"] == false).await;
    // So that the data plane is not told by way of the backup, a deletion at a time.
    moto.net().kill();
    for id in 0..8 {
        cp.delete(&format!("routes/{id}")).await;
    }
    line.heal();
    held(&dp, "shrunk").await;
    assert!(reaches(&dp, "/7").await, "the route is still served");
    load.more(100).await;

    for id in 0..4 {
        route(&cp, &id.to_string(), &format!("/{id}")).await;
    }
    released(&dp).await;
    eventually(SOON, "what it grew back to", async || expect(!reaches(&dp, "/7").await, "/7 is served"))
        .await;
    load.more(100).await;
    load.stop().await.assert_clean(200);
    cp.stop().await;
}

#[tokio::test]
async fn deletions_that_are_watched_are_never_held() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let (cp, _line, mut dp) = eleven_resources(&upstream, &moto).await;
    for id in 0..9 {
        cp.delete(&format!("routes/{id}")).await;
    }
    cp.delete("routes/ip").await;
    cp.delete("services/httpbin").await;
    let view = dp.config_when("an empty configuration", |view| view["resources"] == 0).await;
    assert_eq!(view["held"], Value::Null);
    let response = dp.get("/ip").await.unwrap();
    assert_eq!((response.status, response.text().trim()), (404, r#"{"error_msg":"404 Route Not Found"}"#));
    assert!(!dp.process().log().contains("is held"), "nothing was held on the way");
}

/// A control plane with a service and ten routes, `/ip` and `/0` to `/8`, and a data plane behind a line that can be cut.
async fn eleven_resources(upstream: &Upstream, moto: &Moto) -> (Gateway, FaultProxy, Gateway) {
    let mut cp = control_plane(moto);
    cp.start().await;
    publish(&cp, upstream).await;
    for id in 0..9 {
        route(&cp, &id.to_string(), &format!("/{id}")).await;
    }
    backed_up(&cp, moto, 11).await;
    let line = FaultProxy::start(([127, 0, 0, 1], cp.ports().dp).into());
    let mut dp = falling_back(Gateway::data_plane(KEELGATE).follow_hosts(&[&line.url("")]), moto);
    dp.start().await;
    dp.config_when("all of it", |view| view["resources"] == 11).await;
    (cp, line, dp)
}
