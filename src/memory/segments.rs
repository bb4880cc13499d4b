//! The files that hold the vectors: fixed in size, written by appending, read through memory maps.
//!
//! The row in SQLite is the truth, a slot here only what it points to. A slot is written and on disk before its row is
//! committed, under the database's write lock, so one process writes at a time; slots below the committed `next_slot` never
//! change, but for the flag that says their row is gone. What a rolled-back transaction or a crash leaves behind lies
//! at or above `next_slot` and is written over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use memmap2::Mmap;

use super::kernels::Coded;
use crate::error::{DatabaseErrorKind as Kind, Error};

/// Numbers are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"));

const ENTRY: usize = 40;
const FLAGS_AT: usize = 24;
pub const PRIVATE: u32 = 1;
/// The row is gone, for those who see its removal, whose number the other bits hold. Only a hint: the row decides.
pub const DEAD: u32 = 2;
const REMOVAL_AT: u32 = 2;
/// Bytes of numbers in a segment, about: the unit of compaction and of parallel search.
const SEGMENT_BYTES: u64 = 32 << 20;

/// What filters ask of a record, and what its vector's codes mean.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// 0 where nothing was written.
    pub row: i64,
    /// Microseconds since 1970.
    pub created: i64,
    pub scope: u32,
    /// 0 for none.
    pub source: u32,
    pub flags: u32,
    pub scale: f32,
    pub lost: f32,
    pub length: f32,
}

impl Entry {
    /// Whether it is known that its row is not there for who sees the removals up to this one.
    pub fn is_dead(&self, seen: Removal) -> bool {
        self.flags & DEAD != 0 && self.flags >> REMOVAL_AT <= seen.0
    }
}

/// The number of a row's removal, or of the last that a transaction sees. Beyond 2^30, which is a year of 34 removals a
/// second, all are one: then a search may miss what is being replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removal(u32);

impl Removal {
    pub fn of(number: i64) -> Self {
        let most = u32::MAX >> REMOVAL_AT;
        Self(u32::try_from(number).unwrap_or(most).min(most))
    }
}

const _: () =
    assert!(size_of::<Entry>() == ENTRY && std::mem::offset_of!(Entry, flags) == FLAGS_AT);

pub fn capacity(dim: usize) -> u64 {
    (SEGMENT_BYTES / (4 * dim as u64))
        .clamp(256, 65_536)
        .next_multiple_of(256)
}

/// One file of `capacity` slots: all entries, then all codes, then all numbers.
pub struct Segment {
    pub base: u64,
    pub capacity: u64,
    pub dim: usize,
    file: File,
    map: Mmap,
}

impl Segment {
    fn bytes(capacity: u64, dim: usize) -> u64 {
        Self::vectors_at(capacity, dim) + capacity * dim as u64 * 4
    }

    fn codes_at(capacity: u64) -> u64 {
        capacity * ENTRY as u64
    }

    fn vectors_at(capacity: u64, dim: usize) -> u64 {
        (Self::codes_at(capacity) + capacity * dim as u64).next_multiple_of(4096)
    }

