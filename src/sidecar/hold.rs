//! The hold file: an operator's way to isolate when HTTP is down. Existence is all that counts, so
//! `touch` and `rm` are enough, from the host or from a sibling container.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::driver::{Handle, Order, Unavailable};
use crate::protocol::audit::{Act, Way};
use crate::telemetry::Condition;

/// Between two looks at the file. One metadata call a second is cheap, and an operator who isolates
/// by hand does not notice the second.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Makes the folder, so that `touch` works from the first moment. Where it cannot be made, whoever
/// has to write there reports it.
pub(super) fn make_room(path: &Path) {
    if let Some(folder) = path.parent() {
        drop(std::fs::create_dir_all(folder));
    }
}

/// Whether the file is there. A name is enough: a link that leads nowhere holds too.
///
/// # Errors
/// The operating system's, when it cannot tell.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Isolates while the file is there, releases when it goes. While nobody can tell, all stays as it
/// is. Ends with the driver.
pub(super) async fn watch(path: PathBuf, mut held: bool, handle: Handle) {
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let place = path.clone();
        // A disk that hangs holds up this task and nobody else.
        let found = match tokio::task::spawn_blocking(move || exists(&place)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                handle.conditions().begin(Condition::HoldFileUnseen, error.to_string());
                continue;
            }
            Err(_) => return,
        };
        handle.conditions().end(Condition::HoldFileUnseen);
        if found == held {
            continue;
        }
        let act = if found { Act::Isolate } else { Act::Release };
        match handle.operate(Order::new(act, Way::File)).await {
            Ok(_) => held = found,
            // The next look tries again; an order that was taken twice changes nothing.
            Err(Unavailable::Overloaded(_)) => {}
            Err(Unavailable::Stopping) => return,
        }
    }
}
