//! A store between many tasks and a slow server: each byte is asked for once, and a task that gives up keeps nobody waiting.
//!
//!     cargo run -p vswap-objects --features async --example tasks

use async_executor::Executor;
use futures_lite::future::{block_on, or, yield_now};
use std::error::Error;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vswap_objects::{AsyncStore, StoreConfig};

const LENGTH: u64 = 1 << 20;

static ASKED: AtomicU64 = AtomicU64::new(0);

/// A client would wait for a socket, of whichever runtime.
async fn ask_the_server(wanted: Range<u64>) -> std::io::Result<Vec<u8>> {
    ASKED.fetch_add(wanted.end - wanted.start, Ordering::Relaxed);
    pass(Duration::from_millis(20)).await;
    Ok(wanted.map(|at| at as u8).collect())
}

async fn pass(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        yield_now().await;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let tasks = Executor::new();
    block_on(tasks.run(async {
        let store = AsyncStore::create(dir.path(), 64 << 20, StoreConfig::default()).await?;
        let film = store.object("server/share", "film", 1).await?;
        film.set_len(LENGTH).await?;
        let readers: Vec<_> = (0..100)
            .map(|number: u64| {
                let film = film.clone();
                tasks.spawn(async move {
                    let offset = number * 5000;
                    let read = film.read_through(offset, vec![0; 100_000], ask_the_server);
                    // Every third loses patience: what it had begun to fetch, another one fetches.
                    let impatient = async {
                        pass(Duration::from_millis(5)).await;
                        None
                    };
                    let read = async { Some(read.await) };
                    let (read, bytes) = match number % 3 {
                        0 => or(read, impatient).await?,
                        _ => read.await?,
                    };
                    let right = bytes.iter().zip(offset..).all(|(byte, at)| *byte == at as u8);
                    Some(read.map(|len| (len, right)))
                })
            })
            .collect();
        let (mut done, mut gave_up) = (0, 0);
        for reader in readers {
            match reader.await.transpose()? {
                Some(read) => {
                    assert_eq!(read, (100_000, true));
                    done += 1;
                }
                None => gave_up += 1,
            }
        }
        store.sync().await?;
        println!("{done} tasks read, {gave_up} gave up; the server was asked for {ASKED:?} bytes");
        drop(film);
        store.close().await;
        Ok(())
    }))
}
