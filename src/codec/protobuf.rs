//! protobuf, https://protobuf.dev/programming-guides/encoding/, by a schema; `docs/fastcrew.proto` is the same in its
//! language.
//!
//! What a field cannot hold goes to the `extra` of its record, under the field's name; fields of unknown numbers are
//! kept as they are. A field that is no list must not be there twice.

use super::build::{Build, Fault, Read, Refused};
use super::number::is_datetime;
use super::schema::{Kind, Record, Schema, EXTRA};
use super::{DEEPEST, UNKNOWN, WIDEST_INTEGER};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

/// The fields of the message `Value`.
pub mod value {
    pub const NULL: u32 = 1;
    pub const BOOL: u32 = 2;
    pub const INT: u32 = 3;
    pub const BIG: u32 = 4;
    pub const FLOAT: u32 = 5;
    pub const TEXT: u32 = 6;
    pub const BYTES: u32 = 7;
    pub const DATETIME: u32 = 8;
    pub const LIST: u32 = 9;
    pub const MAP: u32 = 10;
}

pub fn read<B: Build>(data: &[u8], schema: &Schema, build: &mut B) -> Read<B::Value> {
    let mut reader = Reader {
        data,
        at: 0,
        schema,
        build,
    };
    reader.record(&schema.records[0], data.len(), 1)
}

/// Whether these are fields that the record does not know, and nothing else.
pub fn is_unknown(data: &[u8], record: &Record) -> bool {
    let mut cursor = 0;
    while cursor < data.len() {
        let Ok((number, wire)) = tag(data, &mut cursor, data.len()) else {
            return false;
        };
        if number == EXTRA || record.position(number).is_some() {
            return false;
        }
        if skip(data, &mut cursor, data.len(), wire).is_err() {
            return false;
        }
    }
    !data.is_empty()
}

#[inline]
fn varint(data: &[u8], at: &mut usize, end: usize) -> Read<u64> {
    let start = *at;
    let mut value = 0u64;
    for place in 0..10 {
        if *at >= end {
            return Fault::early(end);
        }
        let byte = data[*at];
        *at += 1;
        if place == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Fault::at(start, "a varint has 64 bits at most")
}

#[inline]
fn tag(data: &[u8], at: &mut usize, end: usize) -> Read<(u32, u32)> {
    let start = *at;
    let tag = varint(data, at, end)?;
    match u32::try_from(tag) {
        Ok(tag) if tag >> 3 > 0 => Ok((tag >> 3, tag & 7)),
        _ => Fault::at(start, "there is no such field number"),
    }
}

/// The end of what is delimited by the length that is next.
#[inline]
fn delimited(data: &[u8], at: &mut usize, end: usize) -> Read<usize> {
    let start = *at;
    let length = varint(data, at, end)?;
    match usize::try_from(length)
        .ok()
        .filter(|&length| length <= end - *at)
    {
        Some(length) => Ok(*at + length),
        None => Fault::at(start, "a length goes beyond what holds it"),
    }
}

fn skip(data: &[u8], at: &mut usize, end: usize, wire: u32) -> Read<()> {
    let start = *at;
    let until = match wire {
        VARINT => {
            varint(data, at, end)?;
            *at
        }
        FIXED64 => *at + 8,
        DELIMITED => delimited(data, at, end)?,
        FIXED32 => *at + 4,
        _ => return Fault::at(start, format!("wire type {wire} is not known here")),
    };
    if until > end {
        return Fault::early(end);
    }
    *at = until;
    Ok(())
}

/// What a field that may be there several times has so far.
enum Several<B: Build> {
    List(B::List),
    Map(B::Map),
}

struct Reader<'a, B: Build> {
    data: &'a [u8],
    at: usize,
    schema: &'a Schema,
    build: &'a mut B,
}

impl<'a, B: Build> Reader<'a, B> {
    fn delimited(&mut self, end: usize, wire: u32, number: u32) -> Read<usize> {
        self.expect(wire, DELIMITED, number)?;
        delimited(self.data, &mut self.at, end)
    }

    fn expect(&self, found: u32, wanted: u32, number: u32) -> Read<()> {
        if found == wanted {
            return Ok(());
        }
        Fault::at(
            self.at,
            format!("field {number} has wire type {found} in place of {wanted}"),
        )
    }

