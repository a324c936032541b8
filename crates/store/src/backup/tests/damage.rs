//! Objects that are torn, changed, foreign, old or hostile: refused, each with its own sentence.

use proptest::prelude::*;

use super::*;

async fn with_two() -> (Fixture, Known) {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 2)).await;
    fixture.publish(&snapshot(2, 2)).await;
    let known = fixture.newest().await.known();
    (fixture, known)
}

async fn pointer(fixture: &Fixture) -> serde_json::Value {
    let bytes =
        fixture.buckets.config.get("keelgate/default/manifest.json", 1 << 20).await.unwrap().unwrap().bytes;
    serde_json::from_slice(&bytes).unwrap()
}

/// Edits the pointer and reads: as a node that serves sequence 2, and as one that starts.
async fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> (ReadError, Verified) {
    let (fixture, known) = with_two().await;
    let mut manifest = pointer(&fixture).await;
    edit(&mut manifest);
    fixture.overwrite("config", "keelgate/default/manifest.json", manifest.to_string()).await;
    let running = fixture.read(&known).await.unwrap_err();
    (running, fixture.newest().await)
}

#[tokio::test]
async fn a_changed_manifest_is_refused_and_the_history_serves_those_who_start() {
    let (refused, started) = edited(|m| m["group"] = "other".into()).await;
    assert_eq!(refused.to_string(), "the backup is of group `other`, wanted is `default`");
    assert_eq!((started.snapshot.revision, started.fallen_back), (2, Some(refused.to_string())));

    let (refused, started) = edited(|m| m["format"] = 2.into()).await;
    assert!(matches!(refused, ReadError::NewerFormat { found: 2, newest: 1 }), "{refused}");
    assert_eq!(started.snapshot.revision, 2);

    let (refused, _) = edited(|m| m["sequence"] = 1.into()).await;
    assert!(matches!(refused, ReadError::Replayed { found: 1, known: 2 }), "{refused}");

    let (refused, _) = edited(|m| m["resource"]["sha256"] = "00".into()).await;
    assert!(matches!(refused, ReadError::Forked { sequence: 2 }), "{refused}");

    let (refused, _) = edited(|m| {
        m["sequence"] = 3.into();
        m["resource"]["sha256"] = "00".into();
    })
    .await;
    assert!(matches!(refused, ReadError::WrongDigest { what: What::Snapshot, .. }), "{refused}");

    let (refused, _) = edited(|m| {
        m["sequence"] = 3.into();
        m["resource"]["key"] = "keelgate/default/snapshots/gone".into();
    })
    .await;
    assert!(matches!(refused, ReadError::Missing { what: What::Snapshot, .. }), "{refused}");

    let (refused, _) = edited(|m| {
        m["sequence"] = 3.into();
        m["resource"]["plain_size"] = (1u64 << 40).into();
    })
    .await;
    assert!(matches!(refused, ReadError::TooLarge { .. }), "{refused}");
}

#[tokio::test]
async fn unknown_fields_of_another_version_are_passed_over() {
    let (fixture, _) = with_two().await;
    let mut manifest = pointer(&fixture).await;
    manifest["new_field"] = serde_json::json!({"a": 1});
    manifest["resource"]["codec"] = "zstd".into();
    fixture.overwrite("config", "keelgate/default/manifest.json", manifest.to_string()).await;
    let read = fixture.newest().await;
    assert_eq!((read.snapshot.revision, read.fallen_back), (2, None));
}

#[tokio::test]
async fn a_replayed_pointer_is_refused() {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 2)).await;
    let old = pointer(&fixture).await;
    fixture.publish(&snapshot(2, 2)).await;
    let known = fixture.newest().await.known();
    fixture.overwrite("config", "keelgate/default/manifest.json", old.to_string()).await;
    let refused = fixture.read(&known).await.unwrap_err();
    let told = refused.to_string();
    assert!(
        told.starts_with("sequence 1 is older than 2, which was already seen: refused as a replay; if the"),
        "{told}"
    );
}

#[tokio::test]
async fn a_torn_snapshot_gives_way_to_the_one_before() {
    for tear in ["truncate", "flip", "delete", "zeros"] {
        let (fixture, known) = with_two().await;
        let third = fixture.publish(&snapshot(3, 2)).await;
        let key = &third.resource.key;
        let mut bytes =
            fixture.buckets.resource(None).unwrap().get(key, 1 << 20).await.unwrap().unwrap().bytes.to_vec();
        match tear {
            "truncate" => bytes.truncate(bytes.len() / 2),
            "flip" => bytes[20] ^= 1,
            "zeros" => bytes = vec![0; 100 << 20],
            _ => {}
        }
        match tear {
            "delete" => fixture.delete("resource", key).await,
            _ => fixture.overwrite("resource", key, bytes).await,
        }
        // A node that starts takes the newest whole one; one that serves 2 keeps it.
        let started = fixture.newest().await;
        assert_eq!(started.snapshot.revision, 2, "{tear}");
        let reason = started.fallen_back.clone().unwrap();
        // It asks for the newest again, which may be whole by then.
        assert!(matches!(fixture.read(&started.known()).await, Err(error) if error.to_string() == reason));
        let running = fixture.read(&known).await.unwrap_err();
        assert_eq!(running.to_string(), reason);
    }
}

