//! Bytes into lines, and lines into [`Line`]s. It never sees a file, only what was read of one.

use super::{Line, LineFault};
use crate::protocol::canonical::Json;

/// Cuts one file, from where its reading began to wherever it ends.
#[derive(Debug)]
pub(super) struct Cutter {
    line_bytes_max: usize,
    /// Lines that have begun before the present one.
    lines_before: u64,
    /// The line that still waits for its newline; at most `line_bytes_max` and one byte.
    partial: Vec<u8>,
    /// Whether the present line is over the limit, has been reported, and is being thrown away.
    skips: bool,
    /// Whether nothing but NULs has come since the first byte of the file.
    in_hole: bool,
}

impl Cutter {
    /// For a file that is read from its first byte.
    ///
    /// NULs at the very beginning are passed over. A writer that does not append goes on at its old
    /// position after its file was truncated, and what lies before it is a hole that reads as NULs.
    pub(super) fn at_beginning(line_bytes_max: usize) -> Self {
        Self { in_hole: true, ..Self::at_line(line_bytes_max) }
    }

    /// For a file that is read from the beginning of some line.
    pub(super) fn at_line(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, lines_before: 0, partial: Vec::new(), skips: false, in_hole: false }
    }

    /// For a file that is read from within a line that is already over the limit.
    pub(super) fn in_long_line(line_bytes_max: usize, lines: &mut Vec<Line>) -> Self {
        let mut cutter = Self::at_line(line_bytes_max);
        cutter.refuse_length(lines);
        cutter
    }

    /// Takes the bytes that follow those of the last call.
    pub(super) fn take(&mut self, mut bytes: &[u8], lines: &mut Vec<Line>) {
        if self.in_hole {
            let text = bytes.iter().position(|byte| *byte != 0);
            bytes = text.and_then(|text| bytes.get(text..)).unwrap_or_default();
            self.in_hole = bytes.is_empty();
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(ending) => self.finish(ending, lines),
                None => self.keep(piece, lines),
            }
        }
    }

    /// Says that the file ends here for good: a line that never got its newline is read as it
    /// stands.
    pub(super) fn end(&mut self, lines: &mut Vec<Line>) {
        self.finish(&[], lines);
    }

    fn keep(&mut self, piece: &[u8], lines: &mut Vec<Line>) {
        if self.skips {
            return;
        }
        // One byte more than the limit may still be a line within it and the CR of a CRLF.
        if self.partial.len() + piece.len() > self.line_bytes_max.saturating_add(1) {
            self.refuse_length(lines);
        } else {
            self.partial.extend_from_slice(piece);
        }
    }

    fn finish(&mut self, ending: &[u8], lines: &mut Vec<Line>) {
        if self.partial.is_empty() && !self.skips {
            self.read(ending, lines);
        } else {
            self.keep(ending, lines);
            let line = std::mem::take(&mut self.partial);
            if !self.skips {
                self.read(&line, lines);
            }
        }
        self.skips = false;
        self.lines_before += 1;
    }

    fn read(&mut self, line: &[u8], lines: &mut Vec<Line>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.line_bytes_max {
            self.refuse_length(lines);
            return;
        }
        if line.trim_ascii().is_empty() {
            return;
        }
        match parse(line) {
            Ok(report) => lines.push(Line::Report(report)),
            Err(fault) => lines.push(self.unreadable(fault)),
        }
    }

    fn refuse_length(&mut self, lines: &mut Vec<Line>) {
        lines.push(self.unreadable(LineFault::TooLong { bytes_max: self.line_bytes_max }));
        self.partial = Vec::new();
        self.skips = true;
    }

    fn unreadable(&self, fault: LineFault) -> Line {
        Line::Unreadable { line_number: self.lines_before + 1, fault }
    }
}

fn parse(line: &[u8]) -> Result<Json, LineFault> {
    if let Err(error) = std::str::from_utf8(line) {
        return Err(LineFault::NotUtf8 { bytes_before: error.valid_up_to() });
    }
    Json::parse(line).map_err(LineFault::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_BYTES_MAX: usize = 4;

    /// What becomes of `bytes`, which must not depend on how they were cut for reading.
    fn check(bytes: &[u8], expected: &str) {
        for step in 1..=bytes.len() {
            let mut lines = Vec::new();
            let mut cutter = Cutter::at_beginning(LINE_BYTES_MAX);
            bytes.chunks(step).for_each(|chunk| cutter.take(chunk, &mut lines));
            cutter.end(&mut lines);
            let shown: Vec<String> = lines.iter().map(show).collect();
            assert_eq!(shown.join(" "), expected, "{:?} by {step}", bytes.escape_ascii());
        }
    }

    fn show(line: &Line) -> String {
        match line {
            Line::Report(report) => String::from_utf8(report.to_canonical()).unwrap(),
            Line::Unreadable { line_number, fault: LineFault::TooLong { .. } } => {
                format!("long@{line_number}")
            }
            Line::Unreadable { line_number, fault: LineFault::NotUtf8 { bytes_before } } => {
                format!("utf8+{bytes_before}@{line_number}")
            }
            Line::Unreadable { line_number, fault: LineFault::Syntax(_) } => {
                format!("syntax@{line_number}")
            }
            Line::Fault(text) => text.clone(),
        }
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        check(b"1\n2\n3\n", "1 2 3");
        check(b"1\r\n\r\n \t\r\n2\n", "1 2");
        check(b"1\n2", "1 2");
        check(b"1\n{\n3\n", "1 syntax@2 3");
        check(b"\xff\n1\n\"a\xff\"\n", "utf8+0@1 1 utf8+2@3");
    }

    #[test]
    fn a_line_at_the_limit_is_read_and_one_byte_more_is_not() {
        check(b"1234\n5\n", "1234 5");
        check(b"1234\r\n5\n", "1234 5");
        check(b"12345\n6\n", "long@1 6");
        check(b"12345\r\n6\n", "long@1 6");
        check(b"1\n1234567890\n\n2\n1234567890", "1 long@2 2 long@5");
    }

    #[test]
    fn nuls_are_passed_over_at_the_beginning_of_the_file_only() {
        check(b"\0\0\0\0\0\0\0\x001\n2\n", "1 2");
        check(b"1\n\x002\n3\n", "1 syntax@2 3");
        check(b"1\0\n2\n", "syntax@1 2");
        check(b"\0\0\0", "");
    }
}
