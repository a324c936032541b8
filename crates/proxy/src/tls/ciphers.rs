//! Cipher suites by OpenSSL's names.
//!
//! The rule to know: as with OpenSSL, `ssl_ciphers` is about TLS 1.2; those of TLS 1.3 are always offered.

use std::sync::Arc;

use rustls::{
    CipherSuite, SupportedCipherSuite,
    crypto::{CryptoProvider, aws_lc_rs::cipher_suite as suites},
};

/// The suites of TLS 1.2 there are.
const TLS12: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// What a list of OpenSSL's means for us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ciphers {
    /// Of TLS 1.2, in the order of preference.
    suites: Vec<&'static str>,
    /// What was asked for and there is not.
    pub unknown: Vec<String>,
}

impl Ciphers {
    /// Reads names and classes (`HIGH`, `ECDHE+AESGCM`), separated by colons; `!` and `-` take out.
    pub fn read(list: &str) -> Self {
        let mut ciphers = Self::default();
        let mut barred: Vec<&str> = Vec::new();
        for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
            if let Some(class) = word.strip_prefix(['!', '-']) {
                ciphers.suites.retain(|name| !is(name, class));
                if word.starts_with('!') {
                    barred.extend(members(class));
                }
                continue;
            }
            let mut known = false;
            for name in members(word) {
                known = true;
                if !ciphers.suites.contains(&name) && !barred.contains(&name) {
                    ciphers.suites.push(name);
                }
            }
            if !known {
                ciphers.unknown.push(word.to_owned());
            }
        }
        ciphers
    }

    /// Whether nothing is left for TLS 1.2.
    pub fn is_empty(&self) -> bool {
        self.suites.is_empty()
    }

    /// What rustls computes with, limited to these.
    pub fn provider(&self) -> Arc<CryptoProvider> {
        let all = pki::provider();
        let tls13 = all.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some());
        let tls12 = self.suites.iter().filter_map(|name| TLS12.iter().find(|(known, _)| known == name));
        let cipher_suites = tls13.chain(tls12.map(|(_, suite)| *suite)).collect();
        Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(all) })
    }
}

/// The suites of a class.
fn members(class: &str) -> impl Iterator<Item = &'static str> {
    TLS12.iter().map(|(name, _)| *name).filter(move |name| is(name, class))
}

/// Whether a suite is of a class: its own name, or words joined by `+` that are all true of it.
fn is(name: &str, class: &str) -> bool {
    let word = |word: &str| match word {
        "ALL" | "DEFAULT" | "HIGH" | "COMPLEMENTOFDEFAULT" => true,
        "EECDH" | "ECDH" | "kECDHE" | "kEECDH" | "TLSv1.2" => true,
        "aRSA" => name.contains("-RSA-"),
        "aECDSA" => name.contains("-ECDSA-"),
        "AES" => name.contains("-AES"),
        "AESGCM" => name.contains("-GCM-"),
        word => name.split('-').any(|part| part == word),
    };
    name == class || class.split('+').all(word)
}

/// OpenSSL's name of a suite.
pub fn name(suite: CipherSuite) -> &'static str {
    if let Some((name, _)) = TLS12.iter().find(|(_, known)| known.suite() == suite) {
        return name;
    }
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_openssl_reads_them() {
        let read = |list: &str| {
            let ciphers = Ciphers::read(list);
            (ciphers.suites.join(" ").replace("ECDHE-", ""), ciphers.unknown.join(" "))
        };
        for (list, suites, unknown) in [
            (
                "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256",
                "RSA-AES256-GCM-SHA384 ECDSA-AES128-GCM-SHA256",
                "DHE-RSA-AES128-GCM-SHA256",
            ),
            ("HIGH:!aNULL:!MD5:!ECDSA:!AES128", "RSA-AES256-GCM-SHA384 RSA-CHACHA20-POLY1305", ""),
            (
                "ECDHE+CHACHA20:ECDHE+AESGCM:!AES256:!DHE",
                "ECDSA-CHACHA20-POLY1305 RSA-CHACHA20-POLY1305 ECDSA-AES128-GCM-SHA256 RSA-AES128-GCM-SHA256",
                "",
            ),
            ("AES128-SHA:@SECLEVEL=1", "", "AES128-SHA"),
        ] {
            assert_eq!(read(list), (suites.to_owned(), unknown.to_owned()), "{list}");
        }
        assert_eq!(Ciphers::read("ALL").provider().cipher_suites.len(), 9);
        assert_eq!(Ciphers::read("").provider().cipher_suites.len(), 3);
    }
}
