//! Configurations that the page shows. Together they use every option there is: a test sees to it.

use model::schema::Place;

use super::Example;

const fn example(plugin: &'static str, title: &'static str, conf: &'static str) -> Example {
    Example { plugin, place: Place::Elsewhere, title, conf }
}

const fn metadata(plugin: &'static str, title: &'static str, conf: &'static str) -> Example {
    Example { plugin, place: Place::Metadata, title, conf }
}

/// All examples, in the order in which they are shown.
pub const EXAMPLES: &[Example] = &[
    example(
        "request-id",
        "Short ids of letters that can't be mistaken, kept from the client",
        r#"{"header_name": "X-Trace", "include_in_response": false, "algorithm": "range_id",
            "range_id": {"length": 12, "char_set": "abcdefghjkmnpqrstuvwxyz23456789"}}"#,
    ),
    example(
        "cors",
        "Two sites, with cookies",
        r#"{"allow_origins": "https://a.example.com,https://b.example.com", "allow_methods": "GET,POST",
            "allow_headers": "Authorization", "expose_headers": "X-Request-Id", "max_age": 600,
            "allow_credential": true, "timing_allow_origins": "https://a.example.com"}"#,
    ),
    example(
        "cors",
        "All sites of a domain, and those that metadata names",
        r#"{"allow_origins": "https://example.com", "allow_origins_by_regex": [".*\\.example\\.com$"],
            "allow_origins_by_metadata": ["partners"], "timing_allow_origins_by_regex": [".*\\.example\\.com$"]}"#,
    ),
    metadata(
        "cors",
        "The partners, as metadata",
        r#"{"allow_origins": {"partners": "https://partner.example.org"}}"#,
    ),
    example(
        "ip-restriction",
        "Two networks and nobody else",
        r#"{"whitelist": ["10.0.0.0/8", "2001:db8::/32"], "message": "Not from here", "response_code": 404}"#,
    ),
    example("ip-restriction", "Everybody but one", r#"{"blacklist": ["192.0.2.7"]}"#),
    example(
        "key-auth",
        "Keys under another name, kept from the upstream; who has none is the consumer `guest`",
        r#"{"header": "X-Key", "query": "key", "realm": "shop", "hide_credentials": true,
            "anonymous_consumer": "guest"}"#,
    ),
    Example {
        plugin: "key-auth",
        place: Place::Consumer,
        title: "A consumer's key",
        conf: r#"{"key": "$env://SHOP_KEY"}"#,
    },
    example(
        "proxy-rewrite",
        "Another URI, method and host",
        r#"{"uri": "/v2$uri", "method": "POST", "host": "api.example.com"}"#,
    ),
    example(
        "proxy-rewrite",
        "Parts of the path as a query, and as a header",
        r#"{"regex_uri": ["^/users/(\\d+)/(.*)", "/$2?user=$1"],
            "headers": {"add": {"X-Tag": ["a", "b"]}, "set": {"X-User": "$1"}, "remove": ["Cookie"]}}"#,
    ),
    example(
        "proxy-rewrite",
        "The URI as the client wrote it; a header in the short form",
        r#"{"use_real_request_uri_unsafe": true, "headers": {"X-Api-Version": "v1"}}"#,
    ),
    example(
        "limit-count",
        "A hundred requests a minute for each consumer and address",
        r#"{"count": 100, "time_window": 60, "key": "$consumer_name $remote_addr", "key_type": "var_combination",
            "rejected_code": 429, "rejected_msg": "slow down", "window_type": "sliding", "group": "shop",
            "policy": "local", "allow_degradation": true, "show_limit_quota_header": true, "sync_interval": -1}"#,
    ),
    example(
        "limit-count",
        "A limit that comes with the request, beside one for all",
        r#"{"rules": [
            {"key": "${http_tenant}", "count": "${http_quota ?? 10}", "time_window": 60, "header_prefix": "tenant"},
            {"key": "${remote_addr}", "count": 1000, "time_window": 3600}]}"#,
    ),
    metadata(
        "limit-count",
        "Other names for the headers, as metadata",
        r#"{"limit_header": "X-Quota-Limit", "remaining_header": "X-Quota-Remaining", "reset_header": "X-Quota-Reset"}"#,
    ),
    example(
        "redirect",
        "Elsewhere for good, with the query",
        r#"{"uri": "https://example.com$uri", "ret_code": 301, "encode_uri": true, "append_query_string": true}"#,
    ),
    example("redirect", "Parts of the path", r#"{"regex_uri": ["^/old/(.*)", "/new/$1"]}"#),
    example("redirect", "To TLS", r#"{"http_to_https": true}"#),
    example(
        "response-rewrite",
        "A page in the place of the upstream's errors",
        r#"{"vars": [["status", ">=", 500]], "status_code": 503, "body": "PGgxPkJhY2sgc29vbjwvaDE+",
            "body_base64": true, "headers": {"Content-Type": "text/html"}}"#,
    ),
    example(
        "response-rewrite",
        "Links that lead through the gateway",
        r#"{"filters": [{"regex": "http://internal\\.example/", "replace": "/", "scope": "global", "options": "ijo"}],
            "max_resp_body_size": 1048576,
            "headers": {"add": ["X-Seen: $remote_addr"], "set": {"X-Server": "edge"}, "remove": ["X-Powered-By"]}}"#,
    ),
    example("prometheus", "By the names of routes and services", r#"{"prefer_name": true}"#),
    example(
        "kafka-proxy",
        "A name and a password for the brokers",
        r#"{"sasl": {"username": "gateway", "password": "secret"}}"#,
    ),
    metadata(
        "prometheus",
        "Fewer series: nodes and consumers are not told apart, as metadata",
        r#"{"disabled_labels": {"http_status": ["node", "consumer"], "http_latency": ["node", "consumer"],
            "bandwidth": ["node", "consumer"]}}"#,
    ),
];
