//! JSON, RFC 8259.
//!
//! What JSON has no form for is a map of one key: `{"$bytes": base64}`, `{"$datetime": ...}`, `{"$float": "nan"}`. A map
//! of the writer's own that looks like one has one more `$` before its key.

use super::build::{Build, Fault, Read, Refused};
use super::json_text::{dollars, first_special, is_special, plain_until, STRIDE};
use super::number::{is_datetime, read_base64};
use super::{DEEPEST, WIDEST_INTEGER};

/// The digits of the widest integer and more; how wide it is exactly is seen once it is made.
const MOST_DIGITS: usize = WIDEST_INTEGER * 8 * 3 / 10 + 8;

pub fn read<B: Build>(data: &[u8], build: &mut B) -> Read<B::Value> {
    let mut reader = Reader {
        data,
        at: 0,
        build,
        unescaped: Vec::new(),
    };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < data.len() {
        return Fault::at(reader.at, "something follows the document");
    }
    Ok(value)
}

struct Reader<'a, B: Build> {
    data: &'a [u8],
    at: usize,
    build: &'a mut B,
    /// The text read last, where it had escapes.
    unescaped: Vec<u8>,
}

/// A text as it is in the document, and where it begins.
struct Text<'a> {
    start: usize,
    raw: &'a [u8],
    /// Whether what it means is in `unescaped`.
    escaped: bool,
}

impl<'a> Text<'a> {
    #[inline]
    fn bytes<'b>(&self, unescaped: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        if self.escaped {
            unescaped
        } else {
            self.raw
        }
    }

    /// Why the text was refused; it is no UTF-8 exactly where its raw bytes are not.
    #[cold]
    fn fault(&self, refused: Refused) -> Box<Fault> {
        match (refused, std::str::from_utf8(self.raw)) {
            (Refused::Text(_), Err(error)) => Refused::Text(error.valid_up_to()).at(self.start),
            (other, _) => other.at(self.start),
        }
    }
}

impl<'a, B: Build> Reader<'a, B> {
    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.data.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    #[inline]
    fn next(&mut self) -> Read<u8> {
        self.space();
        match self.data.get(self.at) {
            Some(&byte) => Ok(byte),
            None => Fault::early(self.at),
        }
    }

    fn value(&mut self, depth: usize) -> Read<B::Value> {
        let start = self.next()?;
        let offset = self.at;
        match start {
            b'"' => {
                let text = self.text()?;
                self.build
                    .text(text.bytes(&self.unescaped))
                    .map_err(|refused| text.fault(refused))
            }
            b'{' => self.map(depth + 1),
            b'[' => self.list(depth + 1),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true").map(|()| self.build.bool(true)),
            b'f' => self.word(b"false").map(|()| self.build.bool(false)),
            b'n' => self.word(b"null").map(|()| self.build.null()),
            _ => Fault::at(offset, "expected a value"),
        }
    }

