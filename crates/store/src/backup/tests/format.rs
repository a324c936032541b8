//! What is written where, and that it reads back.

use super::*;

#[tokio::test]
async fn the_objects_are_those_of_the_layout() {
    let fixture = Fixture::new();
    let manifest = fixture.publish(&snapshot(7, 2)).await;
    assert_eq!((manifest.sequence, manifest.revision, manifest.previous.clone()), (1, 7, None));
    assert_eq!(manifest.resource.counts, [(Kind::Routes, 2)].into());
    let objects = fixture.objects().await;
    let keys: Vec<String> = objects.iter().map(|(bucket, key, _)| format!("{bucket} {key}")).collect();
    let (resource, instance) = (&manifest.resource, &manifest.instance);
    let expected = [
        "config default".to_owned(),
        "config keelgate/default/history/1.json".to_owned(),
        format!("config keelgate/default/instance/1-{}.json", instance.sha256),
        "config keelgate/default/manifest.json".to_owned(),
        "resource default".to_owned(),
        format!("resource keelgate/default/snapshots/1-{}.json.zst", resource.sha256),
    ];
    assert_eq!(keys, expected);
    let mirror: serde_json::Value = serde_json::from_slice(&objects[4].2).unwrap();
    assert_eq!(mirror["routes"][1]["uri"], "/7/2");
    let mirror: serde_json::Value = serde_json::from_slice(&objects[0].2).unwrap();
    assert!(mirror["config"]["config_payload"].is_object(), "{mirror}");
    assert_eq!(resource.plain_size, objects[4].2.len() as u64);

    let read = fixture.newest().await;
    assert!(read.snapshot.changes_since(&snapshot(7, 2)).is_empty());
    assert_eq!((read.snapshot.store_id.as_ref(), read.snapshot.revision), ("store-1", 7));
    assert_eq!(read.manifest, Some(manifest));
}

#[tokio::test]
async fn manifests_are_chained_by_digest() {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 1)).await;
    let second = fixture.publish(&snapshot(2, 1)).await;
    let objects = fixture.objects().await;
    let first = objects.iter().find(|(_, key, _)| key.ends_with("history/1.json")).unwrap();
    assert_eq!(second.previous, Some(part::sha256(&first.2)));
}

#[tokio::test]
async fn a_reader_is_told_of_changes_only() {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 1)).await;
    let known = fixture.newest().await.known();
    assert!(matches!(fixture.read(&known).await.unwrap(), Latest::NotModified));

    let at = chrono::Utc::now() + chrono::TimeDelta::minutes(1);
    renew(&fixture.buckets, "default", at, None).await.unwrap();
    match fixture.read(&known).await.unwrap() {
        Latest::Renewed { manifest, etag } => {
            assert_eq!(manifest.verified_at, publish::timestamp(at));
            assert_ne!(etag, known.etag);
        }
        other => panic!("{other:?}"),
    }
    fixture.publish(&snapshot(2, 1)).await;
    assert_eq!(revision_of(&fixture.read(&known).await.unwrap()), Some(2));
}

#[tokio::test]
async fn without_a_manifest_the_objects_of_api7_are_read() {
    let yaml = "routes:\n  - id: r1\n    uri: /a\n";
    let json = r#"{"routes":[{"id":"r1","uri":"/a"}]}"#;
    let envelope = r#"{"config":{"config_version":3,"config_payload":{"apisix":{"data_encryption":{"keyring":["k"]}}}}}"#;
    let bare = "apisix:\n  data_encryption:\n    keyring: [k]\n";
    for (resource, instance) in [(json, envelope), (yaml, bare), (yaml, envelope)] {
        let fixture = Fixture::new();
        let nothing = fixture.read(&Known::default()).await.unwrap_err();
        assert!(matches!(nothing, ReadError::Nothing { .. }), "{nothing}");
        fixture.overwrite("resource", "default", resource).await;
        fixture.overwrite("config", "default", instance).await;
        let read = fixture.newest().await;
        assert_eq!(read.snapshot.counts(), [(Kind::Routes, 1)].into());
        let keyring = read.instance.config_payload.apisix.clone().unwrap().data_encryption.keyring;
        assert_eq!(keyring, ["k"]);
        assert_eq!(read.known().sequence, None);
        assert!(matches!(fixture.read(&read.known()).await.unwrap(), Latest::NotModified));
        // A manifest once seen is never traded for objects without proof.
        let known = Known { sequence: Some(4), ..Known::default() };
        assert!(matches!(fixture.read(&known).await, Err(ReadError::Vanished { known: 4 })));
        let strict = Trust { require_signature: true, ..Trust::default() };
        let refused = read_latest(&fixture.buckets, "default", &strict, &Known::default()).await;
        assert!(matches!(refused, Err(ReadError::Unsigned)));
    }
}

