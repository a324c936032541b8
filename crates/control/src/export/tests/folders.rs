//! What is written, proved and reported.

use model::secrets::Keyring;

use super::*;

#[tokio::test]
async fn what_the_store_holds_is_published_and_proved() {
    let fixture = Fixture::new();
    fixture.routes(1..=3).await;
    let handle = fixture.start(fixture.config());
    let status = handle.now().await;
    let backend = &status.backends[0];
    assert_eq!((backend.sequence, backend.verified, backend.errors_total), (1, Some(true), 0), "{backend:?}");
    assert!(backend.last_success.is_some());
    assert_eq!(fixture.proved.lock().unwrap().last(), Some(&3));
    let read_back = read(&fixture.buckets("a")).await;
    assert!(read_back.snapshot.changes_since(&fixture.store.snapshot().await.unwrap()).is_empty());
    assert_eq!(read_back.manifest.unwrap().writer, "cp-1");
}

#[tokio::test]
async fn nothing_changed_means_only_the_time_is_renewed() {
    let fixture = Fixture::new();
    fixture.routes(1..=1).await;
    let handle = fixture.start(fixture.config());
    handle.now().await;
    let before = read(&fixture.buckets("a")).await.manifest.unwrap();
    let status = handle.now().await;
    let after = read(&fixture.buckets("a")).await.manifest.unwrap();
    assert_eq!((after.sequence, status.backends[0].sequence), (1, 1));
    assert!(after.verified_at > before.verified_at);
    assert_eq!(after.created_at, before.created_at);
    // Nor does another process publish what is published.
    handle.stop().await;
    let handle = fixture.start(fixture.config());
    assert_eq!(handle.now().await.backends[0].sequence, 1);
}

#[tokio::test]
async fn what_managers_are_asked_with_is_ciphertext_in_the_bucket() {
    let fixture = Fixture::new();
    let conf = r#"{"id":"vault/1","uri":"http://127.0.0.1:8200","prefix":"kv","token":"hush-hush"}"#;
    fixture.store.commit(Commit::put(Key::new(Kind::Secrets, "vault/1"), conf)).await.unwrap();
    let mut instance = Instance::default();
    let keys = &mut instance.config_payload.apisix.get_or_insert_default().data_encryption;
    (keys.keyring, keys.cipher) = (vec!["qeddd145sfvddff3".to_owned()], model::instance::Cipher::AesGcm);
    let keyring = Keyring::new(keys).unwrap();
    let config = || Config { instance: Arc::new(instance.clone()), ..fixture.config() };
    // A backup from before, in plain text, is replaced.
    fixture.start(fixture.config()).now().await;
    for round in 0..2 {
        let handle = fixture.start(config());
        let backend = &handle.now().await.backends[0];
        // Each time it would be another ciphertext: what is published counts as the same.
        assert_eq!((backend.sequence, backend.verified), (2, Some(true)), "{round}: {backend:?}");
        assert_eq!(handle.now().await.backends[0].sequence, 2);
        handle.stop().await;
    }
    let published = read(&fixture.buckets("a")).await.snapshot;
    let mut conf: serde_json::Value = published.iter().next().unwrap().read().unwrap();
    assert!(!conf.to_string().contains("hush"), "{conf}");
    keyring.decrypt_resource(Kind::Secrets, &mut conf, &[]);
    assert_eq!(conf["token"], "hush-hush");
    let mirror = std::fs::read_to_string(fixture.dir.path().join("a/res/default")).unwrap();
    assert!(!mirror.contains("hush"), "{mirror}");
}

