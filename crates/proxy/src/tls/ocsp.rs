//! OCSP stapling: what a certificate's issuer says of it, shown along with it.
//!
//! The rule to know: no handshake waits for it. Somebody with a network asks for what [`Staple::begin`] says is due;
//! until there is an answer, and once the last good one has run out, the certificate is shown alone.

mod response;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use model::resource::OcspStapling;
use rustls::sign::CertifiedKey;
use x509_cert::{
    Certificate,
    der::{
        Decode as _, Encode as _, Error,
        asn1::{Null, ObjectIdentifier, OctetString},
        oid::db::{rfc5280::ID_AD_OCSP, rfc5912::ID_SHA_1},
    },
    ext::pkix::{AuthorityInfoAccessSyntax, name::GeneralName},
    spki::AlgorithmIdentifierOwned,
};
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest};

use crate::lasting::Lasting;

/// One certificate's word from its issuer. Outlives plans, so that no change of configuration asks again.
pub struct Staple {
    /// Where to ask: an `http:` URL.
    pub url: String,
    /// What to ask there, as `application/ocsp-request`.
    pub request: Vec<u8>,
    plain: Arc<CertifiedKey>,
    id: CertId,
    issuer: Vec<u8>,
    /// Whether the answer is shown as it is.
    unchecked: bool,
    /// How long an answer will do.
    life: Duration,
    stapled: ArcSwapOption<Stapled>,
    asking: Mutex<Asking>,
}

/// A certificate with an answer.
struct Stapled {
    key: Arc<CertifiedKey>,
    /// Not shown from then on.
    until: Option<SystemTime>,
}

#[derive(Default)]
struct Asking {
    /// None: never asked.
    due: Option<SystemTime>,
    /// In a row.
    failures: u32,
}

impl Staple {
    /// Gives the one there is already for this certificate, or a new one. The error says why there can be none.
    pub fn new(key: &Arc<CertifiedKey>, conf: &OcspStapling, lasting: &Lasting) -> Result<Arc<Self>, String> {
        let [own, issuer, ..] = &*key.cert else {
            return Err("the issuer's certificate does not follow the certificate".to_owned());
        };
        let mut terms = Context::new(&SHA256);
        for part in [own, issuer] {
            terms.update(part);
        }
        terms.update(format!("{conf:?}").as_bytes());
        let name = format!("ocsp/{}", hex::encode(terms.finish()));
        if let Some(known) = lasting.get(&name) {
            return Ok(known);
        }
        let parse = |der| Certificate::from_der(der).map_err(|error| error.to_string());
        let (parsed, parsed_issuer) = (parse(own)?, parse(issuer)?);
        let id = cert_id(&parsed, &parsed_issuer).map_err(|error| error.to_string())?;
        let staple = Self {
            url: responder(&parsed).ok_or("the certificate names no OCSP responder with an http: URL")?,
            request: request(&id).map_err(|error| error.to_string())?,
            plain: Arc::clone(key),
            id,
            issuer: issuer.to_vec(),
            unchecked: conf.skip_verify,
            life: Duration::from_secs(conf.cache_ttl),
            stapled: ArcSwapOption::empty(),
            asking: Mutex::default(),
        };
        Ok(lasting.get_or(&name, || staple))
    }

    /// The certificate with its answer, where there is a good one.
    pub fn show(&self) -> Option<Arc<CertifiedKey>> {
        let stapled = self.stapled.load();
        let stapled = stapled.as_ref()?;
        let over = stapled.until.is_some_and(|until| until <= SystemTime::now());
        (!over).then(|| Arc::clone(&stapled.key))
    }

    /// Whether it is time to ask. Who hears yes asks, and tells [`Staple::answer`] or [`Staple::fail`].
    pub fn begin(&self, now: SystemTime) -> bool {
        /// For whoever asks to come back with an answer or a failure.
        const UNDER_WAY: Duration = Duration::from_secs(60);
        let mut asking = self.asking();
        let due = asking.due.is_none_or(|due| due <= now);
        if due {
            asking.due = Some(now + UNDER_WAY);
        }
        due
    }

    /// Takes what the responder has said.
    pub fn answer(&self, response: Vec<u8>, now: SystemTime) -> Result<(), String> {
        let checked = response::check(&response, &self.id, &self.issuer, now);
        let until = match checked {
            Ok(until) => until,
            Err(error) if self.unchecked && !error.is_no_answer() => None,
            Err(response::Bad::NotGood(status)) => {
                // What was good before is so no more.
                self.stapled.store(None);
                self.fail(now);
                return Err(format!("certificate status \"{status}\" in the OCSP response"));
            }
            Err(error) => {
                self.fail(now);
                return Err(error.to_string());
            }
        };
        let key = CertifiedKey { ocsp: Some(response), ..CertifiedKey::clone(&self.plain) };
        self.stapled.store(Some(Arc::new(Stapled { key: Arc::new(key), until })));
        // Well before it runs out, so that there is time to ask again.
        let left = until.and_then(|until| until.duration_since(now).ok()).map(|left| left / 2);
        *self.asking() = Asking { due: Some(now + left.unwrap_or(self.life).min(self.life)), failures: 0 };
        Ok(())
    }

    /// There was no answer. The last good one stays.
    pub fn fail(&self, now: SystemTime) {
        const FIRST: Duration = Duration::from_secs(5);
        const MOST: Duration = Duration::from_secs(300);
        let mut asking = self.asking();
        asking.due = Some(now + (FIRST * 2_u32.pow(asking.failures.min(10))).min(MOST));
        asking.failures += 1;
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Staple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staple").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Where the certificate says to ask.
fn responder(certificate: &Certificate) -> Option<String> {
    let (_, access): (_, AuthorityInfoAccessSyntax) = certificate.tbs_certificate.get().ok()??;
    access.0.iter().find_map(|one| match &one.access_location {
        GeneralName::UniformResourceIdentifier(url)
            if one.access_method == ID_AD_OCSP && url.as_str().starts_with("http://") =>
        {
            Some(url.to_string())
        }
        _ => None,
    })
}

/// By SHA-1, the one hash that every responder knows.
fn cert_id(certificate: &Certificate, issuer: &Certificate) -> Result<CertId, Error> {
    const SHA1: ObjectIdentifier = ID_SHA_1;
    let hash = |bytes: &[u8]| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    let issuer = &issuer.tbs_certificate;
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Null.into()) },
        issuer_name_hash: hash(&issuer.subject.to_der()?)?,
        issuer_key_hash: hash(issuer.subject_public_key_info.subject_public_key.raw_bytes())?,
        serial_number: certificate.tbs_certificate.serial_number.clone(),
    })
}

fn request(id: &CertId) -> Result<Vec<u8>, Error> {
    let one = Request { req_cert: id.clone(), single_request_extensions: None };
    let tbs_request = TbsRequest { request_list: vec![one], ..TbsRequest::default() };
    OcspRequest { tbs_request, optional_signature: None }.to_der()
}
