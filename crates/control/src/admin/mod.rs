//! The Admin API, version 3, as Apache APISIX has it: every kind of resource through one handler.
//!
//! The rule to know: a request passes address, key, group and body, in this order, before anything looks at what
//! it asks for; every answer leaves through [`Admin::dress`].

mod answer;
mod auth;
mod call;
mod cjson;
mod conf;
mod configs;
mod frozen;
mod group;
mod list;
mod openapi;
mod patch;
mod place;
mod plugins;
mod proto;
mod references;
mod resource;
mod rules;
mod schema;
mod shared_limits;
mod ssl;
#[cfg(test)]
mod tests;
mod unique;
mod v2;
mod validate;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use ipnet::IpNet;
use model::{Kind, PluginFacts, secrets::Keyring};
use serde_json::Value;
use store::Store;

use answer::{Answer, Outcome};
use call::Args;
use group::Group;
use place::Place;
use resource::Handler;
use rules::Rules;

pub use auth::{AdminKey, Role};
pub use call::MAX_BODY;
pub use frozen::Current;

/// The version of Apache APISIX whose Admin API this is, told in `Server`.
pub const COMPATIBLE_WITH: &str = "APISIX/3.18.0";

/// The shapes of answers about resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    V3,
    V2,
}

/// Says why a data plane could not serve a resource, in plain text, whatever it refers to.
pub type Serves = Arc<dyn Fn(Kind, &Value) -> Result<(), String> + Send + Sync>;

/// Has the process read its settings again. The error says why they were not taken.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// `deployment.admin` of `config.yaml`, and what the API works on.
#[derive(Clone)]
pub struct Config {
    pub keys: Vec<AdminKey>,
    /// Without it everyone who is let in by address may do everything.
    pub key_required: bool,
    /// `allow_admin`; empty lets every address in.
    pub allow: Vec<IpNet>,
    /// `enable_admin_cors`.
    pub cors: bool,
    /// `enable_server_tokens`: tell the version in `Server`.
    pub server_tokens: bool,
    /// `admin_api_version`.
    pub version: Version,
    /// APISIX's API-driven mode: nothing is written but whole configurations.
    pub whole_only: bool,
    /// Whether the gateway proxies TCP and UDP; without it stream routes are refused.
    pub stream: bool,
    /// The store of each gateway group.
    pub groups: BTreeMap<String, Arc<dyn Store>>,
    /// The group meant where a request names none.
    pub default_group: String,
    pub plugins: &'static [PluginFacts],
    /// Those that stream routes may have.
    pub stream_plugins: &'static [PluginFacts],
    pub keyring: Arc<Keyring>,
    pub serves: Serves,
    pub reload: Reload,
    /// etcd's key prefix, which keys have in answers.
    pub prefix: Arc<str>,
}

impl Config {
    /// APISIX's defaults for one group named `default`: a key is required, and there is none yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            keys: vec![],
            key_required: true,
            allow: vec![],
            cors: true,
            server_tokens: true,
            version: Version::V3,
            whole_only: false,
            stream: false,
            groups: [("default".to_owned(), store)].into(),
            default_group: "default".to_owned(),
            plugins: &[],
            stream_plugins: &[],
            keyring: Arc::default(),
            serves: Arc::new(|_, _| Ok(())),
            reload: Arc::new(|| Box::pin(async { Ok(()) })),
            prefix: "/apisix".into(),
        }
    }
}

/// The Admin API. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: without a peer's address
/// `allow_admin` lets nobody in.
///
/// The error names a plugin whose schema is at fault.
pub fn router(config: Config) -> Result<Router, String> {
    Ok(serving(Admin::new(config, None)?))
}

/// The Admin API of a node that takes its configuration from elsewhere: reads show the snapshot in use, every
/// write is answered 403 with `reason`.
pub fn read_only_router(
    mut config: Config,
    reason: impl Into<String>,
    current: Option<Current>,
) -> Result<Router, String> {
    let name = "this node's configuration".to_owned();
    let current = current.unwrap_or_else(|| Arc::new(model::Snapshot::default));
    let frozen: Arc<dyn Store> = Arc::new(frozen::Frozen { current, name });
    config.groups = BTreeMap::from([(config.default_group.clone(), frozen)]);
    Ok(serving(Admin::new(config, Some(reason.into()))?))
}

fn serving(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    // Which paths are meant is seen once they are read as nginx reads them.
    Router::new().fallback(handle).with_state(admin)
}

async fn handle(State(admin): State<Arc<Admin>>, request: Request) -> Response {
    let (method, asked) = (request.method().clone(), request.uri().path().to_owned());
    let Some(segments) = call::segments(&asked) else { return StatusCode::NOT_FOUND.into_response() };
    let mut response = match admin.serve(request, segments).await {
        Ok(answer) | Err(answer) => answer.into_response(),
    };
    tracing::debug!(%method, path = asked, status = response.status().as_u16(), "admin request");
    admin.dress(&method, &mut response);
    response
}

/// Everything a request needs.
struct Admin {
    config: Config,
    rules: Rules,
    groups: BTreeMap<String, Group>,
    /// Why nothing may be written here.
    read_only: Option<String>,
}

