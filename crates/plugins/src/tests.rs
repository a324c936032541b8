use std::{collections::BTreeSet, fs, path::Path};

use model::{
    PluginFacts,
    schema::{Checker, Place},
};
use serde_json::{Value, json};

use super::{ALL, reference};

fn facts() -> Vec<PluginFacts> {
    ALL.iter().map(|spec| spec.facts).collect()
}

#[test]
fn the_list_is_sorted_and_names_are_unique() {
    for pair in ALL.windows(2) {
        assert!(pair[0].facts.priority >= pair[1].facts.priority, "{}", pair[1].facts.name);
        assert_ne!(pair[0].facts.name, pair[1].facts.name);
    }
}

#[test]
fn what_the_page_shows_can_be_built() {
    let checker = Checker::new(&facts()).unwrap();
    for example in reference::EXAMPLES {
        let place = format!("{}: {}", example.plugin, example.title);
        let mut conf: Value =
            serde_json::from_str(example.conf).unwrap_or_else(|error| panic!("{place}: {error}"));
        checker
            .fill_plugin(example.plugin, example.place, &mut conf)
            .unwrap_or_else(|error| panic!("{place}: {error}"));
        if example.place == Place::Elsewhere {
            let spec = ALL.iter().find(|spec| spec.facts.name == example.plugin).unwrap();
            (spec.facts.check)(&conf).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
    }
}

#[test]
fn the_page_shows_every_option() {
    let options = |schema: Value| -> BTreeSet<String> {
        schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    for spec in ALL {
        for (place, schema) in [
            (Place::Elsewhere, Some(spec.facts.schema)),
            (Place::Consumer, spec.facts.consumer_schema),
            (Place::Metadata, spec.facts.metadata_schema),
        ] {
            let examples = reference::EXAMPLES.iter();
            let shown: BTreeSet<String> = examples
                .filter(|example| example.plugin == spec.facts.name && example.place == place)
                .flat_map(|example| {
                    let conf: Value = serde_json::from_str(example.conf).unwrap();
                    conf.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(
                shown,
                schema.map(|schema| options(schema())).unwrap_or_default(),
                "{}",
                spec.facts.name
            );
        }
    }
}

/// What takes no options at all, or has a default for each, is built from nothing.
#[test]
fn defaults_are_enough_where_nothing_is_required() {
    let checker = Checker::new(&facts()).unwrap();
    let mut built = Vec::new();
    for spec in ALL {
        let mut conf = json!({});
        if checker.fill_plugin(spec.facts.name, Place::Elsewhere, &mut conf).is_ok() {
            (spec.facts.check)(&conf).unwrap_or_else(|error| panic!("{}: {error}", spec.facts.name));
            built.push(spec.facts.name);
        }
    }
    assert_eq!(
        built,
        ["request-id", "cors", "key-auth", "proxy-rewrite", "response-rewrite", "kafka-proxy", "prometheus"]
    );
}

#[test]
fn the_reference_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (name, page) in
        [("plugins.md", reference::page()), ("compatibility.md", reference::compatibility::page())]
    {
        let written = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            written == page,
            "docs/reference/{name} is out of date: run `cargo run -p plugins --example reference`"
        );
    }
}
