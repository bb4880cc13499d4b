//! Frames one after another: the length of each as a varint, then its bytes, as protobuf's delimited messages.

use super::build::{Fault, Read};

/// Cuts what arrives in pieces into frames.
pub struct Splitter {
    max_frame: usize,
    waiting: Vec<u8>,
    /// Where in the stream `waiting` begins.
    offset: usize,
}

impl Splitter {
    pub fn new(max_frame: usize) -> Self {
        Self {
            max_frame,
            waiting: Vec::new(),
            offset: 0,
        }
    }

    /// How many bytes wait for the rest of their frame.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives each frame that is complete with these bytes.
    pub fn feed(&mut self, chunk: &[u8], mut frame: impl FnMut(&[u8])) -> Read<()> {
        let mut rest = chunk;
        // Those that began before are completed first, so that the others need not be copied.
        while !self.waiting.is_empty() && !rest.is_empty() {
            match self.head(&self.waiting, 0)? {
                None => {
                    self.waiting.push(rest[0]);
                    rest = &rest[1..];
                }
                Some((start, end)) => {
                    let missing = (end - self.waiting.len()).min(rest.len());
                    self.waiting.extend_from_slice(&rest[..missing]);
                    rest = &rest[missing..];
                    if self.waiting.len() < end {
                        return Ok(());
                    }
                    frame(&self.waiting[start..end]);
                    self.offset += end;
                    self.waiting = Vec::new();
                }
            }
            self.empty(&mut frame)?;
        }
        let mut at = 0;
        while let Some((start, end)) = self.head(rest, at)? {
            let Some(bytes) = rest.get(start..end) else {
                break;
            };
            frame(bytes);
            at = end;
        }
        self.waiting.extend_from_slice(&rest[at..]);
        self.offset += at;
        Ok(())
    }

    /// A frame of no bytes is complete with its length.
    fn empty(&mut self, frame: &mut impl FnMut(&[u8])) -> Read<()> {
        if let Some((start, end)) = self.head(&self.waiting, 0)? {
            if start == end && self.waiting.len() == end {
                frame(&[]);
                self.offset += end;
                self.waiting = Vec::new();
            }
        }
        Ok(())
    }

    /// Where the frame at `at` begins and ends; None while its length is incomplete.
    fn head(&self, data: &[u8], at: usize) -> Read<Option<(usize, usize)>> {
        let mut length = 0u64;
        for (place, &byte) in data[at..].iter().take(5).enumerate() {
            length |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                let start = at + place + 1;
                let Some(length) = usize::try_from(length)
                    .ok()
                    .filter(|&length| length <= self.max_frame)
                else {
                    return Fault::at(
                        self.offset + at,
                        format!(
                            "a frame of {length} bytes is larger than max_frame={}",
                            self.max_frame
                        ),
                    );
                };
                return Ok(Some((start, start + length)));
            }
        }
        if data.len() - at >= 5 {
            return Fault::at(self.offset + at, "this is not the length of a frame");
        }
        Ok(None)
    }

    /// Nothing more comes.
    pub fn end(&self) -> Read<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        Fault::at(
            self.offset + self.waiting.len(),
            "the stream ends within a frame",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_frames() {
        let contents: Vec<Vec<u8>> = [0, 1, 127, 128, 300, 0, 0, 20_000, 3]
            .iter()
            .map(|&size| vec![7; size])
            .collect();
        let mut stream = Vec::new();
        for content in &contents {
            super::super::protobuf::Writer(&mut stream).varint(content.len() as u64);
            stream.extend_from_slice(content);
        }
        for size in [1, 2, 3, 100, 129, 20_003, stream.len()] {
            let mut splitter = Splitter::new(20_000);
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                splitter
                    .feed(piece, |frame| found.push(frame.to_vec()))
                    .unwrap();
            }
            assert_eq!(found, contents, "pieces of {size}");
            assert_eq!((splitter.end(), splitter.waiting()), (Ok(()), 0));
        }
    }

    #[test]
    fn too_long_and_too_short() {
        let fault = |data: &[u8]| {
            let mut splitter = Splitter::new(100);
            let fed = splitter.feed(data, |_| ());
            let fault = fed.and_then(|()| splitter.end()).unwrap_err();
            (fault.offset, fault.message)
        };
        assert_eq!(
            fault(&[1, 0, 101]),
            (
                2,
                "a frame of 101 bytes is larger than max_frame=100".into()
            )
        );
        assert_eq!(
            fault(&[0xff; 6]),
            (0, "this is not the length of a frame".into())
        );
        assert_eq!(fault(&[2, 0]), (2, "the stream ends within a frame".into()));
    }
}
