//! JSON, written.

use super::json_text::{dollars, first_special, is_special, STRIDE};
use super::number::{write_base64, write_float};
use super::write::Emit;

pub struct Writer<'a>(pub &'a mut Vec<u8>);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Writer<'_> {
    #[inline]
    fn quoted(&mut self, text: &[u8]) {
        let out = &mut *self.0;
        if text.len() < 8 {
            let word = word_of(text);
            if !has_special(word) {
                out.push(b'"');
                out.extend_from_slice(&word.to_le_bytes());
                out.truncate(out.len() - (8 - text.len()));
                return out.push(b'"');
            }
        } else if let (true, Some(first), Some(last)) =
            (text.len() < STRIDE, text.first_chunk(), text.last_chunk())
        {
            let words = [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
            if !has_special(words[0]) && !has_special(words[1]) {
                out.push(b'"');
                out.extend_from_slice(first);
                out.truncate(out.len() - (STRIDE - text.len()));
                out.extend_from_slice(last);
                return out.push(b'"');
            }
        }
        self.quoted_in_chunks(text);
    }

    fn quoted_in_chunks(&mut self, text: &[u8]) {
        let out = &mut *self.0;
        out.push(b'"');
        let mut rest = text;
        while rest.len() >= STRIDE {
            rest = copy_plain(rest, out);
            if let Some(&byte) = rest.first().filter(|&&byte| is_special(byte)) {
                escape(byte, out);
                rest = &rest[1..];
            }
        }
        while !rest.is_empty() {
            let chunk = chunk_of(rest);
            let found = first_special(&chunk).min(rest.len());
            out.extend_from_slice(&chunk);
            out.truncate(out.len() - (STRIDE - found));
            rest = &rest[found..];
            if let Some(&byte) = rest.first() {
                escape(byte, out);
                rest = &rest[1..];
            }
        }
        out.push(b'"');
    }
}

/// Copies whole chunks up to the first special byte; gives the rest, which begins with that or is shorter than a chunk.
#[inline]
fn copy_plain<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    out.reserve(rest.len() + STRIDE);
    let mut length = out.len();
    while let Some(chunk) = rest.first_chunk::<STRIDE>() {
        let found = first_special(chunk);
        // SAFETY: there is room for the rest of the text and a chunk more, and what is copied is of the text; what has
        // been written before `length` is set.
        unsafe {
            let to = out.as_mut_ptr().add(length);
            std::ptr::copy_nonoverlapping(chunk.as_ptr(), to, STRIDE);
        }
        length += found;
        rest = &rest[found..];
        if found < STRIDE {
            break;
        }
    }
    // SAFETY: so many bytes have been written, as above.
    unsafe { out.set_len(length) };
    rest
}

/// The first bytes of a text, filled up with blanks.
#[inline]
fn chunk_of(text: &[u8]) -> [u8; STRIDE] {
    if let Some(chunk) = text.first_chunk() {
        return *chunk;
    }
    let mut chunk = [b' '; STRIDE];
    chunk[..text.len()].copy_from_slice(text);
    chunk
}

/// A text of less than eight bytes, filled up with blanks, without a way over memory.
#[inline]
fn word_of(text: &[u8]) -> u64 {
    let length = text.len();
    let bytes = match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last));
            u64::from(u32::from_le_bytes(*first)) | last << (8 * (length - 4))
        }
        _ => text
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    bytes | 0x2020_2020_2020_2020 << (8 * length)
}

/// Whether one of the eight bytes must be escaped: the test for a zero byte, for each kind.
#[inline]
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let control = below(word, 0x20);
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    (control | quote | backslash) & (ONES << 7) != 0
}

/// What follows the backslash of each byte that must be escaped: looked up, as which comes next is hard to guess.
const LETTERS: [u8; 128] = {
    let mut letters = [b'u'; 128];
    letters[b'"' as usize] = b'"';
    letters[b'\\' as usize] = b'\\';
    letters[b'\n' as usize] = b'n';
    letters[b'\r' as usize] = b'r';
    letters[b'\t' as usize] = b't';
    letters[8] = b'b';
    letters[12] = b'f';
    letters
};

#[inline]
fn escape(byte: u8, out: &mut Vec<u8>) {
    let letter = LETTERS[usize::from(byte & 127)];
    out.extend_from_slice(&[b'\\', letter]);
    if letter == b'u' {
        out.extend_from_slice(b"00");
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

impl Emit for Writer<'_> {
    const DECIMAL: bool = true;

    fn len(&self) -> usize {
        self.0.len()
    }
    fn clear(&mut self) {
        self.0.clear();
    }
    fn null(&mut self) {
        self.0.extend_from_slice(b"null");
    }
    fn bool(&mut self, value: bool) {
        self.0
            .extend_from_slice(if value { b"true" } else { b"false" });
    }
    fn int(&mut self, value: i64) {
        let mut digits = [0u8; 20];
        let (mut at, mut rest) = (digits.len(), value.unsigned_abs());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            self.0.push(b'-');
        }
        self.0.extend_from_slice(&digits[at..]);
    }
    fn big(&mut self, decimal: &[u8]) {
        self.0.extend_from_slice(decimal);
    }
    fn float(&mut self, value: f64) {
        if value.is_finite() {
            return write_float(value, self.0);
        }
        self.0.extend_from_slice(if value.is_nan() {
            b"{\"$float\":\"nan\"}"
        } else if value > 0.0 {
            b"{\"$float\":\"inf\"}"
        } else {
            b"{\"$float\":\"-inf\"}"
        });
    }
    fn text(&mut self, text: &str) {
        self.quoted(text.as_bytes());
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(b"{\"$bytes\":\"");
        write_base64(bytes, self.0);
        self.0.extend_from_slice(b"\"}");
    }
    fn datetime(&mut self, text: &str) {
        self.0.extend_from_slice(b"{\"$datetime\":\"");
        self.0.extend_from_slice(text.as_bytes());
        self.0.extend_from_slice(b"\"}");
    }
    fn list(&mut self, _: usize) {
        self.0.push(b'[');
    }
    fn item(&mut self, first: bool) {
        if !first {
            self.0.push(b',');
        }
    }
    fn end_list(&mut self) {
        self.0.push(b']');
    }
    fn map(&mut self, _: usize) {
        self.0.push(b'{');
    }
    fn key(&mut self, key: &str, first: bool, only: bool) {
        if !first {
            self.0.push(b',');
        }
        if only && dollars(key.as_bytes()) > 0 {
            self.quoted(format!("${key}").as_bytes());
        } else {
            self.quoted(key.as_bytes());
        }
        self.0.push(b':');
    }
    fn end_map(&mut self) {
        self.0.push(b'}');
    }
}
