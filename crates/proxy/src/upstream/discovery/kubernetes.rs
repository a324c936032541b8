//! Kubernetes: `discovery.kubernetes`, one cluster or several.
//!
//! The rule to know: all endpoints are listed once, then watched. Whenever a watch breaks off they are listed anew,
//! and what was there stays until that has been done to its end.

mod endpoints;

use std::{
    env, fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::header;
use model::resource::Hidden;
use reqwest::{RequestBuilder, Response};
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Board,
    client::{self, Client, Pauses},
    config::Unusable,
};
use endpoints::{Object, Table};

/// What `discovery.kubernetes` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether it is a list: then services are named by cluster too.
    pub many: bool,
    pub clusters: Vec<Cluster>,
}

/// APISIX's keys and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default)]
    service: Service,
    #[serde(default, skip_serializing)]
    client: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace_selector: Option<NamespaceSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label_selector: Option<String>,
    /// Default: 50.
    #[serde(default = "fifty")]
    default_weight: u32,
    #[serde(default)]
    watch_endpoint_slices: bool,
    /// Has no meaning here: memory is not shared out beforehand.
    #[serde(default, skip_serializing)]
    shared_size: Option<Value>,
}

/// Where the API server is. `${NAME}` is an environment variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Service {
    schema: String,
    host: String,
    port: String,
    ssl_verify: bool,
}

impl Default for Service {
    fn default() -> Self {
        let [schema, host, port] =
            ["https", "${KUBERNETES_SERVICE_HOST}", "${KUBERNETES_SERVICE_PORT}"].map(str::to_owned);
        Self { schema, host, port, ssl_verify: false }
    }
}

/// Who we are. The token may also be `${NAME}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Identity {
    #[serde(default)]
    token: Option<Hidden>,
    /// Read before each connection: tokens are renewed. Default: that of the pod's service account.
    #[serde(default)]
    token_file: Option<String>,
}

/// Which namespaces' endpoints are wanted; one of them is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct NamespaceSelector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_equal: Option<String>,
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    matching: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_match: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Object>,
    metadata: ListMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continues: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CONNECT: Duration = Duration::from_secs(2);
/// For one page of the list.
const LIST: Duration = Duration::from_secs(30);
const PAGE: &str = "500";
/// How long a watch goes on before it is begun anew: the API server is asked to end it then.
const WATCH: Duration = Duration::from_secs(1800);
/// A watch that lasted so long was none of a row of failures.
const WHILE: Duration = Duration::from_secs(60);

impl Config {
    pub fn checked(self) -> Result<Self, Unusable> {
        let wrong = |key: &str, text: &str| Err(Unusable::new(format!("kubernetes.{key}"), text));
        let mut ids = Vec::new();
        for cluster in &self.clusters {
            if !["http", "https"].contains(&&*cluster.service.schema) {
                return wrong("service.schema", "it must be `http` or `https`");
            }
            if let Some(selector) = &cluster.namespace_selector {
                selector.patterns().map_err(|error| Unusable::new("kubernetes.namespace_selector", error))?;
            }
            if !self.many {
                continue;
            }
            match &cluster.id {
                Some(id) if !ids.contains(&id) && !id.is_empty() => ids.push(id),
                _ => return wrong("id", "each cluster of the list needs an id of its own"),
            }
            if cluster.client.token.is_none() && cluster.client.token_file.is_none() {
                return wrong("client", "one of [client.token,client.token_file] should be set but none");
            }
        }
        if self.clusters.is_empty() {
            return Err(Unusable::new("kubernetes", "the list of clusters is empty"));
        }
        Ok(self)
    }

