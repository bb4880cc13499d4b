//! What a search may find, decided before anything is ranked.

use super::segments::{Entry, PRIVATE};

/// A set of numbers from a range.
#[derive(Debug, Default)]
pub struct Members {
    first: i64,
    bits: Vec<u64>,
}

impl Members {
    pub fn of(numbers: &[i64]) -> Self {
        let Some((first, last)) = numbers.iter().min().zip(numbers.iter().max()) else {
            return Self::default();
        };
        let mut bits = vec![0u64; ((last - first) / 64 + 1) as usize];
        for number in numbers {
            let at = (number - first) as usize;
            bits[at / 64] |= 1 << (at % 64);
        }
        Self {
            first: *first,
            bits,
        }
    }

    pub fn has(&self, number: i64) -> bool {
        let at = number.wrapping_sub(self.first);
        usize::try_from(at)
            .ok()
            .and_then(|at| {
                self.bits
                    .get(at / 64)
                    .map(|word| word >> (at % 64) & 1 == 1)
            })
            .unwrap_or(false)
    }
}

/// Every condition that is given must hold.
#[derive(Debug, Default)]
pub struct Filter {
    pub scopes: Option<Members>,
    /// Rows that have what is asked of categories and metadata: one of each set.
    pub rows: Vec<Members>,
    pub not_rows: Vec<Members>,
    /// With it private records are left out, but those of this source (0: of none).
    pub visible_to: Option<u32>,
    /// Microseconds since 1970; the first is in, the last is not.
    pub created: (Option<i64>, Option<i64>),
}

impl Filter {
    pub fn takes(&self, entry: &Entry) -> bool {
        self.visible_to.is_none_or(|source| {
            entry.flags & PRIVATE == 0 || source != 0 && source == entry.source
        }) && self
            .scopes
            .as_ref()
            .is_none_or(|scopes| scopes.has(entry.scope.into()))
            && self.created.0.is_none_or(|from| entry.created >= from)
            && self.created.1.is_none_or(|until| entry.created < until)
            && self.rows.iter().all(|rows| rows.has(entry.row))
            && !self.not_rows.iter().any(|rows| rows.has(entry.row))
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    #[test]
    fn a_set_has_its_members_and_no_others() {
        let set = Members::of(&[70, 3, 3, 200]);
        let has: Vec<i64> = (-100..400).filter(|number| set.has(*number)).collect();
        assert_eq!(has, [3, 70, 200]);
        assert!(!Members::of(&[]).has(0));
        assert!(!set.has(i64::MIN));
    }
}
