//! What the core has to say, for Python's `logging`: lines wait in a bounded buffer until Python takes them, many at once.
//!
//! No thread of the core calls Python for a line. What no logger wants is neither made nor kept.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::collections::VecDeque;
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU8,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const DATABASE: &str = "fastcrew_async.core.database";
pub const HTTP: &str = "fastcrew_async.core.http";
pub const LIMITS: &str = "fastcrew_async.core.limits";
pub const RUNTIME: &str = "fastcrew_async.core.runtime";

/// What is said, by subject. Lines of other crates are not taken: nobody knows what is in them.
pub const TOPICS: [&str; 4] = [DATABASE, HTTP, LIMITS, RUNTIME];

/// The most lines that wait. Then the oldest go, and are counted.
const MOST: usize = 4096;

/// What takes longer is worth a line.
pub const LONG: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq)]
pub struct Line {
    pub topic: &'static str,
    pub level: Level,
    /// Seconds since 1970.
    pub at: f64,
    /// The name of the thread that said it, where the core has named it.
    pub thread: String,
    pub text: String,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Line>,
    dropped: u64,
    hurried: bool,
}

#[derive(Default)]
pub struct Buffer {
    state: Mutex<State>,
    changed: Condvar,
}

impl Buffer {
    fn push(&self, line: Line) {
        let mut state = self.lock();
        if state.lines.len() == MOST {
            state.lines.pop_front();
            state.dropped += 1;
        }
        state.lines.push_back(line);
        let waiting = state.lines.len();
        drop(state);
        if waiting == 1 || waiting == MOST / 2 {
            self.changed.notify_all();
        }
    }

    /// Waits for the first line, or until half of the buffer is full; at most `patience`.
    pub fn wait(&self, patience: Duration, half_full: bool) {
        let enough = if half_full { MOST / 2 } else { 1 };
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), patience, |state| {
                !state.hurried && state.lines.len() < enough
            });
        waited.unwrap_or_else(PoisonError::into_inner).0.hurried = false;
    }

    /// Ends a wait, or the next one.
    pub fn hurry(&self) {
        self.lock().hurried = true;
        self.changed.notify_all();
    }

    /// All that waits, oldest first, and how many lines were dropped since the last time.
    pub fn take(&self) -> (VecDeque<Line>, u64) {
        let mut state = self.lock();
        (
            std::mem::take(&mut state.lines),
            std::mem::take(&mut state.dropped),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buffer of this process, never freed.
static BUFFER: AtomicPtr<Buffer> = AtomicPtr::new(null_mut());

/// The least level that is wanted of each topic, as `LevelFilter` numbers them.
static WANTED: [AtomicU8; TOPICS.len()] = [const { AtomicU8::new(0) }; TOPICS.len()];

pub fn buffer() -> &'static Buffer {
    // SAFETY: null, or a buffer that was leaked.
    match unsafe { BUFFER.load(Acquire).as_ref() } {
        Some(buffer) => buffer,
        None => {
            let made = Box::into_raw(Box::<Buffer>::default());
            let first = BUFFER.compare_exchange(null_mut(), made, AcqRel, Acquire);
            // SAFETY: both were leaked; the one that came second stays unused.
            unsafe { &*first.map_or_else(|first| first, |_| made) }
        }
    }
}

/// In a forked child: a thread of the parent may hold the lock for ever, and its lines are the parent's.
pub fn forked() {
    BUFFER.store(null_mut(), Relaxed);
}

/// Takes lines of so many levels from now on, topic by topic.
pub fn want(levels: [LevelFilter; TOPICS.len()]) {
    static CORE: Core = Core;
    // Refused where it was done before.
    let _ = log::set_logger(&CORE);
    for (wanted, level) in WANTED.iter().zip(levels) {
        wanted.store(level as u8, Relaxed);
    }
    log::set_max_level(levels.into_iter().max().unwrap_or(LevelFilter::Off));
}

struct Core;

impl Core {
    fn topic(metadata: &Metadata) -> Option<&'static str> {
        let place = TOPICS
            .iter()
            .position(|topic| *topic == metadata.target())?;
        (metadata.level() as u8 <= WANTED[place].load(Relaxed)).then_some(TOPICS[place])
    }
}

