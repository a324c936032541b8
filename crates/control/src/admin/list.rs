//! Lists: filtered first, then counted, then cut into pages.
//!
//! The rule to know: a list is ordered by id; a page is cut from the list ordered by creation.

use std::sync::Arc;

use http::StatusCode;
use model::{Kind, Resource, pattern};
use serde_json::{Value, json};

use super::{
    answer::{Answer, Outcome},
    call::Args,
    place::id_text,
    rules::Rules,
};

/// A resource as GET shows it.
pub fn shown(resource: &Resource, rules: &Rules) -> Value {
    let fields = [
        ("key", Value::String(rules.path_of(&resource.key))),
        ("value", plain(resource, rules)),
        ("createdIndex", resource.created.into()),
        ("modifiedIndex", resource.modified.into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A resource's configuration with its plugins in plain text, without the private keys of certificates.
fn plain(resource: &Resource, rules: &Rules) -> Value {
    let mut conf = resource.read().unwrap_or_else(|_| Value::String(resource.value.to_string()));
    if let (Kind::Ssls, Value::Object(fields)) = (resource.key.kind, &mut conf) {
        fields.shift_remove("key");
        fields.shift_remove("keys");
    }
    rules.reveal_plugins(resource.key.kind, &mut conf);
    conf
}

/// `{"list":[…],"total":N}`.
pub fn answer(mut resources: Vec<Arc<Resource>>, args: &Args, rules: &Rules) -> Outcome {
    let page = Page::read(args)?;
    let filter = Filter::read(args);
    if !filter.is_empty() {
        resources.retain(|resource| filter.takes(resource));
    }
    let total = resources.len();
    if let Some(page) = page {
        resources.sort_by_key(|resource| resource.created);
        resources = resources.into_iter().skip(page.skip).take(page.take).collect();
    }
    let list: Vec<Value> = resources.iter().map(|resource| shown(resource, rules)).collect();
    Ok(Answer::ok(json!({ "list": list, "total": total })))
}

/// Which part of the list.
struct Page {
    skip: usize,
    take: usize,
}

impl Page {
    /// Only where both arguments are given.
    fn read(args: &Args) -> Result<Option<Self>, Answer> {
        let number = |name| args.get(name).and_then(|text| text.trim().parse::<f64>().ok());
        let (Some(page), Some(size)) = (number("page"), number("page_size")) else { return Ok(None) };
        if !(10.0..=500.0).contains(&size) {
            return Err(Answer::text(StatusCode::BAD_REQUEST, "page_size must be between 10 and 500"));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounded on this very line"
        )]
        let (page, take) = (page.clamp(1.0, 1e12) as usize, size as usize);
        Ok(Some(Self { skip: (page - 1).saturating_mul(take), take }))
    }
}

/// What a resource must be like to be listed.
struct Filter<'a> {
    name: Option<Pattern>,
    label: Option<&'a str>,
    uri: Option<Pattern>,
    fields: Args,
}

/// A regular expression of the client's; one that can't be read matches nothing.
struct Pattern(Option<pattern::Pattern>);

impl Pattern {
    fn read(text: &str) -> Self {
        Self(pattern::Pattern::new(text).ok())
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        let text = value.and_then(Value::as_str);
        text.is_some_and(|text| self.0.as_ref().is_some_and(|pattern| pattern.is_match(text)))
    }
}

impl<'a> Filter<'a> {
    fn read(args: &'a Args) -> Self {
        Self {
            // Every name fits an empty pattern, that of a resource without a name too.
            name: args.get("name").filter(|text| !text.is_empty()).map(Pattern::read),
            label: args.get("label"),
            uri: args.get("uri").map(Pattern::read),
            fields: args.get("filter").map(Args::parse).unwrap_or_default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.label.is_none()
            && self.uri.is_none()
            && self.fields.iter().next().is_none()
    }

    fn takes(&self, resource: &Resource) -> bool {
        let conf: Value = resource.read().unwrap_or_default();
        let in_uris = |pattern: &Pattern| {
            let uris = conf.get("uris").and_then(Value::as_array);
            uris.into_iter().flatten().any(|uri| pattern.matches(Some(uri)))
        };
        self.name.as_ref().is_none_or(|pattern| pattern.matches(conf.get("name")))
            && self
                .label
                .is_none_or(|label| conf.get("labels").is_some_and(|labels| labels.get(label).is_some()))
            && self.uri.as_ref().is_none_or(|pattern| pattern.matches(conf.get("uri")) || in_uris(pattern))
            && self.takes_fields(resource.key.kind, &conf)
    }

    /// `filter=service_id%3D1`: routes and stream routes by what they point at. Other fields are passed over.
    fn takes_fields(&self, kind: Kind, conf: &Value) -> bool {
        if !matches!(kind, Kind::Routes | Kind::StreamRoutes) {
            return true;
        }
        let known = self.fields.iter().filter(|(name, _)| ["service_id", "upstream_id"].contains(name));
        known.into_iter().all(|(name, value)| conf.get(name).and_then(id_text).as_deref() == Some(value))
    }
}
