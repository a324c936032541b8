//! Signatures: who is believed.

use super::*;

const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
/// RFC 8032, test 1.
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

fn trust(keys: &[&str], require_signature: bool) -> Trust {
    Trust { public_keys: keys.iter().map(|key| (*key).to_owned()).collect(), require_signature }
}

async fn read(fixture: &Fixture, trust: &Trust) -> Result<Latest, ReadError> {
    read_latest(&fixture.buckets, "default", trust, &Known::default()).await
}

async fn signed() -> (Fixture, Signing) {
    let fixture = Fixture::new();
    let signing = Signing::from_pem(PRIVATE).unwrap();
    let (snapshot, instance) = (snapshot(1, 1), Instance::default());
    let publication = Publication { signing: Some(&signing), ..publication(&snapshot, &instance) };
    publish(&fixture.buckets, &publication).await.unwrap();
    (fixture, signing)
}

#[tokio::test]
async fn signatures_are_checked_with_the_trusted_keys() {
    let (fixture, signing) = signed().await;
    assert_eq!(signing.public_key(), PUBLIC);
    for keys in [trust(&[PUBLIC], true), trust(&[PUBLIC_PEM], true), trust(&[], false)] {
        keys.check().unwrap();
        assert!(matches!(read(&fixture, &keys).await, Ok(Latest::New(_))));
    }
    let other = "A".repeat(43) + "=";
    for keys in [trust(&[&other], false), trust(&[], true)] {
        assert!(matches!(read(&fixture, &keys).await, Err(ReadError::UnknownKey { .. })));
    }
    assert!(trust(&["nonsense"], false).check().is_err());
    // Renewing signs again.
    renew(&fixture.buckets, "default", chrono::Utc::now(), Some(&signing)).await.unwrap();
    assert!(matches!(read(&fixture, &trust(&[PUBLIC], true)).await, Ok(Latest::New(_))));
}

#[tokio::test]
async fn nothing_of_a_signed_manifest_can_be_changed() {
    let keys = trust(&[PUBLIC], true);
    for (field, value) in [("revision", serde_json::json!(2)), ("note", "x".into()), ("unknown", true.into())]
    {
        let (fixture, _) = signed().await;
        for key in ["manifest.json", "history/1.json"] {
            let key = format!("keelgate/default/{key}");
            let bytes = fixture.buckets.config.get(&key, 1 << 20).await.unwrap().unwrap().bytes;
            let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            manifest[field] = value.clone();
            fixture.overwrite("config", &key, manifest.to_string()).await;
        }
        assert!(matches!(read(&fixture, &keys).await, Err(ReadError::BadSignature)), "{field}");
    }
}

#[tokio::test]
async fn what_must_be_signed_is_refused_without() {
    let fixture = Fixture::new();
    fixture.publish(&snapshot(1, 1)).await;
    assert!(matches!(read(&fixture, &trust(&[PUBLIC], true)).await, Err(ReadError::Unsigned)));
    assert!(matches!(read(&fixture, &trust(&[PUBLIC], false)).await, Ok(Latest::New(_))));
}

/// A newer version signs fields this one does not know.
#[tokio::test]
async fn unknown_fields_are_part_of_what_is_signed() {
    let (fixture, signing) = signed().await;
    let key = "keelgate/default/manifest.json";
    let bytes = fixture.buckets.config.get(key, 1 << 20).await.unwrap().unwrap().bytes;
    let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    fields.shift_remove("signature");
    fields.shift_insert(3, "of_tomorrow".to_owned(), serde_json::json!([1, {"a": 2}]));
    let signature = signing.sign(manifest.to_string().as_bytes());
    manifest["signature"] = serde_json::to_value(signature).unwrap();
    fixture.overwrite("config", key, manifest.to_string()).await;
    let read = read(&fixture, &trust(&[PUBLIC], true)).await;
    assert!(matches!(&read, Ok(Latest::New(found)) if found.fallen_back.is_none()), "{read:?}");
}