    /// As APISIX's: services by namespace and name, their ports as a text.
    pub fn dump(&self, board: &Board) -> Value {
        let shown = self.clusters.iter().enumerate().map(|(at, cluster)| {
            let mut services: Map<String, Value> = Map::new();
            for (name, endpoints) in board.part(at) {
                let name = cluster
                    .id
                    .as_ref()
                    .filter(|_| self.many)
                    .and_then(|id| name.strip_prefix(&format!("{id}/")))
                    .unwrap_or(&name)
                    .to_owned();
                if let Some((service, port)) = name.rsplit_once(':') {
                    let ports = services.entry(service).or_insert_with(|| json!({}));
                    ports[port] = json!(endpoints);
                }
            }
            let services = services.into_iter();
            let endpoints: Vec<_> =
                services.map(|(name, ports)| json!({"name": name, "value": ports.to_string()})).collect();
            match &cluster.id {
                Some(id) if self.many => json!({"id": id, "endpoints": endpoints}),
                _ => json!({"endpoints": endpoints}),
            }
        });
        let config = if self.many { json!(self.clusters) } else { json!(self.clusters[0]) };
        json!({"config": config, "endpoints": shown.collect::<Vec<_>>()})
    }
}

impl Cluster {
    /// The API server's address, with what of it the environment says.
    fn server(&self) -> Result<String, String> {
        let Service { schema, host, port, .. } = &self.service;
        let (host, port) = (from_env(host)?, from_env(port)?);
        port.parse::<u16>().map_err(|_| format!("invalid port value: {port}"))?;
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        Ok(format!("{schema}://{host}:{port}"))
    }

    fn token(&self) -> Result<String, String> {
        if let Some(token) = &self.client.token {
            return Ok(from_env(token.reveal())?.trim().to_owned());
        }
        let file = from_env(self.client.token_file.as_deref().unwrap_or(TOKEN_FILE))?;
        let token = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        Ok(token.trim().to_owned())
    }

    fn path(&self) -> &'static str {
        if self.watch_endpoint_slices {
            "/apis/discovery.k8s.io/v1/endpointslices"
        } else {
            "/api/v1/endpoints"
        }
    }

    fn query(&self, client: &Client, more: &[(&str, &str)]) -> Result<RequestBuilder, String> {
        let url = format!("{}{}", self.server()?, self.path());
        let mut query = more.to_vec();
        let field = self.namespace_selector.as_ref().and_then(NamespaceSelector::field);
        if let Some(field) = &field {
            query.push(("fieldSelector", field));
        }
        if let Some(labels) = self.label_selector.as_deref().filter(|labels| !labels.is_empty()) {
            query.push(("labelSelector", labels));
        }
        let request = client.get(&url).query(&query).header(header::ACCEPT, "application/json");
        Ok(request.bearer_auth(self.token()?))
    }
}

impl NamespaceSelector {
    /// What the API server can select itself.
    fn field(&self) -> Option<String> {
        let equal = self.equal.as_ref().map(|name| format!("metadata.namespace={name}"));
        equal.or_else(|| self.not_equal.as_ref().map(|name| format!("metadata.namespace!={name}")))
    }

    /// What we must, and whether a match is wanted.
    fn patterns(&self) -> Result<Option<(bool, Vec<regex::Regex>)>, String> {
        let (wanted, patterns) = match (&self.matching, &self.not_match) {
            (Some(patterns), _) => (true, patterns),
            (None, Some(patterns)) => (false, patterns),
            (None, None) => return Ok(None),
        };
        let whole =
            |pattern: &String| regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|e| e.to_string());
        Ok(Some((wanted, patterns.iter().map(whole).collect::<Result<_, _>>()?)))
    }
}

/// Follows all clusters.
pub async fn run(conf: Config, board: Arc<Board>, roots: Arc<RootCertStore>) {
    let clusters = conf.clusters.iter().enumerate().map(|(at, cluster)| {
        let prefix = cluster.id.as_ref().filter(|_| conf.many).map(|id| format!("{id}/"));
        let (board, roots) = (&board, &roots);
        async move {
            let mut pauses = Pauses::new();
            loop {
                let began = Instant::now();
                let watched = watch(cluster, prefix.as_deref().unwrap_or(""), (board, at), roots).await;
                if watched.is_ok() || began.elapsed() > WHILE {
                    pauses = Pauses::new();
                }
                if let Err(error) = watched {
                    board.failed(at, &error);
                }
                pauses.pause().await;
            }
        }
    });
    join_all(clusters).await;
}

