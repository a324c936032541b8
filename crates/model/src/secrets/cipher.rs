//! One key and the two ciphers it is used with.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    cipher::{
        AES_128, AES_256, AES_CBC_IV_LEN, Algorithm, DecryptionContext, EncryptionContext,
        PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    hkdf,
    iv::FixedLength,
};
use base64::{Engine, prelude::BASE64_STANDARD};

/// What a sealed text begins with.
const SEALED: &str = "$kg1$";

/// The part of a sealed text behind its prefix.
pub(super) fn sealed(text: &str) -> Option<&str> {
    text.strip_prefix(SEALED)
}

pub(super) struct Key {
    /// APISIX's initialization vector: the key itself.
    iv: [u8; AES_CBC_IV_LEN],
    encrypting: PaddedBlockEncryptingKey,
    decrypting: PaddedBlockDecryptingKey,
    sealing: RandomizedNonceKey,
}

impl Key {
    /// A key of 16 bytes (AES-128) or 32 (AES-256).
    pub fn new(key: &[u8]) -> Option<Self> {
        let algorithm: &'static Algorithm = match key.len() {
            16 => &AES_128,
            32 => &AES_256,
            _ => return None,
        };
        Some(Self {
            iv: *key.first_chunk()?,
            encrypting: PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, key).ok()?)
                .ok()?,
            decrypting: PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(algorithm, key).ok()?)
                .ok()?,
            sealing: RandomizedNonceKey::new(&AES_256_GCM, &derived(key)?).ok()?,
        })
    }

    /// As APISIX does it: the same text always gives the same ciphertext.
    pub fn encrypt_cbc(&self, plain: &str) -> String {
        let mut bytes = plain.as_bytes().to_vec();
        let iv = EncryptionContext::Iv128(FixedLength::from(self.iv));
        match self.encrypting.less_safe_encrypt(&mut bytes, iv) {
            Ok(_) => BASE64_STANDARD.encode(bytes),
            Err(_) => plain.to_owned(),
        }
    }

    pub fn decrypt_cbc(&self, text: &str) -> Option<String> {
        let mut bytes = BASE64_STANDARD.decode(text).ok()?;
        let iv = DecryptionContext::Iv128(FixedLength::from(self.iv));
        let plain = self.decrypting.decrypt(&mut bytes, iv).ok()?;
        // A wrong key can leave padding that looks right, but hardly ever text as well.
        std::str::from_utf8(plain).ok().map(str::to_owned)
    }

    /// Encrypts so that nobody without the key can tell equal texts from different ones, nor change one unseen.
    pub fn seal(&self, plain: &str) -> String {
        let mut bytes = plain.as_bytes().to_vec();
        match self.sealing.seal_in_place_append_tag(Aad::empty(), &mut bytes) {
            Ok(nonce) => {
                let mut whole = nonce.as_ref().to_vec();
                whole.append(&mut bytes);
                format!("{SEALED}{}", BASE64_STANDARD.encode(whole))
            }
            Err(_) => plain.to_owned(),
        }
    }

    /// Decrypts what stands behind the prefix of a sealed text.
    pub fn open(&self, sealed: &str) -> Option<String> {
        let mut bytes = BASE64_STANDARD.decode(sealed).ok()?;
        let (nonce, bytes) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.sealing.open_in_place(nonce, Aad::empty(), bytes).ok()?;
        std::str::from_utf8(plain).ok().map(str::to_owned)
    }
}

/// A key of its own for sealing: none is used with two ciphers.
fn derived(key: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"keelgate keyring");
    salt.extract(key).expand(&[b"kg1 aes-256-gcm"], hkdf::HKDF_SHA256).ok()?.fill(&mut out).ok()?;
    Some(out)
}
