//! The best of many texts, by the words that they share with a query: exactly those that adding up all would give.
//!
//! Texts are scored some thousand at a time, word by word, in sums that stay in the nearest cache. Once as many texts
//! are found as are wanted, the words that cannot lift a text above the last of them by themselves are left alone, which
//! are the frequent ones: what they add is looked up for the texts that have a rarer word (MaxScore, Turtle and Flood 1995).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Texts that are scored together.
const BLOCK: usize = 4096;
/// What rounding may make of a bound.
const SLACK: f64 = 1.0 + 1e-9;

/// A text that has a word, by its place, and how often.
pub type Posting = (u32, u32);

/// A word of a query.
pub struct Asked<'a> {
    /// In the order of their places.
    pub postings: &'a [Posting],
    pub weight: f64,
    /// No text gets more of this word.
    pub most: f64,
}

pub struct Ranking<'a> {
    pub asked: Vec<Asked<'a>>,
    /// How many texts there are, and how many are wanted.
    pub texts: usize,
    pub want: usize,
}

impl Ranking<'_> {
    /// The best texts with their scores, the best first, and of equals the first.
    ///
    /// `part` is what so many occurrences of a word of weight 1 add to the sum of the text at a place. `score` makes the
    /// score of a sum, which it never exceeds. `takes` tells whether a text may be found.
    pub fn best(
        mut self,
        part: impl Fn(u32, u32) -> f64,
        score: impl Fn(u32, f64) -> f64,
        takes: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f64)> {
        // Every sum is added up in this order, so texts of the same words have the same.
        self.asked.sort_by(|a, b| b.most.total_cmp(&a.most));
        // The last words are left alone; what they can add together.
        let (mut added, mut rest) = (self.asked.len(), 0.0);
        let mut sums = vec![0f64; BLOCK];
        let mut best = Best::new(self.want);
        for first in (0..self.texts).step_by(BLOCK) {
            while let Some(word) = added.checked_sub(1).map(|last| &self.asked[last]) {
                let more = rest + word.most * SLACK;
                if more >= best.bar() {
                    break;
                }
                (added, rest) = (added - 1, more);
            }
            let (words, left) = self.asked.split_at_mut(added);
            if words.is_empty() {
                break;
            }
            let mut met = 0;
            for word in words {
                let (here, after) = until(word.postings, (first + BLOCK) as u32);
                for &(place, count) in here {
                    sums[place as usize % BLOCK] += word.weight * part(place, count);
                }
                word.postings = after;
                met += here.len();
            }
            if met == 0 {
                continue;
            }
            for (eight, sums) in sums.chunks_exact(8).enumerate() {
                let bar = best.bar() - rest;
                // Without a way out in its middle the loop is vectorised.
                if !sums.iter().fold(false, |any, sum| any | (*sum > bar)) {
                    continue;
                }
                for (place, &sum) in (first + 8 * eight..).zip(sums) {
                    if sum <= best.bar() - rest {
                        continue;
                    }
                    let place = place as u32;
                    let mut sum = sum;
                    for word in left.iter_mut() {
                        word.postings = from(word.postings, place);
                        match word.postings.first() {
                            Some(&(found, count)) if found == place => {
                                sum += word.weight * part(place, count);
                            }
                            _ => {}
                        }
                    }
                    let score = score(place, sum);
                    if score > best.bar() && takes(place) {
                        best.add(place, score);
                    }
                }
            }
            sums.fill(0.0);
        }
        best.told()
    }
}

/// The postings before a place, and those after.
fn until(postings: &[Posting], end: u32) -> (&[Posting], &[Posting]) {
    postings.split_at(postings.partition_point(|(place, _)| *place < end))
}

/// The postings from a place on, which is likely to be near.
fn from(postings: &[Posting], first: u32) -> &[Posting] {
    let is_before = |at: usize| postings.get(at).is_some_and(|(place, _)| *place < first);
    let mut ahead = 1;
    while is_before(ahead - 1) {
        ahead *= 2;
    }
    let near = &postings[ahead / 2..ahead.min(postings.len())];
    &postings[ahead / 2 + near.partition_point(|(place, _)| *place < first)..]
}

/// As many as are wanted, the last of them on top.
struct Best {
    want: usize,
    heap: BinaryHeap<Found>,
}

impl Best {
    fn new(want: usize) -> Self {
        Self {
            want,
            heap: BinaryHeap::new(),
        }
    }

    /// What a score must be above; places come in their order, so of equals the first stays.
    fn bar(&self) -> f64 {
        match self.heap.peek() {
            Some(last) if self.heap.len() == self.want => last.score,
            _ => 0.0,
        }
    }

    fn add(&mut self, place: u32, score: f64) {
        if self.heap.len() == self.want {
            self.heap.pop();
        }
        self.heap.push(Found { score, place });
    }

    fn told(self) -> Vec<(u32, f64)> {
        let found = self.heap.into_sorted_vec();
        found
            .into_iter()
            .map(|found| (found.place, found.score))
            .collect()
    }
}

/// The better is the less.
struct Found {
    score: f64,
    place: u32,
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Found {}

#[cfg(test)]
mod tests {
    use super::{Asked, Posting, Ranking, BLOCK};

    /// Numbers that look random, the same in each run.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *seed >> 33
    }

    #[test]
    fn the_best_are_those_of_all_sums() {
        let texts = 3 * BLOCK + 100;
        let mut seed = 7;
        // From rare words to one that every text has.
        let postings: Vec<Vec<Posting>> = [4000, 900, 60, 7, 1]
            .iter()
            .map(|one_in| {
                (0..texts as u32)
                    .filter_map(|place| {
                        let count = 1 + next(&mut seed) as u32 % 3;
                        (next(&mut seed) % one_in == 0).then_some((place, count))
                    })
                    .collect()
            })
            .collect();
        let part = |place: u32, count: u32| f64::from(count) / f64::from(count + 1 + place % 5);
        for (words, weights) in [
            (vec![0, 4, 1], vec![8.0, 0.005, 6.0]),
            (vec![4, 3, 2, 1, 0], vec![0.005, 1.0, 4.0, 6.0, 8.0]),
            (vec![4], vec![1.0]),
            (vec![3, 4], vec![1.0, 1.0]),
        ] {
            let words: Vec<(usize, f64)> = words.into_iter().zip(weights).collect();
            let asked = || {
                let asked = words.iter().map(|&(word, weight)| Asked {
                    postings: &postings[word],
                    weight,
                    most: weight * 0.75,
                });
                asked.collect()
            };
            let mut in_order: Vec<Asked<'_>> = asked();
            in_order.sort_by(|a, b| b.most.total_cmp(&a.most));
            let exact = |place: u32| {
                let mut sum = 0.0;
                for asked in &in_order {
                    let found = asked
                        .postings
                        .binary_search_by_key(&place, |(place, _)| *place);
                    if let Ok(at) = found {
                        sum += asked.weight * part(place, asked.postings[at].1);
                    }
                }
                sum
            };
            for takes in [|_: u32| true, |place: u32| place % 64 == 3] {
                let mut all: Vec<(u32, f64)> = (0..texts as u32)
                    .map(|place| (place, exact(place)))
                    .filter(|(place, sum)| takes(*place) && *sum > 0.0)
                    .collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                for want in [1, 10, 100, usize::MAX] {
                    let asked = asked();
                    let ranking = Ranking { asked, texts, want };
                    let best = ranking.best(part, |_, sum| sum, takes);
                    assert_eq!(best, all[..want.min(all.len())]);
                }
            }
        }
    }
}
