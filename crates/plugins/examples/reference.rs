//! Writes `docs/reference/`.

use std::{fs, io, path::Path};

use plugins::reference;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    fs::write(folder.join("plugins.md"), reference::page())?;
    fs::write(folder.join("compatibility.md"), reference::compatibility::page())
}
