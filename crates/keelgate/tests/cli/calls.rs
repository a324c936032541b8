//! What the binary makes of a command line and a `config.yaml`, without anything running.

use std::fs;
use std::process::Command;

use serde_json::json;
use testkit::gateway::Gateway;

use crate::{KEELGATE, stderr, stdout};

#[test]
fn wrong_calls_and_the_version() {
    let call = |args: &[&str]| Command::new(KEELGATE).args(args).output().unwrap();
    for args in [&[][..], &["frobnicate"], &["test", "--nonsense"], &["config"], &["backup", "show"]] {
        let output = call(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{args:?}");
    }
    let version = format!("keelgate {}\n", env!("CARGO_PKG_VERSION"));
    for args in [["version"], ["--version"]] {
        let output = call(&args);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), version.clone()));
    }
    let help = call(&["help"]);
    assert_eq!(help.status.code(), Some(0));
    for verb in
        ["run", "start", "stop", "quit", "restart", "reload", "test", "quickstart", "status", "backup"]
    {
        assert!(stdout(&help).contains(&format!("  {verb}")), "{verb} is not in the help");
    }
}

#[test]
fn a_bad_file_is_told_by_line_and_key() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("conf")).unwrap();
    let file = home.path().join("conf/config.yaml");
    for (text, expected) in [
        ("apisix:\n  node_listen: [oops]\n", "config.yaml:2: apisix.node_listen"),
        ("apisix:\n  ssl:\n    ssl_protocols: SSLv3\n", "config.yaml:3: apisix.ssl.ssl_protocols: "),
        ("deployment:\n  role: captain\n", "config.yaml:2: deployment.role: "),
        (
            "deployment:\n  role: data_plane\n  role_data_plane:\n    config_provider: embedded\n",
            "config.yaml:4: ",
        ),
        ("deployment:\n  etcd:\n    host: [\"127.0.0.1:2379\"]\n", "config.yaml:3: deployment.etcd.host: "),
        (
            "deployment:\n  role: control_plane\nfallback_cp:\n  cron_spec: sometimes\n",
            "config.yaml:4: fallback_cp.cron_spec: ",
        ),
        ("apisix:\n  - nonsense: [\n", "config.yaml:"),
        ("keelgate:\n  gateway_group: ${{KEELGATE_TEST_NOT_SET}}\n", "KEELGATE_TEST_NOT_SET"),
    ] {
        fs::write(&file, text).unwrap();
        for verb in ["test", "run", "start", "reload", "status"] {
            let output = Command::new(KEELGATE).args([verb, "-c"]).arg(&file).output().unwrap();
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(78), "{verb}: {text}: {told}");
            assert!(told.contains(expected), "{verb}: {text}: {told}");
        }
    }
    let output = Command::new(KEELGATE).args(["test", "-c", "/nowhere/config.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("/nowhere/config.yaml: it can't be read"), "{}", stderr(&output));
}

#[test]
fn a_certificate_or_key_that_can_not_be_used_is_told_by_line_and_key() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("conf")).unwrap();
    let file = home.path().join("conf/config.yaml");
    fs::write(home.path().join("conf/x.pem"), "x").unwrap();
    for (text, expected) in [
        (
            "apisix:\n  ssl:\n    ssl_trusted_certificate: conf/none.pem\n",
            "config.yaml:3: apisix.ssl.ssl_trusted_certificate: ",
        ),
        (
            "deployment:\n  admin:\n    https_admin: true\n    admin_api_mtls:\n      admin_ssl_cert: conf/x.pem\n      \
             admin_ssl_cert_key: conf/x.pem\n",
            "config.yaml:5: deployment.admin.admin_api_mtls.admin_ssl_cert: ",
        ),
        (
            "keelgate:\n  dp_listen:\n    cert: conf/x.pem\n    key: conf/none.pem\n",
            "config.yaml:4: keelgate.dp_listen.key: ",
        ),
        (
            "deployment:\n  role: control_plane\nfallback_cp:\n  local: {config_dir: b, resource_dir: r}\n  signing:\n    \
             private_key_file: conf/x.pem\n",
            "config.yaml:6: fallback_cp.signing.private_key_file: ",
        ),
        (
            "deployment:\n  role: data_plane\n  etcd:\n    host: [\"https://127.0.0.1:1\"]\n    tls:\n      \
             cert: conf/none.pem\n      key: conf/x.pem\n",
            "config.yaml:6: deployment.etcd.tls.cert: ",
        ),
    ] {
        fs::write(&file, text).unwrap();
        for verb in ["test", "run", "start", "reload"] {
            let output = Command::new(KEELGATE).args([verb, "-c"]).arg(&file).output().unwrap();
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(78), "{verb}: {text}: {told}");
            assert!(told.contains(expected) && told.contains(".pem"), "{verb}: {text}: {told}");
        }
    }
}

#[test]
fn a_file_is_found_where_it_is_looked_for() {
    let node = Gateway::traditional(KEELGATE);
    let test = |command: &mut Command| command.arg("test").env_remove("KEELGATE_CONFIG").output().unwrap();
    let here = test(Command::new(KEELGATE).current_dir(node.home()));
    assert_eq!(here.status.code(), Some(0), "{}", stderr(&here));
    assert_eq!(stdout(&here), "configuration file ./conf/config.yaml test is successful\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let lost = test(Command::new(KEELGATE).current_dir(elsewhere.path()));
    assert_eq!(lost.status.code(), Some(78));
    assert!(stderr(&lost).contains("no config.yaml"), "{}", stderr(&lost));
    let mut command = Command::new(KEELGATE);
    command.current_dir(elsewhere.path()).arg("test").env("KEELGATE_CONFIG", node.config_file());
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}

#[test]
fn keys_that_do_nothing_are_told_with_their_path() {
    let node = Gateway::traditional(KEELGATE).with(json!({ "apisix": { "flux_capacitor": true } }));
    let output = node.command(&["test"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("apisix.flux_capacitor: this key is not used by Keelgate"),
        "{}",
        stderr(&output)
    );
}
