//! What the layers below report (`tracing`): through the front, since the engine has no terminal. Errors always, more if
//! `VSWAP_LOG` asks for it.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tracing_subscriber::filter::LevelFilter;

use crate::message::Message;

/// Sends each line that is written to it to the front.
struct ToFront(Arc<OwnedFd>);

impl Write for ToFront {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = Message::Say(String::from_utf8_lossy(bytes).trim_end().to_owned()).send(self.0.as_fd());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// From here on reports go to the front.
pub(crate) fn start(front: &OwnedFd) {
    let Ok(front) = front.try_clone().map(Arc::new) else { return };
    let wanted = std::env::var("VSWAP_LOG").ok().and_then(|level| level.parse().ok());
    let _ = tracing_subscriber::fmt()
        .event_format(tracing_subscriber::fmt::format().without_time().with_target(false).compact())
        .with_ansi(false)
        .with_writer(move || ToFront(Arc::clone(&front)))
        .with_max_level(wanted.unwrap_or(LevelFilter::ERROR))
        .try_init();
}