#[tokio::test]
async fn a_hundred_megabytes_of_zeros_are_not_read() {
    let (fixture, known) = with_two().await;
    fixture.overwrite("config", "keelgate/default/manifest.json", vec![0; 100 << 20]).await;
    let refused = fixture.read(&known).await.unwrap_err();
    assert!(matches!(refused, ReadError::TooLarge { what: What::Manifest, .. }), "{refused}");
    assert_eq!(fixture.newest().await.snapshot.revision, 2);
    // And the next publication sweeps them away.
    fixture.publish(&snapshot(3, 2)).await;
    assert_eq!(fixture.newest().await.fallen_back, None);
}

/// A manifest that tells the truth about a bomb's digest, and lies about what is inside.
#[tokio::test]
async fn a_bomb_stops_at_the_announced_size() {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 2)).await;
    let bomb = zstd::bulk::compress(&vec![b' '; 64 << 20], 19).unwrap();
    let mut manifest = pointer(&fixture).await;
    manifest["resource"]["sha256"] = part::sha256(&bomb).into();
    manifest["resource"]["size"] = bomb.len().into();
    manifest["sequence"] = 2.into();
    let key = manifest["resource"]["key"].as_str().unwrap().to_owned();
    fixture.overwrite("resource", &key, bomb).await;
    fixture.overwrite("config", "keelgate/default/manifest.json", manifest.to_string()).await;
    let known = Known { sequence: Some(1), ..Known::default() };
    let refused = fixture.read(&known).await.unwrap_err();
    let limit = manifest["resource"]["plain_size"].as_u64().unwrap();
    assert_eq!(refused.to_string(), format!("the snapshot is larger than {limit} bytes"));
}

#[tokio::test]
async fn an_older_version_does_not_write_over_a_newer_format() {
    let (fixture, _) = with_two().await;
    let mut manifest = pointer(&fixture).await;
    manifest["format"] = 2.into();
    fixture.overwrite("config", "keelgate/default/manifest.json", manifest.to_string()).await;
    let (third, instance) = (snapshot(3, 2), Instance::default());
    let refused = publish(&fixture.buckets, &publication(&third, &instance)).await;
    assert!(matches!(refused, Err(PublishError::NewerFormat { found: 2 })), "{refused:?}");
}

#[tokio::test]
async fn one_bad_entry_costs_no_other() {
    let fixture = Fixture::new();
    fixture
        .overwrite("resource", "default", r#"{"routes":[{"id":"1","uri":"/a"},7,{"id":"2","uri":"/b"}]}"#)
        .await;
    let read = fixture.newest().await;
    assert_eq!((read.snapshot.len(), read.rejected.len()), (2, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    /// Whatever single byte of whatever object is changed: what is read is one of the two publications, whole, or
    /// nothing. Fields that only inform (times, writer) may differ; the contents may not.
    #[test]
    fn a_single_wrong_byte_is_refused_or_harmless(object in 0usize..64, at in 0usize..4096, flip in 1u8..=255) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (fixture, known) = with_two().await;
            let objects = fixture.objects().await;
            let (bucket, key, mut bytes) = objects[object % objects.len()].clone();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            fixture.overwrite(bucket, &key, bytes).await;
            for known in [Known::default(), known] {
                match fixture.read(&known).await {
                    Ok(Latest::New(read)) => {
                        let original = snapshot(read.snapshot.revision, 2);
                        let untouched = [1, 2].contains(&read.snapshot.revision);
                        // An unsigned manifest's revision is what it says; the resources are what was published.
                        let resources = [1, 2].iter().any(|r| read.snapshot.changes_since(&snapshot(*r, 2)).is_empty());
                        assert!(resources, "{key} at {at}");
                        if untouched && read.snapshot.revision == 2 {
                            assert!(read.snapshot.changes_since(&original).is_empty());
                        }
                        assert!(known.sequence.is_none_or(|k| read.known().sequence > Some(k)));
                    }
                    Ok(Latest::NotModified | Latest::Renewed { .. }) | Err(_) => {}
                }
            }
        });
    }
}