    fn open(path: &Path, base: u64, capacity: u64, dim: usize, create: bool) -> io::Result<Self> {
        let size = Self::bytes(capacity, dim);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create)
            .open(path)?;
        if create {
            file.set_len(size)?;
        } else if file.metadata()?.len() != size {
            let text = format!("it is not {size} bytes long");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // SAFETY: the file keeps its size for as long as it exists (see the module), and what changes under the map is read
        // as below: committed slots are constant, flags are atomics.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self {
            base,
            capacity,
            dim,
            file,
            map,
        })
    }

    /// How many of the segment's slots lie below `next_slot`.
    pub fn used(&self, next_slot: u64) -> usize {
        next_slot.saturating_sub(self.base).min(self.capacity) as usize
    }

    pub fn holds(&self, slot: u64) -> bool {
        (self.base..self.base + self.capacity).contains(&slot)
    }

    pub fn entry(&self, index: usize) -> Entry {
        let at = index * ENTRY;
        let bytes = &self.map[at..at + ENTRY];
        // SAFETY: the slice is an entry long, and any bits are one.
        let mut entry: Entry = unsafe { bytes.as_ptr().cast::<Entry>().read_unaligned() };
        entry.flags = self.flags(index).load(Relaxed);
        entry
    }

    fn flags(&self, index: usize) -> &AtomicU32 {
        let at = index * ENTRY + FLAGS_AT;
        let bytes = &self.map[at..at + 4];
        // SAFETY: the map is page aligned and `at` a multiple of 8; the flags are written as one aligned word.
        unsafe { &*bytes.as_ptr().cast::<AtomicU32>() }
    }

    pub fn codes(&self, index: usize) -> &[i8] {
        let at = Self::codes_at(self.capacity) as usize + index * self.dim;
        let bytes = &self.map[at..at + self.dim];
        // SAFETY: u8 and i8 have one layout.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), self.dim) }
    }

    pub fn vector(&self, index: usize) -> &[f32] {
        let bytes = self.numbers(index);
        // SAFETY: the region begins on a page, so every number is aligned; any bits are an f32.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), self.dim) }
    }

    /// A vector as bytes.
    pub fn numbers(&self, index: usize) -> &[u8] {
        let at = Self::vectors_at(self.capacity, self.dim) as usize + index * self.dim * 4;
        &self.map[at..at + self.dim * 4]
    }

    /// Bytes that a slot takes.
    pub fn slot_bytes(&self) -> usize {
        ENTRY + self.dim * 5
    }

    /// Writes slots in a row, of which `first` is the first; the index counts within the segment.
    fn write(&self, first: usize, slots: &Slots) -> io::Result<()> {
        let first = first as u64;
        let dim = self.dim as u64;
        write_at(
            &self.file,
            &slots.vectors,
            Self::vectors_at(self.capacity, self.dim) + first * dim * 4,
        )?;
        write_at(
            &self.file,
            &slots.codes,
            Self::codes_at(self.capacity) + first * dim,
        )?;
        write_at(&self.file, &slots.entries, first * ENTRY as u64)
    }

    /// Marks a slot whose row is gone for good, and was by this removal at the latest.
    fn bury(&self, index: usize, removal: Removal) -> io::Result<()> {
        let flags = self.flags(index).load(Relaxed) & PRIVATE | DEAD | removal.0 << REMOVAL_AT;
        write_at(
            &self.file,
            &flags.to_le_bytes(),
            (index * ENTRY + FLAGS_AT) as u64,
        )
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

/// The segments of a folder that this process has open.
pub struct Segments {
    folder: PathBuf,
    open: Mutex<BTreeMap<u64, Arc<Segment>>>,
    /// Written since the last flush; with `true`, the folder has a new file.
    dirty: Mutex<(BTreeMap<u64, Arc<Segment>>, bool)>,
    /// Flushes that have begun.
    flushing: Mutex<Vec<JoinHandle<Result<(), Error>>>>,
}

impl Segments {
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
            dirty: Mutex::default(),
            flushing: Mutex::default(),
        }
    }

    fn path(&self, base: u64) -> PathBuf {
        self.folder.join(format!("vectors-{base}"))
    }

    /// The open segment that begins at slot `base`.
    pub fn get(&self, base: u64, capacity: u64, dim: usize) -> Result<Arc<Segment>, Error> {
        let mut open = lock(&self.open);
        if let Some(segment) = open.get(&base) {
            return Ok(Arc::clone(segment));
        }
        let path = self.path(base);
        let segment = Segment::open(&path, base, capacity, dim, false)
            .map_err(|error| failed(&path, &error))?;
        let segment = Arc::new(segment);
        open.insert(base, Arc::clone(&segment));
        Ok(segment)
    }

    /// Whether a segment's file is there.
    pub fn has(&self, base: u64) -> bool {
        self.path(base).exists()
    }

    /// A new segment. A file of its name is what a transaction left that was rolled back.
    pub fn create(&self, base: u64, capacity: u64, dim: usize) -> Result<Arc<Segment>, Error> {
        let path = self.path(base);
        let made = fs::remove_file(&path)
            .or_else(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(error)
                }
            })
            .and_then(|()| Segment::open(&path, base, capacity, dim, true));
        let segment = Arc::new(made.map_err(|error| failed(&path, &error))?);
        lock(&self.open).insert(base, Arc::clone(&segment));
        lock(&self.dirty).1 = true;
        Ok(segment)
    }

    /// Writes slots of a segment; they are on disk after the next `flush`.
    pub fn write(&self, segment: &Arc<Segment>, first: u64, slots: &Slots) -> Result<(), Error> {
        let written = Arc::clone(segment);
        lock(&self.dirty).0.insert(segment.base, written);
        segment
            .write((first - segment.base) as usize, slots)
            .map_err(|error| failed(&self.path(segment.base), &error))
    }

    /// Marks a slot whose row is gone for good, where its segment is open; a hint that is missed is found again.
    pub fn bury(&self, slot: u64, removal: Removal) {
        let segment = lock(&self.open)
            .values()
            .find(|segment| segment.holds(slot))
            .cloned();
        if let Some(segment) = segment {
            let _ = segment.bury((slot - segment.base) as usize, removal);
        }
    }

    /// Removes a segment that is in no table any more. Who reads it still keeps its map.
    pub fn remove(&self, base: u64) {
        lock(&self.open).remove(&base);
        // Where it cannot be removed, as on Windows while it is mapped, the next process to open the folder does it.
        let _ = fs::remove_file(self.path(base));
    }

    /// Begins to flush what was written, on a thread, while other things are written. The next `flush` waits for it.
    pub fn begin_flush(&self) {
        let written = std::mem::take(&mut lock(&self.dirty).0);
        let segments = self.named(&written);
        let thread = thread::Builder::new().name("fastcrew-flush".into());
        match thread.spawn(move || synced(&segments)) {
            Ok(flushing) => lock(&self.flushing).push(flushing),
            Err(_) => lock(&self.dirty).0.extend(written),
        }
    }

    /// What was written is on disk when this returns.
    pub fn flush(&self) -> Result<(), Error> {
        let begun = std::mem::take(&mut *lock(&self.flushing));
        let begun: Vec<_> = begun.into_iter().map(JoinHandle::join).collect();
        for flushed in begun {
            flushed.unwrap_or_else(|payload| Err(Error::from_panic(payload.as_ref())))?;
        }
        let (written, new_file) = std::mem::take(&mut *lock(&self.dirty));
        synced(&self.named(&written))?;
        if new_file && cfg!(unix) {
            File::open(&self.folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| failed(&self.folder, &error))?;
        }
        Ok(())
    }

    fn named(&self, segments: &BTreeMap<u64, Arc<Segment>>) -> Vec<(PathBuf, Arc<Segment>)> {
        segments
            .values()
            .map(|segment| (self.path(segment.base), Arc::clone(segment)))
            .collect()
    }

    /// Forgets all segments but those that begin at `kept`, and those after a moment at which `next_slot` came next.
    pub fn forget_others(&self, kept: &BTreeSet<u64>, next_slot: u64) {
        lock(&self.open).retain(|base, _| *base >= next_slot || kept.contains(base));
    }

    /// Removes all files but those of the segments that begin at `kept`.
    pub fn remove_others(&self, kept: &BTreeSet<u64>) {
        lock(&self.open).retain(|base, _| kept.contains(base));
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name();
            let base = name
                .to_str()
                .and_then(|name| name.strip_prefix("vectors-")?.parse().ok());
            if base.is_some_and(|base| !kept.contains(&base)) {
                // Where a map keeps it from being removed, as on Windows, a later turn does it.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// The content of slots in a row, as it is written.
#[derive(Default)]
pub struct Slots {
    pub count: usize,
    entries: Vec<u8>,
    codes: Vec<u8>,
    vectors: Vec<u8>,
}

impl Slots {
    pub fn add(&mut self, entry: Entry, vector: &[f32]) {
        let coded = Coded::of(vector);
        let entry = Entry {
            scale: coded.scale,
            lost: coded.lost,
            length: coded.length,
            ..entry
        };
        self.add_coded(entry, &coded.codes, vector);
    }

    /// Adds what lay in another slot.
    pub fn add_coded(&mut self, entry: Entry, codes: &[i8], vector: &[f32]) {
        self.count += 1;
        self.entries.extend_from_slice(&entry.row.to_le_bytes());
        self.entries.extend_from_slice(&entry.created.to_le_bytes());
        for word in [entry.scope, entry.source, entry.flags] {
            self.entries.extend_from_slice(&word.to_le_bytes());
        }
        for number in [entry.scale, entry.lost, entry.length] {
            self.entries.extend_from_slice(&number.to_le_bytes());
        }
        self.codes.extend(codes.iter().map(|code| *code as u8));
        // SAFETY: any f32 is four bytes; they lie as they are written (see the module).
        self.vectors.extend_from_slice(unsafe {
            std::slice::from_raw_parts(vector.as_ptr().cast(), size_of_val(vector))
        });
    }

    pub fn clear(&mut self) {
        self.count = 0;
        for bytes in [&mut self.entries, &mut self.codes, &mut self.vectors] {
            bytes.clear();
        }
    }
}

fn synced(segments: &[(PathBuf, Arc<Segment>)]) -> Result<(), Error> {
    segments.iter().try_for_each(|(path, segment)| {
        let flushed = segment.file.sync_data();
        flushed.map_err(|error| failed(path, &error))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => Kind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound => Kind::Corrupt,
        _ => Kind::Other,
    };
    Error::database(kind, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_flushed_whatever_readers_of_earlier_moments_forget() {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments::new(folder.path().into());
        let segment = segments.create(256, 256, 8).unwrap();
        let mut slots = Slots::default();
        let entry = Entry {
            row: 1,
            created: 0,
            scope: 1,
            source: 0,
            flags: 0,
            scale: 0.0,
            lost: 0.0,
            length: 0.0,
        };
        slots.add(entry, &[1.0; 8]);
        segments.write(&segment, 256, &slots).unwrap();
        segments.forget_others(&BTreeSet::new(), 256);
        assert!(lock(&segments.open).contains_key(&256));
        segments.forget_others(&BTreeSet::new(), 257);
        assert!(!lock(&segments.open).contains_key(&256));
        assert_eq!(segments.named(&lock(&segments.dirty).0).len(), 1);
        segments.flush().unwrap();
        assert!(lock(&segments.dirty).0.is_empty());
    }

    #[test]
    fn a_removal_is_for_those_who_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments::new(folder.path().into());
        let segment = segments.create(0, 256, 8).unwrap();
        segments.bury(3, Removal::of(7));
        let entry = segment.entry(3);
        let sees = |number| entry.is_dead(Removal::of(number));
        assert_eq!([6, 7, 8, i64::MAX].map(sees), [false, true, true, true]);
        segments.bury(3, Removal::of(i64::MAX));
        assert!(segment.entry(3).is_dead(Removal::of(1 << 30)));
    }
}
