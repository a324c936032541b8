use super::*;

fn parsed(text: &str) -> Result<Loaded, Unusable> {
    parse(text, Path::new("/srv/gate/conf/config.yaml"), &|_| None)
}

fn settings(text: &str) -> Settings {
    match parsed(text) {
        Ok(loaded) => loaded.settings,
        Err(unusable) => panic!("{unusable}"),
    }
}

fn refusal(text: &str) -> String {
    match parsed(text) {
        Ok(loaded) => panic!("it was taken: {:?}", loaded.settings),
        Err(unusable) => unusable.to_string(),
    }
}

#[test]
fn an_empty_file_is_a_whole_gateway_on_its_own_store() {
    let settings = settings("#\n");
    assert_eq!(settings.role, Role::Traditional);
    assert_eq!(settings.group, "default");
    assert_eq!(settings.home, Path::new("/srv/gate"));
    assert!(
        matches!(&settings.store, Some(StoreSettings::Embedded { dir }) if dir == Path::new("/srv/gate/data/store"))
    );
    assert!(matches!(settings.source.unwrap().from, SourceFrom::Own));
    assert_eq!(settings.proxy.unwrap().listen[0].address, "0.0.0.0:9080".parse().unwrap());
    assert_eq!(settings.admin.unwrap().listen.address, "0.0.0.0:9180".parse().unwrap());
    assert_eq!(settings.dp_listen.unwrap().plain.address, "0.0.0.0:7900".parse().unwrap());
}

#[test]
fn the_guides_standalone_block_reads_the_bucket() {
    let settings = settings(
        "deployment:\n  role: data_plane\n  role_data_plane:\n    config_provider: yaml\n  fallback_cp:\n    mode: read\n    aws_s3:\n      access_key: a\n      secret_key: s\n      region: us-east-1\n      config_bucket: cfg\n      resource_bucket: res\n      endpoint: http://127.0.0.1:5000\n      use_path_style: true\n#END\n",
    );
    let source = settings.source.unwrap();
    assert!(matches!(source.from, SourceFrom::Bucket));
    assert_eq!(source.fallback.unwrap().startup_grace, Duration::from_secs(3));
    assert!(settings.admin.is_none() && settings.store.is_none() && settings.dp_listen.is_none());
}

#[test]
fn a_traditional_node_pointed_at_a_control_plane_serves_no_data_planes() {
    let settings = settings(
        "deployment:\n  role: traditional\n  role_traditional: {config_provider: etcd}\n  etcd: {host: [\"http://cp:7900\"]}\n",
    );
    assert!(settings.dp_listen.is_none());
    assert!(
        matches!(settings.source.unwrap().from, SourceFrom::Etcd(etcd) if etcd.hosts == ["http://cp:7900"])
    );
}

#[test]
fn refusals_name_file_line_and_key() {
    let wrong_type = refusal(
        "deployment:\n  role: data_plane\n  etcd:\n    host: [\"http://cp:7900\"]\n    timeout: soon\n",
    );
    assert!(
        wrong_type.starts_with("/srv/gate/conf/config.yaml:5: deployment.etcd.timeout: "),
        "{wrong_type}"
    );
    assert!(wrong_type.contains("`soon` is not a time"), "{wrong_type}");
    let wrong_role = refusal("deployment:\n  role: king\n");
    assert!(wrong_role.starts_with("/srv/gate/conf/config.yaml:2: deployment.role: "), "{wrong_role}");
    let no_scheme = refusal("deployment:\n  role: data_plane\n  etcd:\n    host: [cp:7900]\n");
    assert!(
        no_scheme.starts_with("/srv/gate/conf/config.yaml:4: deployment.etcd.host: `cp:7900` must begin"),
        "{no_scheme}"
    );
    let taken_twice =
        refusal("apisix:\n  node_listen: 9180\ndeployment:\n  admin:\n    admin_listen:\n      port: 9180\n");
    assert!(
        taken_twice.contains(
            "deployment.admin.admin_listen: 0.0.0.0:9180 is also the address of apisix.node_listen"
        ),
        "{taken_twice}"
    );
    let never = refusal("apisix:\n  lru:\n    secret:\n      ttl: 0\n");
    assert!(never.contains(":4: apisix.lru.secret.ttl: it must be a second or more"), "{never}");
    let unset = refusal("apisix:\n  node_listen: ${{NO_SUCH_VARIABLE}}\n");
    assert!(
        unset.starts_with("/srv/gate/conf/config.yaml:2: can't find") && unset.contains("NO_SUCH_VARIABLE"),
        "{unset}"
    );
    let in_list = refusal("# ${{OTHER}}\napisix:\n  node_listen: [${{NO_SUCH_VARIABLE}}]\n");
    assert!(
        in_list.starts_with("/srv/gate/conf/config.yaml:3: can't find")
            && in_list.contains("NO_SUCH_VARIABLE"),
        "{in_list}"
    );
    let broken = refusal("apisix:\n  node_listen: [1,\n");
    assert!(broken.starts_with("/srv/gate/conf/config.yaml:"), "{broken}");
}

