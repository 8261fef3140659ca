//! A picture that fills the terminal, and a terminal that is afterwards as it was.
//!
//! Whoever draws listens for signals and drops the [`Canvas`]. Keys are read only where they are
//! asked for; elsewhere Ctrl-C is the signal that it always is. A panic restores the terminal
//! before it says what happened.
//! What deliberately is not here: what is shown.

use std::io::{self, IsTerminal as _, Stdout, stdout};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::style::Color;
use ratatui::{Frame, Terminal};

use crate::protocol::gate::Band;

/// A terminal that shows pictures until this is dropped.
#[derive(Debug)]
pub(super) struct Canvas {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    has_colours: bool,
}

impl Canvas {
    /// Takes the terminal that standard output is; `None` where it is none, or smaller than
    /// `columns` and `rows`, or cannot be written to.
    pub(super) fn open(columns: u16, rows: u16, has_colours: bool) -> Option<Self> {
        let is_large = size().is_ok_and(|(width, height)| width >= columns && height >= rows);
        if !stdout().is_terminal() || !is_large {
            return None;
        }
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).ok()?;
        let canvas = Self { terminal, has_colours };
        execute!(stdout(), EnterAlternateScreen, Hide).ok()?;
        let says = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            says(panic);
        }));
        Some(canvas)
    }

    /// Takes the terminal with its keys, which then are no signals and are not echoed, whatever its
    /// size.
    pub(super) fn open_with_keys(has_colours: bool) -> Option<Self> {
        let canvas = Self::open(0, 0, has_colours)?;
        enable_raw_mode().ok()?;
        Some(canvas)
    }

    /// Shows what `render` draws, instead of the picture before.
    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let has_colours = self.has_colours;
        let drawn = self.terminal.draw(|frame| {
            render(frame);
            if !has_colours {
                for cell in &mut frame.buffer_mut().content {
                    cell.set_fg(Color::Reset);
                }
            }
        });
        drawn.map(|_| ())
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // Whoever closed the terminal needs it no more.
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

/// What a band looks like.
pub(super) fn colour(band: Band) -> Color {
    match band {
        Band::Open => Color::Green,
        Band::Caution => Color::Yellow,
        Band::Blocked => Color::Red,
        Band::Isolated => Color::Magenta,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::Canvas;

    /// Set in the process that is to panic.
    const CHILD: &str = "DRIFTGATE_TEST_PANICS";

    /// Runs itself once more in a terminal of its own, which writes down what it is sent.
    #[test]
    fn a_panic_gives_the_terminal_back_and_then_says_what_happened() {
        if std::env::var_os(CHILD).is_some() {
            let mut canvas = Canvas::open_with_keys(true).expect("a terminal");
            canvas.draw(|frame| frame.render_widget("picture", frame.area())).unwrap();
            panic!("on purpose");
        }
        let own = std::env::current_exe().unwrap();
        let name = "a_panic_gives_the_terminal_back_and_then_says_what_happened";
        let line = format!(
            "stty cols 80 rows 24; echo before $(stty -g); {} {name} --nocapture; echo ended $?; \
             echo after $(stty -g)",
            own.display()
        );
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env(CHILD, "1").stdin(Stdio::null());
        let Ok(output) = script.output() else {
            println!("SKIPPED: no `script`, which makes a terminal");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let (before, shown) = text.split_once("\x1b[?1049h").expect("a screen of its own");
        let (picture, after) = shown.split_once("\x1b[?1049l").expect("it is given back");
        assert!(picture.contains("picture") && !picture.contains("on purpose"), "{picture}");
        assert!(after.contains("\x1b[?25h") && after.contains("on purpose"), "{after}");
        assert!(after.contains("ended 101"), "{after}");
        let told = |text: &str, word: &str| {
            let (_, rest) = text.split_once(word).expect("its settings");
            rest.lines().next().unwrap_or_default().trim().to_owned()
        };
        assert_eq!(told(before, "before "), told(after, "after "));
    }
}
