//! Programs that know nothing of Keelgate: etcdctl on the configuration API, the AWS CLI on the bucket, and the
//! `apisix.json` that every APISIX reads.

use std::process::Command;

use serde_json::Value;
use testkit::gateway::{Gateway, SOON};
use testkit::process::Process;
use testkit::servers::aws;
use testkit::servers::etcd::etcdctl;
use testkit::upstream::Upstream;

use crate::setup::*;

#[tokio::test]
async fn etcdctl_reads_and_watches_what_the_admin_api_writes() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    let endpoint = format!("http://127.0.0.1:{}", cp.ports().dp);
    let keys = etcdctl(&endpoint, &["get", "--prefix", "/apisix", "--keys-only"]);
    for key in ["/apisix/routes/ip", "/apisix/services/httpbin"] {
        assert!(keys.lines().any(|line| line == key), "{key} is missing: {keys}");
    }
    let value = etcdctl(&endpoint, &["get", "/apisix/routes/ip", "--print-value-only"]);
    let value: Value = serde_json::from_str(&value).unwrap();
    assert_eq!((&value["uri"], &value["id"]), (&"/ip".into(), &"ip".into()));

    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint, "watch", "--prefix", "/apisix"]);
    // From a revision on, so that nothing is missed while it starts.
    let header = etcdctl(&endpoint, &["get", "/apisix/routes/ip", "--write-out=json"]);
    let header: Value = serde_json::from_str(&header).unwrap();
    let next = header["header"]["revision"].as_u64().unwrap() + 1;
    command.args(["--rev", &next.to_string()]);
    let watch = Process::start("etcdctl", &command, &cp.home().join("watch.log"));
    route(&cp, "get", "/get").await;
    watch.wait_for_log("/apisix/routes/get", SOON).await;
    watch.wait_for_log("\"uri\":\"/get\"", SOON).await;
    assert!(watch.log().starts_with("PUT\n"), "{}", watch.log());
    cp.delete("routes/get").await;
    watch.wait_for_log("DELETE", SOON).await;
}

#[tokio::test]
async fn the_mirror_is_an_apisix_json_that_a_file_based_node_serves() {
    let (upstream, moto) = (Upstream::start(), storage().await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    backed_up(&cp, &moto, 2).await;
    let mut dp = Gateway::new(KEELGATE, "data_plane", "json");
    let file = dp.home().join("conf/apisix.json");
    aws(&moto.client("root"), &["s3", "cp", &format!("s3://{RESOURCE}/default"), file.to_str().unwrap()]);
    dp.start().await;
    dp.serves("/ip").await;
    dp.source("file").await;
    // It is watched.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"/ip\"", "\"/get\"")).unwrap();
    dp.serves("/get").await;
    assert_eq!(dp.get("/ip").await.unwrap().status, 404);
}
