//! etcd, one member or three, that can be killed and brought back one by one.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{needs, ram_dir};
use crate::certs::Files;
use crate::http::get;
use crate::ports;
use crate::process::{Process, run};
use crate::wait::eventually;

const START: Duration = Duration::from_secs(30);

/// An etcd cluster; stops with its handle.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    tls: Option<Tls>,
    data: TempDir,
}

#[derive(Debug)]
struct Member {
    client: u16,
    peer: u16,
    process: Option<Process>,
}

/// What etcd needs to speak TLS to its clients.
#[derive(Debug, Clone)]
pub struct Tls {
    pub server: Files,
    /// With an authority here, clients must show a certificate it signed.
    pub client_ca: Option<std::path::PathBuf>,
}

impl Etcd {
    /// One member.
    pub async fn single() -> Self {
        Self::start(1, None).await
    }

    /// Three members: one may die.
    pub async fn cluster() -> Self {
        Self::start(3, None).await
    }

    /// One member that speaks TLS.
    pub async fn tls(tls: Tls) -> Self {
        Self::start(1, Some(tls)).await
    }

    async fn start(members: usize, tls: Option<Tls>) -> Self {
        needs("etcd", "./x deps");
        let member = |_| Member { client: ports::free(), peer: ports::free(), process: None };
        let mut etcd =
            Self { members: (0..members).map(member).collect(), tls, data: ram_dir("keelgate-etcd-") };
        for index in 0..members {
            etcd.spawn(index);
        }
        for index in 0..members {
            etcd.healthy(index).await;
        }
        etcd
    }

    /// Every member's client address.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|index| self.endpoint(index)).collect()
    }

    /// One member's client address.
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[member].client)
    }

    /// One member's client address as a socket's, to put a fault proxy before.
    pub fn address(&self, member: usize) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.members[member].client).into()
    }

    /// SIGKILL to one member.
    pub fn kill9(&mut self, member: usize) {
        self.members[member].process.take().expect("the member runs").kill9();
    }

    /// Brings a killed member back with its data, and waits until it answers.
    pub async fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.healthy(member).await;
    }

    /// Brings a killed member back with its data, and waits for nothing: without a quorum it can't be healthy.
    pub fn spawn(&mut self, member: usize) {
        let name = format!("member{member}");
        let command = self.command(member, &name);
        let log = self.data.path().join(format!("{name}.log"));
        self.members[member].process = Some(Process::start("etcd", &command, &log));
    }

    /// A member's process, to pause it, say.
    pub fn process(&mut self, member: usize) -> &mut Process {
        self.members[member].process.as_mut().expect("the member runs")
    }

    /// Runs etcdctl on the cluster, and gives what it prints.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> String {
        etcdctl(&self.endpoints().join(","), args)
    }

    fn command(&self, member: usize, name: &str) -> Command {
        let client = self.endpoint(member);
        let peer = |index: usize| format!("http://127.0.0.1:{}", self.members[index].peer);
        let cluster: Vec<_> =
            (0..self.members.len()).map(|index| format!("member{index}={}", peer(index))).collect();
        let mut command = Command::new("etcd");
        command
            .args(["--name", name, "--data-dir"])
            .arg(self.data.path().join(name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            // The data is on a RAM disk; a leader is found fast, and a busy machine does not lose it.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        if let Some(Tls { server, client_ca }) = &self.tls {
            command.arg("--cert-file").arg(&server.cert).arg("--key-file").arg(&server.key);
            if let Some(ca) = client_ca {
                command.arg("--trusted-ca-file").arg(ca).arg("--client-cert-auth");
            }
        }
        command
    }

    async fn healthy(&mut self, member: usize) {
        if self.tls.is_some() {
            // A client certificate may be asked for; the line says that clients are served.
            let process = self.process(member);
            process.wait_for_log("serving client requests", START).await;
            return;
        }
        let url = format!("{}/health", self.endpoint(member));
        let process = self.process(member);
        eventually(START, "etcd to be healthy", async || {
            if let Some(status) = process.exited() {
                panic!("etcd ended instead: {status}");
            }
            match get(&url).await {
                Ok(answer) if answer.json()["health"] == "true" => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await;
    }
}

/// Runs etcdctl on any endpoint, ours on a control plane included; it must succeed.
#[track_caller]
pub fn etcdctl(endpoints: &str, args: &[&str]) -> String {
    needs("etcdctl", "./x deps");
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints, "--command-timeout=10s"]).args(args);
    let output = run(&mut command).expect("etcdctl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "etcdctl {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
