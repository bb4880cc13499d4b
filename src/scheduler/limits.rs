//! How much of each key (a model, a tool, a tenant) may be used, and who of those that wait is next. No clock and no
//! waiting of its own: times come in as seconds, and out come the tickets that may go and the time to ask again.

use super::meter::{Entry, Meter};
use crate::logs;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

/// Of those that have waited over the ageing time the oldest gets one of so many turns, whatever its rank.
pub const SHARE: u32 = 4;
/// From so many keys on, those that nobody uses are forgotten.
const MANY: usize = 1024;

/// Who has waited for so many seconds has waited unusually long.
const UNUSUAL: f64 = 60.0;

/// What a key allows: at the same time, and within `window` seconds.
#[derive(Clone, Default)]
pub struct Rule {
    pub concurrent: Option<u64>,
    pub requests: Option<u64>,
    pub tokens: Option<u64>,
    pub window: f64,
}

/// Which tickets may go now, and when to ask again if nothing happens before.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    pub granted: Vec<u64>,
    pub next: Option<f64>,
}

/// One key, as `stats` tells of it.
#[derive(Debug, PartialEq)]
pub struct KeyStats {
    pub name: String,
    pub concurrent: Option<u64>,
    pub used: u64,
    pub waiting: u64,
    pub granted: u64,
    pub waited: f64,
    pub reserved: u64,
    pub requests: (Option<u64>, u64),
    pub tokens: (Option<u64>, u64),
    pub paused: f64,
}

#[derive(Default)]
struct Key {
    name: String,
    concurrent: Option<u64>,
    window: f64,
    used: u64,
    waiting: u64,
    granted: u64,
    waited: f64,
    reserved: u64,
    requests: Meter,
    tokens: Meter,
    paused_until: f64,
    /// Grants since the last one that went by age.
    turns: u32,
}

impl Key {
    fn rule(&mut self, rule: &Rule) {
        self.concurrent = rule.concurrent;
        self.requests.limit = rule.requests;
        self.tokens.limit = rule.tokens;
        self.window = rule.window;
    }

    /// Without a rule it is not limited, whatever the provider had said.
    fn free(&mut self) {
        self.rule(&Rule::default());
        self.requests.unlearn();
        self.tokens.unlearn();
        self.paused_until = 0.0;
    }

    fn expire(&mut self, now: f64) {
        self.requests.expire(now, self.window);
        self.tokens.expire(now, self.window);
    }

    fn is_full(&self) -> bool {
        self.concurrent.is_some_and(|limit| self.used >= limit)
    }

    fn has_room(&mut self, tokens: u64, now: f64) -> bool {
        self.expire(now);
        !self.is_full()
            && self.paused_until <= now
            && self.requests.fits(1, now)
            && self.tokens.fits(tokens, now)
    }

    /// When it will have room by the passing of time alone.
    fn when(&self, tokens: u64, now: f64) -> Option<f64> {
        let when = self
            .paused_until
            .max(self.requests.when(1, now, self.window))
            .max(self.tokens.when(tokens, now, self.window));
        (!self.is_full() && when.is_finite()).then_some(when)
    }

    fn is_idle(&mut self, now: f64) -> bool {
        self.expire(now);
        let counts = self.used + self.waiting;
        counts == 0
            && self.paused_until <= now
            && self.requests.is_empty()
            && self.tokens.is_empty()
    }
}

struct Ticket {
    keys: Box<[usize]>,
    tokens: u64,
    rank: (i64, u64),
    since: f64,
    /// Of a granted ticket: its entries in the meters of each key.
    entries: Option<Vec<(Option<Entry>, Option<Entry>)>>,
}

/// Those that wait for the same keys.
struct Group {
    keys: Box<[usize]>,
    by_rank: BTreeSet<(i64, u64, u64)>,
    by_arrival: BTreeSet<u64>,
}

/// By age or by rank; then the rank; then the ticket.
type Place = (u8, i64, u64, u64);

