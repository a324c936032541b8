//! `POST /api/dataplane/heartbeat`: a data plane says who it is and is told its instance configuration.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use model::InstanceEnvelope;
use serde_json::json;

use super::{Service, instances::Heartbeat};

/// Where heartbeats are posted. API7's.
pub const PATH: &str = "/api/dataplane/heartbeat";
/// Bytes of a heartbeat: each is kept for minutes.
const LIMIT: usize = 16 * 1024;

/// What a heartbeat needs.
#[derive(Clone)]
pub struct Answerer {
    pub service: Service,
    pub group: std::sync::Arc<str>,
    pub instance: std::sync::Arc<InstanceEnvelope>,
}

pub fn router(answerer: Answerer) -> Router {
    Router::new().route(PATH, post(beat)).layer(DefaultBodyLimit::max(LIMIT)).with_state(answerer)
}

async fn beat(State(answerer): State<Answerer>, body: axum::body::Bytes) -> Response {
    let beat: Heartbeat = match serde_json::from_slice(&body) {
        Ok(beat) => beat,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, &format!("the heartbeat can't be read: {error}"));
        }
    };
    if beat.instance_id.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "the heartbeat has no `instance_id`");
    }
    if !beat.gateway_group.is_empty() && *beat.gateway_group != *answerer.group {
        let text = format!(
            "this control plane serves gateway group `{}`, not `{}`",
            answerer.group, beat.gateway_group
        );
        return refuse(StatusCode::NOT_FOUND, &text);
    }
    answerer.service.api.instances.beat(beat);
    Json(&*answerer.instance).into_response()
}

fn refuse(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error_msg": text }))).into_response()
}
