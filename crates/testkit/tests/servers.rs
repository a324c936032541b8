//! The real servers do what the stories rely on them to do.

use std::time::Duration;

use chrono::TimeDelta;
use http::Method;
use testkit::http::get;
use testkit::servers::moto::allow;
use testkit::servers::{Ceph, Etcd, Moto, S3, aws};
use testkit::wait::eventually;

#[tokio::test]
async fn etcd_keeps_its_data_over_a_kill() {
    let mut etcd = Etcd::single().await;
    etcd.ctl(&["put", "/apisix/routes/1", "one"]);
    etcd.kill9(0);
    assert!(get(&format!("{}/health", etcd.endpoint(0))).await.is_err());
    etcd.restart(0).await;
    assert_eq!(etcd.ctl(&["get", "/apisix/routes/1", "--print-value-only"]), "one\n");
}

#[tokio::test]
async fn etcd_with_three_members_survives_one() {
    let mut etcd = Etcd::cluster().await;
    etcd.kill9(0);
    let alive = etcd.endpoints()[1..].join(",");
    // The one killed may have been the leader: those left first choose another.
    let health = format!("{}/health", etcd.endpoint(1));
    eventually(Duration::from_secs(30), "a leader among those left", async || match get(&health).await {
        Ok(answer) if answer.json()["health"] == "true" => Ok(()),
        Ok(answer) => Err(answer.text()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await;
    testkit::servers::etcd::etcdctl(&alive, &["put", "key", "value"]);
    etcd.restart(0).await;
    assert_eq!(etcd.ctl(&["get", "key", "--print-value-only"]), "value\n");
}

#[tokio::test]
async fn moto_enforces_keys_and_policies() {
    let reader = allow(&["s3:GetObject", "s3:ListBucket"], &["arn:aws:s3:::config", "arn:aws:s3:::config/*"]);
    let moto = Moto::with_users(&["config", "resource"], &[("reader", reader)]).await;
    let (root, reader) = (moto.root(), moto.client("reader"));
    root.put("config", "keelgate/default/manifest.json", "{}").await.unwrap();
    root.put("resource", "default", "{}").await.unwrap();
    assert_eq!(root.list("config", "keelgate/").await.unwrap(), ["keelgate/default/manifest.json"]);
    assert_eq!(reader.get("config", "keelgate/default/manifest.json").await.unwrap(), "{}");
    let refused = |result: anyhow::Result<()>| assert!(result.unwrap_err().to_string().contains("403"));
    refused(reader.put("config", "x", "y").await);
    refused(reader.get("resource", "default").await.map(|_| ()));
    refused(S3 { secret_key: "wrong".into(), ..root.clone() }.put("config", "x", "y").await);
    refused(S3 { access_key: "unknown".into(), ..root }.put("config", "x", "y").await);
}

#[tokio::test]
async fn the_aws_cli_reads_from_moto() {
    let moto = Moto::start(&["resource"]).await;
    let client = moto.client("root");
    client.put("resource", "default", "{}").await.unwrap();
    assert_eq!(aws(&client, &["s3", "cp", "s3://resource/default", "-"]), "{}");
}

#[tokio::test]
async fn moto_honours_conditions() {
    let moto = Moto::start(&["config"]).await;
    let root = moto.root();
    let once = [("if-none-match", "*")];
    assert_eq!(root.request(Method::PUT, "/config/a", &once, "1").await.unwrap().status, 200);
    assert_eq!(root.request(Method::PUT, "/config/a", &once, "2").await.unwrap().status, 412);
    let etag = root.request(Method::GET, "/config/a", &[], "").await.unwrap().header("etag").to_owned();
    let unchanged = root.request(Method::GET, "/config/a", &[("if-none-match", &etag)], "").await.unwrap();
    assert_eq!(unchanged.status, 304);
    let replaced = root.request(Method::PUT, "/config/a", &[("if-match", &etag)], "3").await.unwrap();
    assert_eq!(replaced.status, 200);
}

#[tokio::test]
async fn moto_comes_back_with_the_same_keys_and_objects() {
    let mut moto = Moto::start(&["config"]).await;
    let client = moto.client("root");
    client.put("config", "a/b", "kept").await.unwrap();
    let dead = client.clone();
    moto.restart(async || assert!(dead.get("config", "a/b").await.is_err())).await;
    assert_eq!(client.get("config", "a/b").await.unwrap(), "kept");
    moto.net().kill();
    assert!(client.get("config", "a/b").await.is_err());
    moto.net().heal();
    assert_eq!(client.get("config", "a/b").await.unwrap(), "kept");
}

#[tokio::test]
async fn ceph_checks_the_clock_and_creates_once() {
    let mut ceph = Ceph::start().await;
    let client = ceph.user("cp").await;
    client.create_bucket("config").await.unwrap();
    let once = [("if-none-match", "*")];
    assert_eq!(client.request(Method::PUT, "/config/a", &once, "1").await.unwrap().status, 200);
    assert_eq!(client.request(Method::PUT, "/config/a", &once, "2").await.unwrap().status, 412);
    let late = S3 { skew: TimeDelta::minutes(-20), ..client.clone() };
    assert!(late.get("config", "a").await.unwrap_err().to_string().contains("RequestTimeTooSkewed"));
    let other = ceph.user("other").await;
    assert!(other.get("config", "a").await.unwrap_err().to_string().contains("403"));
    ceph.kill9();
    assert!(client.get("config", "a").await.is_err());
    ceph.restart().await;
    let found =
        eventually(Duration::from_secs(20), "the object", async || client.get("config", "a").await).await;
    assert_eq!(found, "1");
}
