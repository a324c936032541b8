//! TLS of our own listeners: the Admin API and the configuration API.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::settings::{ServerTls, Settings};

/// Reads certificate, key and, for mTLS, the clients' CA.
pub fn server(tls: &ServerTls) -> anyhow::Result<Arc<ServerConfig>> {
    let certificates = certificates(&tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("{}: it holds no private key in PEM", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(file)? {
                roots.add(certificate).with_context(|| format!("{}: it is no CA", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .with_context(|| format!("{} and {} don't belong together", tls.cert.display(), tls.key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whom upstreams' certificates must come from: `apisix.ssl.ssl_trusted_certificate`, or the system's.
pub fn trusted(settings: &Settings) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    match settings.proxy.as_ref().and_then(|proxy| proxy.trusted_certificate.as_deref()) {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).with_context(|| format!("{}: it is no CA", file.display()))?;
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
    }
    Ok(Arc::new(roots))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file)
        .with_context(|| format!("{}: it can't be read", file.display()))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{}: it is not PEM", file.display()))?;
    if certificates.is_empty() {
        bail!("{}: it holds no certificate", file.display());
    }
    Ok(certificates)
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
        let settings =
            ServerTls { cert: files.cert, key: files.key, client_ca: Some(ours.write(dir.path(), "ca")) };
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
