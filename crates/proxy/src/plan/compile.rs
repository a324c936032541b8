//! From a snapshot to a plan.
//!
//! The rule to know: compiling never fails. Every resource that was ever good has a *form*; a resource that is not
//! good now is reported and keeps the form it had, until its key is deleted. So one bad resource costs no other,
//! and least of all the traffic it served yesterday. A route or service that was never good has a form that *stands
//! in*: requests that it matches are answered 502 or 503, and not by others.
//!
//! It is incremental, and the first time is no exception: then everything has changed. What is to be done stands in
//! one ordered set of keys. [`Key`]s are ordered by kind, and a kind refers only to kinds before it, so taking the
//! smallest key first means that whatever a resource refers to is settled before it is built:
//!
//! ```text
//! secrets < metadata < ssls < upstreams < plugin_configs < consumer_groups < consumers < credentials
//!     < services < routes < stream_routes
//! ```
//!
//! When a form changes, those who refer to it are put into the set. Who refers to whom is kept as pairs in `links`.
//! Pairs are taken out when they are followed, and put back by each resource as it is built, so links that no longer
//! hold vanish the first time they would cost anything.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use model::{Change, Key, Kind, Snapshot, secrets::Keyring};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::{Catalog, Plan, Rejected, Report, build::Build, form::Form};
use crate::{
    chain::{Chain, PluginSet},
    lasting::Lasting,
    router::{Router, Routing},
    tls,
    upstream::Shared,
};

/// What a plan is compiled from.
pub struct Input<'a> {
    pub snapshot: Snapshot,
    pub keyring: &'a Keyring,
    pub catalog: &'a Catalog,
    /// What plugins and upstreams keep from plan to plan.
    pub lasting: &'a Lasting,
    /// `plugin_attr`, by plugin.
    pub attrs: &'a Map<String, Value>,
    pub routing: Routing,
    pub tls: &'a tls::Settings,
    /// Builds everything anew: set where anything above but the snapshot has changed. Good forms are still kept
    /// where their resources are bad now.
    pub rebuild: bool,
    /// The secrets that have changed, by [`crate::secrets::Secrets::take_news`]: those who refer to them are built
    /// anew.
    pub news: Vec<Key>,
}

/// Compiles a snapshot; what has not changed since `previous` is taken over.
pub fn compile(input: &Input<'_>, previous: Option<&Plan>) -> (Plan, Report) {
    let mut work = match previous {
        None => {
            let router = Router::new(input.routing.kind);
            Work::all(input, Plan { router, routing: input.routing, ..Plan::default() })
        }
        Some(previous) if input.rebuild || previous.router.kind() != input.routing.kind => {
            Work::all(input, successor(previous, input.routing))
        }
        Some(previous) => {
            let changes = input.snapshot.changes_since(&previous.snapshot);
            let mut work = Work::of(input, successor(previous, input.routing), &changes);
            input.news.iter().for_each(|key| work.follow(key));
            work
        }
    };
    while let Some(key) = work.due.pop_first() {
        work.settle(&key);
    }
    let (mut plan, report) = work.finish();
    plan.is_configured = true;
    (plan, report)
}

/// A plan that begins as `previous` ends.
fn successor(previous: &Plan, routing: Routing) -> Plan {
    let mut plan = previous.share();
    plan.routing = routing;
    if plan.router.kind() != routing.kind {
        plan.router = Router::new(routing.kind);
        for form in previous.forms.values() {
            if let Form::Route(route) = form {
                plan.router.insert(route);
            }
        }
    }
    plan
}

/// A compile under way.
struct Work<'a> {
    input: &'a Input<'a>,
    plan: Plan,
    /// What is still to be built or dropped, in the order in which it must be.
    due: BTreeSet<Key>,
    shared: Shared,
    now: SystemTime,
    compiled: usize,
    global_rules_changed: bool,
}

impl<'a> Work<'a> {
    fn of(input: &'a Input<'a>, plan: Plan, changes: &[Change]) -> Self {
        let due = changes.iter().map(|change| match change {
            Change::Put(resource) => resource.key.clone(),
            Change::Delete(key) => key.clone(),
        });
        Self {
            input,
            plan,
            due: due.collect(),
            shared: Shared::default(),
            now: SystemTime::now(),
            compiled: 0,
            global_rules_changed: false,
        }
    }

    fn all(input: &'a Input<'a>, plan: Plan) -> Self {
        let mut work = Self::of(input, plan, &[]);
        let known = work.plan.forms.keys().chain(work.plan.rejected.keys()).cloned();
        work.due = known.chain(input.snapshot.iter().map(|resource| resource.key.clone())).collect();
        work
    }

