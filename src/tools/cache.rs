//! Results of tool calls, kept for a while, and the calls under way that others wait for.
//!
//! Bounded by entries and by bytes, the least recently used goes first. Of several callers with the same key one leads
//! and the others wait; who waits for what is decided here, the waiting itself is the caller's.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a caller does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Take this result.
    Hit(Arc<[u8]>),
    /// Make the call, then `settle` it or `leave`.
    Lead(u64),
    /// Wait to be told: the result, or to lead, or to go alone.
    Wait(u64),
}

struct Entry {
    value: Arc<[u8]>,
    expires: Option<Instant>,
    used: u64,
}

struct Flight {
    leader: u64,
    waiters: VecDeque<u64>,
}

#[derive(Default)]
pub struct Cache {
    max_entries: usize,
    max_bytes: usize,
    entries: HashMap<Arc<str>, Entry>,
    /// The keys in the order of their last use.
    used: BTreeMap<u64, Arc<str>>,
    bytes: usize,
    flights: HashMap<Arc<str>, Flight>,
    tickets: u64,
    evicted: u64,
}

impl Cache {
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries,
            max_bytes,
            ..Self::default()
        }
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub fn claim(&mut self, key: &str, now: Instant) -> Claim {
        if let Some(value) = self.get(key, now) {
            return Claim::Hit(value);
        }
        let ticket = self.ticket();
        match self.flights.get_mut(key) {
            Some(flight) => {
                flight.waiters.push_back(ticket);
                Claim::Wait(ticket)
            }
            None => {
                let flight = Flight {
                    leader: ticket,
                    waiters: VecDeque::new(),
                };
                self.flights.insert(key.into(), flight);
                Claim::Lead(ticket)
            }
        }
    }

    fn get(&mut self, key: &str, now: Instant) -> Option<Arc<[u8]>> {
        let entry = self.entries.get(key)?;
        if entry.expires.is_some_and(|expires| expires <= now) {
            self.remove(key);
            return None;
        }
        let value = entry.value.clone();
        let ticket = self.ticket();
        if let Some(entry) = self.entries.get_mut(key) {
            if let Some(name) = self.used.remove(&entry.used) {
                self.used.insert(ticket, name);
            }
            entry.used = ticket;
        }
        Some(value)
    }

    /// The leader's call has ended, with a result to keep for `ttl` or with none; gives those who waited.
    pub fn settle(
        &mut self,
        key: &str,
        leader: u64,
        value: Option<&[u8]>,
        ttl: Duration,
        now: Instant,
    ) -> Vec<u64> {
        if self.flights.get(key).map(|flight| flight.leader) != Some(leader) {
            return Vec::new();
        }
        if let Some(value) = value {
            self.put(key, value, now.checked_add(ttl));
        }
        self.flights
            .remove(key)
            .map(|flight| flight.waiters.into())
            .unwrap_or_default()
    }

    /// A caller gives up. When it led, the one that has waited longest leads now, and is given.
    pub fn leave(&mut self, key: &str, ticket: u64) -> Option<u64> {
        let flight = self.flights.get_mut(key)?;
        if flight.leader != ticket {
            flight.waiters.retain(|waiter| *waiter != ticket);
            return None;
        }
        match flight.waiters.pop_front() {
            Some(next) => {
                flight.leader = next;
                Some(next)
            }
            None => {
                self.flights.remove(key);
                None
            }
        }
    }

    fn put(&mut self, key: &str, value: &[u8], expires: Option<Instant>) {
        self.remove(key);
        let size = key.len() + value.len();
        if size > self.max_bytes || self.max_entries == 0 {
            return;
        }
        while self.entries.len() >= self.max_entries || self.bytes + size > self.max_bytes {
            let Some((_, oldest)) = self.used.pop_first() else {
                break;
            };
            self.remove(&oldest);
            self.evicted += 1;
        }
        let key: Arc<str> = key.into();
        let used = self.ticket();
        self.used.insert(used, key.clone());
        self.bytes += size;
        let entry = Entry {
            value: value.into(),
            expires,
            used,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.used.remove(&entry.used);
            self.bytes -= key.len() + entry.value.len();
        }
    }

    /// Forgets the results; calls under way go on and are kept.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.used.clear();
        self.bytes = 0;
    }

    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn keep(cache: &mut Cache, key: &str, value: &[u8], ttl: Duration, now: Instant) {
        match cache.claim(key, now) {
            Claim::Lead(leader) => {
                assert!(cache.settle(key, leader, Some(value), ttl, now).is_empty());
            }
            other => panic!("{other:?}"),
        }
    }

    fn hit(cache: &mut Cache, key: &str, now: Instant) -> bool {
        match cache.claim(key, now) {
            Claim::Hit(_) => true,
            Claim::Lead(leader) => {
                cache.leave(key, leader);
                false
            }
            Claim::Wait(_) => panic!("nobody leads"),
        }
    }

    #[test]
    fn it_is_forgotten_when_its_time_is_over() {
        let (mut cache, now) = (Cache::new(8, 1000), Instant::now());
        keep(&mut cache, "a", b"1", MINUTE, now);
        assert!(hit(&mut cache, "a", now + MINUTE / 2));
        assert!(!hit(&mut cache, "a", now + MINUTE));
        assert_eq!((cache.entries(), cache.bytes()), (0, 0));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (mut cache, now) = (Cache::new(2, 1000), Instant::now());
        keep(&mut cache, "a", b"1", MINUTE, now);
        keep(&mut cache, "b", b"2", MINUTE, now);
        assert!(hit(&mut cache, "a", now));
        keep(&mut cache, "c", b"3", MINUTE, now);
        assert!(hit(&mut cache, "a", now) && hit(&mut cache, "c", now));
        assert!(!hit(&mut cache, "b", now));
        assert_eq!(cache.evicted(), 1);
    }

    #[test]
    fn bytes_are_bounded() {
        let (mut cache, now) = (Cache::new(100, 10), Instant::now());
        for key in ["a", "b", "c", "d"] {
            keep(&mut cache, key, &[0; 4], MINUTE, now);
            assert!(cache.bytes() <= 10);
        }
        assert_eq!(cache.entries(), 2);
        keep(&mut cache, "huge", &[0; 10], MINUTE, now);
        assert_eq!(cache.entries(), 2);
    }

    #[test]
    fn a_leader_that_leaves_hands_over() {
        let (mut cache, now) = (Cache::new(8, 1000), Instant::now());
        assert_eq!(cache.claim("a", now), Claim::Lead(1));
        assert_eq!(cache.claim("a", now), Claim::Wait(2));
        assert_eq!(cache.claim("a", now), Claim::Wait(3));
        assert_eq!(cache.leave("a", 1), Some(2));
        assert_eq!(cache.settle("a", 1, Some(&[1]), MINUTE, now), [0; 0]);
        assert_eq!(cache.settle("a", 2, None, MINUTE, now), [3]);
        assert_eq!(cache.claim("a", now), Claim::Lead(4));
        assert_eq!(cache.leave("a", 4), None);
    }
}
