//! Word search: an index of the records' words in memory, built when it is first needed and brought up to date by what the
//! tables say has come and gone.

use std::collections::HashMap;

use rusqlite::Connection;
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::UnicodeNormalization;

use super::filter::Filter;
use super::porter::stem;
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
    /// Words, counted with their repetitions.
    length: u32,
    /// Where its words stand in `Words::forward`.
    first: usize,
    terms: u32,
}

#[derive(Default)]
pub struct Words {
    stemmed: bool,
    numbers: HashMap<String, u32>,
    /// Of each word: the texts that have it and how often, and in how many that are there still.
    postings: Vec<Vec<(u32, u32)>>,
    uses: Vec<u32>,
    /// `ln((1 + N) / (1 + n)) + 1` of each word, as of the last change.
    weights: Vec<f64>,
    /// Of each text its words and how often, one text after the other.
    forward: Vec<(u32, u32)>,
    docs: Vec<Doc>,
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
        let all = 1.0 + self.live as f64;
        self.weights = self
            .uses
            .iter()
            .map(|uses| (all / (1.0 + f64::from(*uses))).ln() + 1.0)
            .collect();
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
        self.postings.resize_with(self.numbers.len(), Vec::new);
        self.uses.resize(self.numbers.len(), 0);
        for (number, times) in &self.forward[first..] {
            self.postings[*number as usize].push((place, *times));
            self.uses[*number as usize] += 1;
        }
        self.last_row = facts.row;
        self.live += 1;
        self.total += u64::from(length);
        self.docs.push(Doc {
            facts,
            length,
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
        self.total -= u64::from(doc.length);
        for (number, _) in &self.forward[doc.first..doc.first + doc.terms as usize] {
            self.uses[*number as usize] -= 1;
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
        let mut scores = vec![0f64; self.docs.len()];
        let mut met: Vec<u32> = Vec::new();
        let mean = if self.live == 0 {
            1.0
        } else {
            (self.total as f64 / self.live as f64).max(1.0)
        };
        for &(number, times) in &asked {
            let weight = match method {
                Method::Bm25 => f64::from(times) * self.rarity(number),
                Method::Tfidf => f64::from(times) * self.weights[number as usize].powi(2),
            };
            for &(place, count) in &self.postings[number as usize] {
                let doc = &self.docs[place as usize];
                if doc.facts.flags & DEAD != 0 {
                    continue;
                }
                let count = f64::from(count);
                let part = match method {
                    Method::Bm25 => {
                        count * (K1 + 1.0)
                            / (count + K1 * (1.0 - B + B * f64::from(doc.length) / mean))
                    }
                    Method::Tfidf => count,
                };
                let score = &mut scores[place as usize];
                if *score == 0.0 {
                    met.push(place);
                }
                *score += weight * part;
            }
        }
        met.retain(|place| filter.takes(&self.docs[*place as usize].facts));
        if method == Method::Tfidf {
            let known = asked.iter().map(|(number, times)| {
                (f64::from(*times) * self.weights[*number as usize]).powi(2)
            });
            let new = (1.0 + self.live as f64).ln() + 1.0;
            let strange = unknown
                .values()
                .map(|times| (f64::from(*times) * new).powi(2));
            let query = (known.sum::<f64>() + strange.sum::<f64>()).sqrt();
            for place in &met {
                let doc = &self.docs[*place as usize];
                let terms = &self.forward[doc.first..doc.first + doc.terms as usize];
                let squares: f64 = terms
                    .iter()
                    .map(|(number, times)| {
                        (f64::from(*times) * self.weights[*number as usize]).powi(2)
                    })
                    .sum();
                scores[*place as usize] =
                    (scores[*place as usize] / (query * squares.sqrt())).min(1.0);
            }
        }
        let better = |a: &u32, b: &u32| {
            scores[*b as usize]
                .total_cmp(&scores[*a as usize])
                .then(a.cmp(b))
        };
        if want < met.len() && want > 0 {
            met.select_nth_unstable_by(want - 1, better);
        }
        met.truncate(want);
        met.sort_unstable_by(better);
        met.into_iter()
            .map(|place| (self.docs[place as usize].facts.row, scores[place as usize]))
            .collect()
    }

    /// `ln(1 + (N - n + 0.5) / (n + 0.5))`, never negative.
    fn rarity(&self, number: u32) -> f64 {
        let (all, uses) = (self.live as f64, f64::from(self.uses[number as usize]));
        (1.0 + (all - uses + 0.5) / (uses + 0.5)).ln()
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
