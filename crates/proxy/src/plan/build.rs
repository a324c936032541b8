//! From one resource's text to its form.
//!
//! The rule to know: what a resource refers to is looked up in the forms compiled so far and noted in `needs`, found
//! or not, so that the resource is built again when that changes.

mod bare;
mod identity;
mod secrets;
mod stream;

use std::sync::Arc;

use http::StatusCode;
use model::{
    Key, Kind, Resource,
    resource::{self, Plugins},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Input, Plan, Route, Service,
    form::{Form, ServiceForm},
};
use crate::{
    chain::{Chain, PluginSet},
    metrics::RouteMetrics,
    plugin::Env,
    router::Rule,
    upstream::{Identity, Means, Shared, Timeouts, Upstream},
};

/// One resource on its way.
pub(super) struct Build<'a> {
    pub input: &'a Input<'a>,
    pub plan: &'a Plan,
    pub shared: &'a mut Shared,
    pub key: &'a Key,
    /// What the resource refers to.
    pub needs: Vec<Key>,
    /// The secrets it refers to.
    pub referred: Referred,
    /// Whether it names a plugin that there is not.
    pub names_strangers: bool,
    /// Builds a route or service also without what it refers to, or without its plugins if one of them is not known.
    pub stand_in: bool,
    /// What is answered because of such a lack. APISIX's statuses.
    pub lacks: Option<StatusCode>,
}

pub(super) use secrets::Referred;

type Built<T = Form> = Result<T, String>;

impl<'a> Build<'a> {
    pub fn new(input: &'a Input<'a>, plan: &'a Plan, shared: &'a mut Shared, key: &'a Key) -> Self {
        Self {
            input,
            plan,
            shared,
            key,
            needs: Vec::new(),
            referred: Referred::default(),
            names_strangers: false,
            stand_in: false,
            lacks: None,
        }
    }
}