/// APISIX's own `config.yaml` explains variables in its comments.
#[test]
fn a_variable_in_a_comment_needs_no_value() {
    let text = "# use `${{VAR}}` for that\napisix:\n  node_listen: 9999 # not ${{OTHER}}\n";
    assert_eq!(settings(text).proxy.unwrap().listen[0].address.port(), 9999);
}

#[test]
fn every_contradiction_is_told_at_once() {
    let both = refusal(
        "deployment:\n  role: data_plane\n  role_data_plane: {config_provider: embedded}\n  etcd: {host: []}\n",
    );
    assert_eq!(both.lines().count(), 2, "{both}");
}

#[test]
fn keys_that_do_nothing_are_told_with_their_path() {
    let loaded = parsed("apisix:\n  enable_reuseport: true\n  node_listen: 9080\nnginx_config:\n  event:\n    worker_connections: 10620\n").unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "/srv/gate/conf/config.yaml:2: apisix.enable_reuseport: this key is not used by Keelgate",
            "/srv/gate/conf/config.yaml:5: nginx_config.event: this key is not used by Keelgate",
        ]
    );
}

#[test]
fn variables_and_apisix_forms_of_listeners_are_read() {
    let env = |name: &str| (name == "PORT").then(|| "9777".to_owned());
    let text = "apisix:\n  node_listen:\n    - ${{PORT}}\n    - port: 9081\n    - ip: 127.0.0.2\n      port: ${{OTHER:=9082}}\n";
    let loaded = parse(text, Path::new("conf/config.yaml"), &env).unwrap();
    let listen: Vec<String> =
        loaded.settings.proxy.unwrap().listen.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(listen, ["0.0.0.0:9777", "[::]:9777", "0.0.0.0:9081", "[::]:9081", "127.0.0.2:9082"]);
}

/// As in every `config.yaml` that comes with APISIX.
#[test]
fn tls_listens_on_ipv6_too_where_its_port_is_written() {
    let listens = |text: &str| {
        let loaded = parsed(text).unwrap();
        assert_eq!(loaded.warnings, [""; 0]);
        let listen = loaded.settings.proxy.unwrap().tls_listen;
        listen.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listens("apisix:\n  ssl:\n    listen:\n      - port: 9443\n"), ["0.0.0.0:9443", "[::]:9443"]);
    let both = "apisix:\n  ssl:\n    listen:\n      - port: 9443\n      - {ip: '::', port: 9443}\n";
    assert_eq!(listens(both), ["0.0.0.0:9443", "[::]:9443"]);
    let twice = refusal("apisix: {node_listen: [9443], ssl: {listen: [{port: 9443}]}}\n");
    assert!(twice.contains("apisix.ssl.listen: 0.0.0.0:9443 is also the address of apisix.node_listen"));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let settings = settings(
        "deployment:\n  role: traditional\n  admin:\n    admin_key: [{name: admin, key: hush-1, role: admin}]\n  etcd: {host: ['http://e:1'], user: root, password: hush-2}\n",
    );
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hush-"), "{shown}");
}

#[test]
fn a_default_listener_gives_way_to_what_is_written() {
    let loaded = parsed("apisix:\n  node_listen: 9090\n  status: {port: 9091}\n").unwrap();
    assert_eq!(loaded.settings.control_api, None);
    assert!(loaded.settings.prometheus.is_none());
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    // Not so the Admin API.
    assert!(refusal("apisix:\n  node_listen: 9180\n").contains("9180 is also the address of"));
}

