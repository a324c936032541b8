//! Running the hooks of a request.
//!
//! The rule to know: an answer of the gateway's own ends rewrite and access; the phases of the response still run,
//! but those of the route only once its own hooks had their turn.

use std::sync::Arc;

use bytes::Bytes;

use super::{Chain, Fitted};
use crate::{
    ctx::Ctx,
    plugin::{Flow, Phase, Step},
};

/// Runs rewrite and access of the global rules and the route; a consumer's plugins join in between.
pub async fn on_request(ctx: &mut Ctx) -> Flow {
    if ctx.plan.global.has_no_hooks() && ctx.chain.has_no_hooks() {
        return Flow::Next;
    }
    if let reply @ Flow::Reply(_) = run(Source::Global, Phase::Rewrite, ctx).await {
        ctx.chain = Arc::clone(ctx.plan.no_plugins());
        return reply;
    }
    if let reply @ Flow::Reply(_) = run(Source::Route, Phase::Rewrite, ctx).await {
        return reply;
    }
    if let reply @ Flow::Reply(_) = join(ctx).await {
        return reply;
    }
    if let reply @ Flow::Reply(_) = run(Source::Global, Phase::Access, ctx).await {
        return reply;
    }
    run(Source::Route, Phase::Access, ctx).await
}

/// Runs preread of a session's route. Global rules are for requests.
pub async fn preread(ctx: &mut Ctx) -> Flow {
    run(Source::Route, Phase::Preread, ctx).await
}

/// Runs before_proxy: a node is chosen, nothing is sent yet.
pub async fn before_proxy(ctx: &mut Ctx) -> Flow {
    match run(Source::Global, Phase::BeforeProxy, ctx).await {
        Flow::Next => run(Source::Route, Phase::BeforeProxy, ctx).await,
        reply @ Flow::Reply(_) => reply,
    }
}

/// Runs header_filter on `ctx.response`.
pub fn header_filter(ctx: &mut Ctx) {
    each(Phase::HeaderFilter, ctx, |plugin, ctx| {
        if let Some(hooks) = plugin.hooks() {
            hooks.header_filter(ctx);
        }
    });
}

/// Runs body_filter. Called only where [`Ctx::filters_body`].
pub fn body_filter(ctx: &mut Ctx, chunk: &mut Bytes, last: bool) {
    each(Phase::BodyFilter, ctx, |plugin, ctx| {
        if let Some(hooks) = plugin.hooks() {
            hooks.body_filter(ctx, chunk, last);
        }
    });
}

/// Runs log: the response has been sent, or the client has gone, or the session is over.
pub fn log(ctx: &Ctx) {
    let sources = [Source::Global, Source::Route];
    // Global rules are for requests.
    for source in sources.into_iter().skip(usize::from(ctx.session.is_some())) {
        for plugin in source.chain(ctx).hooks(Phase::Log) {
            let filtered = ctx.filtered(plugin).or_else(|| plugin.admits(ctx)) == Some(false);
            if let (Some(hooks), false) = (plugin.hooks(), filtered || yields(plugin, source, ctx)) {
                hooks.log(ctx);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Global,
    Route,
}

impl Source {
    fn chain(self, ctx: &Ctx) -> &Arc<Chain> {
        match self {
            Self::Global => &ctx.plan.global,
            Self::Route => &ctx.chain,
        }
    }
}

async fn run(source: Source, phase: Phase, ctx: &mut Ctx) -> Flow {
    if source.chain(ctx).is_empty(phase) {
        return Flow::Next;
    }
    let chain = Arc::clone(source.chain(ctx));
    run_chain(&chain, source, phase, ctx).await
}

/// The consumer's plugins join: from here on they stand in the place of the route's.
async fn join(ctx: &mut Ctx) -> Flow {
    let Some(joined) = ctx.consumer.as_ref().and_then(|consumer| ctx.plan.join(&ctx.chain, consumer)) else {
        return Flow::Next;
    };
    ctx.chain = Arc::clone(&joined.chain);
    run_chain(&joined.newcomers, Source::Route, Phase::Rewrite, ctx).await
}

async fn run_chain(chain: &Chain, source: Source, phase: Phase, ctx: &mut Ctx) -> Flow {
    for plugin in chain.hooks(phase) {
        let Some(hooks) = plugin.hooks() else { continue };
        if !admitted(plugin, source, ctx) {
            continue;
        }
        let step = match phase {
            Phase::Preread => hooks.preread(ctx),
            Phase::Rewrite => hooks.rewrite(ctx),
            Phase::Access => hooks.access(ctx),
            Phase::BeforeProxy => hooks.before_proxy(ctx),
            Phase::HeaderFilter | Phase::BodyFilter | Phase::Log => Flow::Next.into(),
        };
        let flow = match step {
            Step::Done(flow) => flow,
            Step::Wait(future) => future.await,
        };
        if let Flow::Reply(mut reply) = flow {
            plugin.cover(&mut reply);
            return Flow::Reply(reply);
        }
    }
    Flow::Next
}

fn each(phase: Phase, ctx: &mut Ctx, mut hook: impl FnMut(&Fitted, &mut Ctx)) {
    for source in [Source::Global, Source::Route] {
        if source.chain(ctx).is_empty(phase) {
            continue;
        }
        let chain = Arc::clone(source.chain(ctx));
        for plugin in chain.hooks(phase) {
            if admitted(plugin, source, ctx) {
                hook(plugin, ctx);
            }
        }
    }
}

fn admitted(plugin: &Arc<Fitted>, source: Source, ctx: &mut Ctx) -> bool {
    ctx.admit(plugin) && !yields(plugin, source, ctx)
}

/// Whether the route's own plugin stands in the place of the global rule's.
fn yields(plugin: &Fitted, source: Source, ctx: &Ctx) -> bool {
    source == Source::Global && plugin.yields_to_routes() && ctx.chain.has(plugin.name())
}
