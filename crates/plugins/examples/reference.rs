//! Writes `docs/reference/plugins.md`.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    fs::write(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/plugins.md"),
        plugins::reference::page(),
    )
}
