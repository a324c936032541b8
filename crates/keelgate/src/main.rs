//! The keelgate binary: reads the command line and does what it says.
//!
//! The rule to know: exit 0 is yes, 1 is no, 2 is a wrong call, 78 a wrong configuration.

mod cli;
mod cmd;
mod control_api;
mod daemon;
mod http_client;
mod log;
mod open_files;
mod planes;
mod reload;
mod server;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// sysexits' EX_CONFIG.
const BAD_CONFIGURATION: u8 = 78;

#[expect(clippy::print_stderr, reason = "this is where errors reach the person who called")]
fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cmd::execute(cli) {
        Ok(code) => code,
        Err(error) => {
            if let Some(unusable) = error.downcast_ref::<settings::Unusable>() {
                eprintln!("{unusable}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
            eprintln!("keelgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
