//! The reference page of all plugins, made of what [`ALL`] knows of them.
//!
//! The rule to know: `cargo run -p plugins --example reference` writes it and [`compatibility`]'s, and a test fails where it was not run.

pub mod compatibility;
mod examples;
mod options;

use std::fmt::Write as _;

use model::schema::Place;
use proxy::plugin::Spec;
use serde_json::Value;

use crate::ALL;
pub use examples::EXAMPLES;

/// A configuration that is shown on the page.
pub struct Example {
    pub plugin: &'static str,
    pub place: Place,
    /// What it does.
    pub title: &'static str,
    pub conf: &'static str,
}

const HEAD: &str = "\
# Plugins

What is built in, highest priority first. Names, priorities, options and answers are those of
[Apache APISIX](https://apisix.apache.org/docs/apisix/plugins/key-auth/), whose pages say more of each. What
differs is said [at the end](#differences).

Every plugin also takes `_meta`: `disable`, `priority`, `filter` (conditions on variables) and `error_response`.

<!-- Written by `cargo run -p plugins --example reference`. Change the plugins, not this page. -->
";

const DIFFERENCES: &str = "
## Differences

- Lua is not run: `_meta.pre_function` is refused.
- `limit-count` counts on each node (`policy: local`); the policies with Redis are checked and refused.
- `limit-count`: where one `group` is configured in several ways, each way counts for itself.
- `response-rewrite` leaves a body alone whose encoding it can't read, and cuts off what is longer than
  `max_resp_body_size`, whatever pieces it comes in.
- A regular expression that can't be compiled is refused when it is configured, not when it is used.
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for spec in ALL {
        // Writing to a String can't fail.
        let _ = section(&mut page, spec);
    }
    page.push_str(DIFFERENCES);
    page
}

fn section(page: &mut String, spec: &Spec) -> std::fmt::Result {
    let facts = &spec.facts;
    let name = facts.name;
    let phases: Vec<&str> = spec.phases.iter().map(|phase| phase.name()).collect();
    writeln!(page, "\n## {name}\n")?;
    writeln!(page, "Priority {}. Runs in {}.", facts.priority, phases.join(", "))?;
    if spec.prefer_route {
        writeln!(page, "Where a route has its own, that of a global rule does not run.")?;
    }
    if !facts.secrets.is_empty() {
        writeln!(page, "Kept encrypted: {}.", quoted(facts.secrets))?;
    }
    options::table(page, &(facts.schema)())?;
    for (what, schema) in
        [("On a consumer or credential", facts.consumer_schema), ("Plugin metadata", facts.metadata_schema)]
    {
        if let Some(schema) = schema {
            writeln!(page, "\n{what}:")?;
            options::table(page, &schema())?;
        }
    }
    for example in EXAMPLES.iter().filter(|example| example.plugin == name) {
        let conf: Value = serde_json::from_str(example.conf).unwrap_or_default();
        writeln!(page, "\n{}:\n\n```json\n{conf:#}\n```", example.title)?;
    }
    Ok(())
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
