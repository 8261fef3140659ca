//! Keys of the terminal, read on a thread of their own, as what they ask for.

use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::view::Wish;

/// Longest wait of the thread for a key before it looks whether it is still wanted.
const POLL_NS: i64 = 100_000_000;
/// Keys that wait; more are not typed.
const KEYS_MAX: usize = 64;

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// Ctrl-C, or Ctrl-D.
    Quit,
    Wish(Wish),
    /// The terminal has another size.
    Resized,
}

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Keys {
    pressed: mpsc::Receiver<Pressed>,
    is_over: Arc<AtomicBool>,
}

impl Keys {
    pub(super) fn read() -> Self {
        let (sender, pressed) = mpsc::channel(KEYS_MAX);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        tokio::task::spawn_blocking(move || {
            while !over.load(Ordering::Relaxed) && is_open() {
                // A change of size is told by a signal, which only this looks at.
                let Ok(is_there) = event::poll(Duration::ZERO) else { return };
                if !is_there {
                    continue;
                }
                let Ok(event) = event::read() else { return };
                if let Some(pressed) = meant(&event)
                    && sender.blocking_send(pressed).is_err()
                {
                    return;
                }
            }
        });
        Self { pressed, is_over }
    }

    /// The next one; `None` when the terminal is gone. Safe to drop.
    pub(super) async fn next(&mut self) -> Option<Pressed> {
        self.pressed.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Waits for a key, or a little. Whether the terminal is still there: reading one that has hung up
/// never ends, so that is found out before anything is read.
fn is_open() -> bool {
    let input = stdin();
    let mut waiting = [PollFd::new(&input, PollFlags::IN)];
    let bound = Timespec { tv_sec: 0, tv_nsec: POLL_NS };
    match poll(&mut waiting, Some(&bound)) {
        // A signal has come.
        Err(Errno::INTR) => true,
        Err(_) => false,
        Ok(_) => {
            let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            waiting.iter().all(|place| !place.revents().intersects(gone))
        }
    }
}

/// What an event asks for. Ctrl-C is a key here, for the terminal sends no signals meanwhile.
fn meant(event: &Event) -> Option<Pressed> {
    if matches!(event, Event::Resize(_, _)) {
        return Some(Pressed::Resized);
    }
    let key = event.as_key_press_event()?;
    if let KeyCode::Char(letter) = key.code {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        return match (is_control, letter) {
            (true, 'c' | 'd') => Some(Pressed::Quit),
            (true, _) => None,
            (false, letter) => Some(Pressed::Wish(Wish::Letter(letter))),
        };
    }
    let wishes = [
        (KeyCode::Up, Wish::Up),
        (KeyCode::Down, Wish::Down),
        (KeyCode::PageUp, Wish::PageUp),
        (KeyCode::PageDown, Wish::PageDown),
        (KeyCode::Home, Wish::First),
        (KeyCode::End, Wish::Last),
        (KeyCode::Enter, Wish::Open),
        (KeyCode::Esc, Wish::Back),
        (KeyCode::Backspace, Wish::Erase),
    ];
    let wish = wishes.into_iter().find(|(code, _)| *code == key.code)?;
    Some(Pressed::Wish(wish.1))
}