    fn record(&mut self, record: &'a Record, end: usize, depth: usize) -> Read<B::Value> {
        let offset = self.at;
        if depth > DEEPEST {
            return Fault::deep(offset);
        }
        let refused = |refused: Refused| refused.at(offset);
        let mut map = self.build.map().map_err(refused)?;
        let mut several: Vec<(usize, Several<B>)> = Vec::new();
        let mut seen = 0u64;
        let mut unknown = Vec::new();
        while self.at < end {
            let start = self.at;
            let (number, wire) = tag(self.data, &mut self.at, end)?;
            if number == EXTRA {
                let until = self.delimited(end, wire, number)?;
                self.entry(&mut map, until, depth, offset)?;
                continue;
            }
            let Some(position) = record.position(number) else {
                skip(self.data, &mut self.at, end, wire)?;
                unknown.extend_from_slice(&self.data[start..self.at]);
                continue;
            };
            let field = &record.fields[position];
            if field.repeated || field.kind == Kind::Map {
                let place = match several.iter().position(|(index, _)| *index == position) {
                    Some(place) => place,
                    None => {
                        // A list or a map is a level of its own.
                        if depth + 1 > DEEPEST {
                            return Fault::deep(start);
                        }
                        let made = if field.repeated {
                            self.build.list().map(Several::List)
                        } else {
                            self.build.map().map(Several::Map)
                        };
                        several.push((position, made.map_err(refused)?));
                        several.len() - 1
                    }
                };
                let mut taken = several.swap_remove(place);
                match &mut taken.1 {
                    Several::List(list) => {
                        let value = self.field(field.kind, number, wire, end, depth + 1)?;
                        self.build.push(list, value).map_err(refused)?;
                    }
                    Several::Map(inner) => {
                        let until = self.delimited(end, wire, number)?;
                        self.entry(inner, until, depth + 1, start)?;
                    }
                }
                several.push(taken);
                continue;
            }
            if seen & 1 << position != 0 {
                return Fault::at(start, format!("field {number} is there twice"));
            }
            seen |= 1 << position;
            let value = self.field(field.kind, number, wire, end, depth)?;
            let key = self.build.key(field.name.as_bytes()).map_err(refused)?;
            self.build.put(&mut map, key, value).map_err(refused)?;
        }
        several.sort_by_key(|(position, _)| *position);
        for (position, taken) in several {
            let value = match taken {
                Several::List(list) => self.build.end_list(list),
                Several::Map(inner) => self.build.end_map(inner).map_err(refused)?,
            };
            let name = record.fields[position].name.as_bytes();
            let key = self.build.key(name).map_err(refused)?;
            self.build.put(&mut map, key, value).map_err(refused)?;
        }
        if !unknown.is_empty() {
            let value = self.build.bytes(&unknown).map_err(refused)?;
            let key = self.build.key(UNKNOWN.as_bytes()).map_err(refused)?;
            self.build.put(&mut map, key, value).map_err(refused)?;
        }
        self.build.end_map(map).map_err(refused)
    }

    fn field(
        &mut self,
        kind: Kind,
        number: u32,
        wire: u32,
        end: usize,
        depth: usize,
    ) -> Read<B::Value> {
        match kind {
            Kind::Text => {
                let until = self.delimited(end, wire, number)?;
                self.text(until)
            }
            Kind::Int => {
                self.expect(wire, VARINT, number)?;
                let offset = self.at;
                let value = varint(self.data, &mut self.at, end)? as i64;
                self.build.int(value).map_err(|refused| refused.at(offset))
            }
            Kind::Bool => {
                self.expect(wire, VARINT, number)?;
                let value = varint(self.data, &mut self.at, end)? != 0;
                Ok(self.build.bool(value))
            }
            Kind::Float => {
                self.expect(wire, FIXED64, number)?;
                self.float(end)
            }
            Kind::Any => {
                let until = self.delimited(end, wire, number)?;
                self.value(until, depth)
            }
            Kind::Record(place) => {
                let until = self.delimited(end, wire, number)?;
                let schema = self.schema;
                self.record(&schema.records[place], until, depth + 1)
            }
            // Its entries are read one by one.
            Kind::Map => Fault::at(self.at, "a map is no single field"),
        }
    }

    fn text(&mut self, until: usize) -> Read<B::Value> {
        let offset = self.at;
        self.at = until;
        self.build
            .text(&self.data[offset..until])
            .map_err(|refused| refused.at(offset))
    }

    fn float(&mut self, end: usize) -> Read<B::Value> {
        let offset = self.at;
        let mut bytes = [0; 8];
        if end - offset < 8 {
            return Fault::early(end);
        }
        bytes.copy_from_slice(&self.data[offset..offset + 8]);
        self.at += 8;
        self.build
            .float(f64::from_le_bytes(bytes))
            .map_err(|refused| refused.at(offset))
    }

    /// An entry of a map: its key and its value.
    fn entry(&mut self, map: &mut B::Map, end: usize, depth: usize, offset: usize) -> Read<()> {
        let (mut key, mut value) = (None, None);
        while self.at < end {
            let start = self.at;
            let (number, wire) = tag(self.data, &mut self.at, end)?;
            match number {
                1 if key.is_none() => {
                    let until = self.delimited(end, wire, number)?;
                    let text = &self.data[self.at..until];
                    let made = self.build.key(text);
                    key = Some(made.map_err(|refused| refused.at(self.at))?);
                    self.at = until;
                }
                2 if value.is_none() => {
                    let until = self.delimited(end, wire, number)?;
                    value = Some(self.value(until, depth)?);
                }
                1 | 2 => return Fault::at(start, format!("field {number} is there twice")),
                _ => return Fault::at(start, "an entry has no such field"),
            }
        }
        let key = match key {
            Some(key) => key,
            None => self.build.key(b"").map_err(|refused| refused.at(offset))?,
        };
        let value = match value {
            Some(value) => value,
            None => self.build.null(),
        };
        self.build
            .put(map, key, value)
            .map_err(|refused| refused.at(offset))
    }

