//! The readers on documents that were changed at random: an error or a document, never a panic, and memory within a
//! bound of the document's size.
//!
//! `FASTCREW_ASYNC_FUZZ=10000000 cargo test --release --test codec` reads so many in all; a few thousand otherwise.
//! `FASTCREW_ASYNC_FUZZ_SEED` begins elsewhere.

use _core::codec::build::{Read, Tree, Trees};
use _core::codec::frames::Splitter;
use _core::codec::schema::{Described, Schema};
use _core::codec::{json, msgpack, protobuf};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A list item of one byte becomes a tree of 32, in a vector that may have grown to twice what it holds.
const BYTES_FOR_A_BYTE: usize = 256;
const BYTES_IN_ANY_CASE: usize = 64 * 1024;

struct Chance(u64);

impl Chance {
    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        const TELLING: &[u8] =
            b"\x00\x01\x7f\x80\xff\xc1\xc7\xdb\xdc\xdd\xde\xdf\xd9[]{}\",:\\u-0e.$";
        if self.below(3) == 0 {
            TELLING[self.below(TELLING.len())]
        } else {
            self.below(256) as u8
        }
    }

    fn change(&mut self, data: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(data.len() + 1);
        let end = (at + self.below(24)).min(data.len());
        match self.below(9) {
            0 | 1 if at < data.len() => data[at] = self.byte(),
            2 if at < data.len() => data[at] ^= 1 << self.below(8),
            3 => drop(data.drain(at..end)),
            4 => {
                let more: Vec<u8> = (0..self.below(6)).map(|_| self.byte()).collect();
                data.splice(at..at, more);
            }
            5 => {
                let more = data[at..end].to_vec();
                let place = self.below(data.len() + 1);
                data.splice(place..place, more);
            }
            6 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len());
                let more = other[from..(from + self.below(60)).min(other.len())].to_vec();
                data.splice(at..end, more);
            }
            7 => {
                let byte = self.byte();
                let count = self.below(130);
                data.splice(at..at, std::iter::repeat_n(byte, count));
            }
            _ => data.truncate(at.max(1)),
        }
        data.truncate(4096);
    }
}

fn seeds(suffix: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/codec/documents");
    let mut found = Vec::new();
    for version in std::fs::read_dir(folder).unwrap() {
        for file in std::fs::read_dir(version.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == suffix)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() >= 7);
    let data = found.iter().map(|path| std::fs::read(path).unwrap());
    data.filter(|data| data.len() < 3000).collect()
}

/// The schema in `docs/fastcrew.proto`.
fn schema() -> Schema {
    let text = include_str!("../../docs/fastcrew.proto");
    let mut records: Vec<Described> = Vec::new();
    let body = text.split_once("message Document").unwrap().1;
    for record in format!("Document{body}").split("\nmessage ") {
        let (name, fields) = record.split_once('{').unwrap();
        let fields = fields.lines().filter_map(|line| {
            let (field, number) = line.trim().strip_suffix(';')?.split_once(" = ")?;
            let (kind, name) = field.rsplit_once(' ')?;
            let repeated = kind.starts_with("repeated ");
            let kind = kind.rsplit_once(' ').map_or(kind, |(_, kind)| kind);
            let kind = if field.starts_with("map<") {
                "map"
            } else {
                kind
            };
            (name != "extra").then(|| (number.parse().unwrap(), name.into(), kind.into(), repeated))
        });
        records.push((name.trim().to_owned(), fields.collect()));
    }
    assert_eq!(records[0].0, "Document");
    Schema::new(records).unwrap()
}

fn count() -> usize {
    let given = std::env::var("FASTCREW_ASYNC_FUZZ");
    given.map_or(6_000, |text| {
        text.parse().expect("FASTCREW_ASYNC_FUZZ is a number")
    })
}

fn seed() -> u64 {
    let given = std::env::var("FASTCREW_ASYNC_FUZZ_SEED");
    given.map_or(7, |text| {
        text.parse().expect("FASTCREW_ASYNC_FUZZ_SEED is a number")
    })
}

/// How many were read, and how many refused.
fn fuzz(name: &str, seeds: &[Vec<u8>], count: usize, read: impl Fn(&[u8]) -> Read<Tree>) {
    let mut chance = Chance(seed().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut accepted, mut refused, mut most) = (0usize, 0usize, 0f64);
    for data in seeds {
        read(data).unwrap_or_else(|fault| panic!("{name}: a seed is refused: {fault:?}"));
    }
    let mut data = Vec::new();
    for number in 0..count {
        // Changes add up for a while, so that some are far from any document.
        if number % 3 == 0 {
            data = seeds[chance.below(seeds.len())].clone();
        }
        for _ in 0..=chance.below(3) {
            chance.change(&mut data, seeds);
        }
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let result = read(&data);
        let taken = PEAK.load(Relaxed) - before;
        assert!(
            taken <= BYTES_FOR_A_BYTE * data.len() + BYTES_IN_ANY_CASE,
            "{name}: {taken} bytes for a document of {}: {data:?}",
            data.len()
        );
        most = most.max(taken as f64 / data.len().max(1) as f64);
        match result {
            Ok(_) => accepted += 1,
            Err(fault) => {
                assert!(
                    fault.offset <= data.len(),
                    "{name}: {fault:?} of {}",
                    data.len()
                );
                refused += 1;
            }
        }
    }
    println!(
        "{name}: {accepted} read, {refused} refused, at most {most:.0} bytes of memory for a byte"
    );
    assert!(accepted > 0 && refused > 0);
}

/// In one test, because memory is counted for the whole process.
#[test]
fn changed_documents_are_read_or_refused() {
    let (count, schema) = (count(), schema());
    fuzz("json", &seeds("json"), count / 3, |data| {
        json::read(data, &mut Trees)
    });
    fuzz("msgpack", &seeds("msgpack"), count / 3, |data| {
        msgpack::read(data, &mut Trees)
    });
    fuzz("protobuf", &seeds("pb"), count - count / 3 * 2, |data| {
        protobuf::read(data, &schema, &mut Trees)
    });
    frames(count / 10);
}

fn frames(count: usize) {
    let mut chance = Chance(seed() | 1);
    let (mut found, mut refused) = (0, 0);
    for _ in 0..count {
        let mut splitter = Splitter::new(300);
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        for _ in 0..chance.below(8) {
            let piece: Vec<u8> = (0..chance.below(60))
                .map(|_| chance.byte() & 0x8f)
                .collect();
            match splitter.feed(&piece, |frame| {
                assert!(frame.len() <= 300);
                found += 1;
            }) {
                Ok(()) => assert!(splitter.waiting() <= 302),
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
        assert!(PEAK.load(Relaxed) - before < 4096);
    }
    println!("frames: {found} cut, {refused} refused");
    assert!(found > 0 && refused > 0);
}
