//! One file a verb, or a few that belong together.

mod backup;
mod lifecycle;
mod quickstart;
mod run;
mod status;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command, ConfigAction},
    settings::{self, Loaded},
};

/// Does what the command line says.
pub fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let load = || -> anyhow::Result<Loaded> { Ok(settings::load(&settings::find(cli.config.as_deref())?)?) };
    match cli.command {
        Command::Version => {
            say(&format!("keelgate {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        Command::Init | Command::InitEtcd => {
            say("there is nothing to do: keelgate needs no preparation; see `keelgate help`");
            Ok(ExitCode::SUCCESS)
        }
        Command::Test => lifecycle::test(&load()?),
        Command::Run => run::run(load()?),
        Command::Start => lifecycle::start(&load()?),
        Command::Stop => lifecycle::stop(&load()?.settings),
        Command::Quit => lifecycle::quit(&load()?.settings),
        Command::Restart => lifecycle::restart(&load()?),
        Command::Reload => lifecycle::reload(&load()?),
        Command::Quickstart { dir, detach } => quickstart::quickstart(&dir, detach),
        Command::Status { json } => status::status(&load()?.settings, json),
        Command::Config { action: ConfigAction::Accept } => status::accept(&load()?.settings),
        Command::Backup { action } => backup::backup(&load()?.settings, &action),
    }
}

/// What a command has to say, on stdout.
#[expect(clippy::print_stdout, reason = "this is where answers reach the person who called")]
fn say(text: &str) {
    println!("{text}");
}

/// What a person should know besides the answer, on stderr.
#[expect(clippy::print_stderr, reason = "this is where remarks reach the person who called")]
fn remark(text: &str) {
    eprintln!("{text}");
}
