//! Records of one save that are written while those after them are still being read: a save of many is half Python's work
//! and half SQLite's, and so both go on at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::records::Record;

/// How long the writer, who holds the file, waits for the next records. It gives up then, and writes when all are there:
/// what reads them may be slow, or may itself wait for the writer.
const PATIENCE: Duration = Duration::from_millis(20);

type Part = Arc<Vec<Record>>;

pub struct Coming {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    parts: Vec<Part>,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// What reads them has failed.
    Broken,
}

/// They did not come.
pub struct Late;

impl Coming {
    pub fn new(first: Vec<Record>) -> Self {
        let parts = vec![Arc::new(first)];
        Self {
            state: Mutex::new(State { parts, end: None }),
            changed: Condvar::new(),
        }
    }

    pub fn add(&self, records: Vec<Record>) {
        self.state().parts.push(Arc::new(records));
        self.changed.notify_all();
    }

    /// There are no more.
    pub fn finish(&self) {
        self.end(End::Whole);
    }

    pub fn is_whole(&self) -> bool {
        self.state().end == Some(End::Whole)
    }

    /// Nothing is to be saved; a write that has begun is undone.
    pub fn fail(&self) {
        self.end(End::Broken);
    }

    fn end(&self, end: End) {
        self.state().end = Some(end);
        self.changed.notify_all();
    }

    /// The part of this number, None after the last.
    pub fn part(&self, number: usize) -> Result<Option<Part>, Late> {
        let missing = |state: &mut State| state.end.is_none() && state.parts.len() <= number;
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE, missing)
            .unwrap_or_else(PoisonError::into_inner);
        match (state.end, state.parts.get(number)) {
            (Some(End::Broken), _) => Err(Late),
            (_, Some(part)) => Ok(Some(Arc::clone(part))),
            (Some(End::Whole), None) => Ok(None),
            (None, None) => Err(Late),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Coming, Record};

    #[test]
    fn parts_are_given_as_often_as_they_are_asked_for() {
        let coming = Coming::new(vec![Record::default()]);
        assert!(coming.part(1).is_err());
        coming.add(vec![Record::default(), Record::default()]);
        coming.finish();
        for _ in 0..2 {
            let sizes = (0..3).map(|number| Some(coming.part(number).ok()??.len()));
            assert_eq!(sizes.collect::<Vec<_>>(), [Some(1), Some(2), None]);
        }
        coming.fail();
        assert!(coming.part(0).is_err());
    }
}
