//! What tests of plugins need: a plugin built as the data plane builds it, and its hooks called one by one.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use model::{Resource, Snapshot, schema::Validator, secrets::Keyring};
use proxy::{
    chain,
    ctx::Ctx,
    lasting::Lasting,
    plan::{Catalog, Input, Plan, compile},
    plugin::{Env, Flow, Plugin, Reply, Step},
};
use serde_json::{Map, Value};

/// What a plugin is built with.
#[derive(Default)]
pub struct Lab {
    pub lasting: Lasting,
    pub attr: Value,
    pub metadata: Value,
}

impl Lab {
    /// Builds a plugin for `routes/1` from a configuration that is checked and has its defaults.
    pub fn build<P: Plugin>(&self, conf: Value) -> Result<P, String> {
        self.build_for("routes/1", conf)
    }

    /// Builds a plugin for any resource.
    pub fn build_for<P: Plugin>(&self, resource: &str, mut conf: Value) -> Result<P, String> {
        Validator::new(&P::schema())?.fill(&mut conf)?;
        let conf = serde_json::from_value(conf).map_err(|error| error.to_string())?;
        P::new(conf, &Env { lasting: &self.lasting, attr: &self.attr, metadata: &self.metadata, resource })
    }
}

/// A plugin in a configuration that fits it.
pub fn plugin<P: Plugin>(conf: Value) -> P {
    Lab::default().build(conf).unwrap()
}

/// Why a configuration is refused.
pub fn refused<P: Plugin>(conf: Value) -> String {
    match Lab::default().build::<P>(conf) {
        Ok(_) => panic!("it is not refused"),
        Err(reason) => reason,
    }
}

/// What a hook that never waits answers.
pub fn reply(step: Step<'_>) -> Option<Reply> {
    match step {
        Step::Done(Flow::Next) => None,
        Step::Done(Flow::Reply(reply)) => Some(reply),
        Step::Wait(_) => panic!("it waits"),
    }
}

/// The status and body of an answer.
pub fn told(step: Step<'_>) -> Option<(u16, String)> {
    reply(step).map(|reply| (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).unwrap()))
}

/// A data plane without its engine: resources, compiled, and requests that run through their plugins.
pub struct Gateway {
    plan: Arc<Plan>,
    _lasting: Lasting,
}

impl Gateway {
    /// All of these resources must be accepted.
    pub fn new(resources: &[(&str, Value)]) -> Self {
        let mut snapshot = Snapshot::default();
        for (key, value) in resources {
            let key = key.parse().unwrap();
            snapshot.put(Resource { key, value: value.to_string().into(), created: 1, modified: 1 });
        }
        let lasting = Lasting::default();
        let input = Input {
            snapshot,
            keyring: &Keyring::default(),
            catalog: &Catalog::new(crate::ALL).unwrap(),
            lasting: &lasting,
            attrs: &Map::new(),
            routing: proxy::router::Routing::default(),
            tls: &proxy::tls::Settings::default(),
            rebuild: true,
            news: Vec::new(),
        };
        let (plan, report) = compile(&input, None);
        assert!(report.rejected.is_empty(), "{:?}", report.rejected);
        Self { plan: Arc::new(plan), _lasting: lasting }
    }

    /// A request after rewrite and access, and what it was answered.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> (Ctx, Option<Reply>) {
        let example = Ctx::example(method, target, headers);
        let mut ctx = Ctx::new(self.plan.clone(), example.request, example.client, example.server);
        assert!(ctx.find_route());
        let flow = {
            let mut future = pin!(chain::on_request(&mut ctx));
            let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(flow) = polled else { panic!("it waits") };
            flow
        };
        match flow {
            Flow::Next => (ctx, None),
            Flow::Reply(reply) => (ctx, Some(reply)),
        }
    }
}
