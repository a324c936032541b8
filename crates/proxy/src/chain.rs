//! A route's plugins, sorted by phase and priority, and how they are run.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    ctx::Ctx,
    plugin::{Flow, Phase},
};

/// Plugins sorted by phase and priority.
#[derive(Default)]
pub struct Chain {}

/// Plugins built for one place, by name.
pub type PluginSet = Arc<[()]>;

impl Chain {
    /// Whether no plugin has a hook in `phase`.
    pub fn is_empty(&self, _phase: Phase) -> bool {
        true
    }
}

/// Runs rewrite and access of the global rules and the route; a consumer's plugins join in between.
pub async fn on_request(_ctx: &mut Ctx) -> Flow {
    Flow::Next
}

/// Runs before_proxy.
pub async fn before_proxy(_ctx: &mut Ctx) -> Flow {
    Flow::Next
}

/// Runs header_filter on `ctx.response`.
pub fn header_filter(_ctx: &mut Ctx) {}

/// Runs body_filter; only where [`Ctx::filters_body`].
pub fn body_filter(_ctx: &mut Ctx, _chunk: &mut Bytes, _last: bool) {}

/// Runs log.
pub fn log(_ctx: &Ctx) {}
