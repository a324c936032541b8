use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};
use tempfile::TempDir;

use super::*;

mod refusals;

/// Every back end that can be had without a server.
fn every() -> (TempDir, Vec<Bucket>) {
    let dir = tempfile::tempdir().unwrap();
    let local = Config::Local(Local { config_dir: dir.path().join("conf"), resource_dir: None });
    let folder = Buckets::open(local).unwrap().config;
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    (dir, vec![folder, Bucket::new(objects, "memory", "m")])
}

#[tokio::test]
async fn objects_come_and_go() {
    let (_dir, buckets) = every();
    for bucket in buckets {
        assert!(bucket.get("a/b", 10).await.unwrap().is_none());
        assert!(bucket.list("a").await.unwrap().is_empty());
        bucket.put("a/b", Bytes::from_static(b"one")).await.unwrap();
        let object = bucket.get("a/b", 10).await.unwrap().unwrap();
        assert_eq!(&object.bytes[..], b"one");
        let unless = bucket.get_unless("a/b", 10, object.etag.as_deref()).await.unwrap();
        assert!(matches!(unless, Conditional::NotModified));
        bucket.put("a/b", Bytes::from_static(b"another")).await.unwrap();
        let unless = bucket.get_unless("a/b", 10, object.etag.as_deref()).await.unwrap();
        assert!(matches!(unless, Conditional::Found(_)));
        bucket.put("ab/c", Bytes::new()).await.unwrap();
        assert_eq!(bucket.list("a").await.unwrap(), [Entry { key: "a/b".to_owned(), size: 7 }]);
        bucket.delete("a/b").await.unwrap();
        bucket.delete("a/b").await.unwrap();
        assert!(bucket.get("a/b", 10).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn nothing_beyond_the_limit_is_read() {
    let (_dir, buckets) = every();
    for bucket in buckets {
        bucket.put("k", vec![0; 100].into()).await.unwrap();
        let error = bucket.get("k", 99).await.unwrap_err();
        assert_eq!(error.kind, Kind::TooLarge);
        assert!(error.to_string().ends_with("`k`: is 100 bytes; at most 99 are accepted"), "{error}");
        assert!(bucket.get("k", 100).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn conditions_are_kept() {
    let (_dir, buckets) = every();
    for bucket in buckets {
        let put = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(bucket.put_if_match("k", put("0"), None).await.unwrap(), Put::Done);
        assert_eq!(bucket.put_if_match("k", put("1"), None).await.unwrap(), Put::Refused);
        assert_eq!(bucket.put_if_absent("k", put("1")).await.unwrap(), Put::Refused);
        let etag = bucket.get("k", 10).await.unwrap().unwrap().etag.unwrap();
        assert_eq!(bucket.put_if_match("k", put("two"), Some(&etag)).await.unwrap(), Put::Done);
        assert_eq!(bucket.put_if_match("k", put("three"), Some(&etag)).await.unwrap(), Put::Refused);
        assert_eq!(&bucket.get("k", 10).await.unwrap().unwrap().bytes[..], b"two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_creates_it() {
    let (_dir, buckets) = every();
    for bucket in buckets {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..16u8 {
            let bucket = bucket.clone();
            tasks.spawn(
                async move { (writer, bucket.put_if_absent("k", vec![writer; 9].into()).await.unwrap()) },
            );
        }
        let all = tasks.join_all().await;
        let winners: Vec<u8> =
            all.into_iter().filter(|(_, put)| *put == Put::Done).map(|(writer, _)| writer).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(bucket.get("k", 9).await.unwrap().unwrap().bytes, vec![winners[0]; 9]);
    }
}

#[test]
fn settings_are_checked_when_opened() {
    let reason = |config: Config| Buckets::open(config).unwrap_err().to_string();
    assert_eq!(reason(Config::AwsS3(S3::default())), "aws_s3: the config bucket is not named");
    let both = Some("same".to_owned());
    let s3 = S3 { config_bucket: both.clone(), resource_bucket: both, ..S3::default() };
    assert_eq!(reason(Config::AwsS3(s3)), "aws_s3: both buckets are `same`; they must differ");
}

#[test]
fn the_names_of_config_yaml_are_read() {
    let json = r#"{"aws_s3":{"access_key":"AK","secret_key":"very-secret","region":"r","bucket":"conf",
        "resource_bucket":"res","custom_endpoint":"http://127.0.0.1:1","use_path_style":true}}"#;
    let config: Config = serde_json::from_str(json).unwrap();
    let Config::AwsS3(s3) = &config else { panic!("{config:?}") };
    assert_eq!(
        (s3.config_bucket.as_deref(), s3.endpoint.as_deref()),
        (Some("conf"), Some("http://127.0.0.1:1"))
    );
    let buckets = Buckets::open(config).unwrap();
    assert!(!format!("{buckets:?}").contains("very-secret"));
    assert_eq!(buckets.resource(None).unwrap().name(), "res");
}

#[tokio::test]
async fn without_a_resource_bucket_the_manifest_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let local = Config::Local(Local { config_dir: dir.path().join("conf"), resource_dir: None });
    let buckets = Buckets::open(local).unwrap();
    assert_eq!(buckets.resource(None).unwrap_err().kind, Kind::Config);
    let named = dir.path().join("res").to_string_lossy().into_owned();
    assert_eq!(buckets.resource(Some(&named)).unwrap().name(), named);
}

#[test]
fn waits_are_jittered_and_bounded() {
    let (first, most) = (Duration::from_secs(1), Duration::from_secs(60));
    let mut backoff = Backoff::new(first, most);
    let mut ceiling = first;
    for _ in 0..20 {
        assert!(backoff.wait() <= ceiling);
        ceiling = (ceiling * 2).min(most);
    }
    backoff.reset();
    assert!(backoff.wait() <= first);
}

#[test]
fn azure_and_google_open_with_keys_of_their_own() {
    let azure = r#"{"azure_blob":{"account_name":"a","account_key":"dmVyeS1zZWNyZXQ=","config_container":"conf",
        "resource_container":"res","endpoint":"http://127.0.0.1:1/a"}}"#;
    let buckets = Buckets::open(serde_json::from_str(azure).unwrap()).unwrap();
    assert_eq!(format!("{:?}", buckets.config), "azure_blob:conf");
    let gcs = r#"{"gcs":{"service_account_path":"/nowhere.json","config_bucket":"conf"}}"#;
    let error = Buckets::open(serde_json::from_str(gcs).unwrap()).unwrap_err();
    assert!(
        error.to_string().starts_with("gcs bucket `conf`: ") && error.to_string().contains("/nowhere.json")
    );
}

#[test]
fn an_endpoint_that_is_none_is_found_before_it_is_used() {
    let config = |endpoint: &str| {
        Config::AwsS3(S3 {
            config_bucket: Some("c".to_owned()),
            resource_bucket: Some("r".to_owned()),
            endpoint: Some(endpoint.to_owned()),
            ..S3::default()
        })
    };
    let bad = [
        ("127.0.0.1:9000", "must begin with http:// or https://"),
        ("localhost:9000", "must begin with"),
        ("http://", "`http://` is no URL"),
        ("http://x:99999", "has no port between 0 and 65535"),
        ("http://127.0.0.1:9000 ", "ends with a blank"),
        ("http://a b", "is no URL"),
        ("https://h/?x=1", "has a query"),
    ];
    for (endpoint, why) in bad {
        let flaws = config(endpoint).flaws(false);
        assert!(flaws.len() == 1 && flaws[0].0 == "endpoint", "{endpoint}: {flaws:?}");
        assert!(flaws[0].1.contains(why), "{endpoint}: {flaws:?}");
    }
    for good in ["http://127.0.0.1:9000", "https://s3.example.com/", "http://[::1]:9000/path"] {
        assert_eq!(config(good).flaws(true), [], "{good}");
        // What is let through can be opened without a panic, whatever the bucket is called.
        Buckets::open(config(good)).unwrap();
    }
}

#[test]
fn what_goes_together_is_missed() {
    let half = Config::AwsS3(S3 { access_key: Some("a".to_owned()), ..S3::default() });
    let keys = |written: bool| half.flaws(written).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!((keys(false), keys(true)), (vec!["access_key"], vec!["access_key", "resource_bucket"]));
    let folder = Config::Local(Local { config_dir: "c".into(), resource_dir: None });
    assert_eq!(folder.flaws(true)[0].0, "resource_dir");
}
