//! Word search: an index of the records' words in memory, built when it is first needed and brought up to date by what the
//! tables say has come and gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::OnceLock;

use rusqlite::Connection;
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::UnicodeNormalization;

use super::filter::Filter;
use super::porter::stem;
use super::ranking::{Asked, Posting, Ranking};
use super::records::Done;
use super::segments::{Entry, DEAD, PRIVATE};

/// BM25's constants: how soon repetition counts no more, and how much a long text counts less.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// Records that are gone before the index is built anew, at least.
const MOST_DEAD: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Bm25,
    Tfidf,
}

impl Method {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "bm25" => Some(Self::Bm25),
            "tfidf" => Some(Self::Tfidf),
            _ => None,
        }
    }
}

/// The words of a text: compatibility forms made plain, accents dropped, in lower case; runs of letters, digits and
/// marks, and each ideograph and kana by itself, as those scripts put no blanks between words.
pub fn words(text: &str, stemmed: bool, mut take: impl FnMut(&str)) {
    let mut word = String::new();
    let mut end = |word: &mut String| {
        if !word.is_empty() {
            if stemmed {
                stem(word);
            }
            take(word);
            word.clear();
        }
    };
    let mut meet = |letter: char| {
        if matches!(letter, '\u{300}'..='\u{36f}') {
            return;
        }
        if alone(letter) {
            end(&mut word);
            word.push(letter);
            end(&mut word);
        } else if letter.is_alphanumeric() || is_combining_mark(letter) {
            word.extend(
                letter
                    .to_lowercase()
                    .filter(|letter| !matches!(letter, '\u{300}'..='\u{36f}')),
            );
        } else {
            end(&mut word);
        }
    };
    if text.is_ascii() {
        text.chars().for_each(&mut meet);
    } else {
        text.nfkd().for_each(&mut meet);
    }
    meet(' ');
}

