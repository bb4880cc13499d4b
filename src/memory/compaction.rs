//! Giving back the places of vectors whose records are gone, and how much there is of them.

use std::sync::Arc;

use rusqlite::Connection;

use super::insert::Run;
use super::moment::Moment;
use super::records::{list_segments, setting, Done};
use super::scopes::counted;
use super::segments::Segments;
use crate::bridge::value::Value;
use crate::error::Error;

/// Moves up to `most` vectors of a segment to new slots, beginning at its slot `from`; gives the slot to go on at. None:
/// a whole turn has found none left, the segment is gone. The old slots stay as they are, for who reads an earlier moment.
pub fn move_slice(
    connection: &Connection,
    segments: &Segments,
    base: u64,
    from: usize,
    most: usize,
) -> Done<Option<usize>> {
    let listed = list_segments(connection)?;
    let moment = Moment::of(connection, segments)?;
    let Some(place) = listed.iter().position(|(first, ..)| *first == base) else {
        return Ok(None);
    };
    if place == listed.len() - 1 {
        let text = "the last segment is being written to: it is compacted when it is full";
        return Err(Error::Invalid(text.into()).into());
    }
    let segment = Arc::clone(&moment.segments[place]);
    let mut run = Run::new(connection, segments);
    let mut moved = 0;
    let mut at = from;
    while at < moment.used(&segment) && moved < most {
        let entry = segment.entry(at);
        let slot = (base + at as u64) as i64;
        let live = moment.may_have(&entry)
            && connection
                .prepare_cached("SELECT 1 FROM record WHERE row = ?1 AND slot = ?2")?
                .exists([entry.row, slot])?;
        if live {
            let to = run.place(segment.dim)? as i64;
            connection
                .prepare_cached("UPDATE record SET slot = ?2 WHERE row = ?1")?
                .execute([entry.row, to])?;
            run.slots
                .add_coded(entry, segment.codes(at), segment.vector(at));
            moved += 1;
        }
        at += 1;
    }
    run.finish()?;
    if moved > 0 {
        return Ok(Some(at));
    }
    if from > 0 {
        return Ok(Some(0));
    }
    connection.execute("DELETE FROM segment WHERE base = ?1", [base as i64])?;
    connection.execute(
        "DELETE FROM gone WHERE number <= (SELECT max(number) FROM gone) - 100000",
        [],
    )?;
    Ok(None)
}

/// `(records, dimensions, slots, dead slots, [(base, slots, dead)], bytes of records, of that free, bytes of vectors)`.
pub fn sizes(connection: &Connection, segments: &Segments) -> Done<Value> {
    let moment = Moment::of(connection, segments)?;
    let (mut slots, mut dead, mut bytes) = (0, 0, 0);
    let mut each = Vec::new();
    for segment in &moment.segments {
        let used = moment.used(segment);
        let gone = (0..used)
            .filter(|index| !moment.may_have(&segment.entry(*index)))
            .count();
        slots += used as i64;
        dead += gone as i64;
        bytes += (used * segment.slot_bytes()) as i64;
        let place = [segment.base as i64, used as i64, gone as i64];
        each.push(Value::Tuple(place.map(Value::Int).to_vec()));
    }
    let pragma = |name: &str| connection.query_row(name, [], |row| row.get::<_, i64>(0));
    let page = pragma("PRAGMA page_size")?;
    let numbers = [
        counted(connection, None)?,
        setting(connection, "dim")?,
        slots,
        dead,
        pragma("PRAGMA page_count")? * page,
        pragma("PRAGMA freelist_count")? * page,
        bytes,
    ];
    let mut told = numbers.map(Value::Int).to_vec();
    told.push(Value::List(each));
    Ok(Value::Tuple(told))
}
