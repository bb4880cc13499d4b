//! What a store is asked: by vector, by words, by both.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;

use super::filter::Filter;
use super::found::{by_row, is_there};
use super::moment::Moment;
use super::records::{self, Done, Fault};
use super::search::{nearest, taken, Hit, Metric, Query};
use super::segments::Segments;
use super::words::{Method, Words};
use super::{finite, Answer, Memories, Wanted};
use crate::bridge::value::Value;
use crate::error::Error;

/// How many of each ranking are fused, at least, and the constant of reciprocal rank fusion.
const FUSED: usize = 100;
const RANK: f64 = 60.0;

impl Memories {
    /// The nearest records with their scores, those of at least `least`.
    pub fn search(
        &self,
        metric: Metric,
        vector: Vec<f32>,
        wanted: Wanted,
        limit: usize,
        least: f64,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        finite(&vector, "the query's vector")?;
        self.read(move |connection, segments| {
            let stored = comparable(connection, &vector)?;
            let Some(filter) =
                records::filter(connection, &wanted)?.filter(|_| stored != 0 && limit > 0)
            else {
                return Ok(Value::List(Vec::new()));
            };
            let moment = Moment::of(connection, segments)?;
            let query = Query::new(metric, vector.clone());
            let found = living(segments, &moment, &query, &filter, limit, |hit| {
                let score = metric.score(hit.nearness);
                if score < least {
                    return Ok(Met::End);
                }
                let record = by_row(connection, &moment, hit.row)?;
                Ok(record.map_or(Met::Gone, |record| {
                    Met::There(Value::Tuple(vec![record, Value::Float(score)]))
                }))
            });
            Ok(Value::List(found?))
        })
    }

    /// What `wanted` takes, from slot `first` on, `most` vectors at most: their rows and their numbers, packed, and the
    /// slot to go on at, None at the end. A vector that compaction moves meanwhile is met again, never missed.
    pub fn candidates(
        &self,
        vector: Vec<f32>,
        wanted: Wanted,
        first: u64,
        most: usize,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        finite(&vector, "the query's vector")?;
        self.read(move |connection, segments| {
            let stored = comparable(connection, &vector)?;
            let (mut rows, mut numbers, mut next) = (Vec::new(), Vec::new(), None);
            if let Some(filter) = records::filter(connection, &wanted)?.filter(|_| stored != 0) {
                let moment = Moment::of(connection, segments)?;
                next = taken(&moment, &filter, first, most, |row, vector| {
                    rows.extend(row.to_le_bytes());
                    numbers.extend_from_slice(vector);
                });
            }
            Ok(Value::Tuple(vec![
                Value::Bytes(rows),
                Value::Bytes(numbers),
                next.map_or(Value::None, |slot| Value::Int(slot as i64)),
            ]))
        })
    }

    /// The records of these rows; None for one that is gone.
    pub fn at_rows(
        &self,
        rows: Vec<i64>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        self.read(move |connection, segments| {
            let moment = Moment::of(connection, segments)?;
            let found = rows
                .iter()
                .map(|row| Ok(by_row(connection, &moment, *row)?.unwrap_or_default()));
            Ok(Value::List(found.collect::<Done<_>>()?))
        })
    }

