//! On real servers: moto, which enforces users' policies, and Ceph, whose exclusive creation is exclusive.

use std::time::Duration;

use testkit::{
    proxy::Faults,
    servers::{Ceph, Moto, S3 as Client, moto::allow},
};

use super::*;
use crate::bucket::{Config, Kind as Failure, Limits, S3};

fn settings(client: &Client) -> S3 {
    S3 {
        access_key: Some(client.access_key.clone()),
        secret_key: Some(client.secret_key.clone()),
        region: Some(client.region.clone()),
        config_bucket: Some("gw-config".to_owned()),
        resource_bucket: Some("gw-resource".to_owned()),
        endpoint: Some(client.endpoint.clone()),
        use_path_style: Some(true),
        ..S3::default()
    }
}

fn open(settings: S3) -> Buckets {
    let limits = Limits { connect: Duration::from_secs(1), request: Duration::from_secs(2) };
    let opened = Buckets::open(Config::AwsS3(settings)).unwrap();
    Buckets::new(
        opened.config.clone().with_limits(limits),
        opened.resource(None).unwrap().with_limits(limits),
    )
}

const BUCKETS: [&str; 2] = ["gw-config", "gw-resource"];
const OBJECTS: [&str; 2] = ["arn:aws:s3:::gw-config/*", "arn:aws:s3:::gw-resource/*"];

async fn publish_one(buckets: &Buckets, revision: u64) -> Result<Manifest, PublishError> {
    let (snapshot, instance) = (snapshot(revision, 3), Instance::default());
    publish(buckets, &publication(&snapshot, &instance)).await
}

async fn read(buckets: &Buckets, known: &Known) -> Result<Latest, ReadError> {
    read_latest(buckets, "default", &Trust::default(), known).await
}