    fn word(&mut self, word: &[u8]) -> Read<()> {
        let rest = &self.data[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        if word.starts_with(rest) {
            return Fault::early(self.data.len());
        }
        Fault::at(self.at, "expected a value")
    }

    fn list(&mut self, depth: usize) -> Read<B::Value> {
        if depth > DEEPEST {
            return Fault::deep(self.at);
        }
        let offset = self.at;
        let mut list = self.build.list().map_err(|refused| refused.at(offset))?;
        self.at += 1;
        if self.next()? == b']' {
            self.at += 1;
            return Ok(self.build.end_list(list));
        }
        loop {
            let value = self.value(depth)?;
            self.build
                .push(&mut list, value)
                .map_err(|refused| refused.at(offset))?;
            match self.next()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(self.build.end_list(list));
                }
                _ => return Fault::at(self.at, "expected ',' or ']'"),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Read<B::Value> {
        // Bytes, a date or a float may stand one level deeper: they are maps in JSON only.
        let deep = depth > DEEPEST;
        let offset = self.at;
        if depth > DEEPEST + 1 {
            return Fault::deep(offset);
        }
        self.at += 1;
        let mut map = self.build.map().map_err(|refused| refused.at(offset))?;
        let mut first = true;
        let next = self.next()?;
        if deep && next != b'"' {
            return Fault::deep(offset);
        }
        if next == b'}' {
            self.at += 1;
            return self
                .build
                .end_map(map)
                .map_err(|refused| refused.at(offset));
        }
        loop {
            if self.next()? != b'"' {
                return Fault::at(self.at, "expected a key in quotes");
            }
            let text = self.text()?;
            let name = text.bytes(&self.unescaped);
            let tag = if first && name.first() == Some(&b'$') {
                let dollars = dollars(name);
                (dollars > 0).then(|| (dollars, name.to_vec()))
            } else {
                None
            };
            first = false;
            if deep && !matches!(tag, Some((1, _))) {
                return Fault::deep(offset);
            }
            let key = self
                .build
                .key(name)
                .map_err(|refused| text.fault(refused))?;
            if self.next()? != b':' {
                return Fault::at(self.at, "expected ':'");
            }
            self.at += 1;
            match tag {
                None => {
                    let value = self.value(depth)?;
                    self.build
                        .put(&mut map, key, value)
                        .map_err(|refused| refused.at(offset))?;
                }
                Some((1, name)) => {
                    let start = self.at;
                    if let Some(value) = self.tagged(&name[1..])? {
                        return Ok(value);
                    }
                    if deep {
                        return Fault::deep(offset);
                    }
                    self.at = start;
                    let value = self.value(depth)?;
                    if self.next()? == b'}' {
                        return Fault::at(start, "a tag needs a text");
                    }
                    self.build
                        .put(&mut map, key, value)
                        .map_err(|refused| refused.at(offset))?;
                }
                Some((_, name)) => {
                    let value = self.value(depth)?;
                    let key = if self.next()? == b'}' {
                        self.build
                            .key(&name[1..])
                            .map_err(|refused| text.fault(refused))?
                    } else {
                        key
                    };
                    self.build
                        .put(&mut map, key, value)
                        .map_err(|refused| refused.at(offset))?;
                }
            }
            match self.next()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return self
                        .build
                        .end_map(map)
                        .map_err(|refused| refused.at(offset));
                }
                _ => return Fault::at(self.at, "expected ',' or '}'"),
            }
        }
    }

    /// What follows the key of a tag: the value, or None where it is no text or not the only one of its map.
    fn tagged(&mut self, tag: &[u8]) -> Read<Option<B::Value>> {
        if self.next()? != b'"' {
            return Ok(None);
        }
        let start = self.at;
        let text = self.text()?;
        let text = match std::str::from_utf8(text.bytes(&self.unescaped)) {
            Ok(text) => text,
            Err(_) => return Err(text.fault(Refused::Text(0))),
        };
        let text = text.to_owned();
        self.space();
        match self.data.get(self.at) {
            Some(b'}') => self.at += 1,
            Some(_) => return Ok(None),
            None => return Fault::early(self.at),
        }
        let made = match tag {
            b"bytes" => match read_base64(text.as_bytes()) {
                Some(bytes) => self.build.bytes(&bytes),
                None => return Fault::at(start, "this is not base64"),
            },
            b"datetime" if is_datetime(text.as_bytes()) => self.build.datetime(&text),
            b"datetime" => return Err(Refused::Datetime.at(start)),
            _ => match text.as_str() {
                "nan" => self.build.float(f64::NAN),
                "inf" => self.build.float(f64::INFINITY),
                "-inf" => self.build.float(f64::NEG_INFINITY),
                _ => return Fault::at(start, "a \"$float\" is one of nan, inf, -inf"),
            },
        };
        made.map(Some).map_err(|refused| refused.at(start))
    }

