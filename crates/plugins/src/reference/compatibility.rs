//! The page of what a user of APISIX finds here, and what not.
//!
//! The rule to know: which plugins are built in is asked of [`ALL`]; the differences are kept by hand in
//! `differences.md` beside this file.

use std::fmt::Write as _;

use model::Kind;

use super::quoted;
use crate::ALL;

/// The plugins that Apache APISIX 3.18 knows by default, by their names in its documentation.
const APISIX: &[&str] = &[
    "acl",
    "ai",
    "ai-aliyun-content-moderation",
    "ai-aws-content-moderation",
    "ai-cache",
    "ai-lakera-guard",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-proxy-multi",
    "ai-rag",
    "ai-rate-limiting",
    "ai-request-rewrite",
    "api-breaker",
    "attach-consumer-label",
    "authz-casbin",
    "authz-casdoor",
    "authz-keycloak",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "body-transformer",
    "cas-auth",
    "chaitin-waf",
    "clickhouse-logger",
    "client-control",
    "consumer-restriction",
    "cors",
    "csrf",
    "data-mask",
    "datadog",
    "degraphql",
    "dingtalk-auth",
    "echo",
    "elasticsearch-logger",
    "example-plugin",
    "ext-plugin-post-req",
    "ext-plugin-post-resp",
    "ext-plugin-pre-req",
    "fault-injection",
    "feishu-auth",
    "file-logger",
    "forward-auth",
    "google-cloud-logging",
    "graphql-limit-count",
    "graphql-proxy-cache",
    "grpc-transcode",
    "grpc-web",
    "gzip",
    "hmac-auth",
    "http-dubbo",
    "http-logger",
    "inspect",
    "ip-restriction",
    "jwe-decrypt",
    "jwt-auth",
    "kafka-logger",
    "key-auth",
    "lago",
    "ldap-auth",
    "ldap-auth-advanced",
    "limit-conn",
    "limit-count",
    "limit-req",
    "loggly",
    "loki-logger",
    "mcp-bridge",
    "mocking",
    "multi-auth",
    "oas-validator",
    "opa",
    "openfunction",
    "openid-connect",
    "openwhisk",
    "prometheus",
    "proxy-buffering",
    "proxy-cache",
    "proxy-control",
    "proxy-mirror",
    "proxy-rewrite",
    "public-api",
    "real-ip",
    "redirect",
    "referer-restriction",
    "request-id",
    "request-validation",
    "response-rewrite",
    "rocketmq-logger",
    "saml-auth",
    "serverless-post-function",
    "serverless-pre-function",
    "skywalking-logger",
    "sls-logger",
    "splunk-hec-logging",
    "syslog",
    "tcp-logger",
    "tencent-cloud-cls",
    "traffic-label",
    "traffic-split",
    "ua-restriction",
    "udp-logger",
    "uri-blocker",
    "wolf-rbac",
    "workflow",
    "zipkin",
];

const HEAD: &str = "\
# Compatibility with Apache APISIX

What is served as by Apache APISIX 3.18, and where Keelgate decides otherwise. A configuration that needs what is not
here is refused or reported, with the reason; nothing is ignored in silence.

<!-- Written by `cargo run -p plugins --example reference`, the differences from `crates/plugins/src/reference/differences.md`. -->
";

const DIFFERENCES: &str = include_str!("differences.md");

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    // Writing to a String can't fail.
    let _ = built(&mut page);
    page.push_str(DIFFERENCES);
    page
}

fn built(page: &mut String) -> std::fmt::Result {
    let mut here: Vec<&str> = ALL.iter().map(|spec| spec.facts.name).collect();
    here.sort_unstable();
    let mut missing: Vec<&str> = APISIX.iter().copied().filter(|name| !here.contains(name)).collect();
    missing.sort_unstable();
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    writeln!(page, "\n## Resources\n\nAll kinds: {}.", quoted(&kinds))?;
    writeln!(page, "\n## Plugins\n\nBuilt in: {} ([their options](plugins.md)).", quoted(&here))?;
    writeln!(page, "\nNot built in, and refused by name: {}.", quoted(&missing))
}
