//! `cargo xtask setup-machine`: what a bare Debian machine needs for building, testing and measuring. Quick when all is there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

/// (a program or file that shows that it is there, Debian package).
const DEBIAN: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ("musl-gcc", "musl-tools"),
    ("/usr/bin/python3", "python3"),
    ("perl", "perl"),
    ("sqlite3", "sqlite3"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("go", "golang-go"),
    ("mkswap", "util-linux"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("fusermount3", "fuse3"),
    ("curl", "curl"),
    ("git", "git"),
    ("make", "make"),
    ("fio", "fio"),
    ("/usr/include/sys/acl.h", "libacl1-dev"),
];
const TARGETS: &[&str] = &["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl", "x86_64-unknown-none"];
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What `cargo xtask setup-machine` takes.
#[derive(Args, Default)]
pub struct Options {
    /// Also what only CI needs: on nightly, Miri, and the standard library's source, of which Miri and ThreadSanitizer have one of their own made.
    #[arg(long)]
    ci: bool,
}

/// Installs whatever is missing.
pub fn run(options: &Options) -> Result<()> {
    toolchain()?;
    debian()?;
    cargo_tool("cargo-nextest", "nextest")?;
    if options.ci {
        nightly()?;
    }
    println!("this machine has all that building, testing and measuring vswap needs");
    Ok(())
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

fn do_it(command: &mut Command) -> Result<()> {
    eprintln!("xtask: {command:?}");
    let done = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(done.success(), "{command:?} failed with {done}");
    Ok(())
}

fn toolchain() -> Result<()> {
    if !there("rustup") {
        eprintln!("xtask: no rustup; taking the toolchain as it is");
        return Ok(());
    }
    let targets = output("rustup", &["target", "list", "--installed"]);
    let missing: Vec<_> = TARGETS.iter().filter(|t| !targets.lines().any(|line| line == **t)).collect();
    if !missing.is_empty() {
        do_it(Command::new("rustup").args(["target", "add"]).args(missing))?;
    }
    let components = output("rustup", &["component", "list", "--installed"]);
    let missing: Vec<_> = ["rustfmt", "clippy"].into_iter().filter(|c| !components.contains(c)).collect();
    if !missing.is_empty() {
        do_it(Command::new("rustup").args(["component", "add"]).args(missing))?;
    }
    Ok(())
}

fn nightly() -> Result<()> {
    let installed = output("rustup", &["component", "list", "--installed", "--toolchain", "nightly"]);
    if ["miri", "rust-src"].iter().all(|component| installed.contains(component)) {
        return Ok(());
    }
    do_it(Command::new("rustup").args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "-c",
        "miri",
        "-c",
        "rust-src",
    ]))
}

fn there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|dir| Path::new(dir).join(program).exists())
}

/// Keeps packages' daemons from starting while it lives.
struct NoDaemons;

impl NoDaemons {
    fn new() -> Result<Option<Self>> {
        use std::os::unix::fs::PermissionsExt;
        if Path::new(POLICY).exists() {
            return Ok(None);
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Some(Self))
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        let _ = fs::remove_file(POLICY);
    }
}

fn debian() -> Result<()> {
    let missing: Vec<_> =
        DEBIAN.iter().filter(|(sign, _)| !there(sign)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !there("apt-get") {
        bail!("missing, and this is no Debian: {}; install them yourself", missing.join(" "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {}; as root: apt-get install --no-install-recommends {}",
            missing.join(" "),
            missing.join(" ")
        );
    }
    let _no_daemons = NoDaemons::new()?;
    do_it(Command::new("apt-get").args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-q", "-y", "--no-install-recommends"]);
    do_it(install.args(missing))
}

fn cargo_tool(name: &str, subcommand: &str) -> Result<()> {
    if !output("cargo", &[subcommand, "--version"]).is_empty() {
        return Ok(());
    }
    do_it(Command::new("cargo").args(["install", "--locked", name]))
}
