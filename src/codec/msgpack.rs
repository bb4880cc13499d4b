//! MessagePack, https://github.com/msgpack/msgpack/blob/master/spec.md.
//!
//! Extension 1 is an integer beyond 64 bits in two's complement, the highest byte first; extension 2 a date and time as
//! `datetime.isoformat()` writes it.

use super::build::{Build, Fault, Read, Refused};
use super::number::is_datetime;
use super::write::Emit;
use super::{DEEPEST, WIDEST_INTEGER};

const INTEGER: u8 = 1;
const DATETIME: u8 = 2;

pub fn read<B: Build>(data: &[u8], build: &mut B) -> Read<B::Value> {
    let mut reader = Reader { data, at: 0, build };
    let value = reader.value(0)?;
    if reader.at < data.len() {
        return Fault::at(reader.at, "something follows the document");
    }
    Ok(value)
}

struct Reader<'a, B: Build> {
    data: &'a [u8],
    at: usize,
    build: &'a mut B,
}

impl<'a, B: Build> Reader<'a, B> {
    #[inline]
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let data = self.data;
        let bytes = self
            .at
            .checked_add(count)
            .and_then(|end| data.get(self.at..end));
        match bytes {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => Fault::early(data.len()),
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// A length of so many bytes.
    #[inline]
    fn length(&mut self, width: usize) -> Read<usize> {
        let mut length = 0usize;
        for &byte in self.take(width)? {
            length = length << 8 | usize::from(byte);
        }
        Ok(length)
    }

    fn value(&mut self, depth: usize) -> Read<B::Value> {
        let offset = self.at;
        let marker = self.fixed::<1>()?[0];
        let made = match marker {
            0x00..=0x7f => self.build.int(i64::from(marker)),
            0x80..=0x8f => return self.map(usize::from(marker & 15), offset, depth + 1),
            0x90..=0x9f => return self.list(usize::from(marker & 15), offset, depth + 1),
            0xa0..=0xbf => return self.text(usize::from(marker & 31)),
            0xc0 => Ok(self.build.null()),
            0xc1 => return Fault::at(offset, "expected a value"),
            0xc2 => Ok(self.build.bool(false)),
            0xc3 => Ok(self.build.bool(true)),
            0xc4..=0xc6 => {
                let length = self.length(1 << (marker - 0xc4))?;
                let bytes = self.take(length)?;
                self.build.bytes(bytes)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (marker - 0xc7))?;
                return self.extension(length, offset);
            }
            0xca => {
                let value = f32::from_be_bytes(self.fixed()?);
                self.build.float(f64::from(value))
            }
            0xcb => {
                let value = f64::from_be_bytes(self.fixed()?);
                self.build.float(value)
            }
            0xcc => {
                let value = self.fixed::<1>()?[0];
                self.build.int(i64::from(value))
            }
            0xcd => {
                let value = u16::from_be_bytes(self.fixed()?);
                self.build.int(i64::from(value))
            }
            0xce => {
                let value = u32::from_be_bytes(self.fixed()?);
                self.build.int(i64::from(value))
            }
            0xcf => {
                let value = u64::from_be_bytes(self.fixed()?);
                match i64::try_from(value) {
                    Ok(value) => self.build.int(value),
                    Err(_) => self.build.unsigned(value),
                }
            }
            0xd0 => {
                let value = i8::from_be_bytes(self.fixed()?);
                self.build.int(i64::from(value))
            }
            0xd1 => {
                let value = i16::from_be_bytes(self.fixed()?);
                self.build.int(i64::from(value))
            }
            0xd2 => {
                let value = i32::from_be_bytes(self.fixed()?);
                self.build.int(i64::from(value))
            }
            0xd3 => {
                let value = i64::from_be_bytes(self.fixed()?);
                self.build.int(value)
            }
            0xd4..=0xd8 => return self.extension(1 << (marker - 0xd4), offset),
            0xd9..=0xdb => {
                let length = self.length(1 << (marker - 0xd9))?;
                return self.text(length);
            }
            0xdc | 0xdd => {
                let length = self.length(if marker == 0xdc { 2 } else { 4 })?;
                return self.list(length, offset, depth + 1);
            }
            0xde | 0xdf => {
                let length = self.length(if marker == 0xde { 2 } else { 4 })?;
                return self.map(length, offset, depth + 1);
            }
            0xe0..=0xff => self.build.int(i64::from(marker as i8)),
        };
        made.map_err(|refused| refused.at(offset))
    }

    fn text(&mut self, length: usize) -> Read<B::Value> {
        let offset = self.at;
        let text = self.take(length)?;
        self.build.text(text).map_err(|refused| refused.at(offset))
    }

    fn list(&mut self, length: usize, offset: usize, depth: usize) -> Read<B::Value> {
        if depth > DEEPEST {
            return Fault::deep(offset);
        }
        // No room is made for what a length claims: each item takes a byte at least, and it may not be there.
        let mut list = self.build.list().map_err(|refused| refused.at(offset))?;
        for _ in 0..length {
            let value = self.value(depth)?;
            self.build
                .push(&mut list, value)
                .map_err(|refused| refused.at(offset))?;
        }
        Ok(self.build.end_list(list))
    }

