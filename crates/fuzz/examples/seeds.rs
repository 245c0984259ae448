//! Writes what each target begins with into a directory, one below it for each target: `cargo run -p vswap-fuzz --example seeds -- DIR`.

use std::fs;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let to: PathBuf = std::env::args_os().nth(1).ok_or(std::io::ErrorKind::InvalidInput)?.into();
    for target in vswap_fuzz::TARGETS {
        let dir = to.join(target.name);
        fs::create_dir_all(&dir)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