#[test]
fn whom_the_proxy_believes_is_apisixs_unless_written() {
    let default = settings("#\n").proxy.unwrap();
    let real_ip = default.real_ip.unwrap();
    assert_eq!(real_ip.from, ["127.0.0.1/32".parse().unwrap()]);
    assert_eq!(real_ip.said_by, proxy::engine::SaidBy::Field("x-real-ip".parse().unwrap()));
    assert!(default.http.underscores_in_headers.0 && default.proxied_listen.is_empty());
    let written = settings(
        "apisix:\n  enable_ipv6: false\n  proxy_protocol: {listen_http_port: 9181, listen_https_port: 9182}\n\
         nginx_config:\n  http:\n    underscores_in_headers: off\n    large_client_header_buffers: 2 16k\n    \
         real_ip_header: proxy_protocol\n    real_ip_recursive: \"on\"\n    real_ip_from: [\"unix:\", 10.0.0.0/8]\n",
    )
    .proxy
    .unwrap();
    let real_ip = written.real_ip.unwrap();
    assert_eq!(real_ip.from, ["10.0.0.0/8".parse().unwrap()]);
    assert!(real_ip.recursive && real_ip.said_by == proxy::engine::SaidBy::ProxyProtocol);
    assert!(!written.http.underscores_in_headers.0);
    assert_eq!(written.http.large_client_header_buffers.total(), 32 * 1024);
    assert_eq!(written.proxied_listen[0].address, "0.0.0.0:9181".parse().unwrap());
    assert_eq!(written.proxied_tls_listen[0].address, "0.0.0.0:9182".parse().unwrap());
    assert!(settings("nginx_config:\n  http:\n    real_ip_from: null\n").proxy.unwrap().real_ip.is_none());
    for (key, value) in [
        ("real_ip_from", "[lb.internal]"),
        ("real_ip_header", "a b"),
        ("underscores_in_headers", "perhaps"),
        ("large_client_header_buffers", "8k"),
    ] {
        let refused = refusal(&format!("nginx_config:\n  http:\n    {key}: {value}\n"));
        assert!(
            refused.starts_with(&format!("/srv/gate/conf/config.yaml:3: nginx_config.http.{key}: ")),
            "{refused}"
        );
    }
    let refused = refusal("apisix:\n  trusted_addresses: []\n");
    assert!(refused.contains(":2: apisix.trusted_addresses: it is empty"), "{refused}");
}

#[test]
fn http3_is_listened_for_where_it_is_asked_for() {
    let quic = |text: &str| settings(text).proxy.unwrap().quic;
    assert!(quic("#\n").is_empty());
    let text =
        "apisix:\n  ssl:\n    listen:\n      - {port: 9443, enable_http3: true}\n      - {port: 9444}\n";
    assert_eq!(quic(text), ["0.0.0.0:9443".parse().unwrap()]);
    let refused = refusal(&format!("{text}    ssl_protocols: TLSv1.2\n"));
    assert!(refused.contains(":6: apisix.ssl.ssl_protocols: `TLSv1.2` has no TLSv1.3"), "{refused}");
    let refused = refusal("apisix:\n  node_listen:\n    - {port: 9080, enable_http3: true}\n");
    assert!(refused.contains(":2: apisix.node_listen: HTTP/3 is never without TLS"), "{refused}");
}

#[test]
fn a_bucket_that_can_not_be_meant_is_refused_with_its_key() {
    let cp = |block: &str| {
        format!("deployment:\n  role: control_plane\nfallback_cp:\n  aws_s3:\n    config_bucket: c\n{block}")
    };
    let refused = refusal(&cp("    resource_bucket: r\n    endpoint: 127.0.0.1:9000\n"));
    let expected =
        "/srv/gate/conf/config.yaml:7: fallback_cp.aws_s3.endpoint: `127.0.0.1:9000` must begin with http://";
    assert!(refused.starts_with(expected), "{refused}");
    let refused = refusal(&cp("    access_key: a\n"));
    assert!(refused.contains(":6: fallback_cp.aws_s3.access_key: `secret_key` goes with it"), "{refused}");
    assert!(refused.contains("fallback_cp.aws_s3.resource_bucket: it is missing"), "{refused}");
    let dp = "deployment:\n  role: data_plane\n  fallback_cp:\n    gcs:\n      config_bucket: c\n      endpoint: 'http:// '\n";
    let refused = refusal(dp);
    assert!(refused.contains(":6: deployment.fallback_cp.gcs.endpoint: "), "{refused}");
}

