//! Room that a mount's store lends to a program's pages.

use super::{Place, noise};
use crate::run_like_plain::{run, works};
use crate::tiers::{PYTHON, filled_by};
use std::fs;

const FILES: u64 = 40;
const LEN: usize = 4 << 20;

#[test]
fn a_program_has_its_pages_in_the_store_of_a_mount_which_gives_way_and_shows_what_is_there() {
    if !works() {
        return;
    }
    let place = Place::new();
    let name = |number: u64| format!("file-{number}");
    for number in 0..FILES {
        fs::write(place.real(&name(number)), noise(LEN, number)).unwrap();
    }
    let mounted = place.mount(&[]);
    let check = || {
        for number in 0..FILES {
            assert!(fs::read(place.shown(&name(number))).unwrap() == noise(LEN, number), "{number}");
        }
    };
    check();
    let store = place.store.to_str().unwrap();
    let mut command = run(&["--disk-path", store], &PYTHON);
    let running = filled_by({
        command.arg("49152");
        command
    });
    running.written();
    let status = running.status();
    let tier = &status["tiers"][0];
    assert_eq!((tier["kind"].as_str(), tier["path"].as_str()), (Some("store"), Some(store)), "{status:#}");
    check();
    assert!(status["swapped"].as_u64() > Some(64 << 20), "{status:#}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
    check();
    mounted.unmount();
    let refused =
        run(&["--disk-path", store, "--tier", &format!("{store},kind=store")], &["true"]).output().unwrap();
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "{says}");
    assert!(says.contains("nobody lends room of the store") && says.contains("vswap cache mount"), "{says}");
}
