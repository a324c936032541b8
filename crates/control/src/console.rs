//! The console: one page on the Admin API's port that shows what is kept. It asks the Admin API with the reader's key.

use axum::{
    Router,
    response::{Html, Redirect},
    routing::get,
};

/// Serves the page at `/ui/`; it holds no data of its own.
pub fn router() -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/ui/") }))
        .route("/ui", get(|| async { Redirect::temporary("/ui/") }))
        .route("/ui/", get(|| async { Html(include_str!("console.html")) }))
}
