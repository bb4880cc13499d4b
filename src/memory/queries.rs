//! What a store is asked: by vector, by words, by both.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::Connection;

use super::filter::Filter;
use super::found::by_row;
use super::records::{self, Done};
use super::search::{nearest, taken, Metric, Query};
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
            let mut found = Vec::new();
            let filter = match records::filter(connection, &wanted)? {
                Some(filter) if stored != 0 && limit > 0 => filter,
                _ => return Ok(Value::List(found)),
            };
            let open = records::open_segments(connection, segments)?;
            let next_slot = records::setting(connection, "next_slot")? as u64;
            let query = Query::new(metric, vector.clone());
            // A few more than wanted, for hints that turn out to be stale.
            let mut want = limit.saturating_add(8);
            loop {
                let (hits, all) = nearest(&open, next_slot, &query, &filter, want);
                for hit in hits {
                    let score = metric.score(hit.nearness);
                    if found.len() == limit || score < least {
                        return Ok(Value::List(found));
                    }
                    match by_row(connection, &open, hit.row)? {
                        Some(record) => found.push(Value::Tuple(vec![record, Value::Float(score)])),
                        None => segments.bury(hit.slot),
                    }
                }
                if found.len() == limit || all {
                    return Ok(Value::List(found));
                }
                found.clear();
                want = want.saturating_mul(2);
            }
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
                let open = records::open_segments(connection, segments)?;
                let next_slot = records::setting(connection, "next_slot")? as u64;
                next = taken(&open, next_slot, &filter, first, most, |row, vector| {
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
            let open = records::open_segments(connection, segments)?;
            let found = rows
                .iter()
                .map(|row| Ok(by_row(connection, &open, *row)?.unwrap_or_default()));
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
        self.read(move |connection, segments| {
            let Some(filter) = records::filter(connection, &wanted)?.filter(|_| limit > 0) else {
                return Ok(Value::List(Vec::new()));
            };
            // More than are wanted: what one ranking puts low the other may put high.
            let deep = if near.is_some() {
                limit.saturating_mul(4).max(FUSED)
            } else {
                limit
            };
            let by_word = ranked(
                &words[usize::from(stemmed)],
                connection,
                &text,
                method,
                &filter,
                deep,
            )?;
            let open = records::open_segments(connection, segments)?;
            let best = match &near {
                None => by_word,
                Some((metric, vector)) => {
                    let stored = comparable(connection, vector)?;
                    let next_slot = records::setting(connection, "next_slot")? as u64;
                    let hits = if stored == 0 {
                        Vec::new()
                    } else {
                        nearest(
                            &open,
                            next_slot,
                            &Query::new(*metric, vector.clone()),
                            &filter,
                            deep,
                        )
                        .0
                    };
                    fused(
                        &hits.iter().map(|hit| hit.row).collect::<Vec<_>>(),
                        &by_word,
                    )
                }
            };
            let mut found = Vec::new();
            for (row, score) in best {
                if found.len() == limit {
                    break;
                }
                // The index may have followed a later moment than this reader sees, and a slot may be stale.
                if let Some(record) = by_row(connection, &open, row)? {
                    found.push(Value::Tuple(vec![record, Value::Float(score)]));
                }
            }
            Ok(Value::List(found))
        })
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

fn ranked(
    words: &RwLock<Words>,
    connection: &Connection,
    text: &str,
    method: Method,
    filter: &Filter,
    want: usize,
) -> Done<Vec<(i64, f64)>> {
    {
        let index = words.read().unwrap_or_else(PoisonError::into_inner);
        if index.is_current(connection)? {
            return Ok(index.rank(text, method, filter, want));
        }
    }
    let mut index = words.write().unwrap_or_else(PoisonError::into_inner);
    index.follow(connection)?;
    Ok(index.rank(text, method, filter, want))
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