    fn map(&mut self, length: usize, offset: usize, depth: usize) -> Read<B::Value> {
        if depth > DEEPEST {
            return Fault::deep(offset);
        }
        let mut map = self.build.map().map_err(|refused| refused.at(offset))?;
        for _ in 0..length {
            let key_offset = self.at;
            let marker = self.fixed::<1>()?[0];
            let length = match marker {
                0xa0..=0xbf => usize::from(marker & 31),
                0xd9..=0xdb => self.length(1 << (marker - 0xd9))?,
                _ => return Fault::at(key_offset, "a key must be a text"),
            };
            let text_offset = self.at;
            let text = self.take(length)?;
            let key = self
                .build
                .key(text)
                .map_err(|refused| refused.at(text_offset))?;
            let value = self.value(depth)?;
            self.build
                .put(&mut map, key, value)
                .map_err(|refused| refused.at(offset))?;
        }
        self.build
            .end_map(map)
            .map_err(|refused| refused.at(offset))
    }

    fn extension(&mut self, length: usize, offset: usize) -> Read<B::Value> {
        let kind = self.fixed::<1>()?[0];
        let bytes = self.take(length)?;
        let made = match kind {
            INTEGER if (1..=WIDEST_INTEGER).contains(&length) => self.build.big(bytes),
            INTEGER => return Fault::at(offset, "the number is too large"),
            DATETIME => match std::str::from_utf8(bytes) {
                Ok(text) if is_datetime(bytes) => self.build.datetime(text),
                _ => Err(Refused::Datetime),
            },
            _ => {
                let kind = kind as i8;
                return Fault::at(offset, format!("extension {kind} is not known here"));
            }
        };
        made.map_err(|refused| refused.at(offset))
    }
}

pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    /// A marker with its length in the fewest bytes: 1, 2 or 4.
    fn head(&mut self, markers: [Option<u8>; 3], length: usize) {
        if let (Some(marker), Ok(length)) = (markers[0], u8::try_from(length)) {
            self.0.extend_from_slice(&[marker, length]);
        } else if let (Some(marker), Ok(length)) = (markers[1], u16::try_from(length)) {
            self.0.push(marker);
            self.0.extend_from_slice(&length.to_be_bytes());
        } else if let Some(marker) = markers[2] {
            self.0.push(marker);
            // Nothing longer than `max_bytes` is written, and that has 32 bits.
            self.0
                .extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }

    fn extension(&mut self, kind: u8, bytes: &[u8]) {
        match bytes.len() {
            length @ (1 | 2 | 4 | 8 | 16) => self.0.push(0xd4 + length.trailing_zeros() as u8),
            length => self.head([Some(0xc7), Some(0xc8), Some(0xc9)], length),
        }
        self.0.push(kind);
        self.0.extend_from_slice(bytes);
    }
}

impl Emit for Writer<'_> {
    const DECIMAL: bool = false;

    fn len(&self) -> usize {
        self.0.len()
    }
    fn clear(&mut self) {
        self.0.clear();
    }
    fn null(&mut self) {
        self.0.push(0xc0);
    }
    fn bool(&mut self, value: bool) {
        self.0.push(0xc2 + u8::from(value));
    }
    fn int(&mut self, value: i64) {
        match value {
            -32..=127 => self.0.push(value as u8),
            128..=0xff => self.0.extend_from_slice(&[0xcc, value as u8]),
            0x100..=0xffff => {
                self.0.push(0xcd);
                self.0.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(0xce);
                self.0.extend_from_slice(&(value as u32).to_be_bytes());
            }
            0x1_0000_0000.. => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
            -0x80.. => self.0.extend_from_slice(&[0xd0, value as u8]),
            -0x8000.. => {
                self.0.push(0xd1);
                self.0.extend_from_slice(&(value as i16).to_be_bytes());
            }
            -0x8000_0000.. => {
                self.0.push(0xd2);
                self.0.extend_from_slice(&(value as i32).to_be_bytes());
            }
            _ => {
                self.0.push(0xd3);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }
    fn big(&mut self, value: &[u8]) {
        match value {
            [0, rest @ ..] if rest.len() == 8 => {
                self.0.push(0xcf);
                self.0.extend_from_slice(rest);
            }
            _ => self.extension(INTEGER, value),
        }
    }
    fn float(&mut self, value: f64) {
        self.0.push(0xcb);
        self.0.extend_from_slice(&value.to_be_bytes());
    }
    fn text(&mut self, text: &str) {
        if text.len() < 32 {
            self.0.push(0xa0 | text.len() as u8);
        } else {
            self.head([Some(0xd9), Some(0xda), Some(0xdb)], text.len());
        }
        self.0.extend_from_slice(text.as_bytes());
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.head([Some(0xc4), Some(0xc5), Some(0xc6)], bytes.len());
        self.0.extend_from_slice(bytes);
    }
    fn datetime(&mut self, text: &str) {
        self.extension(DATETIME, text.as_bytes());
    }
    fn list(&mut self, length: usize) {
        if length < 16 {
            self.0.push(0x90 | length as u8);
        } else {
            self.head([None, Some(0xdc), Some(0xdd)], length);
        }
    }
    fn item(&mut self, _: bool) {}
    fn end_list(&mut self) {}
    fn map(&mut self, length: usize) {
        if length < 16 {
            self.0.push(0x80 | length as u8);
        } else {
            self.head([None, Some(0xde), Some(0xdf)], length);
        }
    }
    fn key(&mut self, key: &str, _: bool, _: bool) {
        self.text(key);
    }
    fn end_map(&mut self) {}
}