    fn number(&mut self) -> Read<B::Value> {
        let start = self.at;
        let negative = self.data[start] == b'-';
        let mut at = start + usize::from(negative);
        let first = at;
        let mut value = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.data.get(at) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            at += 1;
        }
        let count = at - first;
        if count == 0 {
            return if at == self.data.len() {
                Fault::early(at)
            } else {
                Fault::at(at, "expected a digit")
            };
        }
        if count > 1 && self.data[first] == b'0' {
            return Fault::at(first, "a number does not begin with 0");
        }
        if let Some(b'.' | b'e' | b'E') = self.data.get(at) {
            return self.float(start, at);
        }
        self.at = at;
        let made = if count <= 18 {
            let value = value as i64;
            self.build.int(if negative { -value } else { value })
        } else {
            if count > MOST_DIGITS {
                return Fault::at(start, "the number is too large");
            }
            let text = std::str::from_utf8(&self.data[start..at]).unwrap_or_default();
            match text.parse() {
                Ok(value) => self.build.int(value),
                Err(_) => self.build.digits(text),
            }
        };
        made.map_err(|refused| match refused {
            Refused::Failed => Box::new(Fault {
                offset: start,
                message: "the number is too large".to_owned(),
            }),
            other => other.at(start),
        })
    }

    fn float(&mut self, start: usize, mut at: usize) -> Read<B::Value> {
        if self.data[at] == b'.' {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.data.get(at) {
            at += 1;
            if let Some(b'+' | b'-') = self.data.get(at) {
                at += 1;
            }
            at = self.digits(at)?;
        }
        self.at = at;
        let text = std::str::from_utf8(&self.data[start..at]).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.build.float(value).map_err(|refused| refused.at(start))
            }
            _ => Fault::at(start, "the number is too large"),
        }
    }

    /// One digit at least from `at` on; where they end.
    fn digits(&self, at: usize) -> Read<usize> {
        let mut end = at;
        while let Some(b'0'..=b'9') = self.data.get(end) {
            end += 1;
        }
        if end > at {
            Ok(end)
        } else if end == self.data.len() {
            Fault::early(end)
        } else {
            Fault::at(end, "expected a digit")
        }
    }

    /// The text whose opening quote is next.
    #[inline]
    fn text(&mut self) -> Read<Text<'a>> {
        let start = self.at + 1;
        let end = plain_until(self.data, start);
        if self.data.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Text {
                start,
                raw: &self.data[start..end],
                escaped: false,
            });
        }
        match self.escaped(start, end) {
            Ok(text) => Ok(text),
            Err(fault) => Err(self.earlier(start, fault)),
        }
    }

    /// The fault of a text, or that it was no UTF-8 before.
    #[cold]
    fn earlier(&self, start: usize, fault: Box<Fault>) -> Box<Fault> {
        match std::str::from_utf8(&self.data[start..fault.offset]) {
            Err(error) => Refused::Text(error.valid_up_to()).at(start),
            Ok(_) => fault,
        }
    }

    fn escaped(&mut self, start: usize, mut end: usize) -> Read<Text<'a>> {
        self.unescaped.clear();
        self.unescaped.extend_from_slice(&self.data[start..end]);
        loop {
            match self.data.get(end) {
                None => return Fault::early(end),
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(Text {
                        start,
                        raw: &self.data[start..end],
                        escaped: true,
                    });
                }
                Some(b'\\') => end = self.escape(end)?,
                Some(_) => return Fault::at(end, "a control character must be escaped"),
            }
            end = self.copy_plain(end);
        }
    }

    /// Copies up to the next special byte; where that is.
    #[inline]
    fn copy_plain(&mut self, mut at: usize) -> usize {
        while let Some(chunk) = self.data[at..].first_chunk::<STRIDE>() {
            let found = first_special(chunk);
            self.unescaped.extend_from_slice(chunk);
            at += found;
            if found < STRIDE {
                self.unescaped
                    .truncate(self.unescaped.len() - (STRIDE - found));
                return at;
            }
        }
        while at < self.data.len() && !is_special(self.data[at]) {
            self.unescaped.push(self.data[at]);
            at += 1;
        }
        at
    }

    /// The escape at `at`; what comes after it.
    fn escape(&mut self, at: usize) -> Read<usize> {
        let Some(&letter) = self.data.get(at + 1) else {
            return Fault::early(at + 1);
        };
        let plain = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode(at),
            _ => return Fault::at(at, "there is no such escape"),
        };
        self.unescaped.push(plain);
        Ok(at + 2)
    }

    fn unicode(&mut self, at: usize) -> Read<usize> {
        let high = self.hex(at)?;
        let (code, end) = if (0xd800..0xdc00).contains(&high)
            && self.data.get(at + 6) == Some(&b'\\')
            && self.data.get(at + 7) == Some(&b'u')
        {
            let low = self.hex(at + 6)?;
            if !(0xdc00..0xe000).contains(&low) {
                return Fault::at(at, "half a surrogate pair has no UTF-8");
            }
            (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), at + 12)
        } else {
            (high, at + 6)
        };
        let Some(character) = char::from_u32(code) else {
            return Fault::at(at, "half a surrogate pair has no UTF-8");
        };
        let mut utf8 = [0; 4];
        self.unescaped
            .extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
        Ok(end)
    }

    /// The four digits of the `\u` at `at`.
    fn hex(&self, at: usize) -> Read<u32> {
        let mut code = 0;
        for place in at + 2..at + 6 {
            let Some(&byte) = self.data.get(place) else {
                return Fault::early(self.data.len());
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Fault::at(at, "there is no such escape");
            };
            code = code << 4 | digit;
        }
        Ok(code)
    }
}