impl Build<'_> {
    pub fn form(&mut self, resource: &Resource) -> Built {
        self.input.catalog.check(resource)?;
        match resource.key.kind {
            Kind::Routes => self.route(read(resource)?),
            Kind::Services => self.service(read(resource)?),
            Kind::Upstreams => self.upstream(&read(resource)?).map(Form::Upstream),
            Kind::PluginConfigs => {
                let conf: resource::PluginConfig = read(resource)?;
                Ok(Form::PluginConfig(self.chain(conf.plugins)?))
            }
            Kind::ConsumerGroups => {
                let conf: resource::ConsumerGroup = read(resource)?;
                Ok(Form::ConsumerGroup(Arc::new(self.plugins(conf.plugins)?)))
            }
            Kind::GlobalRules => {
                let conf: resource::GlobalRule = read(resource)?;
                Ok(Form::GlobalRule(Arc::new(self.plugins(conf.plugins)?)))
            }
            Kind::Consumers => self.consumer(read(resource)?),
            Kind::Credentials => self.credential(read(resource)?),
            Kind::Ssls => self.certificate(resource),
            Kind::PluginMetadata => self.metadata(resource),
            Kind::StreamRoutes => self.stream_route(read(resource)?),
            Kind::Secrets => self.secret_manager(read(resource)?),
            Kind::Protos => Ok(Form::Nothing),
        }
    }

    fn route(&mut self, conf: resource::Route) -> Built {
        if !conf.status.is_on() {
            return Ok(Form::Nothing);
        }
        if conf.script.is_some() || conf.script_id.is_some() {
            return Err("script is Lua, which this gateway does not run; say it with plugins".to_owned());
        }
        let shared = match &conf.plugin_config_id {
            Some(id) => match self.need(Kind::PluginConfigs, id) {
                Some(Form::PluginConfig(chain)) => Some(Arc::clone(chain)),
                _ => {
                    self.lack(StatusCode::SERVICE_UNAVAILABLE, missing("plugin config", id))?;
                    None
                }
            },
            None => None,
        };
        let service = match &conf.service_id {
            Some(id) => match self.need(Kind::Services, id) {
                Some(Form::Service(service)) => Some(Arc::clone(service)),
                // As in APISIX, it is for all hosts then.
                _ => {
                    self.lack(StatusCode::NOT_FOUND, missing("service", id))?;
                    None
                }
            },
            None => None,
        };
        let rule = Rule::read(&conf, service.as_ref().and_then(|service| service.hosts.as_ref()))?;
        let timeouts = conf.timeout.as_ref().map(Timeouts::read).transpose()?.map(Box::new);
        if let Some(service) = service.as_ref().filter(|service| service.lacks_plugins()) {
            self.lack(service.lacks.unwrap_or(StatusCode::NOT_FOUND), "its service was refused".to_owned())?;
        }
        let chain = match self.lacks {
            // The plugins that are missing may be those that keep clients out.
            Some(_) => Arc::clone(self.plan.no_plugins()),
            None => {
                let below = service.as_ref().map(|service| &service.chain);
                let merged = self.merged(conf.plugins, shared.as_ref(), below);
                self.or_lack(merged)?
            }
        };
        // Last: what an upstream is told of is in force.
        let upstream = match self.place(conf.upstream_id.as_deref(), conf.upstream.as_ref())? {
            None if conf.upstream_id.is_none() => {
                if let Some(lacks) = service.as_ref().and_then(|service| service.lacks) {
                    self.lack(lacks, "its service's upstream is missing or was refused".to_owned())?;
                }
                service.as_ref().and_then(|service| service.upstream.clone())
            }
            own => own,
        };
        if let Some(upstream) = upstream.as_ref().filter(|upstream| upstream.scheme.is_of_streams()) {
            return Err(format!("upstreams of scheme {} are not for HTTP", upstream.scheme.as_str()));
        }
        Ok(Form::Route(Arc::new(Route {
            id: self.key.id.clone(),
            name: conf.name.map(Into::into),
            rule,
            chain,
            // Without the plugins that are missing nothing must reach it.
            upstream: upstream.filter(|_| self.lacks.is_none()),
            timeouts,
            websocket: conf
                .enable_websocket
                .or(service.as_ref().and_then(|service| service.websocket))
                .unwrap_or(false),
            service: service.map(|service| Arc::clone(&service.info)),
            metrics: RouteMetrics::default(),
            lacks: self.lacks,
            end_of_line: [0; 3],
        })))
    }

    /// The route's plugins over those of its plugin config over those of its service. What brings nothing new
    /// shares a chain.
    fn merged(
        &mut self,
        own: Plugins,
        shared: Option<&Arc<Chain>>,
        service: Option<&Arc<Chain>>,
    ) -> Built<Arc<Chain>> {
        let own = self.plugins(own)?;
        let below: Vec<_> =
            shared.into_iter().chain(service).filter(|chain| !chain.plugins().is_empty()).collect();
        match (own.is_empty(), &*below) {
            (true, []) => Ok(Arc::clone(self.plan.no_plugins())),
            (true, [one]) => Ok(Arc::clone(one)),
            _ => {
                let merged = below.iter().fold(own, |over, chain| over.over(chain.plugins()));
                Ok(Arc::new(Chain::new(merged)))
            }
        }
    }

    fn service(&mut self, conf: resource::Service) -> Built {
        if conf.script.is_some() {
            return Err("script is Lua, which this gateway does not run; say it with plugins".to_owned());
        }
        let chain = self.chain(conf.plugins);
        let chain = self.or_lack(chain)?;
        // Last: what an upstream is told of is in force.
        let upstream = self.place(conf.upstream_id.as_deref(), conf.upstream.as_ref())?;
        let info = Service { id: self.key.id.clone(), name: conf.name.map(Into::into) };
        Ok(Form::Service(Arc::new(ServiceForm {
            info: Arc::new(info),
            chain,
            upstream,
            hosts: hosts(&conf.hosts),
            websocket: conf.enable_websocket,
            lacks: self.lacks,
        })))
    }

    /// Where requests of a route or service go. An id comes before what is written in place.
    fn place(
        &mut self,
        id: Option<&str>,
        inline: Option<&resource::Upstream>,
    ) -> Built<Option<Arc<Upstream>>> {
        match (id, inline) {
            (Some(id), _) => match self.need(Kind::Upstreams, id) {
                Some(Form::Upstream(upstream)) => Ok(Some(Arc::clone(upstream))),
                _ => self.lack(StatusCode::BAD_GATEWAY, missing("upstream", id)).map(|()| None),
            },
            (None, Some(conf)) => match self.upstream_named(&format!("{}#upstream", self.key), conf) {
                Err(reason) if self.referred.unresolved => {
                    self.lack(StatusCode::BAD_GATEWAY, reason).map(|()| None)
                }
                upstream => Ok(Some(self.shared.upstream(upstream?))),
            },
            (None, None) => Ok(None),
        }
    }

    /// Something is missing that a route or service can stand without, if it must.
    fn lack(&mut self, status: StatusCode, reason: String) -> Built<()> {
        self.lacks.get_or_insert(status);
        if self.stand_in { Ok(()) } else { Err(reason) }
    }

    fn upstream(&mut self, conf: &resource::Upstream) -> Built<Arc<Upstream>> {
        self.upstream_named(&self.key.to_string(), conf).map(Arc::new)
    }

    fn upstream_named(&mut self, name: &str, conf: &resource::Upstream) -> Built<Upstream> {
        let tls = conf.tls.clone().unwrap_or_default();
        let identity = match (&tls.client_cert_id, &tls.client_cert, &tls.client_key) {
            (Some(id), _, _) => match self.need(Kind::Ssls, id) {
                Some(Form::ClientIdentity(identity)) => {
                    Some((identity.cert.to_string(), identity.key.reveal().to_owned()))
                }
                _ => return Err(missing("ssl", id)),
            },
            (None, Some(cert), Some(key)) => {
                let plain = self.input.keyring.decrypt(key.reveal());
                let mut pair = json!({
                    "client_cert": cert, "client_key": plain.as_deref().unwrap_or(key.reveal()),
                });
                self.resolve(&mut pair, "tls")?;
                let text = |name: &str| pair[name].as_str().unwrap_or_default().to_owned();
                Some((text("client_cert"), text("client_key")))
            }
            _ => None,
        };
        let is_unknown = |cert: &str, key: &str| self.is_unknown(cert) || self.is_unknown(key);
        let identity = identity.filter(|(cert, key)| !is_unknown(cert, key));
        let mut means = Means {
            shared: self.shared,
            lasting: self.input.lasting,
            roots: &self.input.tls.roots,
            identity: identity.as_ref().map(|(cert, key)| Identity { cert, key }),
        };
        Upstream::new(name, conf, &mut means)
    }

    fn metadata(&mut self, resource: &Resource) -> Built {
        let mut conf: Value = read(resource)?;
        if let Some(members) = conf.as_object_mut() {
            members.insert("id".to_owned(), Value::from(&*self.key.id));
        }
        self.decrypt(&mut conf)?;
        self.resolve(&mut conf, "")?;
        Ok(Form::Metadata(Arc::new(self.input.catalog.metadata(&self.key.id, conf)?)))
    }

    /// The form of what is referred to. Noted, so that this resource follows it.
    fn need(&mut self, kind: Kind, id: &str) -> Option<&Form> {
        let key = Key::new(kind, id);
        match self.plan.forms.get_key_value(&key) {
            Some((known, form)) => {
                self.needs.push(known.clone());
                Some(form)
            }
            None => {
                self.needs.push(key);
                None
            }
        }
    }

    fn chain(&mut self, plugins: Plugins) -> Built<Arc<Chain>> {
        let plugins = self.plugins(plugins)?;
        if plugins.is_empty() {
            return Ok(Arc::clone(self.plan.no_plugins()));
        }
        Ok(Arc::new(Chain::new(plugins)))
    }

    fn plugins(&mut self, plugins: Plugins) -> Built<PluginSet> {
        self.names_strangers |= plugins.keys().any(|name| !self.input.catalog.has(name));
        let plugins = self.plain(plugins)?;
        self.fitted(plugins)
    }

    fn fitted(&mut self, plugins: Plugins) -> Built<PluginSet> {
        if plugins.is_empty() {
            return Ok(PluginSet::default());
        }
        let resource = self.key.to_string();
        let (input, forms, needs) = (self.input, &self.plan.forms, &mut self.needs);
        input.catalog.build(self.key.kind, plugins, |spec| {
            let name = spec.facts.name;
            let mut metadata = &Value::Null;
            if spec.facts.metadata_schema.is_some() {
                let key = Key::new(Kind::PluginMetadata, name);
                if let Some(Form::Metadata(known)) = forms.get(&key) {
                    metadata = known;
                }
                needs.push(key);
            }
            let attr = input.attrs.get(name).unwrap_or(&Value::Null);
            Env { lasting: input.lasting, attr, metadata, resource: &resource }
        })
    }

    /// Decrypted, and with what references stand for in their place.
    fn plain(&mut self, plugins: Plugins) -> Built<Plugins> {
        if plugins.is_empty() {
            return Ok(plugins);
        }
        let mut conf = json!({ "plugins": plugins });
        self.decrypt(&mut conf)?;
        match conf["plugins"].take() {
            Value::Object(mut plugins) => {
                self.resolve_plugins(&mut plugins)?;
                Ok(plugins)
            }
            _ => Ok(Plugins::new()),
        }
    }

    fn decrypt(&self, conf: &mut Value) -> Built<()> {
        let catalog = self.input.catalog;
        match self.input.keyring.decrypt_resource(self.key.kind, conf, catalog.facts()) {
            0 => Ok(()),
            _ => Err("a secret field is encrypted with a key that is not in the keyring".to_owned()),
        }
    }
}

fn read<T: DeserializeOwned>(resource: &Resource) -> Built<T> {
    resource.read().map_err(|e| format!("invalid configuration: {e}"))
}

/// The hosts of a service, in lower case; none: any.
fn hosts(written: &[Box<str>]) -> Option<Arc<[Box<str>]>> {
    let lower = || written.iter().map(|host| host.to_ascii_lowercase().into()).collect();
    (!written.is_empty()).then(lower)
}

fn missing(what: &str, id: &str) -> String {
    format!("{what} {id} is missing or was refused")
}