#[test]
fn a_node_that_is_told_to_read_writes_no_backup() {
    let with = |mode: &str| {
        let text =
            "deployment:\n  role: traditional\n  fallback_cp:\n    local: {config_dir: c, resource_dir: r}\n";
        parsed(&format!("{text}{mode}")).unwrap()
    };
    assert!(with("").settings.export.is_some() && with("    mode: write\n").settings.export.is_some());
    let told = with("    mode: read\n");
    assert!(told.settings.export.is_none());
    assert!(told.warnings.iter().any(|warning| warning.contains("fallback_cp.mode")), "{:?}", told.warnings);
}

#[test]
fn a_port_that_is_none_is_told_with_what_would_be_right() {
    for (listen, told) in [
        ("70000", "70000 is not a port: 1 to 65535"),
        ("-1", "-1 is not a port: 1 to 65535"),
        ("0", "0 is not a port: 1 to 65535"),
        ("'9080'", "the port is a text: write 9080 without quotes"),
        ("abc", "`abc` is not a port: 1 to 65535"),
        ("true", "a port is expected, or a table with `port` and perhaps `ip`"),
        ("[9080, {port: 70000}]", "70000 is not a port: 1 to 65535"),
        ("[{ip: here, port: 9080}]", "`here` is not an IP address"),
        ("[{ip: 127.0.0.1}]", "a port is expected, or a table with `port` and perhaps `ip`"),
        ("[{port: 9080, enable_http2: maybe}]", "`enable_http2` is true or false"),
    ] {
        let refused = refusal(&format!("apisix:\n  node_listen: {listen}\n"));
        assert!(refused.starts_with("/srv/gate/conf/config.yaml:2: apisix.node_listen"), "{refused}");
        assert!(refused.ends_with(told), "{listen}: {refused}");
    }
    let refused = refusal("apisix:\n  ssl:\n    listen:\n      - port: 0\n");
    assert!(refused.contains("apisix.ssl.listen") && refused.ends_with("0 is not a port: 1 to 65535"));
}

#[test]
fn a_file_that_is_no_yaml_is_told_in_plain_words() {
    for (text, told) in [
        ("apisix:\n  node_listen: 1\n  node_listen: 2\n", ":3: apisix: the key `node_listen` is there twice"),
        ("apisix: {}\n---\na: 1\n", "there is more than one document: remove the `---`"),
        ("- apisix\n", ":1: keys with values are expected here, such as `key: value`"),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(told), "{refused}");
    }
}

#[test]
fn what_is_not_built_in_is_told_once_with_its_line() {
    let text = "plugins:\n- cors\n- nonsense\n- limit-wonder\nstream_plugins: [cors, ip-restriction]\n\
                plugin_attr:\n  nonsense: {}\n  prometheus: {}\napisix:\n  stream_proxy: {tcp: [9100]}\n  ssl:\n    ssl_ciphers: NONE:ECDHE-RSA-AES128-GCM-SHA256\n";
    let told = parsed(text).unwrap().warnings;
    let expected = [
        "12: apisix.ssl.ssl_ciphers: there is no NONE",
        "10: apisix.stream_proxy: it does nothing while apisix.proxy_mode is `http`",
        "1: plugins: not built in: nonsense, limit-wonder",
        "5: stream_plugins: not built in: cors",
        "6: plugin_attr: not built in: nonsense",
    ];
    assert_eq!(told, expected.map(|text| format!("/srv/gate/conf/config.yaml:{text}")));
}

/// As in APISIX 2.15.
#[test]
fn what_has_moved_since_apisix_2_is_told_with_its_new_place() {
    let text = "apisix:\n  admin_key: [{name: admin, key: k, role: admin}]\n  allow_admin: [127.0.0.0/24]\n\
                etcd:\n  host: ['http://127.0.0.1:2379']\n";
    let told = parsed(text).unwrap().warnings;
    for (place, now) in [
        ("2: apisix.admin_key", "deployment.admin.admin_key"),
        ("3: apisix.allow_admin", "deployment.admin.allow_admin"),
        ("4: etcd", "deployment.etcd"),
    ] {
        let expected =
            format!("/srv/gate/conf/config.yaml:{place}: it does nothing here since APISIX 3: write {now}");
        assert!(told.contains(&expected), "{told:?}");
    }
}
