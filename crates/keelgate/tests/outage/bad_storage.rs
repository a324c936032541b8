//! Storage that refuses, fails or hangs: both who writes and who reads say clearly why, and go on by themselves.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::clock::Clock;
use testkit::gateway::Gateway;
use testkit::proxy::Faults;
use testkit::servers::moto::allow;
use testkit::servers::{Ceph, Moto, S3};
use testkit::upstream::Upstream;

use crate::door::Door;
use crate::setup::*;

/// A control plane that writes to this storage, and a data plane that knows nothing else.
struct Pair {
    upstream: Upstream,
    cp: Gateway,
    dp: Gateway,
    routes: u64,
}

impl Pair {
    async fn begin(client: &S3, moto: &Moto) -> Self {
        Self::begin_on(client, moto, |node| node).await
    }

    /// The same, with something done to each node before it starts.
    async fn begin_on(client: &S3, moto: &Moto, prepare: impl Fn(Gateway) -> Gateway) -> Self {
        let upstream = Upstream::start();
        let cp = control_plane(moto).with(json!({ "fallback_cp": { "aws_s3": aws_s3(client) } }));
        let mut cp = prepare(cp);
        cp.start().await;
        publish(&cp, &upstream).await;
        backed_up(&cp, moto, 2).await;
        let dp = falling_back(Gateway::new(KEELGATE, "data_plane", "yaml"), moto);
        let dp = dp.with(json!({ "deployment": { "fallback_cp": { "aws_s3": aws_s3(client) } } }));
        let mut dp = prepare(dp);
        dp.start().await;
        dp.serves("/ip").await;
        Self { upstream, cp, dp, routes: 1 }
    }

    /// Has both use other settings of the storage.
    fn use_storage(&mut self, aws_s3: &Value) {
        self.cp.merge_config(json!({ "fallback_cp": { "aws_s3": aws_s3 } }));
        keelgate(&self.cp, &["reload"]);
        self.dp.merge_config(json!({ "deployment": { "fallback_cp": { "aws_s3": aws_s3 } } }));
        keelgate(&self.dp, &["reload"]);
    }

    /// Makes a change that should be backed up.
    async fn change(&mut self) {
        self.routes += 1;
        let path = format!("/anything/{}", self.routes);
        route(&self.cp, &self.routes.to_string(), &path).await;
    }

    /// Waits until both say why it does not work, in the view and on the command line.
    async fn both_say(&self, why: &str) {
        writer_says(&self.cp, why).await;
        let told = |view: &Value| view["bucket"]["last_error"].as_str().is_some_and(|it| it.contains(why));
        self.dp.config_when(format!("`{why}` from the reader"), told).await;
        for node in [&self.cp, &self.dp] {
            let status = keelgate(node, &["status"]);
            assert!(status.contains(why), "{status}");
        }
        let answer = self.dp.get("/ip").await.unwrap();
        assert_eq!(answer.status, 200, "serving goes on: {}", answer.text());
    }

    /// The last change arrives, and nobody complains any more.
    async fn both_go_on(&self) {
        self.dp.serves(&format!("/anything/{}", self.routes)).await;
        self.dp.config_when("a contented reader", |view| view["bucket"]["last_error"].is_null()).await;
        let content = |view: &Value| {
            let backend = &view["backup"]["backends"][0];
            backend["last_error"].is_null() && backend["verified"] == true
        };
        self.cp.config_when("a contented writer", content).await;
        assert!(self.upstream.requests() > 0);
    }
}

async fn writer_says(cp: &Gateway, why: &str) -> Value {
    let told = |view: &Value| {
        view["backup"]["backends"][0]["last_error"].as_str().is_some_and(|it| it.contains(why))
    };
    cp.config_when(format!("`{why}` from the writer"), told).await
}

#[tokio::test]
async fn wrong_keys_are_named_and_right_ones_put_it_in_order() {
    let moto = storage().await;
    let good = moto.client("root");
    let mut pair = Pair::begin(&good, &moto).await;
    let wrong_secret = S3 { secret_key: "wrong".into(), ..good.clone() };
    let unknown_key = S3 { access_key: "unknown".into(), ..good.clone() };
    for (client, why) in [
        (wrong_secret, "the signature is wrong: check the secret key"),
        (unknown_key, "the server does not know this access key: check `access_key`"),
    ] {
        pair.use_storage(&aws_s3(&client));
        pair.change().await;
        pair.both_say(why).await;
        for node in [&mut pair.cp, &mut pair.dp] {
            assert!(!node.process().log().contains(&good.secret_key), "a secret in the log");
        }
        pair.use_storage(&aws_s3(&good));
        pair.both_go_on().await;
    }
}

