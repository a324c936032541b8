//! The keyring: secret fields are ciphertext in the store, in backups and on their way to data planes.
//!
//! The rule to know: the first key encrypts, every key decrypts, and what no key decrypts is taken for plain text,
//! so that a keyring can be introduced and its keys changed while everything runs. See the ADR on the keyring.

mod cipher;
mod fields;

use std::fmt;

use serde_json::Value;

use crate::{
    instance::{Cipher, DataEncryption},
    kind::Kind,
    plugin_facts::PluginFacts,
    schema::is_reference,
};
use cipher::Key;
use fields::Field;

/// The keys, ready for use. They are never printed.
#[derive(Default)]
pub struct Keyring {
    keys: Vec<Key>,
    /// Which cipher encrypts; all decrypt.
    cipher: Cipher,
    /// Whether the fields of plugins are encrypted. Private keys always are.
    with_fields: bool,
}

/// What a key in PEM begins with; tools write comments before it.
const PEM: &str = "-----BEGIN";

/// Whether a private key is plain.
pub fn is_pem(text: &str) -> bool {
    text.contains(PEM)
}

/// A key that cannot be one. Says which, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {place} of the keyring has {found} bytes: it must have 16 or 32")]
pub struct BadKey {
    /// Counted from 1.
    pub place: usize,
    pub found: usize,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    pub fn new(settings: &DataEncryption) -> Result<Self, BadKey> {
        let key = |(at, text): (usize, &String)| {
            Key::new(text.as_bytes()).ok_or(BadKey { place: at + 1, found: text.len() })
        };
        Ok(Self {
            keys: settings.keyring.iter().enumerate().map(key).collect::<Result<_, _>>()?,
            cipher: settings.cipher,
            with_fields: settings.enable_encrypt_fields,
        })
    }

    /// Encrypts a text. Without keys it stays as it is.
    pub fn encrypt(&self, plain: &str) -> String {
        let Some(first) = self.keys.first() else { return plain.to_owned() };
        match self.cipher {
            Cipher::AesCbc => first.encrypt_cbc(plain),
            Cipher::AesGcm => first.seal(plain),
        }
    }

    /// Decrypts a text of either cipher with the first key that can.
    pub fn decrypt(&self, text: &str) -> Option<String> {
        match cipher::sealed(text) {
            Some(sealed) => self.keys.iter().find_map(|key| key.open(sealed)),
            None => self.keys.iter().find_map(|key| key.decrypt_cbc(text)),
        }
    }

    /// Encrypts a text so that nobody without the key can read it or change it unseen; none without keys.
    pub fn seal(&self, plain: &str) -> Option<String> {
        self.keys.first().map(|first| first.seal(plain))
    }

    /// Reads what [`Keyring::seal`] made, with the first key that can.
    pub fn unseal(&self, text: &str) -> Option<String> {
        let sealed = cipher::sealed(text)?;
        self.keys.iter().find_map(|key| key.open(sealed))
    }

    /// Encrypts the secret fields of a resource: those its plugins name, and private keys.
    pub fn encrypt_resource(&self, kind: Kind, conf: &mut Value, plugins: &[PluginFacts]) {
        if self.keys.is_empty() {
            return;
        }
        fields::each(kind, conf, plugins, &mut |field, text| match field {
            Field::Credential => {}
            Field::PrivateKey => {
                // What is no PEM is encrypted already, or stands for a secret kept elsewhere. APISIX's data planes
                // take for PEM only what begins with its mark.
                if let Some(begin) = text.find(PEM) {
                    *text = self.encrypt(&text[begin..]);
                }
            }
            Field::Plugin if !self.with_fields => {}
            _ if cipher::sealed(text)
                .is_some_and(|sealed| self.keys.iter().any(|key| key.open(sealed).is_some())) => {}
            Field::Plugin => *text = self.encrypt(text),
        });
    }

    /// Encrypts what secret managers are asked with, where it is not encrypted yet: for backups. In the store it is
    /// plain, as APISIX's data planes read it.
    pub fn encrypt_credentials(&self, conf: &mut Value) {
        if self.keys.is_empty() {
            return;
        }
        fields::each(Kind::Secrets, conf, &[], &mut |_, text| {
            if !is_reference(text) && self.decrypt(text).is_none() {
                *text = self.encrypt(text);
            }
        });
    }

    /// Decrypts the secret fields of plugins in a resource, and no private keys. Gives what
    /// [`Keyring::decrypt_resource`] does.
    pub fn decrypt_plugins(&self, kind: Kind, conf: &mut Value, plugins: &[PluginFacts]) -> usize {
        self.decrypt_fields(kind, conf, plugins, &|field| field == Field::Plugin)
    }

    /// Decrypts the secret fields of a resource. What does not decrypt stays as it is; how many of these are
    /// certainly ciphertext, under a key that is not here, is returned.
    pub fn decrypt_resource(&self, kind: Kind, conf: &mut Value, plugins: &[PluginFacts]) -> usize {
        self.decrypt_fields(kind, conf, plugins, &|_| true)
    }

    fn decrypt_fields(
        &self,
        kind: Kind,
        conf: &mut Value,
        plugins: &[PluginFacts],
        wanted: &dyn Fn(Field) -> bool,
    ) -> usize {
        let mut lost = 0;
        fields::each(kind, conf, plugins, &mut |field, text| {
            if !wanted(field) || (field == Field::PrivateKey && is_pem(text)) {
                return;
            }
            match self.decrypt(text) {
                Some(plain) => *text = plain,
                None => lost += usize::from(cipher::sealed(text).is_some()),
            }
        });
        lost
    }
}

#[cfg(test)]
mod tests;