    /// Builds one resource, or drops it where it is gone.
    fn settle(&mut self, key: &Key) {
        let Some(resource) = self.input.snapshot.get(key) else {
            self.plan.rejected.remove(key);
            self.plan.secrets.remove(key);
            self.plan.unmanaged.remove(key);
            if let Some(old) = self.plan.forms.remove(key) {
                self.unplug(&old);
                self.follow(key);
            }
            return;
        };
        self.compiled += 1;
        let has_good = self.has_good(key);
        let mut build = Build::new(self.input, &self.plan, &mut self.shared, key);
        let mut built = build.form(resource);
        let (refused, waits) = (built.as_ref().err().cloned(), build.referred.waits);
        if refused.is_some() && build.lacks.is_some() && !has_good {
            (build.stand_in, build.lacks) = (true, None);
            built = build.form(resource);
        }
        if built.is_err() && !has_good {
            built = build.bare(resource).ok_or_else(String::new);
        }
        let (needs, mut referred) = (build.needs, build.referred);
        match std::mem::take(&mut referred.followed) {
            none if none.is_empty() => self.plan.secrets.remove(key),
            some => self.plan.secrets.insert(key.clone(), some.into()),
        };
        match std::mem::take(&mut referred.unmanaged) {
            none if none.is_empty() => self.plan.unmanaged.remove(key),
            some => self.plan.unmanaged.insert(key.clone(), some.into()),
        };
        if let Ok(form) = built {
            self.plug(&form);
            if let Some(old) = self.plan.forms.insert(key.clone(), form) {
                self.unplug(&old);
            }
            self.follow(key);
        }
        match refused {
            None => drop(self.plan.rejected.remove(key)),
            Some(reason) => self.reject(key, referred.hide(reason), waits),
        }
        self.plan.links.extend(needs.into_iter().map(|needed| (needed, key.clone())));
    }

    fn has_good(&self, key: &Key) -> bool {
        self.plan.forms.get(key).is_some_and(|form| !form.is_stand_in())
    }

    /// Puts everything that refers to `key` into the set of what is due.
    fn follow(&mut self, key: &Key) {
        if self.plan.links.is_empty() || matches!(key.kind, Kind::Routes | Kind::StreamRoutes) {
            return;
        }
        let first = (key.clone(), Key::new(Kind::ALL[0], ""));
        let links: Vec<_> = self.plan.links.range(first..).take_while(|(to, _)| to == key).cloned().collect();
        for link in links {
            self.plan.links.remove(&link);
            self.due.insert(link.1);
        }
    }

    /// What `waits` for a secret is no news: it comes into force by itself, or is refused with a reason.
    fn reject(&mut self, key: &Key, reason: String, waits: bool) {
        let serving_stale = self.has_good(key);
        let before = self.plan.rejected.get(key).filter(|before| before.reason == reason);
        let since = before.map_or(self.now, |before| before.since);
        if before.is_none() && !waits {
            tracing::warn!(resource = %key, %reason, serving_stale, "resource refused");
        }
        self.plan.rejected.insert(key.clone(), Rejected { key: key.clone(), reason, since, serving_stale });
    }

    /// Makes a form reachable by requests.
    fn plug(&mut self, form: &Form) {
        let plan = &mut self.plan;
        match form {
            Form::Route(route) => plan.router.insert(route),
            Form::StreamRoute(route) => plan.streams.insert(route),
            Form::Certificate(certificate) => plan.certificates.insert(certificate),
            Form::Credential(identities) => plan.consumers.insert(identities),
            Form::Consumer(consumer) => {
                plan.consumers.insert(&consumer.identities);
                plan.consumers.insert_named(&consumer.named);
            }
            Form::GlobalRule(_) => self.global_rules_changed = true,
            _ => {}
        }
    }

    /// Undoes [`Work::plug`]. What came in its place is plugged already.
    fn unplug(&mut self, form: &Form) {
        let plan = &mut self.plan;
        match form {
            Form::Route(route) => plan.router.remove(route),
            Form::StreamRoute(route) => plan.streams.remove(route),
            Form::Certificate(certificate) => plan.certificates.remove(certificate),
            Form::Credential(identities) => plan.consumers.remove(identities),
            Form::Consumer(consumer) => {
                plan.consumers.remove(&consumer.identities);
                plan.consumers.remove_named(&consumer.named);
            }
            Form::GlobalRule(_) => self.global_rules_changed = true,
            _ => {}
        }
    }

    fn finish(mut self) -> (Plan, Report) {
        if self.global_rules_changed {
            self.merge_global_rules();
        }
        self.plan.snapshot = self.input.snapshot.clone();
        let rejected = self.plan.rejected.values().chain(&*self.plan.conflicts).cloned().collect();
        (self.plan, Report { rejected, compiled: self.compiled })
    }

    /// All global rules as one chain. A plugin that stands in several of them runs for none, as in APISIX; all but
    /// the first are reported.
    fn merge_global_rules(&mut self) {
        let mut seen: FxHashMap<&'static str, usize> = FxHashMap::default();
        let mut plugins = Vec::new();
        let mut conflicts = Vec::new();
        for (key, form) in &self.plan.forms {
            let Form::GlobalRule(rule) = form else { continue };
            for plugin in rule.iter() {
                let times = seen.entry(plugin.name()).or_default();
                *times += 1;
                if *times > 1 {
                    let reason = format!(
                        "plugin {} stands in several global rules and runs for none of them",
                        plugin.name()
                    );
                    let (key, since) = (key.clone(), self.now);
                    conflicts.push(Rejected { key, reason, since, serving_stale: false });
                }
                plugins.push(Arc::clone(plugin));
            }
        }
        let single: PluginSet = plugins.into_iter().filter(|plugin| seen[plugin.name()] == 1).collect();
        self.plan.global = Arc::new(Chain::new(single));
        self.plan.conflicts = conflicts.into();
    }
}