impl Admin {
    fn new(config: Config, read_only: Option<String>) -> Result<Self, String> {
        let rules = Rules::new(&config)?;
        let groups = config.groups.iter().map(|(name, store)| (name.clone(), Group::new(store.clone())));
        Ok(Self { rules, groups: groups.collect(), config, read_only })
    }

    async fn serve(&self, request: Request, segments: Vec<String>) -> Outcome {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        auth::check_address(&self.config.allow, peer)?;
        let whole = segments.len() == 1 && segments[0] == "configs";
        match parts.method {
            Method::OPTIONS if self.config.cors => return Ok(Answer::empty(StatusCode::OK)),
            Method::HEAD if segments.is_empty() => return Ok(Answer::empty(StatusCode::OK)),
            Method::GET | Method::PUT | Method::POST | Method::DELETE | Method::PATCH => {}
            Method::HEAD if whole => {}
            _ => return Err(Answer::no_such_path()),
        }
        let args = Args::of(&parts.uri);
        if self.config.key_required {
            auth::check_key(&self.config.keys, &parts.method, &parts.headers, &args)?;
        }
        let group = self.group(&args)?;
        if let Some(reason) =
            self.read_only.as_ref().filter(|_| ![Method::GET, Method::HEAD].contains(&parts.method))
        {
            return Err(Answer::refusal(StatusCode::FORBIDDEN, reason));
        }
        let largest = if whole { call::MAX_WHOLE } else { MAX_BODY };
        let body = call::bytes(&parts.headers, body, largest).await?;
        self.dispatch(group, &parts.method, &segments, &args, (&parts.headers, &body)).await
    }

    /// Finds who answers for a path.
    async fn dispatch(
        &self,
        group: &Group,
        method: &Method,
        segments: &[String],
        args: &Args,
        (headers, body): (&HeaderMap, &[u8]),
    ) -> Outcome {
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (method, names.as_slice()) {
            (&Method::GET, ["plugins", "list"]) => plugins::list(&self.rules, args),
            (_, ["plugins", "reload"]) => plugins::reload(method, &self.config.reload).await,
            (&Method::GET, ["plugins", rest @ ..] | ["schema", "plugins", rest @ ..]) => {
                plugins::get(&self.rules, rest.first().copied(), args)
            }
            (&Method::POST, ["schema", "validate", kind]) => {
                schema::validate(&self.rules, kind, call::json_body(body)?)
            }
            (&Method::GET, ["schema", name]) => schema::get(&self.rules, name),
            (&Method::GET, ["openapi.json"]) => Ok(Answer::ok(openapi::document(&self.rules))),
            (&Method::POST, ["configs", "validate"]) => validate::answer(&self.rules, headers, body),
            (&Method::HEAD | &Method::GET, ["configs"]) => configs::get(group, &self.rules, headers).await,
            (&Method::PUT, ["configs"]) => configs::put(group, &self.rules, headers, body).await,
            (_, ["plugins" | "schema" | "configs", ..]) => Err(Answer::no_such_path()),
            _ if self.config.whole_only && *method != Method::GET => Err(Answer::no_such_path()),
            _ => {
                let place = self.place(segments)?;
                let body = call::json_body(body)?;
                args.ttl()?;
                let folder = format!("{}/{}", self.config.prefix, place.folder());
                let answer = Handler { group, rules: &self.rules, place, args }.answer(method, body).await?;
                Ok(match self.config.version {
                    Version::V3 => answer,
                    Version::V2 => v2::reshape(method, &folder, answer),
                })
            }
        }
    }

    fn place(&self, segments: &[String]) -> Result<Place, Answer> {
        let Some(place) = Place::read(segments) else {
            let name = segments.first().map_or("", String::as_str);
            return Err(Answer::refusal(StatusCode::NOT_FOUND, format!("Unsupported resource type: {name}")));
        };
        if place.kind == Kind::StreamRoutes && !self.config.stream {
            return Err(Answer::bad("stream mode is disabled, can not add stream routes"));
        }
        Ok(place)
    }

    /// The group the request names, or the default one.
    fn group(&self, args: &Args) -> Result<&Group, Answer> {
        let given = args.get("gateway_group_id").filter(|name| !name.is_empty());
        let name = given.unwrap_or(&self.config.default_group);
        let unknown =
            || Answer::refusal(StatusCode::NOT_FOUND, format!("gateway group [{name}] does not exist here"));
        self.groups.get(name).ok_or_else(unknown)
    }

    /// The headers every answer has.
    fn dress(&self, method: &Method, response: &mut Response) {
        let let_in = !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let headers = response.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::SERVER, if self.config.server_tokens { COMPATIBLE_WITH } else { "APISIX" });
        if let_in {
            let version = if self.config.version == Version::V2 { "v2" } else { "v3" };
            set(header::HeaderName::from_static("x-api-version"), version);
        }
        if !self.config.cors {
            return;
        }
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        set(header::ACCESS_CONTROL_MAX_AGE, "3600");
        if *method == Method::OPTIONS {
            set(header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, PUT, OPTIONS, DELETE, PATCH");
            set(header::ACCESS_CONTROL_ALLOW_HEADERS, "*");
            set(header::CONTENT_TYPE, "text/plain");
        } else {
            set(header::ACCESS_CONTROL_EXPOSE_HEADERS, "*");
        }
    }
}
