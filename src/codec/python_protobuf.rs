//! Python's values as protobuf, by a schema.

use super::protobuf::{is_unknown, value, Writer};
use super::python_walk::{
    big, key_of, plain, too_deep, too_large, utf8, within_item, within_key, Entries, Plain, Written,
};
use super::schema::{Field, Kind, Record, Schema, EXTRA};
use super::{DEEPEST, UNKNOWN};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

pub struct Walk<'a> {
    pub schema: &'a Schema,
    /// The names of each record's fields, as the interpreter has them.
    pub names: &'a [Vec<Py<PyString>>],
    pub out: &'a mut Vec<u8>,
    pub max_bytes: usize,
}

/// Whether a field holds this value as it is; otherwise it goes to `extra`.
fn fits(value: &Bound<'_, PyAny>, field: &Field) -> bool {
    if field.repeated {
        return match value.cast::<PyList>() {
            Ok(list) => !list.is_empty() && list.iter().all(|item| is_of(&item, field.kind)),
            Err(_) => value.cast::<PyTuple>().is_ok_and(|tuple| {
                !tuple.is_empty() && tuple.iter().all(|item| is_of(&item, field.kind))
            }),
        };
    }
    is_of(value, field.kind)
}

fn is_of(value: &Bound<'_, PyAny>, kind: Kind) -> bool {
    match kind {
        Kind::Text => value.is_instance_of::<PyString>(),
        Kind::Int => {
            value.is_instance_of::<PyInt>()
                && !value.is_instance_of::<PyBool>()
                && value.extract::<i64>().is_ok()
        }
        Kind::Float => value.is_instance_of::<PyFloat>(),
        Kind::Bool => value.is_instance_of::<PyBool>(),
        Kind::Any => true,
        Kind::Map => value.cast::<PyDict>().is_ok_and(|dict| !dict.is_empty()),
        Kind::Record(_) => value.is_instance_of::<PyDict>(),
    }
}

