use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::testing::{Lab, plugin, refused, told};

/// The headers of the answer to a request from `origin`.
fn headers_with(plugin: &Cors, origin: Option<&str>) -> HeaderMap {
    let mut sent = vec![("Access-Control-Request-Headers", "req-header1")];
    sent.extend(origin.map(|origin| ("Origin", origin)));
    let mut ctx = Ctx::example("GET", "/hello", &sent);
    assert!(told(plugin.rewrite(&mut ctx)).is_none());
    // Whatever becomes of the request's own header, the client's origin counts.
    ctx.request.headers.insert(ORIGIN, HeaderValue::from_static("http://changed.org"));
    ctx.response.headers.insert(VARY, HeaderValue::from_static("Via"));
    plugin.header_filter(&mut ctx);
    ctx.response.headers
}

fn headers(conf: Value, origin: &str) -> HeaderMap {
    headers_with(&plugin(conf), Some(origin))
}

/// `Access-Control-Allow-Origin` for a request from each of these.
fn allowed(plugin: &Cors, origins: &[&str]) -> Vec<Option<String>> {
    let one = |origin: &&str| {
        let headers = headers_with(plugin, Some(*origin).filter(|origin| !origin.is_empty()));
        headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
    };
    origins.iter().map(one).collect()
}

fn some(origin: &str) -> Option<String> {
    Some(origin.to_owned())
}

#[test]
fn everyone_is_let_in_by_default() {
    let headers = headers(json!({}), "http://sub.domain.com");
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_METHODS, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (ACCESS_CONTROL_MAX_AGE, "5"),
        (VARY, "Via"),
    ] {
        assert_eq!(headers[&name], value, "{name}");
    }
    assert!(!headers.contains_key(ACCESS_CONTROL_EXPOSE_HEADERS));
    assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
}

#[test]
fn what_is_said_is_told() {
    let conf = json!({
        "allow_origins": "http://sub.domain.com,http://sub2.domain.com",
        "allow_methods": "GET,POST",
        "allow_headers": "headr1,headr2",
        "expose_headers": "ex-headr1,ex-headr2",
        "max_age": 50,
        "allow_credential": true,
    });
    let told = headers(conf.clone(), "http://sub2.domain.com");
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "http://sub2.domain.com"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET,POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "headr1,headr2"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "ex-headr1,ex-headr2"),
        (ACCESS_CONTROL_MAX_AGE, "50"),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
    ] {
        assert_eq!(told[&name], value, "{name}");
    }
    assert_eq!(told.get_all(VARY).iter().collect::<Vec<_>>(), ["Via", "Origin"]);
    let other = headers(conf, "http://sub3.domain.com");
    assert_eq!(other.keys().collect::<Vec<_>>(), [VARY]);
}

#[test]
fn two_stars_say_whatever_was_asked_for() {
    let all = json!({
        "allow_origins": "**", "allow_methods": "**", "allow_headers": "**", "expose_headers": "*",
    });
    let told = headers(all.clone(), "https://sub.domain.com");
    assert_eq!(told[ACCESS_CONTROL_ALLOW_ORIGIN], "https://sub.domain.com");
    assert_eq!(told[ACCESS_CONTROL_ALLOW_METHODS], ALL_METHODS);
    assert_eq!(told[ACCESS_CONTROL_ALLOW_HEADERS], "req-header1");
    assert_eq!(allowed(&plugin(all), &[""]), [some("*")]);
}

#[test]
fn a_preflight_is_answered() {
    let mut ctx = Ctx::example("OPTIONS", "/hello", &[]);
    assert_eq!(told(plugin::<Cors>(json!({})).rewrite(&mut ctx)), Some((200, String::new())));
}

