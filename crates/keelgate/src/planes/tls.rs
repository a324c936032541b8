//! TLS of our own listeners: the Admin API and the configuration API.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier, sign::SingleCertAndKey};

use crate::settings::{ServerTls, Settings};

/// Reads certificate, key and, for mTLS, the clients' CA.
pub fn server(tls: &ServerTls) -> anyhow::Result<Arc<ServerConfig>> {
    let (cert, key) = (read(&tls.cert)?, read(&tls.key)?);
    let pair = pki::certified_key(&cert, &key)
        .with_context(|| format!("{} and {}", tls.cert.display(), tls.key.display()))?;
    let provider = pki::provider();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(roots(file)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What plans make of `apisix.ssl`.
pub fn of_proxy(settings: &Settings) -> anyhow::Result<proxy::tls::Settings> {
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

/// Whom upstreams' certificates must come from: a file's, or the system's.
fn trusted(file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    if let Some(file) = file {
        return roots(file);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(roots)
}

fn roots(file: &Path) -> anyhow::Result<RootCertStore> {
    pki::roots(&read(file)?).with_context(|| file.display().to_string())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{}: it can't be read", file.display()))
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
