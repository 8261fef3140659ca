//! A stream of packets, one a line, one after the other or pretty-printed, cut into pieces.
//!
//! It counts braces and strings and judges nothing else. One broken packet costs one piece: after
//! it the next line that begins with `{` begins the next packet.

use crate::protocol::packet::PACKET_BYTES_MAX;

/// One thing found in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The line where it begins, from 1.
    pub(super) line: u64,
    /// An object without the space between its tokens, or why there is none.
    pub(super) content: Result<Vec<u8>, &'static str>,
}

/// Cuts a stream into pieces, byte by byte. Holds at most one packet.
#[derive(Debug)]
pub(super) struct Pieces {
    state: State,
    line: u64,
    /// Whether the last byte ended a line.
    at_line_start: bool,
    /// Where the present piece begins.
    begun: u64,
    bytes: Vec<u8>,
    /// Space has been left out since the last byte of the present object.
    spaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two pieces.
    Between,
    /// In something that is no object, up to the end of its line.
    Stray,
    /// After a broken object, up to a line that begins with `{`.
    Skipping,
    /// In an object, outside its strings, so many braces and brackets deep.
    Object(u32),
    /// In a string of that object; after a backslash or not.
    Text { depth: u32, escaped: bool },
}

impl Default for Pieces {
    fn default() -> Self {
        Self {
            state: State::Between,
            line: 1,
            at_line_start: true,
            begun: 1,
            bytes: Vec::new(),
            spaced: false,
        }
    }
}

impl Pieces {
    /// Takes one byte, and gives the piece that it ends, if it ends one.
    pub(super) fn push(&mut self, byte: u8) -> Option<Piece> {
        let piece = self.step(byte);
        self.at_line_start = byte == b'\n';
        if self.at_line_start {
            self.line = self.line.saturating_add(1);
        }
        piece
    }

    /// The stream has ended; gives the piece that this breaks off, if there is one.
    #[must_use]
    pub(super) fn finish(mut self) -> Option<Piece> {
        match self.state {
            State::Between | State::Skipping => None,
            State::Stray => Some(self.broken("not a JSON object")),
            State::Object(_) | State::Text { .. } => Some(self.broken("cut short")),
        }
    }

    fn step(&mut self, byte: u8) -> Option<Piece> {
        let begins = byte == b'{' && self.at_line_start;
        match self.state {
            State::Between if byte.is_ascii_whitespace() => None,
            State::Between if byte == b'{' => self.begin(),
            State::Between => {
                (self.state, self.begun) = (State::Stray, self.line);
                None
            }
            State::Stray if byte == b'\n' => {
                let piece = self.broken("not a JSON object");
                self.state = State::Between;
                Some(piece)
            }
            State::Skipping if begins => self.begin(),
            State::Stray | State::Skipping => None,
            State::Object(_) if begins => {
                let piece = self.broken("cut short: the next line begins another object");
                self.begin();
                Some(piece)
            }
            State::Object(depth) => self.outside_text(byte, depth),
            State::Text { .. } if byte == b'\n' => {
                Some(self.broken("cut short: the line ends inside a string"))
            }
            State::Text { depth, escaped } => {
                self.state = match byte {
                    b'"' if !escaped => State::Object(depth),
                    _ => State::Text { depth, escaped: byte == b'\\' && !escaped },
                };
                self.keep(byte)
            }
        }
    }

    fn outside_text(&mut self, byte: u8, depth: u32) -> Option<Piece> {
        let depth = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                self.spaced = true;
                return None;
            }
            b'"' => {
                self.state = State::Text { depth, escaped: false };
                return self.keep(byte);
            }
            b'{' | b'[' => depth.saturating_add(1),
            b'}' | b']' => depth.saturating_sub(1),
            _ => depth,
        };
        self.state = State::Object(depth);
        let broken = self.keep(byte);
        if depth == 0 && broken.is_none() {
            self.state = State::Between;
            let bytes = core::mem::take(&mut self.bytes);
            return Some(Piece { line: self.begun, content: Ok(bytes) });
        }
        broken
    }

    fn begin(&mut self) -> Option<Piece> {
        (self.state, self.begun) = (State::Object(1), self.line);
        self.bytes.clear();
        self.spaced = false;
        self.keep(b'{')
    }

    /// Keeps one byte of the object. Space goes only where it separates nothing: were `1 2` joined,
    /// a broken packet would be mended on the way.
    fn keep(&mut self, byte: u8) -> Option<Piece> {
        let structural = |byte: &u8| b"{}[],:".contains(byte);
        if core::mem::take(&mut self.spaced)
            && !structural(&byte)
            && !self.bytes.last().is_some_and(structural)
        {
            self.bytes.push(b' ');
        }
        self.bytes.push(byte);
        (self.bytes.len() > PACKET_BYTES_MAX).then(|| self.broken("larger than a packet can be"))
    }

    /// Gives the present piece up.
    fn broken(&mut self, problem: &'static str) -> Piece {
        self.state = State::Skipping;
        self.bytes.clear();
        Piece { line: self.begun, content: Err(problem) }
    }
}