#[test]
fn expressions_stand_in_the_place_of_origins() {
    let conf =
        json!({"allow_origins": "http://a.com", "allow_origins_by_regex": [".*\\.test.com$", "^http://b"]});
    assert_eq!(
        allowed(&plugin(conf), &["http://a.test.com", "http://b.org", "http://a.com", ""]),
        [some("http://a.test.com"), some("http://b.org"), None, None]
    );
    let default = json!({"allow_origins_by_regex": [".*\\.test.com$"]});
    assert_eq!(allowed(&plugin(default), &["http://foo.example.org", ""]), [None, None]);
}

#[test]
fn origins_may_be_named_in_metadata() {
    let metadata = json!({"allow_origins": {
        "key_1": "https://domain.com",
        "key_2": "https://sub.domain.com,https://sub2.domain.com",
        "key_3": "*",
    }});
    let lab = Lab { metadata, ..Lab::default() };
    let cors = |conf: Value| lab.build::<Cors>(conf).unwrap();
    let both = cors(
        json!({"allow_origins": "https://a.com", "allow_origins_by_metadata": ["key_1", "key_2", "key_9"]}),
    );
    assert_eq!(
        allowed(&both, &["https://a.com", "https://domain.com", "https://sub2.domain.com", "https://b.com"]),
        [some("https://a.com"), some("https://domain.com"), some("https://sub2.domain.com"), None]
    );
    let any = cors(json!({"allow_origins": "https://a.com", "allow_origins_by_metadata": ["key_3"]}));
    assert_eq!(allowed(&any, &["https://b.com"]), [some("https://b.com")]);
    // Where metadata is asked, `*` of the route's own does not count.
    let default = cors(json!({"allow_origins_by_metadata": ["key_1"]}));
    assert_eq!(
        allowed(&default, &["https://b.com", "https://domain.com"]),
        [None, some("https://domain.com")]
    );
}

#[test]
fn timing_is_told_apart() {
    let timing = |conf: Value, origin: &str| {
        headers(conf, origin).get(TIMING_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
    };
    let listed = json!({"timing_allow_origins": "http://a.com,http://b.com"});
    assert_eq!(timing(listed.clone(), "http://b.com"), some("http://b.com"));
    assert_eq!(timing(listed, "http://c.com"), None);
    assert_eq!(timing(json!({"timing_allow_origins": "*"}), "http://c.com"), some("*"));
    assert_eq!(timing(json!({"timing_allow_origins": "http://a.com"}), "http://c.com"), None);
    let by_regex =
        json!({"timing_allow_origins": "http://a.com", "timing_allow_origins_by_regex": ["test\\.com"]});
    assert_eq!(timing(by_regex.clone(), "http://x.test.com"), some("http://x.test.com"));
    assert_eq!(timing(by_regex, "http://a.com"), None);
}

#[test]
fn what_is_refused() {
    let specific = json!({
        "allow_credential": true,
        "allow_origins": "http://a.com", "allow_methods": "GET", "allow_headers": "a", "expose_headers": "b",
    });
    plugin::<Cors>(specific.clone());
    for name in ["allow_origins", "allow_methods", "allow_headers", "expose_headers", "timing_allow_origins"]
    {
        let mut conf = specific.clone();
        conf[name] = "*".into();
        assert_eq!(
            refused::<Cors>(conf),
            "you can not set '*' for other option when 'allow_credential' is true",
            "{name}"
        );
    }
    for origins in ["null", "http://a.com,http://b.com", "**", "ftp://1.2.3.4:80"] {
        plugin::<Cors>(json!({"allow_origins": origins}));
    }
    for origins in ["", "a.com", "*a", "*,http://a.com", "http://a.com,"] {
        let reason = refused::<Cors>(json!({"allow_origins": origins}));
        assert!(
            reason.starts_with("property \"allow_origins\" validation failed: failed to match pattern"),
            "{reason}"
        );
    }
    refused::<Cors>(json!({"allow_origins_by_regex": ["("]}));
    refused::<Cors>(json!({"timing_allow_origins_by_regex": ["("]}));
}
