//! `slow DIRECTORY MOUNTPOINT MILLISECONDS`: shows a directory that takes so long for each call, as a file system of another machine does, until it is unmounted.
//! Names and attributes are believed for a second, and the kernel keeps pages. For `cargo xtask mount --figures`.

#[expect(dead_code, reason = "tests make it fail")]
mod passthrough;

use passthrough::{ALL, Control, Manner, show};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let [dir, at, delay] = &words[..] else {
        return Err("what it takes: DIRECTORY MOUNTPOINT MILLISECONDS".into());
    };
    let delay = delay.to_str().and_then(|delay| delay.parse().ok()).ok_or("MILLISECONDS is a number")?;
    let control = Arc::new(Control::default());
    control.delay(Duration::from_millis(delay));
    let manner = Manner { ttl: Duration::from_secs(1), pages: true, seconds: false };
    let session = show(&PathBuf::from(dir), &PathBuf::from(at), manner, &control)?;
    println!("shown");
    session.run()?;
    for call in ALL {
        println!("{call:?} {}", control.count(call));
    }
    Ok(())
}
