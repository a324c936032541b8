//! A backup that moves to another bucket, or begins anew in an emptied one: data planes follow, also those that have
//! seen a higher sequence than is there.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::gateway::{Gateway, SOON};
use testkit::upstream::Upstream;
use testkit::wait::{eventually, expect};

use crate::setup::*;

fn folders(root: &Path) -> Value {
    json!({ "local": { "config_dir": root.join("conf"), "resource_dir": root.join("res") } })
}

fn writing_to(root: &Path) -> Value {
    let mut fallback = folders(root);
    let how = json!({ "cron_spec": "@every 1m", "on_change": true, "debounce": "50ms" });
    testkit::gateway::merge(&mut fallback, how);
    json!({ "fallback_cp": fallback })
}

fn reading_from(root: &Path) -> Value {
    let mut fallback = folders(root);
    let how = json!({ "startup_grace": "1s", "fallback_after": "1s", "poll_interval": "200ms" });
    testkit::gateway::merge(&mut fallback, how);
    json!({ "deployment": { "fallback_cp": fallback } })
}

/// Writes a route, and waits until a backup with it is proved.
async fn add(cp: &Gateway, id: &str) {
    let before = cp.config_view().await.unwrap()["backup"]["backends"][0]["sequence"].as_u64();
    route(cp, id, &format!("/anything/{id}")).await;
    cp.config_when("another backup", |view| {
        let backend = &view["backup"]["backends"][0];
        backend["sequence"].as_u64() > before && backend["verified"] == true
    })
    .await;
}

#[tokio::test]
async fn data_planes_follow_a_backup_that_moves_or_begins_anew() {
    let (upstream, home) = (Upstream::start(), tempfile::tempdir().unwrap());
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let mut cp = Gateway::control_plane(KEELGATE).with(writing_to(&one));
    cp.start().await;
    publish(&cp, &upstream).await;
    for id in ["a", "b", "c"] {
        add(&cp, id).await;
    }
    let mut dp = Gateway::new(KEELGATE, "data_plane", "yaml").with(reading_from(&one));
    dp.start().await;
    dp.serves("/anything/c").await;
    kept_on_disk(&dp).await;

    // To another bucket, by a reload.
    cp.merge_config(writing_to(&two));
    keelgate(&cp, &["reload"]);
    dp.merge_config(reading_from(&two));
    dp.restart().await;
    add(&cp, "d").await;
    dp.serves("/anything/d").await;

    // The bucket is lost while the control plane is down, and begun anew.
    cp.stop().await;
    fs::remove_dir_all(&two).unwrap();
    for folder in ["conf", "res"] {
        fs::create_dir_all(two.join(folder)).unwrap();
    }
    dp.config_when("the loss", |view| view["bucket"]["last_error"].is_string()).await;
    metric(&dp, "keelgate_bucket_reachable", 0.0).await;
    cp.start().await;
    add(&cp, "e").await;
    dp.serves("/anything/e").await;
    metric(&dp, "keelgate_bucket_reachable", 1.0).await;

    let told = cp.command(&["backup", "verify", "99"]);
    assert_eq!(told.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&told.stdout), "there is no backup 99 of gateway group `default`\n");
}

#[tokio::test]
async fn a_data_plane_that_follows_its_control_plane_looks_at_its_bucket_all_the_same() {
    let (upstream, home) = (Upstream::start(), tempfile::tempdir().unwrap());
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    let mut cp = Gateway::control_plane(KEELGATE).with(writing_to(&one));
    cp.start().await;
    publish(&cp, &upstream).await;
    let mut dp = Gateway::data_plane(KEELGATE).follow(&cp).with(reading_from(&two));
    dp.start().await;
    dp.source("control_plane").await;
    dp.config_when("the error", |view| view["bucket"]["last_error"].is_string()).await;
    metric(&dp, "keelgate_bucket_reachable", 0.0).await;
    cp.merge_config(json!({ "fallback_cp": folders(&two) }));
    keelgate(&cp, &["reload"]);
    dp.config_when("no error", |view| view["bucket"]["last_error"].is_null()).await;
    metric(&dp, "keelgate_bucket_reachable", 1.0).await;
    assert_eq!(dp.config_view().await.unwrap()["source"], "control_plane");
}

#[tokio::test]
async fn a_bucket_that_never_worked_has_an_age_and_counts_its_errors() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("one");
    let mut cp = Gateway::control_plane(KEELGATE).with(writing_to(&root));
    let upstream = Upstream::start();
    cp.start().await;
    // A file where a folder should be.
    fs::remove_dir_all(root.join("conf")).unwrap();
    fs::write(root.join("conf"), "").unwrap();
    publish(&cp, &upstream).await;
    let name = |metric: &str| format!("keelgate_backup_{metric}{{backend=\"local\"}}");
    eventually(SOON, "an error that counts", async || {
        let errors = cp.metric(&name("errors_total")).await.map_err(|error| format!("{error:#}"))?;
        expect(errors.is_some_and(|errors| errors > 0.0), format!("{errors:?}"))
    })
    .await;
    let age = cp.metric(&name("age_seconds")).await.unwrap();
    assert!(age.is_some_and(|age| (0.0..600.0).contains(&age)), "{age:?}");
    let page = format!("http://127.0.0.1:{}/apisix/prometheus/metrics", cp.ports().prometheus);
    let page = testkit::http::get(&page).await.unwrap().text();
    assert!(page.contains("# TYPE keelgate_backup_errors_total counter"));
}
