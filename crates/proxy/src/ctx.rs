//! One request on its way, as plugins see it.
//!
//! The rule to know: plugins change `request` before it is sent to the upstream and `response` in header_filter.
//! What they change of where it goes (`upstream`, `upstream_host`, `request.upstream_target`) never changes how it
//! was matched.

mod consumer;
mod head;
mod path;

use std::{
    any::Any,
    borrow::Cow,
    cell::{Cell, OnceCell},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

pub use consumer::Consumer;
pub use head::{RequestHead, ResponseHead};
pub(crate) use head::{host_name, length_of};
pub use path::{BadTarget, PathRules, normalize};

use crate::{
    chain::{Chain, Fitted},
    metrics::Counting,
    plan::{Plan, Route, Service},
    plugin::Extension,
    router::{MatchedBy, Params, Query},
    stream::{self, Session},
    tls::Handshake,
    upstream::{Chosen, Held, Node, Timeouts, Upstream, health::Watched},
    vars::{Var, body},
};

/// One request, or one TCP or UDP session, on its way.
pub struct Ctx {
    /// Of a session nothing: see [`Ctx::session`].
    pub request: RequestHead,
    pub response: ResponseHead,
    /// Response headers that plugins set before there is a response: they join it before header_filter, whoever
    /// makes it.
    pub preset: HeaderMap,
    /// The client, as the proxies before us say if they are ours.
    pub client: SocketAddr,
    /// Whoever is at the other end of the connection.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub server: SocketAddr,
    pub started: Instant,
    /// What the connection's TLS handshake has settled; none without TLS.
    pub tls: Option<Arc<Handshake>>,
    /// The configuration this request is served by, from start to finish.
    pub plan: Arc<Plan>,
    /// Set for TCP and UDP: what there is in the place of a request.
    pub session: Option<Box<Session>>,
    /// None before [`Ctx::find_route`], and where no route matches.
    pub route: Option<Arc<Route>>,
    /// The route's plugins; once a consumer is known, merged with that consumer's.
    pub chain: Arc<Chain>,
    /// Named segments of the route's URI.
    pub params: Params,
    pub consumer: Option<Arc<Consumer>>,
    /// Where the request goes: the route's, unless a plugin chose another.
    pub upstream: Option<Arc<Upstream>>,
    /// What upstreams that are passed the client's `Host` get in its place, where a plugin set it.
    pub upstream_host: Option<HeaderValue>,
    /// Name and password for brokers, where a plugin set them.
    pub sasl: Option<Box<(String, String)>>,
    /// The nodes tried, the last one last.
    pub attempts: SmallVec<[Attempt; 1]>,
    pub transfer: Transfer,
    /// The request body, where a plugin had it read whole.
    pub body: Option<Bytes>,
    /// What variables want of the body.
    pub(crate) inquiry: body::Inquiry,
    /// APISIX's `$apisix_request_id`, where a plugin gave one; else it is the random one.
    pub request_id: Option<String>,
    random_id: OnceCell<Box<str>>,
    /// Which connection since the process began, and which request of it: nginx's `$connection` and
    /// `$connection_requests`. Zero where that is not counted.
    pub connection: (u64, u32),
    pub extensions: SmallVec<[Extension; 2]>,
    vars: Vec<(&'static str, String)>,
    matched: MatchedBy,
    /// What `_meta.filter` said, by plugin: it is asked once, so that a plugin runs in all its phases or in none.
    filtered: SmallVec<[(usize, bool); 2]>,
    filter_body: bool,
    counted: Cell<Option<Counting>>,
}

/// One node tried for a request.
pub struct Attempt {
    pub node: Arc<Node>,
    /// Where the connection leads, once it is known.
    pub address: Option<SocketAddr>,
    /// None: no answer came.
    pub status: Option<StatusCode>,
    /// What nginx says in the place of an answer that did not come.
    pub failure: Option<StatusCode>,
    /// From the beginning of this attempt.
    pub connected: Option<Duration>,
    pub header: Option<Duration>,
    pub finished: Option<Duration>,
    /// Bytes received from the node.
    pub received: u64,
    /// Those of them that plugins took in as the body.
    pub(crate) filtered: u64,
    /// The length of the head that was sent to the node; 0 where that is not known.
    pub(crate) head_sent: u64,
    held: Option<Held>,
    watched: Option<Watched>,
}

impl Attempt {
    pub fn new(chosen: impl Into<Chosen>) -> Self {
        let Chosen { node, held, watched } = chosen.into();
        Self {
            address: node.address,
            node,
            status: None,
            failure: None,
            connected: None,
            header: None,
            finished: None,
            received: 0,
            filtered: 0,
            head_sent: 0,
            held,
            watched,
        }
    }

    /// It came to nothing; `status` says how: 504 if it took too long.
    pub(crate) fn fail(&mut self, status: StatusCode) {
        self.failure = Some(status);
        if let Some(held) = self.held.take() {
            held.failed(self.finished.unwrap_or_default());
        }
        if let Some(watched) = &self.watched {
            watched.failed(status == StatusCode::GATEWAY_TIMEOUT);
        }
    }

    /// The request is over, and its client was given this status.
    pub(crate) fn finish(&mut self, status: StatusCode) {
        if let (Some(held), Some(took)) = (&self.held, self.finished) {
            // The time to connect counts twice, as in APISIX.
            held.answered(took + self.connected.unwrap_or_default());
        }
        self.held = None;
        if let Some(watched) = &self.watched {
            watched.answered(status);
        }
    }
}

/// What went over the client's connection for this request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transfer {
    /// Head and body received.
    pub received: u64,
    /// Head and body sent.
    pub sent: u64,
    /// Body alone.
    pub body_sent: u64,
    /// Whether all of the response was made: nginx's `$request_completion`.
    pub completed: bool,
}

impl Ctx {
    /// A request that has arrived and is not matched yet.
    pub fn new(plan: Arc<Plan>, request: RequestHead, client: SocketAddr, server: SocketAddr) -> Self {
        Self::begun(Instant::now(), plan, request, client, server)
    }

    /// The same, that began to arrive at `started`.
    pub(crate) fn begun(
        started: Instant,
        plan: Arc<Plan>,
        request: RequestHead,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Self {
        let chain = Arc::clone(plan.no_plugins());
        Self {
            request,
            response: ResponseHead::default(),
            preset: HeaderMap::new(),
            client,
            peer: client,
            server,
            started,
            tls: None,
            plan,
            session: None,
            route: None,
            chain,
            params: Params::new(),
            consumer: None,
            upstream: None,
            upstream_host: None,
            sasl: None,
            attempts: SmallVec::new(),
            transfer: Transfer::default(),
            body: None,
            inquiry: body::Inquiry::default(),
            request_id: None,
            random_id: OnceCell::new(),
            connection: (0, 0),
            extensions: SmallVec::new(),
            vars: Vec::new(),
            matched: MatchedBy::default(),
            filtered: SmallVec::new(),
            filter_body: false,
            counted: Cell::new(None),
        }
    }

    /// A request from 127.0.0.1 that never came, without any configuration: for tests of plugins.
    ///
    /// # Panics
    /// Where method, target or headers are not what HTTP allows.
    #[expect(clippy::expect_used, reason = "for tests, which say what they mean")]
    pub fn example(method: &str, target: &str, headers: &[(&str, &str)]) -> Self {
        let parse = |(name, value): &(&str, &str)| {
            let name: http::HeaderName = name.parse().expect("a header's name");
            (name, value.parse::<HeaderValue>().expect("a header's value"))
        };
        let target = target.parse().expect("a path");
        let headers = headers.iter().map(parse).fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append(name, value);
            all
        });
        let method = method.parse().expect("a method");
        let request = RequestHead::new(method, target, headers, None).expect("a path within its host");
        Self::new(Arc::default(), request, ([127, 0, 0, 1], 40_000).into(), ([127, 0, 0, 1], 9080).into())
    }

    /// Finds the route for this request and binds the request to it; false where none matches, and where the body
    /// must be read to find out.
    pub fn find_route(&mut self) -> bool {
        let query = Query {
            host: self.request.host(),
            path: self.request.match_path(),
            method: &self.request.method,
            remote: self.client.ip(),
            vars: &|var| var.operand(self),
        };
        let found = self.plan.router.find(&query);
        if self.plan.global.reads_body()
            || found.as_ref().is_some_and(|found| found.target.chain.reads_body())
        {
            body::wish(self);
        }
        let Some(found) = found.filter(|_| self.inquiry.wanted().is_none()) else { return false };
        let route = Arc::clone(found.target);
        (self.matched, self.params) = (found.by, found.params);
        self.chain = Arc::clone(&route.chain);
        self.upstream.clone_from(&route.upstream);
        self.route = Some(route);
        true
    }

    /// A request of which nothing is known but that it was refused with this.
    pub(crate) fn refused(
        plan: Arc<Plan>,
        status: StatusCode,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Self {
        let mut ctx = Self::new(plan, RequestHead::none(), client, server);
        ctx.response.status = status;
        ctx
    }

    /// A session that has begun and is not matched yet.
    pub fn of_session(plan: Arc<Plan>, session: Session, client: SocketAddr, server: SocketAddr) -> Self {
        let mut ctx = Self::new(plan, RequestHead::none(), client, server);
        ctx.session = Some(Box::new(session));
        ctx
    }

    /// Finds the stream route for this session and binds the session to it; false where none fits.
    pub fn find_stream_route(&mut self) -> bool {
        let name = self.tls.as_ref().map(|tls| &*tls.name);
        let query = stream::Query { name, remote: self.client.ip(), server: self.server };
        let Some(route) = self.plan.streams.find(&query).map(Arc::clone) else { return false };
        self.chain = Arc::clone(&route.chain);
        self.upstream.clone_from(&route.upstream);
        if let Some(session) = &mut self.session {
            session.route = Some(route);
        }
        true
    }

    /// Keeps a value for later phases of this request.
    pub fn keep<T: Any + Send>(&mut self, value: T) {
        self.extensions.push(Box::new(value));
    }

    /// The last value of this type kept by [`Ctx::keep`].
    pub fn kept<T: Any>(&self) -> Option<&T> {
        self.extensions.iter().rev().find_map(|e| e.downcast_ref())
    }

    /// The same, to change it.
    pub fn kept_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.extensions.iter_mut().rev().find_map(|e| e.downcast_mut())
    }

    /// A variable by its name in APISIX or nginx, without `$`. Where the name is known beforehand, keep a
    /// [`Var`] or a [`crate::vars::Template`] instead.
    pub fn var(&self, name: &str) -> Option<Cow<'_, str>> {
        Var::parse(name).read(self)
    }

    /// Gives a variable of a plugin's own a value.
    pub fn set_var(&mut self, name: &'static str, value: String) {
        self.vars.retain(|(known, _)| *known != name);
        self.vars.push((name, value));
    }

    /// What [`Ctx::set_var`] set.
    pub(crate) fn set_by_plugin(&self, name: &str) -> Option<&str> {
        self.vars.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    /// Asks for `body_filter` on this response: its `Content-Length` is dropped.
    pub fn filter_body(&mut self) {
        self.filter_body = true;
    }

    /// Whether `body_filter` was asked for.
    pub fn filters_body(&self) -> bool {
        self.filter_body
    }

    /// Asks for this request to be counted in the metrics of its route. For hooks of any phase, log included.
    pub fn count(&self, how: Counting) {
        self.counted.set(Some(how));
    }

    /// Whether [`Ctx::count`] was asked for, and how.
    pub fn counted(&self) -> Option<Counting> {
        self.counted.get()
    }

    /// The consumer that authentication plugin `plugin` knows by `key`.
    pub fn find_consumer(&self, plugin: &str, key: &str) -> Option<Arc<Consumer>> {
        self.plan.consumers.by_key(plugin, key).cloned()
    }

    /// A consumer by its name, for `anonymous_consumer`.
    pub fn consumer_named(&self, name: &str) -> Option<Arc<Consumer>> {
        self.plan.consumers.by_name(name).cloned()
    }

    /// Authenticates the request and tells the upstream; the consumer's own plugins join the chain after this
    /// phase.
    pub fn attach_consumer(&mut self, consumer: Arc<Consumer>) {
        consumer.introduce(&mut self.request.headers);
        self.consumer = Some(consumer);
    }

    /// Whether the plugin's `_meta.filter` lets it run for this request.
    pub(crate) fn admit(&mut self, plugin: &Arc<Fitted>) -> bool {
        if let Some(known) = self.filtered(plugin) {
            return known;
        }
        let Some(admitted) = plugin.admits(self) else { return true };
        self.filtered.push((Arc::as_ptr(plugin).addr(), admitted));
        admitted
    }

    /// What [`Ctx::admit`] said of a plugin with a filter.
    pub(crate) fn filtered(&self, plugin: &Arc<Fitted>) -> Option<bool> {
        let address = Arc::as_ptr(plugin).addr();
        self.filtered.iter().find(|(known, _)| *known == address).map(|(_, admitted)| *admitted)
    }

    fn stream_route(&self) -> Option<&stream::Route> {
        self.session.as_ref()?.route.as_deref()
    }

    fn service(&self) -> Option<&Service> {
        match &self.route {
            Some(route) => route.service.as_deref(),
            None => self.stream_route()?.service.as_deref(),
        }
    }

    pub fn route_id(&self) -> Option<&str> {
        match &self.route {
            Some(route) => Some(&route.id),
            None => self.stream_route().map(|route| &*route.id),
        }
    }

    pub fn route_name(&self) -> Option<&str> {
        match &self.route {
            Some(route) => route.name.as_deref(),
            None => self.stream_route()?.name.as_deref(),
        }
    }

    pub fn service_id(&self) -> Option<&str> {
        self.service().map(|service| &*service.id)
    }

    pub fn service_name(&self) -> Option<&str> {
        self.service()?.name.as_deref()
    }

    /// Which of the route's URIs matched, as configured.
    pub fn matched_uri(&self) -> Option<&str> {
        self.route.as_ref()?.rule.paths.get(usize::from(self.matched.path)).map(|path| &**path)
    }

    /// Which of the route's hosts matched, as configured; none for a route without hosts.
    pub fn matched_host(&self) -> Option<&str> {
        self.route.as_ref()?.rule.hosts.as_ref()?.get(usize::from(self.matched.host?)).map(|host| &**host)
    }

    /// The route's timeouts, or else the upstream's.
    pub fn timeouts(&self) -> Timeouts {
        let of_route = self.route.as_ref().and_then(|route| route.timeouts.as_deref());
        of_route.or(self.upstream.as_ref().map(|upstream| &upstream.timeouts)).copied().unwrap_or_default()
    }

    /// The `Host` for upstreams that are passed the client's.
    pub fn passed_host(&self) -> &[u8] {
        let host = self.upstream_host.as_ref().or_else(|| self.request.headers.get(header::HOST));
        host.map_or(b"", HeaderValue::as_bytes)
    }

    /// nginx's `$request_id`: 32 random hexadecimal digits, made when they are first asked for.
    pub fn random_id(&self) -> &str {
        self.random_id.get_or_init(|| hex::encode(rand::random::<[u8; 16]>()).into())
    }

    /// The node the request went to last.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.attempts.last().map(|attempt| &attempt.node)
    }
}
