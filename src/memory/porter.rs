//! Porter's stemmer for English: M. F. Porter, "An algorithm for suffix stripping", 1980, as its author published it.

/// The stem of a lower-case word; one that is not of ASCII letters, or of one or two, is its own.
pub fn stem(word: &mut String) {
    if word.len() < 3 || !word.bytes().all(|letter| letter.is_ascii_lowercase()) {
        return;
    }
    let mut stem = Stem(std::mem::take(word).into_bytes());
    stem.plurals();
    stem.past();
    stem.y();
    stem.replace(&STEP_2);
    stem.replace(&STEP_3);
    stem.suffixes();
    stem.last_e();
    *word = String::from_utf8(stem.0).expect("it was ASCII and is");
}

type Replacement = (&'static str, &'static str);

const STEP_2: [Replacement; 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
];
const STEP_3: [Replacement; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

struct Stem(Vec<u8>);

impl Stem {
    fn ends(&self, suffix: &str) -> bool {
        self.0.ends_with(suffix.as_bytes())
    }

    fn cut(&mut self, count: usize) {
        self.0.truncate(self.0.len() - count);
    }

    fn swap(&mut self, suffix: &str, by: &str) {
        self.cut(suffix.len());
        self.0.extend_from_slice(by.as_bytes());
    }

    fn consonant(&self, at: usize) -> bool {
        match self.0[at] {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => at == 0 || !self.consonant(at - 1),
            _ => true,
        }
    }

    /// How often a vowel is followed by a consonant in the first `length` letters.
    fn measure(&self, length: usize) -> usize {
        (1..length)
            .filter(|&at| self.consonant(at) && !self.consonant(at - 1))
            .count()
    }

    fn has_vowel(&self, length: usize) -> bool {
        (0..length).any(|at| !self.consonant(at))
    }

    fn double(&self) -> bool {
        let length = self.0.len();
        length >= 2 && self.0[length - 1] == self.0[length - 2] && self.consonant(length - 1)
    }

    /// Consonant, vowel, consonant that is not w, x or y, at the end of the first `length` letters.
    fn short(&self, length: usize) -> bool {
        length >= 3
            && self.consonant(length - 1)
            && !self.consonant(length - 2)
            && self.consonant(length - 3)
            && !matches!(self.0[length - 1], b'w' | b'x' | b'y')
    }

    fn plurals(&mut self) {
        if self.ends("sses") || self.ends("ies") {
            self.cut(2);
        } else if self.ends("s") && !self.ends("ss") {
            self.cut(1);
        }
    }

    fn past(&mut self) {
        if self.ends("eed") {
            if self.measure(self.0.len() - 3) > 0 {
                self.cut(1);
            }
            return;
        }
        let Some(suffix) = ["ed", "ing"].into_iter().find(|suffix| self.ends(suffix)) else {
            return;
        };
        let length = self.0.len() - suffix.len();
        if !self.has_vowel(length) {
            return;
        }
        self.0.truncate(length);
        if self.ends("at") || self.ends("bl") || self.ends("iz") {
            self.0.push(b'e');
        } else if self.double() && !matches!(self.0.last(), Some(b'l' | b's' | b'z')) {
            self.cut(1);
        } else if self.measure(length) == 1 && self.short(length) {
            self.0.push(b'e');
        }
    }

    fn y(&mut self) {
        if self.ends("y") && self.has_vowel(self.0.len() - 1) {
            self.swap("y", "i");
        }
    }

    fn replace(&mut self, table: &[Replacement]) {
        let found = table.iter().find(|(suffix, _)| self.ends(suffix));
        if let Some((suffix, by)) = found {
            if self.measure(self.0.len() - suffix.len()) > 0 {
                self.swap(suffix, by);
            }
        }
    }

    fn suffixes(&mut self) {
        // The longest that fits: "ement" before "ment" before "ent".
        let found = STEP_4
            .iter()
            .filter(|suffix| self.ends(suffix))
            .max_by_key(|suffix| suffix.len());
        let Some(suffix) = found else { return };
        let length = self.0.len() - suffix.len();
        let fits = *suffix != "ion" || length > 0 && matches!(self.0[length - 1], b's' | b't');
        if fits && self.measure(length) > 1 {
            self.0.truncate(length);
        }
    }

    fn last_e(&mut self) {
        let length = self.0.len();
        if self.ends("e") {
            let measure = self.measure(length - 1);
            if measure > 1 || measure == 1 && !self.short(length - 1) {
                self.cut(1);
            }
        }
        let length = self.0.len();
        if self.ends("ll") && self.measure(length) > 1 {
            self.cut(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_of_the_paper() {
        for (word, wanted) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("sky", "sky"),
            ("relational", "relat"),
            ("rational", "ration"),
            ("digitizer", "digit"),
            ("hopefulness", "hope"),
            ("triplicate", "triplic"),
            ("electrical", "electr"),
            ("goodness", "good"),
            ("revival", "reviv"),
            ("replacement", "replac"),
            ("adoption", "adopt"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("controll", "control"),
            ("roll", "roll"),
            ("is", "is"),
            ("apology", "apolog"),
            ("geology", "geologi"), // too short a stem
            ("été", "été"),
        ] {
            let mut found = word.to_owned();
            super::stem(&mut found);
            assert_eq!(found, wanted, "{word}");
        }
    }
}