#[derive(Default)]
pub struct Limits {
    rules: HashMap<String, Rule>,
    ageing: f64,
    names: HashMap<String, usize>,
    keys: Slab<Key>,
    sweep_at: usize,
    tickets: HashMap<u64, Ticket>,
    groups: Slab<Group>,
    group_of: HashMap<Box<[usize]>, usize>,
    waiting: usize,
    now: f64,
}

impl Limits {
    /// Put other rules in force. A key goes by the rule of its whole name, else by that of its kind, the part before
    /// the first colon; a key without a rule is not limited.
    pub fn configure(&mut self, rules: HashMap<String, Rule>, ageing: f64, now: f64) -> Turn {
        self.tick(now);
        self.rules = rules;
        self.ageing = ageing;
        for (_, key) in &mut self.keys {
            match rule_of(&self.rules, &key.name) {
                Some(rule) => key.rule(rule),
                None => key.free(),
            }
        }
        self.pump()
    }

    /// Ask for one request of `tokens` under all of `keys`: all or nothing. Tickets are numbered by the caller, in the
    /// order of their coming; of those that wait the lowest rank goes first.
    pub fn acquire(
        &mut self,
        ticket: u64,
        names: &[String],
        tokens: u64,
        rank: (i64, u64),
        now: f64,
    ) -> Turn {
        self.tick(now);
        if self.keys.len() >= self.sweep_at.max(MANY) {
            self.sweep();
        }
        let mut keys: Vec<usize> = names.iter().filter_map(|name| self.key(name)).collect();
        keys.sort_unstable();
        keys.dedup();
        let now = self.now;
        let free =
            self.waiting == 0 && keys.iter().all(|&key| self.keys[key].has_room(tokens, now));
        let keys = keys.into_boxed_slice();
        self.tickets.insert(
            ticket,
            Ticket {
                keys: keys.clone(),
                tokens,
                rank,
                since: now,
                entries: None,
            },
        );
        if free {
            self.grant(ticket);
            return Turn {
                granted: vec![ticket],
                next: None,
            };
        }
        let index = match self.group_of.get(&keys) {
            Some(&index) => index,
            None => {
                let index = self.groups.insert(Group {
                    keys: keys.clone(),
                    by_rank: BTreeSet::new(),
                    by_arrival: BTreeSet::new(),
                });
                self.group_of.insert(keys.clone(), index);
                index
            }
        };
        self.groups[index].by_rank.insert((rank.0, rank.1, ticket));
        self.groups[index].by_arrival.insert(ticket);
        for &key in &keys {
            self.keys[key].waiting += 1;
        }
        self.waiting += 1;
        self.pump()
    }

    /// The request is over; it took `tokens`, or as many as reserved. A ticket that is not known has ended already.
    pub fn release(&mut self, ticket: u64, tokens: Option<u64>, now: f64) -> Turn {
        self.tick(now);
        if let Some(over) = self.tickets.remove(&ticket) {
            match &over.entries {
                Some(entries) => {
                    for (&key, &(_, entry)) in over.keys.iter().zip(entries) {
                        let key = &mut self.keys[key];
                        key.used -= 1;
                        key.reserved -= over.tokens;
                        if let (Some(entry), Some(tokens)) = (entry, tokens) {
                            key.tokens.amend(entry.number, tokens);
                        }
                    }
                }
                None => self.leave(ticket, &over),
            }
        }
        self.pump()
    }

    /// The request goes out to the provider now, which may be some time after it was let through.
    pub fn sent(&mut self, ticket: u64, now: f64) {
        self.tick(now);
        let Some(ticket) = self.tickets.get(&ticket) else {
            return;
        };
        for (&key, &(request, tokens)) in ticket.keys.iter().zip(ticket.entries.iter().flatten()) {
            let key = &mut self.keys[key];
            if let Some(entry) = request {
                key.requests.postpone(entry.number, self.now);
            }
            if let Some(entry) = tokens {
                key.tokens.postpone(entry.number, self.now);
            }
        }
    }

    /// The request will not be made: it counts for nothing, whether it waited or had just been granted.
    pub fn cancel(&mut self, ticket: u64, now: f64) -> Turn {
        if let Some(Ticket {
            keys,
            entries: Some(entries),
            ..
        }) = self.tickets.get(&ticket)
        {
            for (&key, &(request, _)) in keys.iter().zip(entries) {
                if let Some(entry) = request {
                    self.keys[key].requests.amend(entry.number, 0);
                }
                self.keys[key].granted -= 1;
            }
        }
        self.release(ticket, Some(0), now)
    }

