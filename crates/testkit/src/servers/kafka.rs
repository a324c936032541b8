//! Kafka: the broker that librdkafka brings for its own tests, and a door to it with TLS and SASL/PLAIN.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{python_program, ram_dir};
use crate::certs::Pair;
use crate::process::Process;
use crate::wait::eventually;

const START: Duration = Duration::from_secs(60);

/// A running broker. Its topic `messages` has one partition, and in it `message 1` to `message 3`.
#[derive(Debug)]
pub struct Kafka {
    process: Option<Process>,
    /// Of the broker itself: no TLS, nobody is asked who they are.
    pub port: u16,
    /// Of the door, where TLS is spoken and [`Kafka::USER`] has to give [`Kafka::PASSWORD`].
    pub door: u16,
    _directory: TempDir,
}

impl Kafka {
    pub const USER: &'static str = "gateway";
    pub const PASSWORD: &'static str = "open sesame";

    /// Starts one whose door shows this certificate.
    pub async fn start(pair: &Pair) -> Self {
        let directory = ram_dir("keelgate-kafka-");
        let files = pair.write(directory.path(), "door");
        let script = directory.path().join("kafka.py");
        std::fs::write(&script, include_str!("kafka.py")).expect("the script is written");
        let mut command = Command::new(python_program("python"));
        command.arg(&script).arg(&files.cert).arg(&files.key).args([Self::USER, Self::PASSWORD]);
        let log = directory.path().join("kafka.log");
        let process = Some(Process::start("kafka", &command, &log));
        let ports = eventually(START, "Kafka to tell its ports", async || {
            let said = std::fs::read_to_string(&log)?;
            let ports = said.lines().find_map(|line| {
                let (broker, door) = line.split_once(' ')?;
                Some((broker.parse().ok()?, door.parse().ok()?))
            });
            ports.ok_or_else(|| anyhow::anyhow!("{said}"))
        });
        let (port, door) = ports.await;
        Self { process, port, door, _directory: directory }
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.take().expect("Kafka runs").kill9();
    }
}
