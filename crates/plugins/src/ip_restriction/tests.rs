use serde_json::json;

use super::*;
use crate::testing::{plugin, refused, told};

fn statuses(conf: Value, clients: &[&str]) -> Vec<u16> {
    let plugin: IpRestriction = plugin(conf);
    let status = |client: &&str| {
        let mut ctx = Ctx::example("GET", "/hello", &[]);
        ctx.client.set_ip(client.parse().unwrap());
        told(plugin.access(&mut ctx)).map_or(200, |(status, _)| status)
    };
    clients.iter().map(status).collect()
}

const CLIENTS: [&str; 6] =
    ["127.0.0.5", "113.74.26.106", "114.114.114.114", "::1", "::ffff:127.0.0.5", "2001:db8::2"];

#[test]
fn lists_let_in_or_keep_out() {
    let list = json!(["127.0.0.0/24", "113.74.26.106", "2001:db8::/32"]);
    assert_eq!(statuses(json!({"whitelist": list}), &CLIENTS), [200, 200, 403, 403, 200, 200]);
    assert_eq!(statuses(json!({"blacklist": list}), &CLIENTS), [403, 403, 200, 200, 403, 403]);
}

#[test]
fn who_is_kept_out_is_told() {
    let mut ctx = Ctx::example("GET", "/hello", &[]);
    let own = json!({"blacklist": ["127.0.0.1"], "message": "Do you want to do something bad?", "response_code": 404});
    for (conf, status, message) in [
        (json!({"whitelist": ["::1"]}), 403, "Your IP address is not allowed"),
        (own, 404, "Do you want to do something bad?"),
    ] {
        let answer = told(plugin::<IpRestriction>(conf).access(&mut ctx)).unwrap();
        assert_eq!(answer, (status, format!("{{\"message\":\"{message}\"}}\n")));
    }
}

#[test]
fn what_is_refused() {
    let one = "value should match only one schema";
    let item = "validation failed: failed to validate item 1: object matches none of the required";
    for (conf, reason) in [
        (json!({"blacklist": ["10.255.256.0/24"]}), format!("property \"blacklist\" {item}")),
        (json!({"whitelist": ["10.255.254.0/38"]}), format!("property \"whitelist\" {item}")),
        (json!({"blacklist": ["::1/129"]}), "invalid ip address: ::1/129".to_owned()),
        (json!({}), format!("{one}, but matches none")),
        (
            json!({"whitelist": ["::1"], "blacklist": ["::1"]}),
            format!("{one}, but matches both schemas 1 and 2"),
        ),
        (
            json!({"blacklist": []}),
            "property \"blacklist\" validation failed: expect array to have at least 1 items".to_owned(),
        ),
    ] {
        assert_eq!(refused::<IpRestriction>(conf.clone()), reason, "{conf}");
    }
}