#[tokio::test]
async fn what_no_data_plane_could_serve_is_not_verified() {
    let fixture = Fixture::new();
    fixture.put("1", r#"{"id":"1","uri":"/unservable"}"#).await;
    let handle = fixture.start(fixture.config());
    let status = handle.now().await;
    assert_eq!(status.backends[0].verified, Some(false));
    assert_eq!(status.backends[0].problem.as_deref(), Some("it does not compile: routes/1 can't be served"));
}

#[tokio::test]
async fn white_space_is_no_difference() {
    let fixture = Fixture::new();
    fixture.put("1", "{ \"id\": \"1\",\n \"uri\": \"/a b\" }").await;
    let handle = fixture.start(fixture.config());
    assert_eq!(handle.now().await.backends[0].verified, Some(true));
    handle.stop().await;
    let handle = fixture.start(fixture.config());
    assert_eq!(handle.now().await.backends[0].sequence, 1);
}

#[tokio::test]
async fn a_damaged_publication_is_replaced() {
    let fixture = Fixture::new();
    fixture.routes(1..=2).await;
    let handle = fixture.start(fixture.config());
    handle.now().await;
    handle.stop().await;
    let part = read(&fixture.buckets("a")).await.manifest.unwrap().resource;
    std::fs::write(fixture.dir.path().join("a/res").join(part.key), "torn").unwrap();
    let handle = fixture.start(fixture.config());
    let status = handle.now().await;
    assert_eq!((status.backends[0].sequence, status.backends[0].verified), (2, Some(true)));
}

#[tokio::test]
async fn another_instance_configuration_is_a_change() {
    let fixture = Fixture::new();
    fixture.routes(1..=1).await;
    let handle = fixture.start(fixture.config());
    handle.now().await;
    handle.stop().await;
    let instance = Arc::new(Instance { config_version: 2, ..Instance::default() });
    let handle = fixture.start(Config { instance, ..fixture.config() });
    assert_eq!(handle.now().await.backends[0].sequence, 2);
    assert_eq!(read(&fixture.buckets("a")).await.instance.config_version, 2);
}

#[tokio::test]
async fn a_back_end_fails_alone_and_recovers() {
    let fixture = Fixture::new();
    fixture.routes(1..=1).await;
    let (good, bad) = (fixture.buckets("a"), fixture.buckets("b"));
    let blocked = fixture.dir.path().join("b");
    std::fs::remove_dir_all(&blocked).unwrap();
    std::fs::write(&blocked, "in the way").unwrap();
    let backends = vec![("bad".to_owned(), bad), ("good".to_owned(), good)];
    let handle = fixture.start(Config { backends, ..fixture.config() });
    let status = handle.now().await;
    assert!(status.backends[0].last_error.is_some() && status.backends[0].errors_total >= 1, "{status:?}");
    assert_eq!((status.backends[1].sequence, status.backends[1].errors_total), (1, 0));
    std::fs::remove_file(&blocked).unwrap();
    // Nobody asks it to: it tries again by itself.
    let status = until(&handle, |status| status.backends[0].sequence == 1).await;
    assert_eq!(status.backends[0].last_error, None);
}

#[tokio::test]
async fn what_was_done_by_hand_is_reported() {
    let fixture = Fixture::new();
    fixture.routes(1..=2).await;
    let handle = fixture.start(fixture.config());
    handle.now().await;
    handle.stop().await;
    let by = Publish { writer: "ops", note: Some("emergency".to_owned()), ..Publish::default() };
    let file = br#"{"routes":[{"id":"1","uri":"/x"}]}"#;
    store::backup::publish_file(&fixture.buckets("a"), "default", file, by).await.unwrap();
    let handle = fixture.start(fixture.config());
    let status = handle.now().await;
    let by_hand = status.backends[0].by_hand.clone().unwrap();
    assert_eq!((by_hand.sequence, by_hand.note.as_str(), by_hand.writer.as_str()), (2, "emergency", "ops"));
    // The store is the truth again, as a new sequence.
    assert_eq!((status.backends[0].sequence, read(&fixture.buckets("a")).await.snapshot.len()), (3, 2));
}

#[tokio::test]
async fn old_publications_are_deleted() {
    let fixture = Fixture::new();
    let handle = fixture.start(Config { keep: 2, on_change: false, ..fixture.config() });
    for id in 1..=4 {
        fixture.routes(id..=id).await;
        handle.now().await;
    }
    let kept = store::backup::list(&fixture.buckets("a"), "default", &Trust::default()).await.unwrap();
    let kept: Vec<u64> = kept.iter().map(|entry| entry.sequence).collect();
    assert_eq!(kept, [4, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_share_a_bucket() {
    let fixture = Fixture::new();
    let handles: Vec<Handle> = ["cp-1", "cp-2"]
        .map(|writer| fixture.start(Config { writer: writer.to_owned(), ..fixture.config() }))
        .into();
    for id in 1..=10 {
        fixture.routes(id..=id).await;
        let (one, two) = tokio::join!(handles[0].now(), handles[1].now());
        for status in [one, two] {
            assert_eq!(status.backends[0].last_error, None);
            assert_eq!(status.backends[0].held, None);
        }
        assert_eq!(read(&fixture.buckets("a")).await.snapshot.len(), id as usize);
    }
    // The loser of a race takes the winner's word: at most one publication for each revision.
    let sequence = read(&fixture.buckets("a")).await.manifest.unwrap().sequence;
    assert_eq!(sequence, 10);
}

#[tokio::test]
async fn another_bucket_goes_on_with_the_sequence() {
    let fixture = Fixture::new();
    let sequences = Some(fixture.dir.path().join("data/backup.json"));
    let config = || Config { sequences: sequences.clone(), ..fixture.config() };
    let handle = fixture.start(config());
    for id in 1..=3 {
        fixture.routes(id..=id).await;
        handle.now().await;
    }
    handle.stop().await;
    // The process ends, and its next life writes elsewhere too.
    let backends = ["a", "b"].map(|name| (name.to_owned(), fixture.buckets(name))).to_vec();
    let handle = fixture.start(Config { backends, ..config() });
    let status = handle.now().await;
    let written = |status: &Status| status.backends.iter().map(|one| one.sequence).collect::<Vec<_>>();
    assert_eq!(written(&status), [3, 4]);
    fixture.routes(4..=4).await;
    assert_eq!(written(&handle.now().await), [5, 5], "one snapshot has one number");
    handle.stop().await;
    // A bucket is emptied meanwhile.
    std::fs::remove_dir_all(fixture.dir.path().join("a")).unwrap();
    let handle = fixture.start(config());
    assert_eq!(written(&handle.now().await), [6]);
}

#[tokio::test]
async fn a_panic_is_a_failure_like_any_other() {
    let fixture = Fixture::new();
    fixture.routes(1..=1).await;
    // Settings don't let this through: the client of the storage panics at its first request.
    let s3 = bucket::S3 {
        access_key: Some("a".to_owned()),
        secret_key: Some("s".to_owned()),
        config_bucket: Some("c".to_owned()),
        resource_bucket: Some("r".to_owned()),
        endpoint: Some("127.0.0.1:9000".to_owned()),
        ..bucket::S3::default()
    };
    let broken = Buckets::open(bucket::Config::AwsS3(s3)).unwrap();
    let backends = vec![("broken".to_owned(), broken), ("local".to_owned(), fixture.buckets("a"))];
    let handle = fixture.start(Config { backends, ..fixture.config() });
    for _ in 0..2 {
        let status = handle.now().await;
        let error = status.backends[0].last_error.clone().unwrap_or_default();
        assert!(error.starts_with("it ended by a panic: "), "{error}");
        assert_eq!((status.backends[1].sequence, &status.backends[1].last_error), (1, &None));
    }
    assert!(handle.status().backends[0].errors_total >= 2);
}