impl Walk<'_> {
    fn room(&self, more: usize) -> Written<()> {
        if more > self.max_bytes.saturating_sub(self.out.len()) {
            return too_large(self.max_bytes);
        }
        Ok(())
    }

    pub fn record(&mut self, dict: &Bound<'_, PyDict>, place: usize, depth: usize) -> Written<()> {
        if depth >= DEEPEST {
            return too_deep();
        }
        let schema = self.schema;
        let record = &schema.records[place];
        let mut written = 0u64;
        let mut found = 0;
        for (position, field) in record.fields.iter().enumerate() {
            let Some(value) = lookup(dict, &self.names[place][position]) else {
                continue;
            };
            if fits(&value, field) {
                written |= 1 << position;
                found += 1;
                within_key(self.field(field, &value, depth + 1), &field.name)?;
            }
        }
        if found == dict.len() {
            return self.room(0);
        }
        self.rest(dict, record, written, depth)
    }

    /// What the fields do not hold.
    fn rest(
        &mut self,
        dict: &Bound<'_, PyDict>,
        record: &Record,
        written: u64,
        depth: usize,
    ) -> Written<()> {
        let mut unknown = None;
        for (key, item) in Entries::of(dict) {
            let key = utf8(key_of(&key)?)?;
            let known = record.fields.iter().position(|field| field.name == key);
            if known.is_some_and(|position| written & 1 << position != 0) {
                continue;
            }
            if key == UNKNOWN {
                if let Ok(bytes) = item.cast::<PyBytes>() {
                    if is_unknown(bytes.as_bytes(), record) {
                        unknown = Some(bytes.clone());
                        continue;
                    }
                }
            }
            self.entry(EXTRA, key, &item, depth + 1)?;
        }
        if let Some(bytes) = unknown {
            self.room(bytes.as_bytes().len())?;
            self.out.extend_from_slice(bytes.as_bytes());
        }
        self.room(0)
    }

    fn field(&mut self, field: &Field, value: &Bound<'_, PyAny>, depth: usize) -> Written<()> {
        if !field.repeated {
            return self.single(field, value, depth);
        }
        if depth >= DEEPEST {
            return too_deep();
        }
        if let Ok(list) = value.cast::<PyList>() {
            for (index, item) in list.iter().enumerate() {
                within_item(self.single(field, &item, depth + 1), index)?;
            }
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            for (index, item) in tuple.iter().enumerate() {
                within_item(self.single(field, &item, depth + 1), index)?;
            }
        }
        Ok(())
    }

    fn single(&mut self, field: &Field, value: &Bound<'_, PyAny>, depth: usize) -> Written<()> {
        let number = field.number;
        match (field.kind, plain(value)?) {
            (Kind::Text, Plain::Text(text)) => {
                let text = utf8(text)?;
                self.room(text.len())?;
                Writer(self.out).bytes(number, text.as_bytes());
            }
            (Kind::Int, Plain::Int(int)) => Writer(self.out).int(number, int as u64),
            (Kind::Float, Plain::Float(float)) => Writer(self.out).float(number, float),
            (Kind::Bool, Plain::Bool(truth)) => Writer(self.out).int(number, u64::from(truth)),
            (Kind::Record(place), Plain::Map(dict)) => {
                let start = Writer(self.out).begin(number);
                self.record(&dict, place, depth)?;
                Writer(self.out).end(start);
            }
            (Kind::Map, Plain::Map(dict)) => {
                if depth >= DEEPEST {
                    return too_deep();
                }
                for (key, item) in Entries::of(&dict) {
                    self.entry(number, utf8(key_of(&key)?)?, &item, depth + 1)?;
                }
            }
            // `Kind::Any`; the others have been found to fit.
            (_, plain) => {
                let start = Writer(self.out).begin(number);
                self.value(plain, depth)?;
                Writer(self.out).end(start);
            }
        }
        self.room(0)
    }

    fn entry(
        &mut self,
        number: u32,
        key: &str,
        item: &Bound<'_, PyAny>,
        depth: usize,
    ) -> Written<()> {
        self.room(key.len())?;
        let start = Writer(self.out).begin(number);
        Writer(self.out).bytes(1, key.as_bytes());
        let inner = Writer(self.out).begin(2);
        let written = plain(item).and_then(|plain| self.value(plain, depth));
        if written.is_err() {
            return within_key(written, key);
        }
        Writer(self.out).end(inner);
        Writer(self.out).end(start);
        Ok(())
    }

    /// The message `Value`, without its length.
    fn value(&mut self, given: Plain<'_, '_>, depth: usize) -> Written<()> {
        self.room(0)?;
        match given {
            Plain::Null => Writer(self.out).int(value::NULL, 1),
            Plain::Bool(truth) => Writer(self.out).int(value::BOOL, u64::from(truth)),
            Plain::Int(int) => Writer(self.out).int(value::INT, ((int << 1) ^ (int >> 63)) as u64),
            Plain::Big(int) => Writer(self.out).bytes(value::BIG, &big(int, false)?),
            Plain::Float(float) => Writer(self.out).float(value::FLOAT, float),
            Plain::Text(text) => {
                let text = utf8(text)?;
                self.room(text.len())?;
                Writer(self.out).bytes(value::TEXT, text.as_bytes());
            }
            Plain::Bytes(bytes) => {
                self.room(bytes.as_bytes().len())?;
                Writer(self.out).bytes(value::BYTES, bytes.as_bytes());
            }
            Plain::Datetime(text) => Writer(self.out).bytes(value::DATETIME, text.as_bytes()),
            Plain::List(list) => self.list(list.iter(), depth)?,
            Plain::Tuple(tuple) => self.list(tuple.iter(), depth)?,
            Plain::Map(dict) => {
                if depth >= DEEPEST {
                    return too_deep();
                }
                let start = Writer(self.out).begin(value::MAP);
                for (key, item) in Entries::of(&dict) {
                    self.entry(1, utf8(key_of(&key)?)?, &item, depth + 1)?;
                }
                Writer(self.out).end(start);
            }
        }
        Ok(())
    }

    fn list<'py>(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        depth: usize,
    ) -> Written<()> {
        if depth >= DEEPEST {
            return too_deep();
        }
        let start = Writer(self.out).begin(value::LIST);
        for (index, item) in items.enumerate() {
            let inner = Writer(self.out).begin(1);
            let written = plain(&item).and_then(|plain| self.value(plain, depth + 1));
            within_item(written, index)?;
            Writer(self.out).end(inner);
        }
        Writer(self.out).end(start);
        Ok(())
    }
}

#[inline]
fn lookup<'py>(dict: &Bound<'py, PyDict>, name: &Py<PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: a dict and a str; what comes back is borrowed, and held before anything else can run. A str's hash and
    // comparison raise nothing, and a null of any other reason reads as missing.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(dict.as_ptr(), name.as_ptr());
        if found.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(Bound::from_borrowed_ptr(dict.py(), found))
    }
}
