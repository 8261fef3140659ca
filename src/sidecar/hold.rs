//! The hold file: an operator's way to isolate when HTTP is down. Existence is all that counts, so
//! `touch` and `rm` are enough, from the host or from a sibling container.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::statfs;
use tokio::net::unix::pipe::Receiver;

use crate::driver::{Handle, OperatorOrder, Unavailable};
use crate::protocol::audit::{Act, Way};
use crate::telemetry::Condition;

/// Between two looks at the file where the kernel does not tell: one metadata call a second is
/// cheap, and an operator who isolates by hand does not notice the second.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same where it does: for what no watch shows, such as a folder further up that was renamed.
const NET_INTERVAL: Duration = Duration::from_secs(30);
/// Least time between two looks, however much happens in the folder.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// What in the folder may make or remove the file, and what ends the watch.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// File systems on which everybody who writes does so through this kernel, by their magic numbers:
/// ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, ramfs. On any other one, a network's or a
/// sandbox's, the file may come without an event.
const LOCAL: [u64; 8] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0x794C_7630,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0x8584_58F6,
];

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
    loop {
        // Watched before it is looked at, so that nothing comes between.
        let place = path.clone();
        let looking = tokio::task::spawn_blocking(move || (watched(&place), exists(&place)));
        // A disk that hangs holds up this task and nobody else.
        let Ok((watched, found)) = looking.await else { return };
        let mut is_obeyed = true;
        match found {
            Ok(found) => {
                handle.conditions().end(Condition::HoldFileUnseen);
                if found != held {
                    let act = if found { Act::Isolate } else { Act::Release };
                    match handle.operate(OperatorOrder::new(act, Way::File)).await {
                        Ok(_) => held = found,
                        // The next look tries again; an order that was taken twice changes nothing.
                        Err(Unavailable::Overloaded(_)) => is_obeyed = false,
                        Err(Unavailable::Stopping) => return,
                    }
                }
            }
            Err(error) => {
                handle.conditions().begin(Condition::HoldFileUnseen, error.to_string());
                is_obeyed = false;
            }
        }
        match watched.and_then(readable) {
            Some(watched) if is_obeyed => {
                tokio::time::sleep(LOOK_PAUSE).await;
                // Whether something happened or the time is over: both end in a look.
                drop(tokio::time::timeout(NET_INTERVAL, watched.readable()).await);
            }
            _ => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Becomes readable when something in the folder of the file comes or goes; `None` where the
/// kernel may not tell of it.
fn watched(path: &Path) -> Option<OwnedFd> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let kind = u64::try_from(statfs(folder).ok()?.f_type).ok()?;
    LOCAL.contains(&kind).then(|| watched_folder(folder).ok()).flatten()
}

/// To tokio it is a pipe: nothing more is asked of it than whether there is something to read.
fn readable(watched: OwnedFd) -> Option<Receiver> {
    Receiver::from_owned_fd_unchecked(watched).ok()
}

fn watched_folder(folder: &Path) -> io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&inotify, folder, EVENTS)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_what_comes_and_goes_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hold");
        let told = async |act: &dyn Fn() -> io::Result<()>| {
            let watched = readable(watched_folder(folder.path()).unwrap()).unwrap();
            act().unwrap();
            watched.readable().await.unwrap();
        };
        told(&|| std::fs::write(&path, "")).await;
        told(&|| std::fs::rename(&path, folder.path().join("elsewhere"))).await;
        told(&|| std::os::unix::fs::symlink("nowhere", &path)).await;
        told(&|| std::fs::remove_file(&path)).await;
        told(&|| std::fs::remove_dir_all(folder.path())).await;
        assert!(watched(&path).is_none(), "a folder that is gone");
    }
}
