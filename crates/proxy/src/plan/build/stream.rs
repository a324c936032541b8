//! Routes of TCP and UDP.

use std::sync::Arc;

use model::{Kind, resource};

use super::{Build, Built, missing};
use crate::{
    chain::{Chain, PluginSet},
    plan::form::Form,
    stream,
};

impl Build<'_> {
    pub(super) fn stream_route(&mut self, conf: resource::StreamRoute) -> Built {
        if let Some(protocol) = &conf.protocol {
            return Err(format!("unknown protocol [{}]", protocol["name"].as_str().unwrap_or_default()));
        }
        let service = match &conf.service_id {
            Some(id) => match self.need(Kind::Services, id) {
                Some(Form::Service(service)) if !service.lacks_plugins() => Some(Arc::clone(service)),
                _ => return Err(missing("service", id)),
            },
            None => None,
        };
        let rule = stream::Rule::read(&conf)?;
        let own = self.plugins(conf.plugins)?;
        // Of a service's plugins those count that streams can have; the others are for its routes.
        let below = service.as_ref().map_or_else(PluginSet::default, |service| {
            service.chain.plugins().only(|name| self.input.catalog.is_for_streams(name))
        });
        let plugins = own.over(&below);
        let chain = match plugins.is_empty() {
            true => Arc::clone(self.plan.no_plugins()),
            false => Arc::new(Chain::new(plugins)),
        };
        // Last: what an upstream is told of is in force.
        let upstream = match self.place(conf.upstream_id.as_deref(), conf.upstream.as_ref())? {
            None => service.as_ref().and_then(|service| service.upstream.clone()),
            own => own,
        };
        Ok(Form::StreamRoute(Arc::new(stream::Route {
            id: self.key.id.clone(),
            name: conf.name.map(Into::into),
            service: service.map(|service| Arc::clone(&service.info)),
            rule,
            chain,
            upstream,
        })))
    }
}