    /// The records that have words of a text, the best first; with a vector, by both, fused by reciprocal ranks.
    pub fn by_words(
        &self,
        text: String,
        method: Method,
        stemmed: bool,
        near: Option<(Metric, Vec<f32>)>,
        wanted: Wanted,
        limit: usize,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Error> {
        if let Some((_, vector)) = &near {
            finite(vector, "the query's vector")?;
        }
        let words = Arc::clone(&self.words);
        let is_behind = Cell::new(false);
        self.read(move |connection, segments| {
            if limit == 0 {
                return Ok(Value::List(Vec::new()));
            }
            // More than are wanted: what one ranking puts low the other may put high.
            let deep = if near.is_some() {
                limit.saturating_mul(4).max(FUSED)
            } else {
                limit
            };
            let words = &words[usize::from(stemmed)];
            // The index first: the transaction begins with the first look into a table, so it sees no moment before the
            // index's.
            let ranked = |index: &Words| -> Done<_> {
                let filter = records::filter(connection, &wanted)?;
                let best = filter
                    .as_ref()
                    .map(|filter| index.rank(&text, method, filter, deep));
                Ok(filter.zip(best))
            };
            let found = if is_behind.get() {
                let mut index = words.write().unwrap_or_else(PoisonError::into_inner);
                if !index.is_current(connection)? {
                    index.follow(connection)?;
                }
                ranked(&index)?
            } else {
                let index = words.read().unwrap_or_else(PoisonError::into_inner);
                if !index.is_current(connection)? {
                    is_behind.set(true);
                    let text = "the index of words is behind";
                    return Err(Fault::Past(Error::Invalid(text.into())));
                }
                ranked(&index)?
            };
            let Some((filter, by_word)) = found else {
                return Ok(Value::List(Vec::new()));
            };
            let moment = Moment::of(connection, segments)?;
            let best = match &near {
                Some((metric, vector)) if comparable(connection, vector)? != 0 => {
                    let query = Query::new(*metric, vector.clone());
                    let rows = living(segments, &moment, &query, &filter, deep, |hit| {
                        let is_there = is_there(connection, hit.row)?;
                        Ok(if is_there {
                            Met::There(hit.row)
                        } else {
                            Met::Gone
                        })
                    });
                    fused(&rows?, &by_word)
                }
                Some(_) => fused(&[], &by_word),
                None => by_word,
            };
            let mut found = Vec::new();
            for (row, score) in best.into_iter().take(limit) {
                if let Some(record) = by_row(connection, &moment, row)? {
                    found.push(Value::Tuple(vec![record, Value::Float(score)]));
                }
            }
            Ok(Value::List(found))
        })
    }
}

/// What a hit turned out to be.
enum Met<T> {
    There(T),
    /// Its row is not there: the slot is stale.
    Gone,
    /// Nothing that comes after it is wanted either.
    End,
}

/// The nearest whose rows are there, `limit` at most, as `meet` tells them.
fn living<T>(
    segments: &Segments,
    moment: &Moment,
    query: &Query,
    filter: &Filter,
    limit: usize,
    mut meet: impl FnMut(&Hit) -> Done<Met<T>>,
) -> Done<Vec<T>> {
    // A few more than wanted, for hints that turn out to be stale.
    let mut want = limit.saturating_add(8);
    loop {
        let (hits, all) = nearest(moment, query, filter, want);
        let mut found = Vec::new();
        for hit in hits {
            if found.len() == limit {
                return Ok(found);
            }
            match meet(&hit)? {
                Met::There(one) => found.push(one),
                Met::Gone => segments.bury(hit.slot, moment.removal),
                Met::End => return Ok(found),
            }
        }
        if found.len() == limit || all {
            return Ok(found);
        }
        want = want.saturating_mul(2);
    }
}

/// The length of the stored vectors, 0 where there are none; one of another length is compared with none of them.
fn comparable(connection: &Connection, vector: &[f32]) -> Done<usize> {
    let stored = records::setting(connection, "dim")? as usize;
    let given = vector.len();
    if stored != 0 && stored != given {
        return Err(Error::Dimension { stored, given }.into());
    }
    Ok(stored)
}

/// Reciprocal rank fusion; 1 where both rankings put a row first.
fn fused(near: &[i64], by_word: &[(i64, f64)]) -> Vec<(i64, f64)> {
    let mut scores: HashMap<i64, f64> = HashMap::new();
    let rankings = [near.to_vec(), by_word.iter().map(|(row, _)| *row).collect()];
    for ranking in rankings {
        for (place, row) in ranking.into_iter().enumerate() {
            *scores.entry(row).or_default() += (RANK + 1.0) / (RANK + 1.0 + place as f64) / 2.0;
        }
    }
    let mut best: Vec<(i64, f64)> = scores.into_iter().collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    best
}
