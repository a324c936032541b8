//! The README's first minutes: `quickstart`, an outage by hand, and the return.
//!
//! The one rule: its ports are those of the README, so it runs in a network of its own.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it fails")]

use std::process::Command;

/// What a reader of the README does. `$K` is the binary, `$D` a folder; each `see` waits until a page has a text.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
see() {
  for _ in $(seq 200); do
    if curl -fsS -m 2 "$1" 2>/dev/null | grep -q "$2"; then return 0; fi
    sleep 0.1
  done
  echo "never saw $2 at $1; last: $(curl -sS -m 2 "$1" 2>&1)" >&2
  exit 1
}
kills() {
  kill -9 "$1"
  while kill -0 "$1" 2>/dev/null; do sleep 0.05; done
}
pid() { sed -n "s/^  $1 *pid \([0-9]*\).*/\1/p" "$D/said"; }
proxy=http://127.0.0.1:9080/ip config=http://127.0.0.1:9090/v1/config

"$K" quickstart --dir "$D/q" > "$D/said" 2>&1 &
quickstart=$!
for _ in $(seq 200); do grep -q 'Ctrl-C' "$D/said" && break; sleep 0.1; done
cat "$D/said" >&2
see $proxy '"origin": *"127.0.0.1"'
see $config '"source":"control_plane"'
key=$(sed -n "s/.*X-API-KEY: \([0-9a-f]*\)'.*/\1/p" "$D/said")
see http://127.0.0.1:9180/ui/ '<html'
curl -fsS http://127.0.0.1:9180/apisix/admin/routes -H "X-API-KEY: $key" | grep -q everything
for _ in $(seq 100); do [ -f "$D/q/backup/config/keelgate/default/manifest.json" ] && break; sleep 0.1; done

kills "$(pid 'control plane')"
see $config '"connected":false'
see $proxy origin
see $config '"source":"control_plane"'
kills "$(pid 'data plane')"
"$K" run -c "$D/q/dp/conf/config.yaml" 2> "$D/dp.log" &
see $proxy origin
see $config '"source":"\(bucket\|disk\)"'
"$K" run -c "$D/q/cp/conf/config.yaml" 2> "$D/cp.log" &
see $config '"source":"control_plane".*"connected":true'
see $proxy origin
kill -INT $quickstart
wait $quickstart
"$K" quickstart --dir "$D/q" > "$D/again" 2>&1 && exit 1
grep -q '127.0.0.1:9180 .* does another gateway run here' "$D/again"
"#;

#[test]
fn the_readme_as_a_reader_follows_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    // Ending the first process of a network of processes ends them all.
    command.args(["--map-root-user", "--net", "--pid", "--fork", "--kill-child", "bash", "-c", SCRIPT]);
    command.env("K", env!("CARGO_BIN_EXE_keelgate")).env("D", folder.path());
    let output = command.output().unwrap();
    let said = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n{}\n{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        said("again"),
        said("cp.log"),
        said("dp.log")
    );
}
