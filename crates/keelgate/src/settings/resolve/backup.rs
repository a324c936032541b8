//! `fallback_cp`: what is written, and where the data plane reads.

use std::{path::Path, time::Duration};

use super::{
    super::{
        EtcdSettings, ExportSettings, FallbackSettings, Problem, SourceFrom, SourceSettings,
        file::{FallbackCp, File, Provider, Role},
    },
    Below,
};

fn backends(fallback: &FallbackCp, below: Below<'_>) -> Vec<store::bucket::Config> {
    use store::bucket::Config;
    let local = fallback.local.clone().map(|mut local| {
        local.config_dir = below(&local.config_dir);
        local.resource_dir = local.resource_dir.as_deref().map(below);
        Config::Local(local)
    });
    [
        fallback.aws_s3.clone().map(Config::AwsS3),
        fallback.azure_blob.clone().map(Config::AzureBlob),
        fallback.gcs.clone().map(Config::Gcs),
        local,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `at` is the key of the block, `fallback_cp` or `deployment.fallback_cp`.
fn checked_backends(
    (at, fallback): (&str, &FallbackCp),
    written: bool,
    below: Below<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<store::bucket::Config> {
    let backends = backends(fallback, below);
    if backends.is_empty() {
        let text = "it names no back end: `aws_s3`, `azure_blob`, `gcs` or `local`";
        problems.push(Problem::new(at, text));
    }
    for backend in &backends {
        let flaws = backend.flaws(written);
        if flaws.is_empty()
            && let Err(error) = store::bucket::Buckets::open(backend.clone())
        {
            problems.push(Problem::new(at, error.to_string()));
        }
        let key = |key: &str| format!("{at}.{}.{key}", backend.backend());
        problems.extend(flaws.into_iter().map(|(name, text)| Problem::new(key(name), text)));
    }
    backends
}

pub(super) fn export(
    (at, fallback): (&'static str, &FallbackCp),
    below: Below<'_>,
    problems: &mut Vec<Problem>,
) -> ExportSettings {
    let cron_spec = fallback.cron_spec.clone().or_else(|| Some("@every 1m".into()));
    if let Some(Err(error)) = cron_spec.as_deref().map(control::export::CronSpec::parse) {
        problems.push(Problem::new(format!("{at}.cron_spec"), error.to_string()));
    }
    ExportSettings {
        backends: checked_backends((at, fallback), true, below, problems),
        cron_spec,
        on_change: fallback.on_change.unwrap_or(true),
        debounce: fallback.debounce.map_or(Duration::from_secs(1), |time| time.0),
        keep: fallback.history.keep.max(1),
        max_shrink: fallback.guard.max_shrink.map_or(0.5, |share| share.0),
        allow_empty: fallback.guard.allow_empty.unwrap_or(false),
        private_key_file: fallback.signing.as_ref().map(|signing| below(&signing.private_key_file)),
        key: at,
    }
}

pub(super) fn source(
    file: &File,
    role: Role,
    provider: Provider,
    fallback: Option<(&str, &FallbackCp)>,
    home: &Path,
    etcd: impl Fn() -> EtcdSettings,
    problems: &mut Vec<Problem>,
) -> Option<SourceSettings> {
    let below = |path: &Path| if path.is_absolute() { path.to_owned() } else { home.join(path) };
    // A control plane that is also a data plane reads its own store; a backup is what it writes.
    let fallback = fallback.filter(|_| role == Role::DataPlane || provider == Provider::Etcd);
    let from = match (role, provider) {
        (Role::ControlPlane, _) => return None,
        (Role::Traditional, Provider::Embedded | Provider::Yaml | Provider::Json) => SourceFrom::Own,
        (_, Provider::Yaml | Provider::Json) if fallback.is_some() => SourceFrom::Bucket,
        (_, Provider::Yaml) => SourceFrom::File(home.join("conf/apisix.yaml")),
        (_, Provider::Json) => SourceFrom::File(home.join("conf/apisix.json")),
        _ => SourceFrom::Etcd(etcd()),
    };
    let guard = file.keelgate.guard.or(fallback.map(|(_, fallback)| fallback.guard)).unwrap_or_default();
    let trust = file.keelgate.trust.clone();
    let fallback = fallback.map(|(at, fallback)| {
        let trust = trust.unwrap_or_else(|| fallback.trust.clone());
        let secs = Duration::from_secs;
        FallbackSettings {
            backends: checked_backends((at, fallback), false, &below, problems),
            startup_grace: fallback.startup_grace.map_or(secs(3), |time| time.0),
            fallback_after: fallback.fallback_after.map_or(secs(30), |time| time.0),
            poll_interval: fallback.poll_interval.map_or(secs(10), |time| time.0),
            max_age: Some(fallback.max_age.map_or(secs(86_400), |time| time.0)).filter(|age| !age.is_zero()),
            on_stale: fallback.on_stale.unwrap_or_default(),
            public_keys: trust.public_keys,
            require_signature: trust.require_signature,
        }
    });
    Some(SourceSettings {
        from,
        fallback,
        max_shrink: guard.max_shrink.map_or(0.5, |share| share.0),
        allow_empty: guard.allow_empty.unwrap_or(false),
    })
}
