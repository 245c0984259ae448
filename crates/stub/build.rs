//! Builds the stub's image: a freestanding, position-independent executable for the host's Linux, flattened into
//! one block of bytes with the list of words that need the load address added.
//!
//! It is built by the plain compiler (`$RUSTC`), for the host even when the product is for another libc: the stub
//! has none.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const SOURCES: [&str; 5] =
    ["image/main.rs", "image/kernel.rs", "src/protocol.rs", "src/logic.rs", "src/start.rs"];
const FLAGS: [&str; 14] = [
    "--edition=2024",
    "--crate-type=bin",
    "--crate-name=vswap_stub_image",
    "-Cpanic=abort",
    "-Copt-level=s",
    "-Clto=fat",
    "-Cstrip=symbols",
    "-Crelocation-model=pie",
    "-Ctarget-feature=+crt-static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,noseparate-code",
    "-Clink-arg=-Wl,-z,norelro",
];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let host = env::var("HOST").expect("cargo sets HOST");
    let elf = Path::new(&out).join("stub.elf");
    if !host.starts_with("x86_64-") || !host.contains("-linux-") {
        panic!("the stub is x86-64 Linux code and is built for the host; this host is {host}");
    }
    let status = Command::new(env::var("RUSTC").expect("cargo sets RUSTC"))
        .args(FLAGS)
        .arg(format!("--target={host}"))
        .arg("-o")
        .arg(&elf)
        .arg(SOURCES[0])
        .status()
        .expect("the compiler starts");
    assert!(status.success(), "the stub's image does not compile: {status}");
    let image = flatten(&fs::read(&elf).expect("the image was written"));
    fs::write(Path::new(&out).join("stub.bin"), &image.bytes).expect("OUT_DIR is writable");
    fs::write(Path::new(&out).join("stub.rs"), image.source()).expect("OUT_DIR is writable");
}

struct Image {
    bytes: Vec<u8>,
    entry: u64,
    relocations: Vec<(u64, u64)>,
}

impl Image {
    fn source(&self) -> String {
        let mut text = String::new();
        writeln!(
            text,
            "/// Offset of the first instruction in [`IMAGE`].\npub const ENTRY: u64 = {};",
            self.entry
        )
        .expect("a string takes all");
        writeln!(
            text,
            "/// Words of [`IMAGE`] to set to load address + second value: (offset, value).\n\
             pub const RELOCATIONS: &[(u64, u64)] = &{:?};",
            self.relocations
        )
        .expect("a string takes all");
        text
    }
}

fn word(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Lays the loadable parts out as the kernel would and collects the relocations, refusing all but `RELATIVE`.
fn flatten(elf: &[u8]) -> Image {
    const PT_LOAD: u64 = 1;
    const PT_DYNAMIC: u64 = 2;
    assert_eq!(&elf[..4], b"\x7fELF");
    let headers = word(elf, 32, 8) as usize;
    let count = word(elf, 56, 2) as usize;
    let mut bytes = Vec::new();
    let mut dynamic = None;
    for header in (0..count).map(|i| headers + i * word(elf, 54, 2) as usize) {
        let [offset, address, file_size, size] =
            [8, 16, 32, 40].map(|field| word(elf, header + field, 8) as usize);
        match word(elf, header, 4) {
            PT_LOAD => {
                bytes.resize(bytes.len().max(address + size), 0);
                bytes[address..address + file_size].copy_from_slice(&elf[offset..offset + file_size]);
            }
            PT_DYNAMIC => dynamic = Some((address, size)),
            _ => {}
        }
    }
    let relocations = dynamic.map_or_else(Vec::new, |(at, size)| relocations(&bytes, at, size));
    Image { entry: word(elf, 24, 8), bytes, relocations }
}

fn relocations(bytes: &[u8], dynamic: usize, size: usize) -> Vec<(u64, u64)> {
    const DT_RELA: u64 = 7;
    const DT_RELASZ: u64 = 8;
    const DT_RELR: u64 = 36;
    const DT_JMPREL: u64 = 23;
    const R_X86_64_RELATIVE: u64 = 8;
    let tag = |wanted| {
        (dynamic..dynamic + size)
            .step_by(16)
            .find(|&at| word(bytes, at, 8) == wanted)
            .map(|at| word(bytes, at + 8, 8) as usize)
    };
    assert!(tag(DT_RELR).is_none() && tag(DT_JMPREL).is_none(), "unexpected relocations in the stub's image");
    let (Some(table), Some(len)) = (tag(DT_RELA), tag(DT_RELASZ)) else {
        return Vec::new();
    };
    (table..table + len)
        .step_by(24)
        .map(|at| {
            assert_eq!(word(bytes, at + 8, 8), R_X86_64_RELATIVE, "a relocation other than RELATIVE");
            (word(bytes, at, 8), word(bytes, at + 16, 8))
        })
        .collect()
}
