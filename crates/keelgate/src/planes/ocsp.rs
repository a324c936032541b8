//! Asks the issuers of our certificates what they say of them: OCSP, over plain HTTP as its responders speak it.
//!
//! The rule to know: it runs beside everything else. Whatever becomes of it, no handshake waits.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use proxy::{engine::Shared, tls::Staple};
use tokio::{net::TcpStream, time};

/// How often to look whether something is due.
const EVERY: Duration = Duration::from_secs(1);
/// For one question and its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Answers are a few kilobytes.
const MOST: usize = 64 * 1024;

/// Asks what is due for the plan in force, until the data plane is gone.
pub async fn run(data: Weak<Shared>) {
    let mut clock = time::interval(EVERY);
    loop {
        clock.tick().await;
        let Some(data) = data.upgrade() else { return };
        for staple in data.plan.load().certificates.staples() {
            if staple.begin(SystemTime::now()) {
                tokio::spawn(refresh(Arc::clone(staple)));
            }
        }
    }
}

async fn refresh(staple: Arc<Staple>) {
    let asked = time::timeout(PATIENCE, ask(&staple)).await;
    let now = SystemTime::now();
    let outcome = match asked {
        Ok(Ok(response)) => staple.answer(response, now),
        Ok(Err(error)) => {
            staple.fail(now);
            Err(format!("{error:#}"))
        }
        Err(_) => {
            staple.fail(now);
            Err(format!("no answer within {} s", PATIENCE.as_secs()))
        }
    };
    if let Err(reason) = outcome {
        tracing::warn!(responder = staple.url, reason, "no fresh OCSP response to staple");
    }
}

async fn ask(staple: &Staple) -> anyhow::Result<Vec<u8>> {
    let url: Uri = staple.url.parse().context("the responder's URL")?;
    let host = url.host().context("the responder's URL has no host")?;
    let address = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.context("the responder can't be reached")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, url.authority().map_or(host, |authority| authority.as_str()))
        .header(header::CONTENT_TYPE, "application/ocsp-request")
        .body(Full::new(Bytes::from(staple.request.clone())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status.is_success(), "the responder answers {status}");
    let body = Limited::new(response.into_body(), MOST).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes().to_vec())
}
