//! Plugins for the tests of this crate, and a way to compile with them.

use std::sync::{Arc, LazyLock};

use http::{HeaderValue, StatusCode};
use model::{Key, Resource, Snapshot, secrets::Keyring};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    ctx::Ctx,
    lasting::Lasting,
    plan::{Catalog, Input, Plan, Report, compile},
    plugin::{ConsumerSide, Env, Flow, Hooks, Phase, Plugin, Reply, Spec, Step},
    router::Routing,
    stream::{Protocol, Session},
};

/// What ran, in order: `mark-a.access`.
#[derive(Default)]
pub struct Trace(pub Vec<String>);

impl Trace {
    pub fn of(ctx: &Ctx) -> Vec<&str> {
        ctx.kept::<Self>().into_iter().flat_map(|trace| trace.0.iter().map(String::as_str)).collect()
    }

    fn add(ctx: &mut Ctx, what: String) {
        match ctx.kept_mut::<Self>() {
            Some(trace) => trace.0.push(what),
            None => ctx.keep(Self(vec![what])),
        }
    }
}

/// Traces its phases under its label; answers where it is told to.
pub struct Mark<const PRIORITY: i32> {
    label: String,
    stop: Option<Phase>,
}

#[derive(Deserialize)]
pub struct MarkConf {
    label: String,
    #[serde(default)]
    stop_in: Option<String>,
    #[serde(default)]
    fail: bool,
}

impl<const PRIORITY: i32> Mark<PRIORITY> {
    fn step(&self, ctx: &mut Ctx, phase: Phase) -> Step<'_> {
        Trace::add(ctx, format!("{}.{phase:?}", self.label));
        if self.stop == Some(phase) {
            return Reply::message(StatusCode::FORBIDDEN, &self.label).into();
        }
        Step::Wait(Box::pin(async { Flow::Next }))
    }
}

impl<const PRIORITY: i32> Hooks for Mark<PRIORITY> {
    fn preread<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        self.step(ctx, Phase::Preread)
    }

    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        self.step(ctx, Phase::Rewrite)
    }

    fn access<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        self.step(ctx, Phase::Access)
    }

    fn header_filter(&self, ctx: &mut Ctx) {
        Trace::add(ctx, format!("{}.HeaderFilter", self.label));
        ctx.response.headers.append("marked", HeaderValue::from_str(&self.label).unwrap());
    }
}

impl<const PRIORITY: i32> Plugin for Mark<PRIORITY> {
    const NAME: &'static str = if PRIORITY > 100 { "mark-high" } else { "mark-low" };
    const PRIORITY: i32 = PRIORITY;
    const PHASES: &'static [Phase] = &[Phase::Preread, Phase::Rewrite, Phase::Access, Phase::HeaderFilter];
    const ON_STREAMS: bool = PRIORITY < 100;
    const PREFER_ROUTE: bool = PRIORITY > 100;
    const METADATA_SCHEMA: Option<fn() -> Value> = Some(|| json!({"type": "object"}));

    type Conf = MarkConf;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {"label": {"type": "string", "default": "default"}},
        })
    }

    fn new(conf: MarkConf, env: &Env<'_>) -> Result<Self, String> {
        if conf.fail {
            return Err("told to fail".to_owned());
        }
        let stop = match conf.stop_in.as_deref() {
            Some("preread") => Some(Phase::Preread),
            Some("rewrite") => Some(Phase::Rewrite),
            Some("access") => Some(Phase::Access),
            _ => None,
        };
        let label = env.metadata["label"].as_str().unwrap_or(&conf.label).to_owned();
        Ok(Self { label, stop })
    }
}

/// Knows consumers by the header `key`.
pub struct Auth;

#[derive(Deserialize)]
pub struct AuthConf {}

impl Hooks for Auth {
    fn rewrite<'a>(&'a self, ctx: &'a mut Ctx) -> Step<'a> {
        Trace::add(ctx, "auth.Rewrite".to_owned());
        let found = ctx.request.header("key").and_then(|key| ctx.find_consumer("auth", key));
        match found {
            Some(consumer) => {
                ctx.attach_consumer(consumer);
                Flow::Next.into()
            }
            None => Reply::message(StatusCode::UNAUTHORIZED, "who?").into(),
        }
    }
}

impl Plugin for Auth {
    const NAME: &'static str = "auth";
    const PRIORITY: i32 = 2500;
    const PHASES: &'static [Phase] = &[Phase::Rewrite];
    const SECRETS: &'static [&'static str] = &["key"];
    const CONSUMER: Option<ConsumerSide> = Some(ConsumerSide {
        schema: || json!({"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}),
        key: |conf| conf["key"].as_str(),
    });

    type Conf = AuthConf;

    fn schema() -> Value {
        json!({"type": "object"})
    }

    fn new(_conf: AuthConf, _env: &Env<'_>) -> Result<Self, String> {
        Ok(Self)
    }
}

static SPECS: [Spec; 3] = [Spec::of::<Auth>(), Spec::of::<Mark<1000>>(), Spec::of::<Mark<10>>()];
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    Catalog::new(&SPECS).unwrap().with_streams(SPECS.iter().filter(|spec| spec.on_streams)).unwrap()
});

/// A store in miniature: what is put is compiled.
#[derive(Default)]
pub struct Lab {
    pub snapshot: Snapshot,
    pub plan: Arc<Plan>,
    pub report: Report,
    pub lasting: Lasting,
    pub routing: Routing,
    pub keyring: Keyring,
}

impl Lab {
    /// With these resources, compiled at once.
    pub fn with(resources: &[(&str, Value)]) -> Self {
        let mut lab = Self::default();
        lab.change(resources);
        lab
    }

    /// Puts resources, or deletes those that are null, and compiles.
    pub fn change(&mut self, resources: &[(&str, Value)]) {
        for (key, value) in resources {
            let key: Key = key.parse().unwrap();
            if value.is_null() {
                self.snapshot.delete(&key);
            } else {
                self.snapshot.put(Resource { key, value: value.to_string().into(), created: 1, modified: 1 });
            }
        }
        self.compile(false);
    }

    pub fn compile(&mut self, rebuild: bool) {
        let input = Input {
            snapshot: self.snapshot.clone(),
            keyring: &self.keyring,
            catalog: &CATALOG,
            lasting: &self.lasting,
            attrs: &Map::new(),
            routing: self.routing,
            tls: &crate::tls::Settings::default(),
            rebuild,
            news: self.lasting.secrets.take_news(),
        };
        let (plan, report) = compile(&input, Some(&self.plan));
        (self.plan, self.report) = (Arc::new(plan), report);
    }

    /// A request for this plan, matched.
    pub fn request(&self, target: &str, headers: &[(&str, &str)]) -> Ctx {
        let example = Ctx::example("GET", target, headers);
        let mut ctx = Ctx::new(self.plan.clone(), example.request, example.client, example.server);
        ctx.find_route();
        ctx
    }

    /// A TCP session for this plan, matched.
    pub fn session(&self, client: &str, server: &str) -> Ctx {
        let server = server.parse().unwrap();
        let session = Session { protocol: Protocol::Tcp, route: None, listener: server };
        let mut ctx = Ctx::of_session(self.plan.clone(), session, client.parse().unwrap(), server);
        ctx.find_stream_route();
        ctx
    }

    /// What was refused: `routes/1: why`.
    pub fn refused(&self) -> Vec<String> {
        self.report.rejected.iter().map(|r| format!("{}: {}", r.key, r.reason)).collect()
    }
}

/// Runs a future that never waits for anything outside.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}
