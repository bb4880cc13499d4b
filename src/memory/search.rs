//! The nearest vectors, exactly: a pass over 8-bit codes with bounds, then the numbers of all that may be among them.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::filter::Filter;
use super::kernels::{codes, distance, dot, Coded};
use super::moment::Moment;
use super::segments::Entry;

/// Bytes of codes above which a second thread pays.
const PARALLEL: usize = 2 << 20;
/// What f32 rounding may add to the error of an estimate.
const SLACK: f32 = 4e-6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Cosine,
    Dot,
    Euclid,
}

impl Metric {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "cosine" => Some(Self::Cosine),
            "dot" => Some(Self::Dot),
            "euclid" => Some(Self::Euclid),
            _ => None,
        }
    }

    /// Nearness, from a cosine and the lengths of both vectors.
    fn nearness(self, cosine: f32, query: f32, length: f32) -> f32 {
        match self {
            Self::Cosine => cosine,
            Self::Dot => cosine * query * length,
            Self::Euclid => 2.0 * cosine * query * length - query * query - length * length,
        }
    }

    /// By how much nearness may be wrong where the cosine is by 1.
    fn slope(self, query: f32, length: f32) -> f32 {
        match self {
            Self::Cosine => 1.0,
            Self::Dot => query * length,
            Self::Euclid => 2.0 * query * length,
        }
    }

    fn exact(self, query: &Query, vector: &[f32], length: f32) -> f32 {
        match self {
            Self::Cosine if length == 0.0 || query.coded.length == 0.0 => 0.0,
            Self::Cosine => {
                (dot(&query.vector, vector) / (query.coded.length * length)).clamp(-1.0, 1.0)
            }
            Self::Dot => dot(&query.vector, vector),
            Self::Euclid => -distance(&query.vector, vector),
        }
    }

    /// CrewAI's scale, 0 to 1: `1 / (1 + squared distance)`, for the cosine that of the vectors made 1 long.
    pub fn score(self, nearness: f32) -> f64 {
        let nearness = f64::from(nearness);
        match self {
            Self::Cosine => 1.0 / (3.0 - 2.0 * nearness),
            Self::Euclid => 1.0 / (1.0 - nearness),
            Self::Dot => 1.0 / (1.0 + (-nearness).exp()),
        }
    }
}

pub struct Query {
    pub metric: Metric,
    vector: Vec<f32>,
    coded: Coded,
}

impl Query {
    pub fn new(metric: Metric, vector: Vec<f32>) -> Self {
        let coded = Coded::of(&vector);
        Self {
            metric,
            vector,
            coded,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub nearness: f32,
    pub row: i64,
    pub slot: u64,
}

/// A number that sorts as floats do, the least first off a heap.
#[derive(PartialEq, Clone, Copy)]
struct Least(f32);

impl Eq for Least {}

impl Ord for Least {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl PartialOrd for Least {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What a pass has found: the best lower bounds, and all whose upper bound reached the least of them.
struct Pass {
    want: usize,
    lower: BinaryHeap<Least>,
    bar: f32,
    found: Vec<(f32, usize, usize, Entry)>,
}

impl Pass {
    fn new(want: usize) -> Self {
        Self {
            want,
            lower: BinaryHeap::with_capacity(want + 1),
            bar: f32::NEG_INFINITY,
            found: Vec::new(),
        }
    }

    fn meet_lower(&mut self, lower: f32) {
        if self.lower.len() < self.want {
            self.lower.push(Least(lower));
        } else if lower > self.bar {
            self.lower.pop();
            self.lower.push(Least(lower));
        }
        if self.lower.len() == self.want {
            self.bar = self.lower.peek().map_or(f32::NEG_INFINITY, |least| least.0);
        }
    }

    fn scan(&mut self, query: &Query, filter: &Filter, moment: &Moment, number: usize) {
        let segment = &moment.segments[number];
        let (metric, own) = (query.metric, &query.coded);
        for index in 0..moment.used(segment) {
            let entry = segment.entry(index);
            if !moment.may_have(&entry) || !filter.takes(&entry) {
                continue;
            }
            let product = codes(segment.codes(index), &own.codes) as f32;
            let cosine = product * own.scale * entry.scale;
            let wrong = own.lost * (1.0 + entry.lost) + entry.lost + SLACK;
            let near = metric.nearness(cosine, own.length, entry.length);
            let wrong = wrong * metric.slope(own.length, entry.length) + SLACK * near.abs();
            if near + wrong >= self.bar {
                self.found.push((near + wrong, number, index, entry));
                self.meet_lower(near - wrong);
            }
        }
    }

    fn join(&mut self, other: Self) {
        for least in other.lower {
            self.meet_lower(least.0);
        }
        self.found.extend(other.found);
    }
}

/// Gives `take` the row and the vector's bytes of what `filter` takes, from slot `first` on, `most` times at most; tells the
/// slot to go on at, None at the end.
pub fn taken(
    moment: &Moment,
    filter: &Filter,
    first: u64,
    most: usize,
    mut take: impl FnMut(i64, &[u8]),
) -> Option<u64> {
    let mut left = most;
    for segment in &moment.segments {
        let from = first.saturating_sub(segment.base) as usize;
        for index in from..moment.used(segment) {
            let entry = segment.entry(index);
            if !moment.may_have(&entry) || !filter.takes(&entry) {
                continue;
            }
            if left == 0 {
                return Some(segment.base + index as u64);
            }
            take(entry.row, segment.numbers(index));
            left -= 1;
        }
    }
    None
}

/// The `want` nearest of what `filter` takes, the nearest first, and of equals the one saved first; and whether these
/// are all there are. They may be fewer than `want` and not all: what compaction moves stands in two slots for a while.
pub fn nearest(moment: &Moment, query: &Query, filter: &Filter, want: usize) -> (Vec<Hit>, bool) {
    let (segments, dim) = (&moment.segments, query.vector.len());
    let total: usize = segments
        .iter()
        .map(|segment| moment.used(segment) * dim)
        .sum();
    let threads = (total / PARALLEL + 1)
        .min(segments.len())
        .min(thread::available_parallelism().map_or(1, usize::from));
    let turn = AtomicUsize::new(0);
    let work = || {
        let mut pass = Pass::new(want);
        loop {
            let number = turn.fetch_add(1, Relaxed);
            if number >= segments.len() {
                return pass;
            }
            pass.scan(query, filter, moment, number);
        }
    };
    let mut pass = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut pass = work();
        for other in others {
            match other.join() {
                Ok(other) => pass.join(other),
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }
        pass
    });
    let (bar, all) = (pass.bar, pass.lower.len() < want);
    pass.found.retain(|(upper, ..)| *upper >= bar);
    let mut hits: Vec<Hit> = pass
        .found
        .iter()
        .map(|&(_, number, index, entry)| {
            let segment = &segments[number];
            let nearness = query
                .metric
                .exact(query, segment.vector(index), entry.length);
            Hit {
                nearness,
                row: entry.row,
                slot: segment.base + index as u64,
            }
        })
        .collect();
    hits.sort_by(|a, b| b.nearness.total_cmp(&a.nearness).then(a.row.cmp(&b.row)));
    hits.dedup_by_key(|hit| hit.row);
    hits.truncate(want);
    (hits, all)
}