fn alone(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

struct Doc {
    facts: Entry,
    /// Where its words stand in `Words::forward`.
    first: usize,
    terms: u32,
}

/// A word of the index.
struct Term {
    /// The texts that have it, with those that are gone, and in how many it is that are there still.
    postings: Vec<Posting>,
    uses: u32,
    /// How often it is in a text at most, and the shortest text that has it.
    most: u32,
    shortest: u32,
}

/// What cosines are made of.
struct Weights {
    /// `ln((1 + N) / (1 + n)) + 1` of each word.
    of: Vec<f64>,
    /// Of each text the sum of its words' squares, as bits, once it was asked for; 0 before.
    squares: Vec<AtomicU64>,
}

#[derive(Default)]
pub struct Words {
    stemmed: bool,
    numbers: HashMap<String, u32>,
    terms: Vec<Term>,
    /// Made by the first search for cosines after a change.
    weights: OnceLock<Weights>,
    /// Of each text its words and how often, one text after the other, by the words' numbers.
    forward: Vec<(u32, u32)>,
    docs: Vec<Doc>,
    /// Of each text its words, counted with their repetitions.
    lengths: Vec<u32>,
    last_row: i64,
    last_gone: i64,
    live: usize,
    total: u64,
}

impl Words {
    pub fn new(stemmed: bool) -> Self {
        Self {
            stemmed,
            ..Self::default()
        }
    }

    /// Whether the index says what `connection` sees.
    pub fn is_current(&self, connection: &Connection) -> Done<bool> {
        let (row, gone) = marks(connection)?;
        Ok(self.last_row >= row && self.last_gone >= gone)
    }

    pub fn follow(&mut self, connection: &Connection) -> Done<()> {
        let (_, gone) = marks(connection)?;
        let first: i64 = connection
            .prepare_cached("SELECT coalesce(min(number), 0) FROM gone")?
            .query_row([], |row| row.get(0))?;
        let missed = self.last_gone > 0 && first > self.last_gone + 1;
        if missed || self.docs.len() - self.live > MOST_DEAD.max(self.live) {
            *self = Self::new(self.stemmed);
        }
        let fresh = self.last_row == 0;
        let mut statement = connection.prepare_cached(
            "SELECT row, scope, source, private, created_at, content FROM record WHERE row > ?1 ORDER BY row",
        )?;
        let mut rows = statement.query([self.last_row])?;
        while let Some(row) = rows.next()? {
            let private: bool = row.get(3)?;
            let facts = Entry {
                row: row.get(0)?,
                created: row.get(4)?,
                scope: row.get::<_, i64>(1)? as u32,
                source: row.get::<_, i64>(2)? as u32,
                flags: if private { PRIVATE } else { 0 },
                scale: 0.0,
                lost: 0.0,
                length: 0.0,
            };
            self.add(facts, row.get_ref(5)?.as_str().unwrap_or_default());
        }
        if !fresh && self.last_gone < gone {
            let mut statement =
                connection.prepare_cached("SELECT row FROM gone WHERE number > ?1")?;
            let mut rows = statement.query([self.last_gone])?;
            while let Some(row) = rows.next()? {
                let row: i64 = row.get(0)?;
                let place = self.docs.partition_point(|doc| doc.facts.row < row.abs());
                if row < 0 {
                    let end = self.docs.partition_point(|doc| doc.facts.row <= -row);
                    (0..end).for_each(|place| self.bury(place));
                } else if self.docs.get(place).is_some_and(|doc| doc.facts.row == row) {
                    self.bury(place);
                }
            }
        }
        self.last_gone = self.last_gone.max(gone);
        self.weights = OnceLock::new();
        Ok(())
    }

    fn add(&mut self, facts: Entry, text: &str) {
        let place = self.docs.len() as u32;
        let first = self.forward.len();
        let mut length = 0;
        let (numbers, forward) = (&mut self.numbers, &mut self.forward);
        words(text, self.stemmed, |word| {
            length += 1;
            let number = match numbers.get(word) {
                Some(number) => *number,
                None => {
                    let number = numbers.len() as u32;
                    numbers.insert(word.to_owned(), number);
                    number
                }
            };
            forward.push((number, 1));
        });
        self.forward[first..].sort_unstable();
        let mut end = first;
        for at in first..self.forward.len() {
            if end > first && self.forward[end - 1].0 == self.forward[at].0 {
                self.forward[end - 1].1 += 1;
            } else {
                self.forward[end] = self.forward[at];
                end += 1;
            }
        }
        self.forward.truncate(end);
        self.terms.resize_with(self.numbers.len(), Term::new);
        for (number, times) in &self.forward[first..] {
            let term = &mut self.terms[*number as usize];
            term.postings.push((place, *times));
            term.uses += 1;
            term.most = term.most.max(*times);
            term.shortest = term.shortest.min(length);
        }
        self.last_row = facts.row;
        self.live += 1;
        self.total += u64::from(length);
        self.lengths.push(length);
        self.docs.push(Doc {
            facts,
            first,
            terms: (end - first) as u32,
        });
    }

    fn bury(&mut self, place: usize) {
        let doc = &mut self.docs[place];
        if doc.facts.flags & DEAD != 0 {
            return;
        }
        doc.facts.flags |= DEAD;
        self.live -= 1;
        self.total -= u64::from(self.lengths[place]);
        for (number, _) in &self.forward[doc.first..doc.first + doc.terms as usize] {
            self.terms[*number as usize].uses -= 1;
        }
    }

    /// The rows that have a word of the query, the best first, and of equals the one saved first.
    pub fn rank(
        &self,
        query: &str,
        method: Method,
        filter: &Filter,
        want: usize,
    ) -> Vec<(i64, f64)> {
        let mut asked: Vec<(u32, u32)> = Vec::new();
        let mut unknown: HashMap<String, u32> = HashMap::new();
        words(query, self.stemmed, |word| match self.numbers.get(word) {
            Some(&number) => match asked.iter_mut().find(|(known, _)| *known == number) {
                Some((_, times)) => *times += 1,
                None => asked.push((number, 1)),
            },
            None => *unknown.entry(word.to_owned()).or_default() += 1,
        });
        if want == 0 {
            return Vec::new();
        }
        let takes = |place: u32| {
            let facts = &self.docs[place as usize].facts;
            facts.flags & DEAD == 0 && filter.takes(facts)
        };
        let best = match method {
            Method::Bm25 => self.by_bm25(&asked, want, takes),
            Method::Tfidf => self.by_cosine(&asked, unknown.values(), want, takes),
        };
        best.into_iter()
            .map(|(place, score)| (self.docs[place as usize].facts.row, score))
            .collect()
    }

    fn by_bm25(
        &self,
        asked: &[(u32, u32)],
        want: usize,
        takes: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f64)> {
        let mean = (self.total as f64 / self.live.max(1) as f64).max(1.0);
        let (least, slope) = (K1 * (1.0 - B), K1 * B / mean);
        let share = |count: u32, length: u32| {
            f64::from(count) / (f64::from(count) + least + slope * f64::from(length))
        };
        let asked = asked
            .iter()
            .map(|&(number, times)| {
                let term = &self.terms[number as usize];
                let weight = f64::from(times) * self.rarity(term.uses) * (K1 + 1.0);
                Asked {
                    postings: &term.postings,
                    weight,
                    most: weight * share(term.most, term.shortest),
                }
            })
            .collect();
        let part = |place: u32, count: u32| share(count, self.lengths[place as usize]);
        let ranking = Ranking {
            asked,
            texts: self.docs.len(),
            want,
        };
        ranking.best(part, |_, sum| sum, takes)
    }

    fn by_cosine<'a>(
        &self,
        asked: &[(u32, u32)],
        unknown: impl Iterator<Item = &'a u32>,
        want: usize,
        takes: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f64)> {
        let weights = self.weights.get_or_init(|| self.weighed());
        let square = |times: u32, weight: f64| (f64::from(times) * weight).powi(2);
        let new = self.weight(0);
        let query = asked
            .iter()
            .map(|(number, times)| square(*times, weights.of[*number as usize]))
            .chain(unknown.map(|times| square(*times, new)))
            .sum::<f64>()
            .sqrt();
        let asked = asked
            .iter()
            .map(|&(number, times)| Asked {
                postings: &self.terms[number as usize].postings,
                weight: f64::from(times) * weights.of[number as usize].powi(2) / query,
                most: f64::INFINITY,
            })
            .collect();
        let squares = |place: u32| {
            let known = &weights.squares[place as usize];
            match known.load(Relaxed) {
                0 => {
                    let own = self.words_of(place);
                    let sum: f64 = own
                        .iter()
                        .map(|(number, times)| square(*times, weights.of[*number as usize]))
                        .sum();
                    known.store(sum.to_bits(), Relaxed);
                    sum
                }
                bits => f64::from_bits(bits),
            }
        };
        // No weight is below 1, and so no text shorter than 1.
        let score = |place: u32, sum: f64| (sum / squares(place).sqrt()).min(1.0);
        let ranking = Ranking {
            asked,
            texts: self.docs.len(),
            want,
        };
        ranking.best(|_, count| f64::from(count), score, takes)
    }

    /// The words of a text and how often each.
    fn words_of(&self, place: u32) -> &[(u32, u32)] {
        let doc = &self.docs[place as usize];
        &self.forward[doc.first..doc.first + doc.terms as usize]
    }

    fn weighed(&self) -> Weights {
        Weights {
            of: self
                .terms
                .iter()
                .map(|term| self.weight(term.uses))
                .collect(),
            squares: self.docs.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// `ln((1 + N) / (1 + n)) + 1`, which is never below 1.
    fn weight(&self, uses: u32) -> f64 {
        ((1.0 + self.live as f64) / (1.0 + f64::from(uses))).ln() + 1.0
    }

    /// `ln(1 + (N - n + 0.5) / (n + 0.5))`, never negative.
    fn rarity(&self, uses: u32) -> f64 {
        let (all, uses) = (self.live as f64, f64::from(uses));
        (1.0 + (all - uses + 0.5) / (uses + 0.5)).ln()
    }
}

impl Term {
    fn new() -> Self {
        Self {
            postings: Vec::new(),
            uses: 0,
            most: 0,
            shortest: u32::MAX,
        }
    }
}

/// The last row that came and the last that went.
fn marks(connection: &Connection) -> Done<(i64, i64)> {
    let mut statement = connection.prepare_cached(
        "SELECT coalesce((SELECT max(row) FROM record), 0), coalesce((SELECT max(number) FROM gone), 0)",
    )?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

#[cfg(test)]
mod tests {
    use super::words;

    fn told(text: &str, stemmed: bool) -> Vec<String> {
        let mut found = Vec::new();
        words(text, stemmed, |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn words_of_many_scripts() {
        assert_eq!(
            told("Ｃafé-CRÈME, naïve: ﬁne! x_1", false),
            ["cafe", "creme", "naive", "fine", "x", "1"]
        );
        assert_eq!(
            told("東京タワーno", false),
            ["東", "京", "タ", "ワ", "ー", "no"]
        );
        assert_eq!(told("Привет, МИР हिन्दी", false), ["привет", "мир", "हिन्दी"]);
        assert_eq!(
            told("the relational agreed", true),
            ["the", "relat", "agre"]
        );
        assert_eq!(told(" \0 ...", true), Vec::<String>::new());
    }
}
