//! Who clients are, and who we are.

use std::sync::Arc;

use model::{
    Kind, Resource,
    resource::{self, SslType},
};
use serde_json::Value;

use super::{Build, Built, Input, missing, read};
use crate::{
    ctx::Consumer,
    plan::{
        consumers::Identities,
        form::{ClientIdentity, ConsumerForm, Form},
    },
    tls::Certificate,
};

impl Build<'_> {
    pub(super) fn consumer(&mut self, mut conf: resource::Consumer) -> Built {
        let group = match &conf.group_id {
            Some(id) => match self.need(Kind::ConsumerGroups, id) {
                Some(Form::ConsumerGroup(plugins)) => Some(Arc::clone(plugins)),
                _ => return Err(missing("consumer group", id)),
            },
            None => None,
        };
        let mut plugins = self.plain(std::mem::take(&mut conf.plugins))?;
        let found = self.input.catalog.identities(&mut plugins)?;
        let own = self.fitted(plugins)?;
        let all = group.map_or_else(|| own.clone(), |group| own.over(&group));
        let named = Consumer {
            name: (&*conf.username).into(),
            credential_id: None,
            group_id: conf.group_id.as_ref().map(|id| id.as_str().into()),
            labels: conf.labels,
            auth_conf: Value::Null,
            plugins: all.without_authentication(),
        };
        let identities =
            found.into_iter().map(|one| (one.plugin, one.key, Arc::new(named.identified(None, one.conf))));
        let identities = Identities(identities.collect());
        Ok(Form::Consumer(Arc::new(ConsumerForm { named: Arc::new(named), identities })))
    }

    pub(super) fn credential(&mut self, conf: resource::Credential) -> Built {
        let owner = self.key.owner().unwrap_or_default().to_owned();
        let consumer = match self.need(Kind::Consumers, &owner) {
            Some(Form::Consumer(consumer)) => Arc::clone(&consumer.named),
            _ => return Err(missing("consumer", &owner)),
        };
        let mut plugins = self.plain(conf.plugins)?;
        let found = self.input.catalog.identities(&mut plugins)?;
        if !plugins.is_empty() {
            return Err("only supports auth type plugins in consumer credential".to_owned());
        }
        let id: Arc<str> = self.key.id.rsplit('/').next().unwrap_or_default().into();
        let identities = found
            .into_iter()
            .map(|one| (one.plugin, one.key, Arc::new(consumer.identified(Some(&id), one.conf))));
        Ok(Form::Credential(Arc::new(Identities(identities.collect()))))
    }

    pub(super) fn certificate(&mut self, resource: &Resource) -> Built {
        let mut conf: Value = read(resource)?;
        self.decrypt(&mut conf)?;
        for field in ["cert", "key", "certs", "keys", "client"] {
            if let Some(value) = conf.get_mut(field) {
                self.resolve(value, field)?;
            }
        }
        let ssl: resource::Ssl = serde_json::from_value(conf).map_err(|e| e.to_string())?;
        if ssl.kind == SslType::Client {
            return Ok(Form::ClientIdentity(Arc::new(ClientIdentity { cert: ssl.cert, key: ssl.key })));
        }
        let Input { tls, lasting, .. } = self.input;
        if ssl.pairs().any(|(cert, key)| self.is_unknown(cert) || self.is_unknown(key.reveal())) {
            return Ok(Form::Nothing);
        }
        let certificate = Certificate::read(&self.key.id, &ssl, tls, lasting).map_err(|e| e.to_string())?;
        Ok(certificate.map_or(Form::Nothing, |certificate| Form::Certificate(Arc::new(certificate))))
    }
}

impl Consumer {
    /// The same consumer as one authentication plugin knows it.
    fn identified(&self, credential: Option<&Arc<str>>, auth_conf: Value) -> Self {
        Self {
            name: self.name.clone(),
            credential_id: credential.cloned(),
            group_id: self.group_id.clone(),
            labels: self.labels.clone(),
            auth_conf,
            plugins: self.plugins.clone(),
        }
    }
}
