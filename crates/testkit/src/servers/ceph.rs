//! Ceph's radosgw: a real S3 that checks clocks and lets one of many racing writers create an object.
//!
//! A monitor, a manager, one in-memory OSD and the gateway, all on 127.0.0.1. It takes some 13 s to start, so tests
//! on it are named `ceph_…` and run by `./x ceph`. Its PUT with If-Match refuses every quoted ETag.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{S3, needs, ram_dir};
use crate::http::get;
use crate::ports;
use crate::process::{Process, run};
use crate::proxy::FaultProxy;
use crate::wait::eventually;

const START: Duration = Duration::from_secs(120);

/// A running cluster with its gateway; stops with its handle.
#[derive(Debug)]
pub struct Ceph {
    // In this order: the gateway first, the monitor last.
    gateway: Option<Process>,
    _osd: Process,
    _manager: Process,
    _monitor: Process,
    net: FaultProxy,
    port: u16,
    files: Files,
}

/// The cluster's folder and what is in it.
#[derive(Debug)]
struct Files {
    directory: TempDir,
}

impl Ceph {
    pub async fn start() -> Self {
        for program in ["ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "radosgw-admin", "ceph"] {
            needs(program, "./x ceph");
        }
        let [port, monitor_v2, monitor_v1] = ports::several();
        let fsid = fresh_uuid();
        let files = Files { directory: ram_dir("keelgate-ceph-") };
        for directory in ["mon/a", "osd/0", "mgr/x", "run", "log"] {
            fs::create_dir_all(files.path(directory)).expect("the cluster's folders");
        }
        let monitors = format!("[v2:127.0.0.1:{monitor_v2},v1:127.0.0.1:{monitor_v1}]");
        fs::write(files.path("ceph.conf"), files.configuration(&fsid, &monitors, port))
            .expect("ceph.conf is written");
        files.make_keys();
        files.run(&[
            "monmaptool",
            "--create",
            "--clobber",
            "--addv",
            "a",
            &monitors,
            "--fsid",
            &fsid,
            "{}/monmap",
        ]);
        files.run(&["ceph-mon", "--mkfs", "-i", "a", "--monmap", "{}/monmap", "--keyring", "{}/keyring"]);
        let monitor = files.daemon("ceph-mon", &["-i", "a"]);
        files.run(&["ceph", "config", "set", "global", "auth_allow_insecure_global_id_reclaim", "false"]);
        let osd_id = fresh_uuid();
        files.run(&["ceph", "osd", "new", &osd_id]);
        files.run(&["ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", &osd_id]);
        let manager = files.daemon("ceph-mgr", &["-i", "x"]);
        let osd = files.daemon("ceph-osd", &["-i", "0"]);
        let net = FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut ceph =
            Self { gateway: None, _osd: osd, _manager: manager, _monitor: monitor, net, port, files };
        ceph.restart().await;
        ceph
    }

    /// The address for clients, through the fault proxy.
    pub fn endpoint(&self) -> String {
        self.net.url("")
    }

    /// The line between clients and gateway.
    pub fn net(&self) -> &FaultProxy {
        &self.net
    }

    /// Makes a user, and gives a client with their keys, through the fault proxy.
    pub async fn user(&self, name: &str) -> S3 {
        let answer =
            self.files.run(&["radosgw-admin", "user", "create", "--uid", name, "--display-name", name]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON from radosgw-admin");
        let key = |field: &str| answer["keys"][0][field].as_str().unwrap_or_default().to_owned();
        S3::new(&self.endpoint(), &key("access_key"), &key("secret_key"))
    }

    /// SIGKILL to the gateway; what it stored stays in the cluster.
    pub fn kill9(&mut self) {
        self.gateway.take().expect("the gateway runs").kill9();
        self.net.reset();
    }

    /// Starts a killed gateway, and waits until it answers.
    pub async fn restart(&mut self) {
        self.gateway = Some(self.files.daemon("radosgw", &["-n", "client.rgw.a"]));
        let url = format!("http://127.0.0.1:{}/", self.port);
        eventually(START, "radosgw to answer", async || get(&url).await.map(|_| ())).await;
    }
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configuration(&self, fsid: &str, monitors: &str, port: u16) -> String {
        let home = self.directory.path().display();
        format!(
            "[global]\nfsid={fsid}\nmon_host={monitors}\npublic_addr=127.0.0.1\ncluster_addr=127.0.0.1\n\
             ms_bind_ipv4=true\nkeyring={home}/keyring\nrun_dir={home}/run\n\
             admin_socket={home}/run/$name.asok\nlog_file={home}/log/$name.log\n\
             auth_cluster_required=cephx\nauth_service_required=cephx\nauth_client_required=cephx\n\
             osd_pool_default_size=1\nosd_pool_default_min_size=1\nosd_pool_default_pg_num=8\n\
             osd_pool_default_pg_autoscale_mode=off\nosd_crush_chooseleaf_type=0\nmon_allow_pool_size_one=true\n\
             mon_max_pg_per_osd=1000\nmon_data_avail_warn=1\nmon_data_avail_crit=1\n\
             osd_objectstore=memstore\nmemstore_device_bytes=1073741824\n\
             [mon.a]\nmon_data={home}/mon/a\n[osd.0]\nosd_data={home}/osd/0\n\
             [mgr.x]\nmgr_data={home}/mgr/x\nmgr_initial_modules=\n\
             [client.rgw.a]\nrgw_frontends=beast endpoint=127.0.0.1:{port}\nrgw_zone_root_pool=.rgw.root\n"
        )
    }

    fn make_keys(&self) {
        let all = ["--cap", "osd", "allow *", "--cap", "mgr", "allow *"];
        let add = |name: &str, capabilities: &[&str]| {
            let mut command = vec!["ceph-authtool", "{}/keyring", "--gen-key", "-n", name];
            command.extend(capabilities);
            self.run(&command);
        };
        fs::write(self.path("keyring"), "").expect("the keyring");
        add("mon.", &["--cap", "mon", "allow *"]);
        add("client.admin", &[["--cap", "mon", "allow *"].as_slice(), &all].concat());
        add("osd.0", &[["--cap", "mon", "allow profile osd"].as_slice(), &all].concat());
        add("mgr.x", &[["--cap", "mon", "allow profile mgr"].as_slice(), &all].concat());
        add("client.rgw.a", &["--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"]);
    }

    /// Runs a command to its end, `{}` in it being the cluster's folder; gives what it prints.
    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let home = self.directory.path().display().to_string();
        let mut command = Command::new("timeout");
        command.arg("60").args(words.iter().map(|word| word.replace("{}", &home)));
        command.env("CEPH_ARGS", format!("-c {home}/ceph.conf"));
        let output = run(&mut command).expect("the command runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Process {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.path("ceph.conf")).args(args).arg("-f");
        Process::start(program, &command, &self.path(&format!("{program}.out")))
    }
}

fn fresh_uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random id").trim().to_owned()
}
