//! `quickstart`: a control plane, a data plane and a sample upstream on one machine, with a service and a route.
//!
//! The rule to know: it drives the same binary with ordinary configuration files, which are left for reading.

mod httpbin;

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::json;

use super::say;
use crate::http_client::call;

const UPSTREAM: &str = "127.0.0.1:9280";
const PROXY: &str = "127.0.0.1:9080";
const ADMIN: &str = "127.0.0.1:9180";
const CONTROL: &str = "127.0.0.1:9090";
const DATA_PLANES: &str = "127.0.0.1:7900";
/// How long each part may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The verb that runs only the sample upstream; set in the environment of the child that does.
const ONLY_UPSTREAM: &str = "KEELGATE_QUICKSTART_UPSTREAM";

pub fn quickstart(dir: &Path, detach: bool) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::var_os(ONLY_UPSTREAM).is_some() {
        runtime.block_on(httpbin::serve(UPSTREAM.parse()?))?;
        return Ok(ExitCode::SUCCESS);
    }
    all_free()?;
    let dir = std::path::absolute(dir)?;
    let nodes = Nodes::prepare(&dir)?;
    let mut running = Running::default();
    runtime.block_on(async {
        running.start("sample upstream", &dir.join("upstream.log"), upstream_command(&dir)?)?;
        running.up("sample upstream", UPSTREAM, "/get").await?;
        running.start("control plane", &dir.join("cp.log"), nodes.command(&nodes.cp)?)?;
        running.up("control plane", ADMIN, "/apisix/admin/routes").await?;
        configure(&nodes.key).await?;
        running.start("data plane", &dir.join("dp.log"), nodes.command(&nodes.dp)?)?;
        running.up("data plane", CONTROL, "/v1/config").await?;
        running.answers_through_the_proxy().await
    })?;
    introduce(&nodes, &running, &dir, detach);
    if detach {
        running.leave();
        return Ok(ExitCode::SUCCESS);
    }
    say("Ctrl-C stops all of it.");
    runtime.block_on(running.until_interrupted())
}

/// Whoever answers there already would be taken for a part of ours.
fn all_free() -> anyhow::Result<()> {
    for address in [UPSTREAM, ADMIN, DATA_PLANES, CONTROL, PROXY] {
        std::net::TcpListener::bind(address)
            .with_context(|| format!("{address} can't be listened on: does another gateway run here?"))?;
    }
    Ok(())
}

/// The files of the two nodes.
struct Nodes {
    cp: PathBuf,
    dp: PathBuf,
    key: String,
}

impl Nodes {
    fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let (cp, dp) = (dir.join("cp/conf/config.yaml"), dir.join("dp/conf/config.yaml"));
        let key_file = dir.join("admin.key");
        let key = fs::read_to_string(&key_file).unwrap_or_else(|_| uuid::Uuid::new_v4().simple().to_string());
        for file in [&cp, &dp] {
            let folder = file.parent().unwrap_or(dir);
            fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        }
        let key = key.trim().to_owned();
        fs::write(&key_file, &key)?;
        let fill =
            |template: &str| template.replace("@KEY@", &key).replace("@DIR@", &dir.display().to_string());
        fs::write(&cp, fill(include_str!("quickstart/cp.yaml")))?;
        fs::write(&dp, fill(include_str!("quickstart/dp.yaml")))?;
        Ok(Self { cp, dp, key })
    }

    fn command(&self, file: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg("--config").arg(file);
        Ok(command)
    }
}

fn upstream_command(dir: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("quickstart").arg("--dir").arg(dir).env(ONLY_UPSTREAM, "1");
    Ok(command)
}

/// The service and the route of API7's guide.
async fn configure(key: &str) -> anyhow::Result<()> {
    let service = json!({"name": "httpbin", "upstream": {"type": "roundrobin", "nodes": {UPSTREAM: 1}}});
    let route = json!({"name": "everything", "uri": "/*", "service_id": "httpbin"});
    for (path, body) in [("services/httpbin", service), ("routes/everything", route)] {
        let answer =
            call(address(ADMIN), Method::PUT, &format!("/apisix/admin/{path}"), Some(key), Some(&body))
                .await?;
        if !answer.status.is_success() {
            bail!("the Admin API refused {path}: {}", answer.text());
        }
    }
    Ok(())
}

