//! The vectors as one transaction sees them.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::records::{list_segments, setting, Done, Fault};
use super::segments::{Entry, Removal, Segment, Segments};

pub struct Moment {
    /// In the order of their slots.
    pub segments: Vec<Arc<Segment>>,
    next_slot: u64,
    /// The last that was committed before.
    pub removal: Removal,
}

impl Moment {
    pub fn of(connection: &Connection, segments: &Segments) -> Done<Self> {
        let listed = list_segments(connection)?;
        let next_slot = setting(connection, "next_slot")? as u64;
        let kept: BTreeSet<u64> = listed.iter().map(|(base, ..)| *base).collect();
        segments.forget_others(&kept, next_slot);
        let opened = listed.into_iter().map(|(base, capacity, dim)| {
            segments.get(base, capacity, dim).map_err(|error| {
                if segments.has(base) {
                    Fault::Ours(error)
                } else {
                    Fault::Past(error)
                }
            })
        });
        let removals: Option<i64> = connection
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'gone'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(Self {
            segments: opened.collect::<Done<_>>()?,
            next_slot,
            removal: Removal::of(removals.unwrap_or(0)),
        })
    }

    /// How many slots of a segment are in use.
    pub fn used(&self, segment: &Segment) -> usize {
        segment.used(self.next_slot)
    }

    /// Whether a slot in use may belong to a row: something was written there, and no removal that is seen is marked.
    pub fn may_have(&self, entry: &Entry) -> bool {
        entry.row != 0 && !entry.is_dead(self.removal)
    }

    /// The bytes of the vector in a slot.
    pub fn vector(&self, slot: u64) -> Option<Vec<u8>> {
        let after = self
            .segments
            .partition_point(|segment| segment.base <= slot);
        let segment = &self.segments[after.checked_sub(1)?];
        let is_here = segment.holds(slot);
        is_here.then(|| segment.numbers((slot - segment.base) as usize).to_vec())
    }
}