    /// What the provider says with its answer to `ticket`: of `limit` requests (or tokens) `remaining` are left, and
    /// after `reset` seconds all are back.
    pub fn observe(
        &mut self,
        name: &str,
        ticket: u64,
        of_tokens: bool,
        word: (u64, u64, f64),
        now: f64,
    ) -> Turn {
        self.tick(now);
        let Some(index) = self.key(name) else {
            return Turn::default();
        };
        let entry = self.tickets.get(&ticket).and_then(|ticket| {
            let place = ticket.keys.iter().position(|&key| key == index)?;
            let (request, tokens) = ticket.entries.as_ref()?[place];
            if of_tokens {
                tokens
            } else {
                request
            }
        });
        let now = self.now;
        let key = &mut self.keys[index];
        key.expire(now);
        let window = key.window;
        let meter = if of_tokens {
            &mut key.tokens
        } else {
            &mut key.requests
        };
        let own = entry.map_or(meter.used(), |entry| entry.used);
        if meter.observe(word, own, now, window) {
            let (limit, remaining, _) = word;
            log::info!(
                target: logs::LIMITS,
                "{name}: the provider allows {limit} {} in {window} s, of which {remaining} are left",
                if of_tokens { "tokens" } else { "requests" }
            );
        }
        self.pump()
    }

    /// Nothing goes under this key for so many seconds: the provider has refused.
    pub fn pause(&mut self, name: &str, seconds: f64, now: f64) -> Turn {
        self.tick(now);
        if let Some(index) = self.key(name) {
            let key = &mut self.keys[index];
            key.paused_until = key.paused_until.max(self.now + seconds);
            log::info!(target: logs::LIMITS, "{name}: the provider refuses, nothing goes for {seconds} s");
        }
        self.pump()
    }

    /// Time has passed.
    pub fn wake(&mut self, now: f64) -> Turn {
        self.tick(now);
        self.pump()
    }

