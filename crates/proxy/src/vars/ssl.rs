//! nginx's `ssl_*`: what a request's connection has settled by TLS.

use std::{borrow::Cow, fmt::Write as _};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{CertificateError, ProtocolVersion, pki_types::CertificateDer};
use x509_parser::{
    certificate::X509Certificate,
    objects::{oid_registry, oid2abbrev},
    prelude::FromDer as _,
    time::ASN1Time,
    x509::X509Name,
};

use crate::{
    ctx::Ctx,
    tls::{self, Peer},
};

macro_rules! ssl {
    ($($name:literal => $variant:ident,)*) => {
        /// A variable whose name begins with `ssl_`, without that.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Ssl { $($variant,)* }

        impl Ssl {
            pub fn parse(name: &str) -> Option<Self> {
                Some(match name { $($name => Self::$variant,)* _ => return None })
            }
        }
    };
}

ssl! {
    "alpn_protocol" => AlpnProtocol,
    "cipher" => Cipher,
    "client_cert" => ClientCert,
    "client_escaped_cert" => ClientEscapedCert,
    "client_fingerprint" => ClientFingerprint,
    "client_i_dn" => ClientIssuer,
    "client_i_dn_legacy" => ClientIssuerLegacy,
    "client_raw_cert" => ClientRawCert,
    "client_s_dn" => ClientSubject,
    "client_s_dn_legacy" => ClientSubjectLegacy,
    "client_serial" => ClientSerial,
    "client_v_end" => ClientEnd,
    "client_v_remain" => ClientRemain,
    "client_v_start" => ClientStart,
    "client_verify" => ClientVerify,
    "curve" => Curve,
    "protocol" => Protocol,
    "server_name" => ServerName,
    "session_reused" => SessionReused,
}

impl Ssl {
    pub fn read(self, ctx: &Ctx) -> Option<Cow<'_, str>> {
        let tls = ctx.tls.as_deref()?;
        Some(match self {
            Self::ServerName => tls.asked.as_deref()?.into(),
            Self::Protocol => protocol(tls.version?).into(),
            Self::Cipher => tls::cipher_name(tls.suite?).into(),
            Self::Curve => curve(tls.group?),
            Self::AlpnProtocol => String::from_utf8_lossy(tls.protocol.as_deref()?),
            Self::SessionReused => if tls.resumed { "r" } else { "." }.into(),
            Self::ClientVerify => match &tls.client {
                None => "NONE".into(),
                Some(Peer { verified: Ok(()), .. }) => "SUCCESS".into(),
                Some(Peer { verified: Err(error), .. }) => format!("FAILED:{}", reason(error)).into(),
            },
            of_client => of_client.read_certificate(&tls.client.as_ref()?.certificate)?.into(),
        })
    }

    fn read_certificate(self, der: &CertificateDer<'_>) -> Option<String> {
        match self {
            Self::ClientRawCert => return Some(pem(der)),
            // A header's value: what follows the first line is set in.
            Self::ClientCert => return Some(pem(der).trim_end().replace('\n', "\n\t")),
            Self::ClientEscapedCert => return Some(escaped(&pem(der))),
            Self::ClientFingerprint => {
                return Some(hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, der)));
            }
            _ => {}
        }
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let time = |time: ASN1Time| {
            let time = chrono::DateTime::from_timestamp(time.timestamp(), 0)?;
            Some(time.format("%b %e %H:%M:%S %Y GMT").to_string())
        };
        match self {
            Self::ClientSubject => Some(dn(certificate.subject())),
            Self::ClientIssuer => Some(dn(certificate.issuer())),
            Self::ClientSubjectLegacy => Some(legacy_dn(certificate.subject())),
            Self::ClientIssuerLegacy => Some(legacy_dn(certificate.issuer())),
            Self::ClientSerial => {
                Some(hex::encode_upper(certificate.raw_serial()).trim_start_matches("00").into())
            }
            Self::ClientStart => time(certificate.validity().not_before),
            Self::ClientEnd => time(certificate.validity().not_after),
            Self::ClientRemain => {
                let left = certificate.validity().not_after.timestamp() - chrono::Utc::now().timestamp();
                Some((left.max(0) / 86_400).to_string())
            }
            _ => None,
        }
    }
}

fn protocol(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "",
    }
}

/// OpenSSL's name of a group.
fn curve(group: rustls::NamedGroup) -> Cow<'static, str> {
    match group {
        rustls::NamedGroup::secp256r1 => "prime256v1".into(),
        other => other.as_str().map_or_else(|| format!("{:#06x}", u16::from(other)).into(), Into::into),
    }
}

/// OpenSSL's words.
fn reason(error: &CertificateError) -> Cow<'static, str> {
    match error {
        CertificateError::Expired => "certificate has expired".into(),
        CertificateError::NotValidYet => "certificate is not yet valid".into(),
        CertificateError::UnknownIssuer => "unable to get local issuer certificate".into(),
        CertificateError::BadSignature => "certificate signature failure".into(),
        other => other.to_string().into(),
    }
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = &*text;
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(64));
        let _ = writeln!(out, "{line}");
        rest = others;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// As a component of a URI.
fn escaped(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, PLAIN).to_string()
}

/// RFC 2253: the last part first.
fn dn(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let part = |rdn: &&x509_parser::x509::RelativeDistinguishedName<'_>| {
        let one = |(kind, value): (String, String)| format!("{kind}={}", escaped_2253(&value));
        rdn.iter().map(attribute).map(one).collect::<Vec<_>>().join("+")
    };
    rdns.iter().rev().map(part).collect::<Vec<_>>().join(",")
}

/// As OpenSSL once wrote it: `/C=CN/CN=client`.
fn legacy_dn(name: &X509Name<'_>) -> String {
    name.iter_attributes().map(attribute).fold(String::new(), |mut out, (kind, value)| {
        let _ = write!(out, "/{kind}={value}");
        out
    })
}

fn attribute(one: &x509_parser::x509::AttributeTypeAndValue<'_>) -> (String, String) {
    let oid = one.attr_type();
    let kind = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
    let value = one
        .as_str()
        .map_or_else(|_| String::from_utf8_lossy(one.attr_value().data).into_owned(), str::to_owned);
    (kind, value)
}

fn escaped_2253(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_rfc_2253_has_them() {
        assert_eq!(escaped_2253(" a, b+c\u{e9} "), "\\ a\\, b\\+c\\C3\\A9\\ ");
        assert_eq!(escaped_2253("#1"), "\\#1");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CountryName, "CN");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "a, b");
        params.distinguished_name.push(rcgen::DnType::CommonName, "client");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(dn(parsed.subject()), "CN=client,O=a\\, b,C=CN");
        assert_eq!(legacy_dn(parsed.issuer()), "/C=CN/O=a, b/CN=client");
        assert_eq!(pem(certificate.der()), certificate.pem().replace("\r\n", "\n"));
    }
}
