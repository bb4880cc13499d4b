//! Server-sent events out of bytes that come in any pieces (WHATWG HTML, 9.2.6), with bounded memory.
//!
//! Only the data of an event is kept: what speaks the chat completions protocol puts all it says there. Invalid UTF-8 becomes
//! the replacement character; an event that the end of the stream cuts off is dropped.

/// What one event may hold. A model's chunk is a few hundred bytes.
pub const MAX_EVENT: usize = 16 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

pub struct Parser {
    /// The line that has begun.
    line: Vec<u8>,
    /// The data of the event that has begun; each of its lines ends with a newline.
    data: Vec<u8>,
    /// The last line ended with a carriage return, to which a newline may belong.
    after_return: bool,
    at_start: bool,
    limit: usize,
}

impl Parser {
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            after_return: false,
            at_start: true,
            limit,
        }
    }

    /// Adds to `events` the data of each event that `bytes` complete.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<String>) -> Result<(), TooLong> {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end])?;
            let returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if returned {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            self.end_line(events);
        }
        self.extend_line(bytes)
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + bytes.len() > self.limit {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<String>) {
        let mut line = self.line.as_slice();
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            if self.data.pop().is_some() {
                events.push(String::from_utf8_lossy(&self.data).into_owned());
                self.data.clear();
            }
        } else {
            let (name, value) = match line.iter().position(|byte| *byte == b':') {
                Some(colon) => (&line[..colon], &line[colon + 1..]),
                None => (line, &line[line.len()..]),
            };
            if name == b"data" {
                self.data
                    .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                self.data.push(b'\n');
            }
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::new(MAX_EVENT);
        let mut events = Vec::new();
        for piece in pieces {
            parser.feed(piece, &mut events).unwrap();
        }
        events
    }

    const STREAM: &[u8] = b"\xEF\xBB\xBFdata: one\n\n: a comment\r\ndata:two\r\ndata: lines\r\n\r\n\
        event: ping\rid: 7\rdata\r\rdata:  spaced \n\nretry: 5\n\ndata: \xC3\xA4\xFF\n\ndata: [DONE]\n\ndata: cut";

    const EVENTS: [&str; 6] = ["one", "two\nlines", "", " spaced ", "ä\u{FFFD}", "[DONE]"];

    #[test]
    fn lines_end_in_three_ways_and_only_data_counts() {
        assert_eq!(parsed(&[STREAM]), EVENTS);
    }

    #[test]
    fn where_the_bytes_are_split_does_not_matter() {
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(parsed(&pieces), EVENTS, "split at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(parsed(&bytes), EVENTS);
    }

    #[test]
    fn any_bytes_are_taken() {
        // A small generator, so that a failure can be repeated.
        let mut state = 1_u32;
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"data: \n\r\xFF\xC3:x"[(state >> 16) as usize % 12]
                })
                .collect();
            let whole = parsed(&[&bytes]);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(parsed(&single), whole, "{bytes:?}");
        }
    }

    #[test]
    fn an_event_that_never_ends_is_refused() {
        let mut parser = Parser::new(100);
        let mut events = Vec::new();
        let fed: Result<(), TooLong> =
            (0..20).try_for_each(|_| parser.feed(b"data: 0123456789\n", &mut events));
        assert_eq!((fed, events.len()), (Err(TooLong), 0));
        let mut parser = Parser::new(100);
        assert_eq!(parser.feed(&[b'x'; 101], &mut events), Err(TooLong));
    }

    #[test]
    fn the_bound_is_for_each_event() {
        let mut parser = Parser::new(40);
        let mut events = Vec::new();
        for _ in 0..100 {
            parser.feed(b"data: 0123456789\n\n", &mut events).unwrap();
        }
        assert_eq!(events.len(), 100);
    }
}