async fn known(buckets: &Buckets) -> Known {
    match read(buckets, &Known::default()).await.unwrap() {
        Latest::New(verified) => verified.known(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failure<T: fmt::Debug>(result: Result<T, PublishError>) -> bucket::Error {
    match result {
        Err(PublishError::Bucket(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn s3_takes_and_gives_a_backup() {
    let moto = Moto::start(&BUCKETS).await;
    let buckets = open(settings(&moto.client("root")));
    publish_one(&buckets, 1).await.unwrap();
    let first = known(&buckets).await;
    assert!(matches!(read(&buckets, &first).await, Ok(Latest::NotModified)));
    assert_eq!(publish_one(&buckets, 2).await.unwrap().sequence, 2);
    assert_eq!(revision_of(&read(&buckets, &first).await.unwrap()), Some(2));
    renew(&buckets, "default", chrono::Utc::now(), None).await.unwrap();
    assert_eq!(prune(&buckets, "default", 1).await.unwrap(), 3);
    assert_eq!(list(&buckets, "default", &Trust::default()).await.unwrap().len(), 1);
    // The config bucket alone is enough to read.
    let alone = S3 { resource_bucket: None, ..settings(&moto.client("root")) };
    let alone = Buckets::open(Config::AwsS3(alone)).unwrap();
    assert_eq!(revision_of(&read(&alone, &Known::default()).await.unwrap()), Some(2));
}

#[tokio::test]
async fn users_may_do_what_their_policies_say() {
    let reader = allow(&["s3:GetObject"], &OBJECTS);
    let moto = Moto::with_users(&BUCKETS, &[("reader", reader)]).await;
    let writing = open(settings(&moto.client("root")));
    publish_one(&writing, 1).await.unwrap();
    // To read is enough for a data plane; to list is not needed.
    let reading = open(settings(&moto.client("reader")));
    assert_eq!(revision_of(&read(&reading, &Known::default()).await.unwrap()), Some(1));
    let error = reading.config.put("k", "x".into()).await.unwrap_err();
    assert_eq!(error.kind, Failure::Denied);
    assert!(error.reason.contains("their policy lacks s3:PutObject"), "{error}");
    let error = failure(publish_one(&reading, 2).await);
    assert_eq!(error.kind, Failure::Denied);
    assert!(error.reason.contains("s3:ListBucket"), "{error}");
}

#[tokio::test]
async fn what_is_set_wrong_is_said() {
    let moto = Moto::start(&BUCKETS).await;
    let good = settings(&moto.client("root"));
    let wrong_secret = S3 { secret_key: Some("wrong".to_owned()), ..good.clone() };
    let error = failure(publish_one(&open(wrong_secret), 1).await);
    assert_eq!(error.kind, Failure::Credentials, "{error}");
    let wrong_key = S3 { access_key: Some("AKIAWRONG".to_owned()), ..good.clone() };
    let error = failure(publish_one(&open(wrong_key), 1).await);
    assert_eq!(error.kind, Failure::Credentials, "{error}");
    let no_bucket = S3 { config_bucket: Some("elsewhere".to_owned()), ..good };
    let error = failure(publish_one(&open(no_bucket), 1).await);
    assert_eq!(error.kind, Failure::NoSuchBucket, "{error}");
    assert!(error.to_string().contains("`elsewhere`"));
}

#[tokio::test]
async fn a_bad_line_delays_and_harms_nothing() {
    let moto = Moto::start(&BUCKETS).await;
    let buckets = open(settings(&moto.client("root")));
    publish_one(&buckets, 1).await.unwrap();
    let known = known(&buckets).await;
    let faults = [
        Faults { refuse: true, ..Faults::default() },
        Faults { black_hole: true, ..Faults::default() },
        Faults { cut_request_after: Some(300), ..Faults::default() },
        Faults { cut_response_after: Some(40), by_reset: true, ..Faults::default() },
    ];
    for (at, fault) in (2..).zip(faults) {
        moto.net().set(fault);
        moto.net().reset();
        let started = std::time::Instant::now();
        let error = failure(publish_one(&buckets, at).await);
        assert!(matches!(error.kind, Failure::Unreachable | Failure::TimedOut), "{fault:?}: {error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{fault:?}");
        assert!(matches!(read(&buckets, &known).await, Err(ReadError::Bucket(_))), "{fault:?}");
        moto.net().heal();
        publish_one(&buckets, at).await.unwrap();
        assert_eq!(revision_of(&read(&buckets, &known).await.unwrap()), Some(at));
    }
    moto.net().set(Faults { delay: Duration::from_millis(100), ..Faults::default() });
    publish_one(&buckets, 9).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ceph_gives_each_sequence_to_one_writer() {
    let ceph = Ceph::start().await;
    let client = ceph.user("cp").await;
    for bucket in BUCKETS {
        client.create_bucket(bucket).await.unwrap();
    }
    let limits = Limits::default();
    let opened = Buckets::open(Config::AwsS3(settings(&client))).unwrap();
    let buckets = Buckets::new(
        opened.config.clone().with_limits(limits),
        opened.resource(None).unwrap().with_limits(limits),
    );
    // It refuses every If-Match with a quoted tag: the pointer is written all the same.
    publish_one(&buckets, 1).await.unwrap();
    publish_one(&buckets, 2).await.unwrap();
    renew(&buckets, "default", chrono::Utc::now(), None).await.unwrap();
    assert_eq!(known(&buckets).await.sequence, Some(2));
    let manifests = racing::race(&buckets, 8, 2).await;
    let sequences: std::collections::BTreeSet<u64> = manifests.iter().map(|m| m.sequence).collect();
    assert_eq!(sequences, (3..=18).collect());
    renew(&buckets, "default", chrono::Utc::now(), None).await.unwrap();
    assert_eq!(known(&buckets).await.sequence, Some(18));

    let wrong = S3 { secret_key: Some("wrong".to_owned()), ..settings(&client) };
    let error = failure(publish_one(&open(wrong), 1).await);
    assert_eq!(error.kind, Failure::Credentials, "{error}");
    let missing = S3 { config_bucket: Some("elsewhere".to_owned()), ..settings(&client) };
    let error = failure(publish_one(&open(missing), 1).await);
    assert_eq!(error.kind, Failure::NoSuchBucket, "{error}");

    // What a clock that is off is told apart by.
    let skewed = Client { skew: chrono::TimeDelta::minutes(20), ..client };
    let answer = skewed.request(http::Method::GET, "/gw-config/default", &[], "").await.unwrap();
    assert_eq!(answer.status, 403);
    assert!(String::from_utf8_lossy(&answer.body).contains("<Code>RequestTimeTooSkewed</Code>"));
    assert!(answer.headers.contains_key("date"));
}