    /// The message `Value`; an empty one is null.
    fn value(&mut self, end: usize, depth: usize) -> Read<B::Value> {
        if self.at >= end {
            return Ok(self.build.null());
        }
        let offset = self.at;
        let (number, wire) = tag(self.data, &mut self.at, end)?;
        let made = match number {
            value::NULL => {
                self.expect(wire, VARINT, number)?;
                varint(self.data, &mut self.at, end)?;
                Ok(self.build.null())
            }
            value::BOOL => {
                self.expect(wire, VARINT, number)?;
                let value = varint(self.data, &mut self.at, end)? != 0;
                Ok(self.build.bool(value))
            }
            value::INT => {
                self.expect(wire, VARINT, number)?;
                let zigzag = varint(self.data, &mut self.at, end)?;
                self.build
                    .int((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
            }
            value::FLOAT => {
                self.expect(wire, FIXED64, number)?;
                Ok(self.float(end)?)
            }
            value::BIG | value::TEXT | value::BYTES | value::DATETIME => {
                let until = self.delimited(end, wire, number)?;
                let bytes = &self.data[self.at..until];
                match number {
                    value::TEXT => Ok(self.text(until)?),
                    value::BYTES => {
                        self.at = until;
                        self.build.bytes(bytes)
                    }
                    value::BIG => {
                        if !(1..=WIDEST_INTEGER).contains(&bytes.len()) {
                            return Fault::at(offset, "the number is too large");
                        }
                        self.at = until;
                        self.build.big(bytes)
                    }
                    _ => {
                        self.at = until;
                        match std::str::from_utf8(bytes) {
                            Ok(text) if is_datetime(bytes) => self.build.datetime(text),
                            _ => Err(Refused::Datetime),
                        }
                    }
                }
            }
            value::LIST | value::MAP => {
                let until = self.delimited(end, wire, number)?;
                if depth + 1 > DEEPEST {
                    return Fault::deep(offset);
                }
                Ok(self.items(number == value::LIST, until, depth + 1, offset)?)
            }
            _ => return Fault::at(offset, "a Value has no such field"),
        };
        if self.at < end {
            return Fault::at(self.at, "a Value holds one thing");
        }
        made.map_err(|refused| refused.at(offset))
    }

    /// The message `List` or `Map`: its items, or entries.
    fn items(&mut self, is_list: bool, end: usize, depth: usize, offset: usize) -> Read<B::Value> {
        let refused = |refused: Refused| refused.at(offset);
        let mut holder = if is_list {
            Several::<B>::List(self.build.list().map_err(refused)?)
        } else {
            Several::Map(self.build.map().map_err(refused)?)
        };
        while self.at < end {
            let start = self.at;
            let (number, wire) = tag(self.data, &mut self.at, end)?;
            if number != 1 {
                return Fault::at(start, "a List or a Map has no such field");
            }
            let until = self.delimited(end, wire, number)?;
            match &mut holder {
                Several::List(list) => {
                    let value = self.value(until, depth)?;
                    self.build.push(list, value).map_err(refused)?;
                }
                Several::Map(map) => self.entry(map, until, depth, start)?,
            }
        }
        match holder {
            Several::List(list) => Ok(self.build.end_list(list)),
            Several::Map(map) => self.build.end_map(map).map_err(refused),
        }
    }
}

pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    #[inline]
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn int(&mut self, number: u32, value: u64) {
        self.varint(u64::from(number << 3 | VARINT));
        self.varint(value);
    }

    pub fn float(&mut self, number: u32, value: f64) {
        self.varint(u64::from(number << 3 | FIXED64));
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number << 3 | DELIMITED));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message begins, whose length is not known yet; to be ended with what this gives.
    pub fn begin(&mut self, number: u32) -> usize {
        self.varint(u64::from(number << 3 | DELIMITED));
        self.0.push(0);
        self.0.len()
    }

    pub fn end(&mut self, start: usize) {
        let length = self.0.len() - start;
        let mut rest = length >> 7;
        let mut more = 0;
        while rest > 0 {
            more += 1;
            rest >>= 7;
        }
        if more > 0 {
            // The length takes more than the one byte that was left for it.
            self.0.resize(start + length + more, 0);
            self.0.copy_within(start..start + length, start + more);
        }
        let mut rest = length;
        for place in 0..=more {
            let last = if place < more { 0x80 } else { 0 };
            self.0[start - 1 + place] = (rest & 0x7f) as u8 | last;
            rest >>= 7;
        }
    }
}
