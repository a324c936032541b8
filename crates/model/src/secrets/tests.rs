use proptest::prelude::*;
use serde_json::json;

use super::*;

const OLD: &str = "edd1c9f0985e76a2";
const NEW: &str = "qeddd145sfvddff3";

fn ring(keys: &[&str], cipher: Cipher) -> Keyring {
    let keyring = keys.iter().map(|key| (*key).to_owned()).collect();
    Keyring::new(&DataEncryption { enable_encrypt_fields: true, keyring, cipher }).unwrap()
}

fn accept(_: &Value) -> Result<(), String> {
    Ok(())
}

const PLUGINS: [PluginFacts; 1] = [PluginFacts {
    name: "openid",
    priority: 1,
    schema: || json!({}),
    consumer_schema: None,
    metadata_schema: None,
    secrets: &["secret", "list.inner.key", "texts", "map", "absent.key"],
    check: accept,
}];

#[test]
fn what_apisix_wrote_is_read_and_written_the_same() {
    // Ciphertexts of Apache APISIX's own tests.
    let ring = ring(&[OLD], Cipher::AesCbc);
    for (plain, text) in [("bar", "77+NmbYqNfN+oLm0aX5akg=="), ("auth-two", "vU/ZHVJw7b0XscDJ1Fhtig==")] {
        assert_eq!(ring.encrypt(plain), text);
        assert_eq!(ring.decrypt(text).as_deref(), Some(plain));
    }
}

#[test]
fn the_first_key_encrypts_and_every_key_decrypts() {
    let old = ring(&[OLD], Cipher::AesCbc);
    let long = format!("{NEW}{NEW}");
    for cipher in [Cipher::AesCbc, Cipher::AesGcm] {
        let rotated = ring(&[&long, OLD], cipher);
        let fresh = rotated.encrypt("hello");
        assert_eq!(rotated.decrypt(&fresh).as_deref(), Some("hello"));
        assert_eq!(rotated.decrypt(&old.encrypt("hello")).as_deref(), Some("hello"));
        assert_eq!(old.decrypt(&fresh), None);
    }
    for plain in ["", "plain", "cGxhaW4=", "77+NmbYqNfN+oLm0aX5akg=="] {
        assert_eq!(ring(&[NEW], Cipher::AesCbc).decrypt(plain), None, "{plain}");
    }
}

#[test]
fn sealed_texts_differ_each_time_and_cannot_be_changed() {
    let ring = ring(&[NEW], Cipher::AesGcm);
    let (one, other) = (ring.encrypt("hello"), ring.encrypt("hello"));
    assert_ne!(one, other);
    assert!(one.starts_with("$kg1$"));
    for at in 5..one.len() {
        let mut bytes = one.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(ring.decrypt(&changed), None, "{at}");
    }
    assert_eq!(ring.decrypt("$kg1$"), None);
    assert_eq!(ring.decrypt("$kg1$AAAA"), None);
}

