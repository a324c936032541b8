//! Consumers, their credentials, and what is kept secret.

use super::*;

fn none() -> Value {
    Value::Null
}

fn keyed(name: &str, key: &str) -> Value {
    json!({ "username": name, "plugins": { "key-auth": { "key": key } } })
}

fn credential(key: &str) -> Value {
    json!({ "plugins": { "key-auth": { "key": key } } })
}

#[tokio::test]
async fn a_consumer_is_known_by_its_name() {
    let api = api();
    api.script(&[
        ("GET /consumers", none(), 200, json!({ "list": [], "total": 0 })),
        (
            "PUT /consumers",
            json!({ "username": "jack" }),
            201,
            json!({ "key": "/apisix/consumers/jack", "value": { "id": null } }),
        ),
        ("PUT /consumers/jack", json!({ "username": "jack" }), 200, none()),
        ("PUT /consumers/jack1", json!({ "username": "jack" }), 400, error("wrong username")),
        (
            "PUT /consumers",
            json!({ "id": "jack" }),
            400,
            error("invalid configuration: property \"username\" is required"),
        ),
        ("PUT /consumers", json!({ "username": "Jack-and-Rose_123" }), 201, none()),
        ("DELETE /consumers/jack", none(), 200, json!({ "deleted": "1", "key": "/apisix/consumers/jack" })),
        ("DELETE /consumers/jack", none(), 404, none()),
    ])
    .await;
}

#[tokio::test]
async fn secrets_are_kept_encrypted_and_read_in_plain() {
    let api = api();
    let put = api.call("PUT /consumers", &json!({
        "username": "jack", "plugins": { "basic-auth": { "username": "the-user", "password": "the-password" } }
    })).await;
    // APISIX answers a write with what it wrote, a read with what was meant.
    assert_eq!(put.json()["value"]["plugins"]["basic-auth"]["password"], "WvF5kpaLvIzjuk4GNIMTJg==");
    assert_eq!(
        api.stored("consumers/jack").await["plugins"]["basic-auth"]["password"],
        "WvF5kpaLvIzjuk4GNIMTJg=="
    );
    let plain =
        json!({ "plugins": { "basic-auth": { "username": "the-user", "password": "the-password" } } });
    api.script(&[
        ("GET /consumers/jack", none(), 200, json!({ "value": plain })),
        (
            "PUT /consumers/jack/credentials/c1",
            credential("the-key"),
            201,
            json!({ "value": { "plugins": { "key-auth": { "key": "JCX7x1qN5e9kHt0GuJfWpw==" } } } }),
        ),
        ("GET /consumers/jack/credentials/c1", none(), 200, json!({ "value": credential("the-key") })),
    ])
    .await;
}

#[tokio::test]
async fn credentials_live_below_their_consumer() {
    let api = api();
    let two = json!({ "plugins": { "key-auth": { "key": "k" }, "basic-auth": { "username": "u", "password": "p" } } });
    api.script(&[
        ("PUT /consumers/jack/credentials/a", credential("k"), 404, error("consumer not found")),
        ("PUT /consumers", json!({ "username": "jack" }), 201, none()),
        ("PUT /consumers/jack/credentials/a", credential("k"), 201, json!({ "key": "/apisix/consumers/jack/credentials/a", "value": { "id": "a" } })),
        ("PUT /consumers/jack/credentials", json!({ "id": "b", "plugins": { "key-auth": { "key": "k2" } } }), 201, json!({ "key": "/apisix/consumers/jack/credentials/b" })),
        ("PUT /consumers/jack/credentials", credential("k3"), 400, error("missing credential id")),
        ("PUT /consumers/jack/credentials/c", json!({ "plugins": { "limit-count": { "count": 1, "time_window": 1 } } }), 400,
            error("only supports auth type plugins in consumer credential")),
        ("PUT /consumers/jack/credentials/c", two, 400, error(
            "invalid configuration: property \"plugins\" validation failed: expect object to have at most 1 properties"
        )),
        ("GET /consumers", none(), 200, json!({ "total": 1 })),
        ("GET /consumers/jack/credentials", none(), 200, json!({ "total": 2 })),
        ("DELETE /consumers/jack/credentials/a", none(), 200, json!({ "deleted": "1" })),
        ("GET /consumers/jack/credentials", none(), 200, json!({ "total": 1 })),
        ("DELETE /consumers/jack", none(), 200, none()),
        ("GET /consumers/jack/credentials", none(), 404, json!({ "message": "Key not found" })),
    ])
    .await;
    assert!(api.store.list(Kind::Credentials).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_key_belongs_to_one() {
    let taken = |owner: &str| error(&format!("duplicate key of plugin key-auth found with {owner}"));
    api()
        .script(&[
            ("PUT /consumers", json!({ "username": "alex" }), 201, none()),
            ("PUT /consumers", keyed("bob", "of-bob"), 201, none()),
            ("PUT /consumers", keyed("bob", "of-bob"), 200, none()),
            ("PUT /consumers/alex/credentials/a", credential("of-alex"), 201, none()),
            ("PUT /consumers/alex/credentials/a", credential("of-alex"), 200, none()),
            (
                "PUT /consumers/bob/credentials/b",
                credential("of-alex"),
                400,
                taken("credential: a of consumer: alex"),
            ),
            ("PUT /consumers/alex/credentials/b", credential("of-bob"), 400, taken("consumer: bob")),
            ("PUT /consumers", keyed("carol", "of-alex"), 400, taken("credential: a of consumer: alex")),
            ("PUT /consumers", keyed("carol", "of-bob"), 400, taken("consumer: bob")),
            (
                "PUT /consumers/alex/credentials/c",
                credential("of-alex"),
                400,
                taken("credential: a of consumer: alex"),
            ),
            ("PUT /consumers/bob/credentials/b", credential("of-bob"), 400, taken("consumer: bob")),
            // The consumer itself may have the key of its own credential.
            ("PUT /consumers", keyed("alex", "of-alex"), 200, none()),
            ("PUT /consumers", keyed("dora", "$secret://vault/1/a/b"), 201, none()),
            ("PUT /consumers", keyed("emil", "$secret://vault/1/a/b"), 201, none()),
            // A key given up is free again.
            ("PUT /consumers", keyed("bob", "new"), 200, none()),
            ("PUT /consumers", keyed("carol", "of-bob"), 201, none()),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_want_one_key_one_gets_it() {
    let api = Arc::new(api());
    let wanting: Vec<_> = (0..8)
        .map(|n| {
            let api = api.clone();
            tokio::spawn(
                async move { api.call("PUT /consumers", &keyed(&format!("c{n}"), "k")).await.status },
            )
        })
        .collect();
    let mut got = 0;
    for one in wanting {
        got += u32::from(one.await.unwrap() == 201);
    }
    assert_eq!(got, 1);
}