fn address(text: &str) -> SocketAddr {
    // The addresses above, and no others.
    text.parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The processes started, stopped when this goes away.
#[derive(Default)]
struct Running {
    children: Vec<(&'static str, Child, PathBuf)>,
}

impl Running {
    fn start(&mut self, name: &'static str, log: &Path, mut command: Command) -> anyhow::Result<()> {
        let to_log = fs::File::create(log).with_context(|| format!("{} can't be written", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(to_log.try_clone()?)
            .stderr(to_log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("the {name} can't be started"))?;
        self.children.push((name, child, log.to_owned()));
        Ok(())
    }

    /// Waits until the part started last answers.
    async fn up(&mut self, name: &str, at: &str, path: &str) -> anyhow::Result<()> {
        let answers = async || {
            let answer = call(address(at), Method::GET, path, None, None).await.ok()?;
            (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(())
        };
        self.until(name, answers).await
    }

    async fn answers_through_the_proxy(&mut self) -> anyhow::Result<()> {
        let through = async || {
            let answer = call(address(PROXY), Method::GET, "/ip", None, None).await.ok()?;
            answer.status.is_success().then_some(())
        };
        self.until("route", through).await
    }

    async fn until(&mut self, name: &str, look: impl AsyncFn() -> Option<()>) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            // A part that ended is seen before its port is taken for its own.
            for (name, child, log) in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    let last_words = fs::read_to_string(&*log).unwrap_or_default();
                    bail!("the {name} ended ({status}): {}", last_words.trim());
                }
            }
            if look().await.is_some() {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the {name} did not come up within {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pid(&self, name: &str) -> u32 {
        self.children.iter().find(|(other, ..)| *other == name).map_or(0, |(_, child, _)| child.id())
    }

    fn leave(mut self) {
        self.children.clear();
    }

    /// Waits for Ctrl-C. A part that ends is part of the rehearsal: it is told, not mourned.
    async fn until_interrupted(mut self) -> anyhow::Result<ExitCode> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut told = Vec::new();
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            for (name, child, _) in &mut self.children {
                if let Ok(Some(status)) = child.try_wait()
                    && !told.contains(name)
                {
                    say(&format!("the {name} ended ({status})"));
                    told.push(*name);
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child, _) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn introduce(nodes: &Nodes, running: &Running, dir: &Path, detach: bool) {
    let binary =
        std::env::current_exe().map_or_else(|_| "keelgate".into(), |path| path.display().to_string());
    let pid = |name: &str| running.pid(name);
    say(&format!(
        "\
Keelgate is up.

  control plane    pid {cp:<8} Admin API http://{ADMIN}, console http://{ADMIN}/ui/   config {cp_file}
  data plane       pid {dp:<8} proxy http://{PROXY}   config {dp_file}
  sample upstream  pid {up:<8} http://{UPSTREAM}
  backups          {dir}/backup

Try it:
  curl http://{PROXY}/ip
  curl http://{CONTROL}/v1/config
  curl http://{ADMIN}/apisix/admin/routes -H 'X-API-KEY: {key}'

Rehearse an outage:
  kill -9 {cp}                          # the control plane is gone
  curl http://{PROXY}/ip         # still answers
  curl http://{CONTROL}/v1/config       # \"source\":\"control_plane\", \"connected\":false
  {binary} status -c {dp_file}
  kill -9 {dp}                          # worse
  {binary} run -c {dp_file} &   # a new one starts with the control plane dead, and serves
  {binary} run -c {cp_file} &   # it is back, and the data plane follows it again
{stop}",
        cp = pid("control plane"),
        dp = pid("data plane"),
        up = pid("sample upstream"),
        cp_file = nodes.cp.display(),
        dp_file = nodes.dp.display(),
        dir = dir.display(),
        key = nodes.key,
        stop = if detach {
            let [cp, dp, up] = ["control plane", "data plane", "sample upstream"].map(pid);
            format!("\nStop all of it:\n  kill {cp} {dp} {up}\n")
        } else {
            String::new()
        },
    ));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_shipped_files_are_good() {
        for text in [include_str!("quickstart/cp.yaml"), include_str!("quickstart/dp.yaml")] {
            let loaded =
                crate::settings::parse(text, Path::new("/tmp/q/conf/config.yaml"), &|_| None).unwrap();
            assert_eq!(loaded.warnings, [""; 0]);
        }
    }
}