impl Log for Core {
    fn enabled(&self, metadata: &Metadata) -> bool {
        Self::topic(metadata).is_some()
    }

    fn log(&self, record: &Record) {
        let Some(topic) = Self::topic(record.metadata()) else {
            return;
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        buffer().push(Line {
            topic,
            level: record.level(),
            at: since.map_or(0.0, |since| since.as_secs_f64()),
            thread: std::thread::current().name().unwrap_or("").to_owned(),
            text: record.args().to_string(),
        });
    }

    fn flush(&self) {}
}

#[cfg(feature = "extension-module")]
pub mod python {
    use super::*;
    use pyo3::prelude::*;

    type Chunk = (Vec<(&'static str, u8, f64, String, String)>, u64);

    /// Python's number of a level.
    fn number(level: Level) -> u8 {
        match level {
            Level::Error => 40,
            Level::Warn => 30,
            Level::Info => 20,
            Level::Debug | Level::Trace => 10,
        }
    }

    fn filter(number: u8) -> LevelFilter {
        match number {
            0..=10 => LevelFilter::Debug,
            11..=20 => LevelFilter::Info,
            21..=30 => LevelFilter::Warn,
            31..=40 => LevelFilter::Error,
            _ => LevelFilter::Off,
        }
    }

    /// Take lines from these levels on (as ``logging`` numbers them), of each of the topics in their order.
    #[pyfunction]
    pub fn log_levels(levels: [u8; TOPICS.len()]) {
        want(levels.map(filter));
    }

    /// Wait for a line, or until half of the buffer is full, for so many seconds at most.
    #[pyfunction]
    pub fn log_wait(py: Python<'_>, seconds: f64, half_full: bool) {
        let patience = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        py.detach(|| buffer().wait(patience, half_full));
    }

    /// End a wait, or the next one.
    #[pyfunction]
    pub fn log_hurry() {
        buffer().hurry();
    }

    /// The lines that wait, as ``(logger, level, seconds since 1970, thread, text)``, and how many were dropped before.
    #[pyfunction]
    pub fn log_take() -> Chunk {
        let (lines, dropped) = buffer().take();
        let lines = lines.into_iter().map(|line| {
            let level = number(line.level);
            (line.topic, level, line.at, line.thread, line.text)
        });
        (lines.collect(), dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: usize) -> Line {
        Line {
            topic: RUNTIME,
            level: Level::Info,
            at: 0.0,
            thread: String::new(),
            text: text.to_string(),
        }
    }

    #[test]
    fn the_oldest_lines_go_first_and_are_counted() {
        let buffer = Buffer::default();
        (0..MOST + 3).for_each(|number| buffer.push(line(number)));
        let (lines, dropped) = buffer.take();
        assert_eq!((lines.len(), dropped), (MOST, 3));
        assert_eq!(lines.front(), Some(&line(3)));
        let (lines, dropped) = buffer.take();
        assert_eq!((lines.len(), dropped), (0, 0));
    }

    #[test]
    fn a_wait_ends_with_a_line_with_half_a_buffer_and_when_hurried() {
        const LONG: Duration = Duration::from_secs(600);
        let buffer = Buffer::default();
        std::thread::scope(|scope| {
            scope.spawn(|| buffer.push(line(1)));
            buffer.wait(LONG, false);
            scope.spawn(|| (1..MOST / 2).for_each(|number| buffer.push(line(number))));
            buffer.wait(LONG, true);
        });
        assert_eq!(buffer.take().0.len(), MOST / 2);
        buffer.hurry();
        buffer.wait(LONG, false);
        buffer.wait(Duration::ZERO, false);
    }

    #[test]
    fn what_nobody_wants_is_not_kept() {
        // The only test that touches what a process has once.
        let off = LevelFilter::Off;
        want([off, LevelFilter::Info, off, off]);
        log::info!(target: HTTP, "{} is said", 1);
        log::debug!(target: HTTP, "too little");
        log::error!(target: DATABASE, "switched off");
        log::error!(target: "r2d2", "of another crate");
        want([off; TOPICS.len()]);
        log::error!(target: HTTP, "switched off");
        let texts: Vec<_> = buffer()
            .take()
            .0
            .into_iter()
            .map(|line| line.text)
            .collect();
        assert_eq!(texts, ["1 is said"]);
    }
}