/// Lists and watches once, until the watch breaks off: that is no error, all is listed again.
async fn watch(
    cluster: &Cluster,
    prefix: &str,
    (board, at): (&Board, usize),
    roots: &Arc<RootCertStore>,
) -> Result<(), String> {
    let client = Client::new(CONNECT, cluster.service.ssl_verify.then_some(roots))?;
    let patterns = match &cluster.namespace_selector {
        Some(selector) => selector.patterns()?,
        None => None,
    };
    let mut table = Table::new(prefix, cluster.default_weight, patterns);
    let mut version = list(cluster, &client, &mut table).await?;
    board.publish(at, table.services());
    loop {
        let seconds = WATCH.as_secs().to_string();
        let query = cluster.query(
            &client,
            &[
                ("watch", "true"),
                ("allowWatchBookmarks", "true"),
                ("timeoutSeconds", &seconds),
                ("resourceVersion", &version),
            ],
        )?;
        let mut response = client::answer(query.timeout(WATCH + LIST)).await?;
        let mut lines = Lines::default();
        while let Some(line) = lines.next(&mut response).await? {
            let event: Event = serde_json::from_slice(&line)
                .map_err(|error| format!("an event is not understood: {error}"))?;
            if event.kind == "ERROR" {
                // 410: what was watched from is forgotten, and all is listed again.
                return if event.object["code"] == 410 {
                    Ok(())
                } else {
                    Err(format!("watching: {}", event.object["message"]))
                };
            }
            if let Some(newer) = event.object["metadata"]["resourceVersion"].as_str() {
                newer.clone_into(&mut version);
            }
            if event.kind != "BOOKMARK" {
                let object = Object::deserialize(&event.object)
                    .map_err(|error| format!("an object is not understood: {error}"))?;
                table.change(object, event.kind == "DELETED");
                if lines.is_empty() {
                    board.publish(at, table.services());
                }
            }
        }
        board.publish(at, table.services());
        if lines.cut {
            return Ok(());
        }
    }
}

/// Reads all there are, page by page. Gives the version to watch from.
async fn list(cluster: &Cluster, client: &Client, table: &mut Table) -> Result<String, String> {
    let mut next = String::new();
    loop {
        let mut query = vec![("limit", PAGE)];
        if !next.is_empty() {
            query.push(("continue", &next));
        }
        let (_, list) = client::json::<List>(cluster.query(client, &query)?, LIST).await?;
        for object in list.items {
            table.change(object, false);
        }
        match list.metadata.continues.filter(|next| !next.is_empty()) {
            Some(more) => next = more,
            None => return Ok(list.metadata.resource_version),
        }
    }
}

/// The lines of a response, as they come.
#[derive(Default)]
struct Lines {
    read: Vec<u8>,
    /// Whether the response broke off.
    cut: bool,
}

impl Lines {
    async fn next(&mut self, response: &mut Response) -> Result<Option<Vec<u8>>, String> {
        /// More than any object that etcd takes.
        const LONGEST: usize = 16 << 20;
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).collect::<Vec<_>>();
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.read.len() > LONGEST {
                return Err("an event has no end".to_owned());
            }
            match response.chunk().await {
                Ok(Some(chunk)) => self.read.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(error) => {
                    tracing::debug!(error = client::chain(&error), "a watch broke off");
                    self.cut = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Whether no whole line is left.
    fn is_empty(&self) -> bool {
        !self.read.contains(&b'\n')
    }
}

/// A text, or what the environment variable has that it names.
fn from_env(text: &str) -> Result<String, String> {
    match text.strip_prefix("${").and_then(|text| text.strip_suffix('}')) {
        Some(name) => env::var(name).map_err(|_| format!("not found environment variable {name}")),
        None => Ok(text.to_owned()),
    }
}

fn fifty() -> u32 {
    50
}
