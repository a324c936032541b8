//! Packets that vanish: a connect that hangs, an answer that never comes. Needs root or sudo without a password;
//! [`crate::proxy::FaultProxy`] does not, but its machine always answers.

use std::process::Command;

use nix::unistd::Uid;

use crate::process::run;

/// Drops every packet to a TCP port of 127.0.0.1, until it is dropped itself.
#[derive(Debug)]
pub struct Dropped {
    port: u16,
}

/// Has packets to a port vanish.
#[track_caller]
pub fn drop_packets(port: u16) -> Dropped {
    // A test that was killed may have left its rule behind on a port that is now leased to us.
    while iptables("-D", port) {}
    assert!(iptables("-I", port), "iptables does not take a rule: it needs root, and ./x deps");
    Dropped { port }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        iptables("-D", self.port);
    }
}

fn iptables(action: &str, port: u16) -> bool {
    let port = port.to_string();
    let mut command = Command::new("iptables");
    if !Uid::effective().is_root() {
        command = Command::new("sudo");
        command.args(["-n", "iptables"]);
    }
    command.args(["-w", action, "INPUT", "-p", "tcp", "-d", "127.0.0.1", "--dport", &port, "-j", "DROP"]);
    run(&mut command).is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::get;
    use crate::upstream::Upstream;
    use std::time::Duration;

    #[tokio::test]
    async fn a_connect_hangs_while_packets_vanish() {
        let upstream = Upstream::start();
        let dropped = drop_packets(upstream.port());
        let hanging = tokio::time::timeout(Duration::from_millis(200), get(&upstream.url("/ip"))).await;
        assert!(hanging.is_err());
        drop(dropped);
        assert_eq!(get(&upstream.url("/ip")).await.unwrap().status, 200);
    }
}