    /// All keys in use, by their names.
    pub fn stats(&mut self, now: f64) -> Vec<KeyStats> {
        self.tick(now);
        let now = self.now;
        let mut all: Vec<KeyStats> = Vec::with_capacity(self.keys.len());
        for (_, key) in &mut self.keys {
            key.expire(now);
            all.push(KeyStats {
                name: key.name.clone(),
                concurrent: key.concurrent,
                used: key.used,
                waiting: key.waiting,
                granted: key.granted,
                waited: key.waited,
                reserved: key.reserved,
                requests: (key.requests.cap(), key.requests.used()),
                tokens: (key.tokens.cap(), key.tokens.used()),
                paused: (key.paused_until - now).max(0.0),
            });
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Threads read the clock before they get here, not always in the order in which they do.
    fn tick(&mut self, now: f64) {
        self.now = self.now.max(now);
    }

    fn key(&mut self, name: &str) -> Option<usize> {
        if let Some(&index) = self.names.get(name) {
            return Some(index);
        }
        let rule = rule_of(&self.rules, name)?;
        let mut key = Key {
            name: name.to_owned(),
            ..Key::default()
        };
        key.rule(rule);
        let index = self.keys.insert(key);
        self.names.insert(name.to_owned(), index);
        Some(index)
    }

    fn sweep(&mut self) {
        let now = self.now;
        let names = &mut self.names;
        self.keys.retain(|_, key| {
            let keep = !key.is_idle(now);
            if !keep {
                names.remove(&key.name);
            }
            keep
        });
        self.sweep_at = self.keys.len() * 2;
    }

    fn grant(&mut self, number: u64) {
        let ticket = self.tickets.get_mut(&number).expect("a ticket that waits");
        let waited = self.now - ticket.since;
        if waited >= UNUSUAL {
            let names = ticket.keys.iter().map(|&key| self.keys[key].name.as_str());
            let names: Vec<_> = names.collect();
            log::info!(target: logs::LIMITS, "{}: let through after {waited:.0} s", names.join(", "));
        }
        let mut entries = Vec::with_capacity(ticket.keys.len());
        for &key in &ticket.keys {
            let key = &mut self.keys[key];
            key.used += 1;
            key.granted += 1;
            key.turns = key.turns.saturating_add(1);
            key.waited += self.now - ticket.since;
            key.reserved += ticket.tokens;
            entries.push((
                key.requests.add(1, self.now),
                key.tokens.add(ticket.tokens, self.now),
            ));
        }
        ticket.entries = Some(entries);
    }

    /// A ticket waits no longer.
    fn leave(&mut self, number: u64, ticket: &Ticket) {
        let Some(&index) = self.group_of.get(&ticket.keys) else {
            return;
        };
        let group = &mut self.groups[index];
        group
            .by_rank
            .remove(&(ticket.rank.0, ticket.rank.1, number));
        group.by_arrival.remove(&number);
        if group.by_arrival.is_empty() {
            self.groups.remove(index);
            self.group_of.remove(&ticket.keys);
        }
        for &key in &ticket.keys {
            self.keys[key].waiting -= 1;
        }
        self.waiting -= 1;
    }

    /// Who of a group is next.
    fn head(&self, index: usize) -> Option<Place> {
        let group = self.groups.get(index)?;
        let oldest = *group.by_arrival.first()?;
        let aged = self.tickets[&oldest].since + self.ageing <= self.now;
        if aged
            && group
                .keys
                .iter()
                .all(|&key| self.keys[key].turns + 1 >= SHARE)
        {
            return Some((0, 0, 0, oldest));
        }
        let &(priority, age, ticket) = group.by_rank.first()?;
        Some((1, priority, age, ticket))
    }

    fn heads(&self) -> BinaryHeap<Reverse<(Place, usize)>> {
        self.groups
            .iter()
            .filter_map(|(index, _)| Some(Reverse((self.head(index)?, index))))
            .collect()
    }

    /// Grant all that can go. A key that lacks room for one is closed to all that come after it, so that what asks for
    /// much is not overtaken for ever; its other keys stay open to them, so that a full tenant does not stop a model.
    fn pump(&mut self) -> Turn {
        let mut turn = Turn::default();
        if self.waiting == 0 {
            return turn;
        }
        let now = self.now;
        let mut closed: HashSet<usize> = HashSet::new();
        let mut heads = self.heads();
        while let Some(Reverse((place, index))) = heads.pop() {
            let group = &self.groups[index];
            if group.keys.iter().any(|key| closed.contains(key)) {
                continue;
            }
            match self.head(index) {
                Some(current) if current != place => {
                    heads.push(Reverse((current, index))); // its turn by age went to another group
                    continue;
                }
                _ => {}
            }
            let ticket = place.3;
            let tokens = self.tickets[&ticket].tokens;
            let keys = group.keys.clone();
            let mut room = true;
            for &key in &keys {
                if !self.keys[key].has_room(tokens, now) {
                    room = false;
                    closed.insert(key);
                    if let Some(when) = self.keys[key].when(tokens, now) {
                        turn.next = Some(turn.next.map_or(when, |next| next.min(when)));
                    }
                }
            }
            if !room {
                continue;
            }
            let found = self.tickets.remove(&ticket).expect("a ticket that waits");
            self.leave(ticket, &found);
            self.tickets.insert(ticket, found);
            self.grant(ticket);
            if place.0 == 0 {
                for &key in &keys {
                    self.keys[key].turns = 0;
                }
            }
            turn.granted.push(ticket);
            if place.0 != 0 && keys.iter().any(|&key| self.keys[key].turns + 1 == SHARE) {
                heads = self.heads(); // another group's oldest may be due by it
            } else if let Some(head) = self.head(index) {
                heads.push(Reverse((head, index)));
            }
        }
        turn
    }
}

fn rule_of<'a>(rules: &'a HashMap<String, Rule>, name: &str) -> Option<&'a Rule> {
    rules
        .get(name)
        .or_else(|| rules.get(name.split_once(':')?.0))
}
