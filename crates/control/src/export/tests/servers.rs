//! On a real S3: what is wrong with it is said, and is got over without help.

use testkit::{
    proxy::Faults,
    servers::{Moto, S3 as Client, moto::allow},
};

use super::*;

const BUCKETS: [&str; 2] = ["gw-config", "gw-resource"];

fn buckets(client: &Client) -> Buckets {
    let s3 = bucket::S3 {
        access_key: Some(client.access_key.clone()),
        secret_key: Some(client.secret_key.clone()),
        region: Some(client.region.clone()),
        config_bucket: Some("gw-config".to_owned()),
        resource_bucket: Some("gw-resource".to_owned()),
        endpoint: Some(client.endpoint.clone()),
        ..bucket::S3::default()
    };
    Buckets::open(bucket::Config::AwsS3(s3)).unwrap()
}

fn to(client: &Client, fixture: &Fixture) -> Config {
    Config { backends: vec![("aws_s3".to_owned(), buckets(client))], ..fixture.config() }
}

#[tokio::test]
async fn a_server_that_is_away_is_caught_up_with() {
    let moto = Moto::start(&BUCKETS).await;
    let fixture = Fixture::new();
    fixture.routes(1..=3).await;
    moto.net().set(Faults { refuse: true, ..Faults::default() });
    moto.net().reset();
    let handle = fixture.start(to(&moto.client("root"), &fixture));
    let status = handle.now().await;
    let error = status.backends[0].last_error.clone().unwrap();
    assert!(error.starts_with("aws_s3 bucket `gw-config`"), "{error}");
    // Changes go on meanwhile.
    fixture.routes(4..=5).await;
    until(&handle, |status| status.backends[0].errors_total >= 2).await;
    moto.net().heal();
    let status = until(&handle, |status| status.backends[0].last_success.is_some()).await;
    assert_eq!((status.backends[0].verified, status.backends[0].last_error.clone()), (Some(true), None));
    until(&handle, |_| !fixture.proved.lock().unwrap().is_empty()).await;
    assert_eq!(read(&buckets(&moto.client("root"))).await.snapshot.len(), 5);
}

#[tokio::test]
async fn a_user_who_may_not_write_is_told_what_is_missing() {
    let everywhere = ["arn:aws:s3:::gw-config", "arn:aws:s3:::gw-config/*", "arn:aws:s3:::gw-resource/*"];
    let reader = allow(&["s3:GetObject", "s3:ListBucket"], &everywhere);
    let moto = Moto::with_users(&BUCKETS, &[("reader", reader)]).await;
    let fixture = Fixture::new();
    fixture.routes(1..=1).await;
    let handle = fixture.start(to(&moto.client("reader"), &fixture));
    let status = handle.now().await;
    let error = status.backends[0].last_error.clone().unwrap();
    assert!(error.contains("their policy lacks s3:PutObject"), "{error}");
    assert_eq!((status.backends[0].sequence, status.backends[0].last_success), (0, None));
}

#[tokio::test]
async fn a_user_who_may_not_delete_still_backs_up() {
    let everywhere = ["arn:aws:s3:::*"];
    let writer = allow(&["s3:GetObject", "s3:ListBucket", "s3:PutObject"], &everywhere);
    let moto = Moto::with_users(&BUCKETS, &[("writer", writer)]).await;
    let fixture = Fixture::new();
    let handle = fixture.start(Config { keep: 1, on_change: false, ..to(&moto.client("writer"), &fixture) });
    for id in 1..=2 {
        fixture.routes(id..=id).await;
        handle.now().await;
    }
    let status = handle.status();
    let backend = &status.backends[0];
    assert_eq!((backend.sequence, backend.last_error.clone(), backend.verified), (2, None, Some(true)));
    let error = backend.prune_error.clone().unwrap();
    assert!(error.contains("s3:DeleteObject"), "{error}");
}