#[tokio::test]
async fn going_back_is_going_on() {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 3)).await;
    fixture.publish(&snapshot(2, 1)).await;
    let trust = Trust::default();
    let difference = diff(&fixture.buckets, "default", &trust, (1, 2)).await.unwrap();
    assert_eq!(
        (difference.changed, difference.deleted),
        (vec!["routes/1".to_owned()], vec!["routes/2".to_owned(), "routes/3".to_owned()])
    );
    let by = Publish { writer: "someone", ..Publish::default() };
    let restored = restore(&fixture.buckets, "default", &trust, (1, by)).await.unwrap();
    assert_eq!((restored.manifest.sequence, restored.manifest.revision), (3, 1));
    assert_eq!(restored.manifest.note.as_deref(), Some("restored from sequence 1"));
    assert_eq!(fixture.newest().await.snapshot.len(), 3);

    let by = Publish { writer: "someone", note: Some("emergency".into()), ..Publish::default() };
    let file = br#"{"routes":[{"id":"1","uri":"/x"},"nonsense"]}"#;
    let (manifest, rejected) = publish_file(&fixture.buckets, "default", file, by).await.unwrap();
    assert_eq!((manifest.sequence, manifest.store_id.as_str(), rejected.len()), (4, "store-1", 1));

    let listed = list(&fixture.buckets, "default", &trust).await.unwrap();
    let sequences: Vec<u64> = listed.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, [4, 3, 2, 1]);
    assert_eq!(
        show(&fixture.buckets, "default", &trust, 2).await.unwrap().counts,
        [(Kind::Routes, 1)].into()
    );
    assert_eq!(verify(&fixture.buckets, "default", &trust, None).await.unwrap().manifest.sequence, 4);
}

#[tokio::test]
async fn pruning_leaves_what_kept_manifests_name() {
    let fixture = Fixture::new();
    for revision in 1..=5 {
        fixture.publish(&snapshot(revision, 2)).await;
    }
    // Left behind by a writer that lost sequence 2, and by one that is about to commit 6.
    fixture.overwrite("resource", "keelgate/default/snapshots/2-abc.json.zst", "x").await;
    fixture.overwrite("resource", "keelgate/default/snapshots/6-abc.json.zst", "x").await;
    assert_eq!(prune(&fixture.buckets, "default", 2).await.unwrap(), 10);
    let keys: Vec<String> = fixture.objects().await.into_iter().map(|(_, key, _)| key).collect();
    assert!(keys.iter().any(|key| key.contains("snapshots/6-")));
    assert!(
        !keys.iter().any(|key| key.contains("/3-") || key.contains("/2-") || key.contains("history/3")),
        "{keys:?}"
    );
    for sequence in [4, 5] {
        show(&fixture.buckets, "default", &Trust::default(), sequence).await.unwrap();
    }
    assert_eq!(prune(&fixture.buckets, "default", 0).await.unwrap(), 3);
    assert_eq!(fixture.newest().await.snapshot.revision, 5);
}

#[tokio::test]
async fn a_group_has_a_name_that_fits_into_keys() {
    let fixture = Fixture::new();
    for bad in ["", "a/b", "..", ".x", "keelgate", "a b", "é"] {
        let refused = read_latest(&fixture.buckets, bad, &Trust::default(), &Known::default()).await;
        assert!(matches!(refused, Err(ReadError::Group(_))), "{bad}");
    }
}

#[tokio::test]
async fn the_sequence_survives_an_emptied_bucket() {
    let fixture = Fixture::new();
    let instance = Instance::default();
    let (snapshot, other) = (snapshot(9, 1), snapshot(10, 1));
    let publication = Publication { floor: 40, ..publication(&snapshot, &instance) };
    assert_eq!(publish(&fixture.buckets, &publication).await.unwrap().sequence, 41);
    let expecting = Publication { expected_head: Some(40), snapshot: &other, ..publication.clone() };
    let refused = publish(&fixture.buckets, &expecting).await;
    assert!(matches!(refused, Err(PublishError::Overtaken { head: 41 })), "{refused:?}");
    let expecting = Publication { expected_head: Some(41), ..expecting };
    assert_eq!(publish(&fixture.buckets, &expecting).await.unwrap().sequence, 42);
}
