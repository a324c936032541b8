//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// An API gateway compatible with Apache APISIX that keeps serving when its control plane is gone.
#[derive(Debug, Parser)]
#[command(name = "keelgate", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// The config.yaml to use. Default: $KEELGATE_CONFIG, ./conf/config.yaml, /usr/local/keelgate/conf/config.yaml,
    /// /usr/local/apisix/conf/config.yaml.
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run in the foreground, logging to stderr. SIGTERM and SIGQUIT finish what is in flight; SIGINT stops at once;
    /// SIGHUP reloads.
    Run,
    /// Run in the background, with a pid file and a log file.
    Start,
    /// Stop the running process at once.
    Stop,
    /// Stop the running process when all it has in flight is finished.
    Quit,
    /// Test the configuration, stop the running process, start a new one.
    Restart,
    /// Make the running process read config.yaml anew and apply all of it, without failing a request.
    Reload,
    /// Check config.yaml, and exit.
    Test,
    /// Print the version.
    Version,
    /// Do nothing: APISIX writes its `nginx.conf` with it, and its image calls it before it starts.
    #[command(hide = true)]
    Init,
    /// Do nothing: APISIX makes its folders in etcd with it, and its image calls it before it starts.
    #[command(hide = true, name = "init_etcd")]
    InitEtcd,
    /// Run a control plane, a data plane and a sample upstream on this machine.
    Quickstart {
        /// Where everything is kept.
        #[arg(long, value_name = "DIR", default_value = "./quickstart")]
        dir: PathBuf,
        /// Leave all of it running and return.
        #[arg(long)]
        detach: bool,
    },
    /// Show this node's role, source, revision, age, held changes, rejected resources, last backup.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Act on the configuration being served.
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Work on the backup that config.yaml names.
    Backup {
        #[command(subcommand)]
        action: BackupAction,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Release what is held: a returning control plane's configuration, or a backup that was not written.
    Accept,
}

#[derive(Debug, Subcommand)]
pub enum BackupAction {
    /// Write a backup now.
    Now,
    /// List the backups there are.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Show one backup: its manifest and what it holds.
    Show {
        /// The sequence number, as `list` shows it.
        sequence: u64,
        /// Print the resources themselves, as an apisix.json.
        #[arg(long)]
        resources: bool,
    },
    /// Check that a backup is whole and boots. Default: the newest.
    Verify { sequence: Option<u64> },
}