#[test]
fn the_secrets_of_a_resource_are_found_wherever_they_are() {
    let pem = "-----BEGIN PRIVATE KEY-----\nx";
    let plain = json!({
        "id": "openid",
        "plugins": {
            "openid": {
                "secret": "a", "open": "b", "list": [{"inner": {"key": "c"}}, {"inner": [{"key": "d"}]}, 1],
                "texts": ["e", 1], "map": {"x": "f", "y": []},
            },
            "other": {"secret": "g"},
        },
        "upstream": {"tls": {"client_cert": "C", "client_key": pem}},
    });
    let ring = ring(&[NEW], Cipher::AesCbc);
    let mut conf = plain.clone();
    ring.encrypt_resource(Kind::Routes, &mut conf, &PLUGINS);
    let text = conf.to_string();
    for secret in ["\"a\"", "\"c\"", "\"d\"", "\"e\"", "\"f\"", "BEGIN"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for open in ["\"b\"", "\"g\"", "\"C\""] {
        assert!(text.contains(open), "{open} in {text}");
    }
    assert_eq!(ring.decrypt_resource(Kind::Routes, &mut conf, &PLUGINS), 0);
    assert_eq!(conf, plain);
}

#[test]
fn a_private_key_may_have_words_before_it() {
    let ring = ring(&[NEW], Cipher::AesCbc);
    let pem = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n";
    for before in
        ["", "\n", "# mine\n", "Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n", "--"]
    {
        let mut conf = json!({"key": format!("{before}{pem}")});
        ring.encrypt_resource(Kind::Ssls, &mut conf, &PLUGINS);
        assert!(!is_pem(conf["key"].as_str().unwrap()), "{conf}");
        assert_eq!(ring.decrypt_resource(Kind::Ssls, &mut conf, &PLUGINS), 0);
        assert_eq!(conf["key"], pem);
    }
}

#[test]
fn only_plugins_are_shown_in_plain_text() {
    let ring = ring(&[NEW], Cipher::AesCbc);
    let plain = json!({
        "plugins": {"openid": {"secret": "a"}},
        "upstream": {"tls": {"client_cert": "C", "client_key": "-----BEGIN PRIVATE KEY-----"}},
    });
    let mut conf = plain.clone();
    ring.encrypt_resource(Kind::Routes, &mut conf, &PLUGINS);
    assert_eq!(ring.decrypt_plugins(Kind::Routes, &mut conf, &PLUGINS), 0);
    assert_eq!(conf["plugins"], plain["plugins"]);
    assert_ne!(conf["upstream"], plain["upstream"]);
}

#[test]
fn what_managers_are_asked_with_is_encrypted_for_backups_alone() {
    for cipher in [Cipher::AesCbc, Cipher::AesGcm] {
        let ring = ring(&[NEW], cipher);
        let plain = json!({"uri": "u", "token": "T", "secret_access_key": "S", "session_token": "$env://X",
            "auth_config": {"private_key": "-----BEGIN", "client_email": "c"}});
        let mut conf = plain.clone();
        ring.encrypt_resource(Kind::Secrets, &mut conf, &PLUGINS);
        assert_eq!(conf, plain);
        ring.encrypt_credentials(&mut conf);
        let text = conf.to_string();
        assert!(!text.contains("\"T\"") && !text.contains("\"S\"") && !text.contains("BEGIN"), "{text}");
        assert!(text.contains("$env://X"), "{text}");
        let once = conf.clone();
        ring.encrypt_credentials(&mut conf);
        assert_eq!(conf, once);
        ring.decrypt_resource(Kind::Secrets, &mut conf, &PLUGINS);
        assert_eq!(conf, plain);
    }
}

#[test]
fn private_keys_of_certificates_and_plugin_metadata() {
    let ring = ring(&[NEW], Cipher::AesCbc);
    let pem = "-----BEGIN PRIVATE KEY-----\nx";
    for (kind, plain) in [
        (Kind::Ssls, json!({"key": pem, "keys": [pem, "$secret://vault/1/key"], "cert": pem})),
        (Kind::Upstreams, json!({"tls": {"client_key": pem}})),
        (Kind::PluginMetadata, json!({"id": "openid", "secret": "s"})),
    ] {
        let mut conf = plain.clone();
        ring.encrypt_resource(kind, &mut conf, &PLUGINS);
        assert_ne!(conf, plain);
        let once = conf.clone();
        if kind != Kind::PluginMetadata {
            ring.encrypt_resource(kind, &mut conf, &PLUGINS);
            assert_eq!(conf, once, "a private key is not encrypted twice");
        }
        ring.decrypt_resource(kind, &mut conf, &PLUGINS);
        assert_eq!(conf, plain);
    }
    let mut reference = json!({"key": "$env://KEY"});
    ring.encrypt_resource(Kind::Ssls, &mut reference, &PLUGINS);
    assert_eq!(reference["key"], "$env://KEY");
}

#[test]
fn what_cannot_be_decrypted_is_counted_where_that_is_certain() {
    let mut conf = json!({"plugins": {"openid": {"secret": "plain", "texts": [ring(&[OLD], Cipher::AesGcm).encrypt("x")]}}});
    let before = conf.clone();
    assert_eq!(ring(&[NEW], Cipher::AesCbc).decrypt_resource(Kind::Routes, &mut conf, &PLUGINS), 1);
    assert_eq!(Keyring::default().decrypt_resource(Kind::Routes, &mut conf, &PLUGINS), 1);
    assert_eq!(conf, before);
}

#[test]
fn without_keys_or_when_switched_off_fields_stay() {
    let plain = json!({"plugins": {"openid": {"secret": "a"}}});
    let mut conf = plain.clone();
    Keyring::default().encrypt_resource(Kind::Routes, &mut conf, &PLUGINS);
    let off = DataEncryption {
        enable_encrypt_fields: false,
        keyring: vec![NEW.to_owned()],
        cipher: Cipher::AesCbc,
    };
    Keyring::new(&off).unwrap().encrypt_resource(Kind::Routes, &mut conf, &PLUGINS);
    assert_eq!(conf, plain);
}

#[test]
fn a_bad_key_is_named_and_no_key_is_printed() {
    let keyring = vec![NEW.to_owned(), "short".to_owned()];
    let settings = DataEncryption { enable_encrypt_fields: true, keyring, cipher: Cipher::AesCbc };
    let error = Keyring::new(&settings).unwrap_err().to_string();
    assert_eq!(error, "key 2 of the keyring has 5 bytes: it must have 16 or 32");
    assert_eq!(format!("{:?}", ring(&[NEW], Cipher::AesCbc)), "Keyring(1 keys)");
    assert!(!format!("{settings:?}").contains(NEW));
}

proptest! {
    #[test]
    fn every_text_comes_back(plain in "\\PC*", gcm in any::<bool>()) {
        let ring = ring(&[NEW, OLD], if gcm { Cipher::AesGcm } else { Cipher::AesCbc });
        prop_assert_eq!(ring.decrypt(&ring.encrypt(&plain)), Some(plain));
    }

    #[test]
    fn no_text_makes_decryption_panic(text in "(\\$kg1\\$)?[A-Za-z0-9+/]{0,80}={0,2}") {
        let _ = ring(&[NEW, OLD], Cipher::AesCbc).decrypt(&text);
    }
}
