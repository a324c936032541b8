//! What is left of a route or service that was refused: enough to keep its requests from others.
//!
//! The rule to know: which requests those are must be known. Where a route's conditions can't be read it does not
//! stand in: it would take requests that were never meant for it. It answers 404, as APISIX where no other route fits.

use std::sync::Arc;

use http::StatusCode;
use model::{Kind, Resource, resource};
use serde_json::{Map, Value};

use super::{Build, hosts, read};
use crate::{
    metrics::RouteMetrics,
    plan::{
        Route, Service,
        form::{Form, ServiceForm},
    },
    router::Rule,
};

/// The fields of a route that say which requests it is for.
const MATCHING: [&str; 11] = [
    "uri",
    "uris",
    "host",
    "hosts",
    "methods",
    "remote_addr",
    "remote_addrs",
    "vars",
    "filter_func",
    "service_id",
    "name",
];

impl Build<'_> {
    /// Of a route or service that can't be built in any other way; none where even that can't be read.
    pub fn bare(&mut self, resource: &Resource) -> Option<Form> {
        let conf: Map<String, Value> = read(resource).ok()?;
        match resource.key.kind {
            Kind::Routes => self.bare_route(conf),
            Kind::Services => Some(self.bare_service(conf)),
            _ => None,
        }
    }

    fn bare_route(&mut self, mut conf: Map<String, Value>) -> Option<Form> {
        if conf.get("status").and_then(Value::as_i64) == Some(0) {
            return None;
        }
        let priority = conf.get("priority").and_then(Value::as_i64);
        conf.retain(|name, _| MATCHING.contains(&name.as_str()));
        conf.extend(priority.map(|priority| ("priority".to_owned(), priority.into())));
        let conf: resource::Route = serde_json::from_value(Value::Object(conf)).ok()?;
        let service = conf.service_id.as_deref().and_then(|id| match self.need(Kind::Services, id) {
            Some(Form::Service(service)) => Some(Arc::clone(service)),
            _ => None,
        });
        let rule = Rule::read(&conf, service.as_ref().and_then(|service| service.hosts.as_ref())).ok()?;
        Some(Form::Route(Arc::new(Route {
            id: self.key.id.clone(),
            name: conf.name.map(Into::into),
            rule,
            chain: Arc::clone(self.plan.no_plugins()),
            upstream: None,
            timeouts: None,
            websocket: false,
            service: service.map(|service| Arc::clone(&service.info)),
            metrics: RouteMetrics::default(),
            lacks: Some(StatusCode::NOT_FOUND),
            end_of_line: [0; 3],
        })))
    }

    fn bare_service(&self, mut conf: Map<String, Value>) -> Form {
        let text = |value: Value| value.as_str().map(Into::into);
        let own = conf.remove("hosts").and_then(|value| serde_json::from_value::<Vec<Box<str>>>(value).ok());
        Form::Service(Arc::new(ServiceForm {
            info: Arc::new(Service { id: self.key.id.clone(), name: conf.remove("name").and_then(text) }),
            chain: Arc::clone(self.plan.no_plugins()),
            upstream: None,
            hosts: hosts(own.as_deref().unwrap_or_default()),
            websocket: None,
            lacks: Some(StatusCode::NOT_FOUND),
        }))
    }
}
