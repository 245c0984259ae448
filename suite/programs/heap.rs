//! A static musl program: ordered maps, strings, vectors that grow, and threads. use: heap MIB
use std::collections::{BTreeMap, HashMap};

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
}

fn build(part: u64, entries: u64) -> BTreeMap<String, Vec<u64>> {
    let mut map = BTreeMap::new();
    for i in 0..entries {
        let name = format!("entry-{:016x}-{part}", mix(i * 4 + part));
        map.insert(name, (0..i % 40).map(|k| k * i).collect());
    }
    map
}

fn main() {
    let mib: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(64);
    let entries = mib * 1900;
    let parts: Vec<_> = (0..2).map(|part| std::thread::spawn(move || build(part, entries))).collect();
    let maps: Vec<_> = parts.into_iter().map(|p| p.join().expect("a builder")).collect();
    let mut sums = HashMap::new();
    for map in &maps {
        for (name, values) in map {
            *sums.entry(name.as_bytes()[6]).or_insert(0u64) += values.iter().sum::<u64>() + name.len() as u64;
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable();
    let found = (0..entries).step_by(11).filter(|i| maps[0].contains_key(&format!("entry-{:016x}-0", mix(i * 4)))).count();
    let flat: Vec<u64> = maps.iter().flat_map(|m| m.values()).flatten().copied().collect();
    println!("{sums:?}\nfound {found}, flat {} {:x}", flat.len(), flat.iter().fold(0u64, |a, v| a.rotate_left(5) ^ v));
}