#[tokio::test]
async fn a_wrong_region_is_named_with_the_right_one() {
    let moto = storage().await;
    let door = Door::before(moto.net().address());
    let client = S3 { endpoint: door.url(), ..moto.client("root") };
    let mut pair = Pair::begin(&client, &moto).await;
    door.checks_signatures_of("eu-central-1");
    pair.change().await;
    pair.both_say("the bucket is in region `eu-central-1`: set `region` to it").await;
    pair.use_storage(&aws_s3(&S3 { region: "eu-central-1".into(), ..client }));
    pair.both_go_on().await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_and_needs_no_restart_once_it_is_set() {
    let (moto, clock) = (storage().await, Clock::right());
    let door = Door::before(moto.net().address());
    let client = S3 { endpoint: door.url(), ..moto.client("root") };
    let mut pair = Pair::begin_on(&client, &moto, |node| clock.of(node)).await;
    door.checks_signatures_of("us-east-1");
    for (off, why) in [("+20m", "s ahead of the server's"), ("-20m", "s behind the server's")] {
        clock.set(off);
        pair.change().await;
        pair.both_say(why).await;
        clock.set("+0");
        pair.both_go_on().await;
    }
}

/// The same on the one server here that checks clocks itself.
#[tokio::test]
async fn ceph_refuses_a_clock_that_is_off() {
    let (ceph, clock) = (Ceph::start().await, Clock::right());
    let client = ceph.user("gateway").await;
    for bucket in [CONFIG, RESOURCE] {
        client.create_bucket(bucket).await.unwrap();
    }
    let upstream = Upstream::start();
    let fallback = json!({ "aws_s3": aws_s3(&client), "on_change": true, "debounce": "50ms" });
    let cp = Gateway::control_plane(KEELGATE).with(json!({ "fallback_cp": fallback }));
    let mut cp = clock.of(cp);
    cp.start().await;
    clock.set("+20m");
    publish(&cp, &upstream).await;
    writer_says(&cp, "set the clock (NTP)").await;
    clock.set("+0");
    cp.config_when("a contented writer", |view| view["backup"]["backends"][0]["verified"] == true).await;
}

#[tokio::test]
async fn keys_that_may_only_read_are_enough_for_a_data_plane_and_not_for_a_control_plane() {
    let everything = ["arn:aws:s3:::gateway-*"];
    let reader = allow(&["s3:GetObject", "s3:ListBucket"], &everything);
    let moto = Moto::with_users(&[CONFIG, RESOURCE], &[("reader", reader)]).await;
    let mut pair = Pair::begin(&moto.client("root"), &moto).await;
    let before = manifest(&moto).await;
    pair.use_storage(&aws_s3(&moto.client("reader")));
    pair.change().await;
    writer_says(&pair.cp, "these keys may not write here: their policy lacks s3:PutObject").await;
    let output = pair.cp.command(&["backup", "now"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("s3:PutObject"), "{told}");
    let errors = pair.cp.metric(r#"keelgate_backup_errors_total{backend="aws_s3"}"#).await.unwrap();
    assert!(errors >= Some(1.0), "{errors:?}");
    assert_eq!(manifest(&moto).await["sequence"], before["sequence"]);
    pair.dp.config_when("a contented reader", |view| view["bucket"]["last_error"].is_null()).await;
    pair.use_storage(&aws_s3(&moto.client("root")));
    pair.both_go_on().await;
}

#[tokio::test]
async fn buckets_that_are_made_late_are_used_at_once() {
    let (upstream, moto) = (Upstream::start(), Moto::start(&[]).await);
    let mut cp = control_plane(&moto);
    cp.start().await;
    publish(&cp, &upstream).await;
    let mut dp = falling_back(Gateway::new(KEELGATE, "data_plane", "yaml"), &moto);
    dp.spawn();
    let missing = "there is no bucket `gateway-config`: create it, or check its name and endpoint";
    writer_says(&cp, missing).await;
    let told = |view: &Value| view["bucket"]["last_error"].as_str().is_some_and(|it| it.contains(missing));
    let view = dp.config_when("what is missing, from the reader", told).await;
    assert_eq!(view["source"], "none");
    assert_eq!(testkit::http::get(&dp.status_url("/status/ready")).await.unwrap().status, 503);
    for bucket in [CONFIG, RESOURCE] {
        moto.root().create_bucket(bucket).await.unwrap();
    }
    backed_up(&cp, &moto, 2).await;
    dp.serves("/ip").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_fails_or_is_slow_is_waited_for() {
    let moto = storage().await;
    let door = Door::before(moto.net().address());
    let mut pair = Pair::begin(&S3 { endpoint: door.url(), ..moto.client("root") }, &moto).await;
    for (status, why) in [(500, "the server failed (status 500)"), (503, "the server failed (status 503)")] {
        door.answers(status);
        pair.change().await;
        pair.both_say(why).await;
        door.answers(None);
        pair.both_go_on().await;
    }
    moto.net().set(Faults { delay: Duration::from_millis(100), ..Faults::default() });
    pair.change().await;
    pair.both_go_on().await;
    moto.net().kill();
    pair.change().await;
    pair.both_say("gateway-config").await;
    moto.net().heal();
    pair.both_go_on().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_tried_again() {
    let moto = storage().await;
    let mut pair = Pair::begin(&moto.client("root"), &moto).await;
    moto.net().black_hole();
    pair.change().await;
    pair.both_say("no answer within").await;
    moto.net().heal();
    pair.both_go_on().await;
}
