//! Certificates and keys that the settings name: of our own listeners, of the proxy, towards etcd.
//!
//! The rule to know: what can't be used is told by the key that names it.

use std::{path::Path, sync::Arc};

use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier, sign::SingleCertAndKey};

use crate::settings::{EtcdSettings, Problem, ServerTls, Settings, SourceFrom, StoreSettings};

const TRUSTED: &str = "apisix.ssl.ssl_trusted_certificate";

/// Reads certificate, key and, for mTLS, the clients' CA.
pub fn server(tls: &ServerTls) -> Result<Arc<ServerConfig>, Problem> {
    let [cert, key, client_ca] = tls.keys;
    let pair = pair((cert, &tls.cert), (key, &tls.key))?;
    let provider = pki::provider();
    let unusable = |error: &dyn std::fmt::Display| Problem::new(cert, error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(roots(client_ca, file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
            let verifier = verifier.map_err(|error| Problem::new(client_ca, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What plans make of `apisix.ssl`.
pub fn of_proxy(settings: &Settings) -> Result<proxy::tls::Settings, Problem> {
    let Some(proxy) = &settings.proxy else { return Ok(proxy::tls::Settings::default()) };
    let speaks = |version: &str| proxy.ssl_protocols.iter().any(|known| known == version);
    Ok(proxy::tls::Settings {
        tls12: speaks("TLSv1.2"),
        tls13: speaks("TLSv1.3"),
        provider: proxy.ssl_ciphers.provider(),
        tickets: proxy.ssl_session_tickets,
        roots: Arc::new(trusted(proxy.trusted_certificate.as_deref())?),
    })
}

/// Whom etcd or a control plane must be vouched for by, and who we are to it.
pub fn check_etcd(settings: &Settings) -> Result<(), Problem> {
    let store = settings.store.as_ref().and_then(|store| match store {
        StoreSettings::Etcd(etcd) => Some(etcd),
        _ => None,
    });
    let source = settings.source.as_ref().and_then(|source| match &source.from {
        SourceFrom::Etcd(etcd) => Some(etcd),
        _ => None,
    });
    let Some(EtcdSettings { ca, identity, .. }) = store.or(source) else { return Ok(()) };
    if let Some(ca) = ca {
        roots(TRUSTED, ca)?;
    }
    if let Some((cert, key)) = identity {
        pair(("deployment.etcd.tls.cert", cert), ("deployment.etcd.tls.key", key))?;
    }
    Ok(())
}

/// Whom upstreams' certificates must come from: a file's, or the system's.
fn trusted(file: Option<&Path>) -> Result<RootCertStore, Problem> {
    if let Some(file) = file {
        return roots(TRUSTED, file);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(roots)
}

/// A certificate and its key, each with the key of the settings that names it.
fn pair(cert: (&str, &Path), key: (&str, &Path)) -> Result<rustls::sign::CertifiedKey, Problem> {
    let read = [read(cert.0, cert.1)?, read(key.0, key.1)?];
    pki::certified_key(&read[0], &read[1]).map_err(|bad| {
        let (name, file) = match bad {
            pki::Bad::Key | pki::Bad::Mismatch => key,
            pki::Bad::Certificate | pki::Bad::Version1 | pki::Bad::Unusable(_) => cert,
        };
        Problem::new(name, format!("{}: {bad}", file.display()))
    })
}

fn roots(key: &str, file: &Path) -> Result<RootCertStore, Problem> {
    pki::roots(&read(key, file)?).map_err(|bad| Problem::new(key, format!("{}: {bad}", file.display())))
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(file)
        .map_err(|error| Problem::new(key, format!("{} can't be read: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use testkit::{
        certs::{Ca, Pair},
        http::{Client, Options},
    };

    use super::*;
    use crate::server::{Server, Site};

    /// What a client with this certificate gets.
    async fn ask(server: &Server, ca: &Ca, client: Option<Pair>, http2: bool) -> anyhow::Result<String> {
        let options = Options { http2, ca: Some(ca.pem()), client, ..Options::default() };
        let mut client =
            Client::connect_with(&format!("https://127.0.0.1:{}", server.address().port()), &options).await?;
        Ok(client.get("/").await?.text())
    }

    #[tokio::test]
    async fn data_planes_show_a_certificate_of_the_ca_that_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, foreign) = (Ca::new("ours"), Ca::new("foreign"));
        let files = ours.server(&["127.0.0.1"]).write(dir.path(), "server");
        let client_ca = Some(ours.write(dir.path(), "ca"));
        let settings =
            ServerTls { cert: files.cert, key: files.key, client_ca, keys: ["cert", "key", "client_ca"] };
        let site = |settings: &ServerTls| Site {
            router: Router::new().route("/", get(|| async { "yes" })),
            tls: Some(server(settings).unwrap()),
        };
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, site(&settings)).unwrap();
        for http2 in [false, true] {
            let answer = ask(&server, &ours, Some(ours.client("dp")), http2).await.unwrap();
            assert_eq!(answer, "yes");
            ask(&server, &ours, None, http2).await.expect_err("a client without certificate");
            ask(&server, &ours, Some(foreign.client("dp")), http2).await.expect_err("another CA's client");
            let for_servers = Some(ours.server(&["dp"]));
            ask(&server, &ours, for_servers, http2).await.expect_err("a server's certificate");
        }
        // A reload that trusts another CA counts from the next connection on.
        server.replace(site(&ServerTls { client_ca: Some(foreign.write(dir.path(), "other")), ..settings }));
        ask(&server, &ours, Some(ours.client("dp")), true).await.expect_err("the CA of before");
        assert_eq!(ask(&server, &ours, Some(foreign.client("dp")), true).await.unwrap(), "yes");
    }
}
