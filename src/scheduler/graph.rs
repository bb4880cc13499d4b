//! The tasks of a run and what each of them waits for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use thiserror::Error as ThisError;

#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum GraphError {
    #[error("task {node} waits for task {dependency}, and there are only {count} tasks")]
    Unknown {
        node: usize,
        dependency: usize,
        count: usize,
    },
    /// Each waits for the next one, and the last for the first.
    #[error("tasks wait for each other in a circle: {0:?}")]
    Cycle(Vec<usize>),
    #[error("task {0} is not running")]
    NotRunning(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    Dropped,
}

/// A directed acyclic graph that is worked off.
///
/// Of the tasks that are ready, the one with the longest chain of tasks behind it goes first: with fewer places than
/// ready tasks, the critical path is what the run takes. Equals go in the order in which they are listed.
pub struct Graph {
    states: Vec<State>,
    /// How many unfinished tasks each one waits for.
    waits: Vec<usize>,
    followers: Vec<Vec<usize>>,
    /// The length of the longest chain that begins with the task.
    chain: Vec<usize>,
    ready: BinaryHeap<(usize, Reverse<usize>)>,
    left: usize,
}

impl Graph {
    /// The graph of tasks numbered by their place; `dependencies[i]` are those that task `i` waits for.
    pub fn new(dependencies: &[Vec<usize>]) -> Result<Self, GraphError> {
        let count = dependencies.len();
        let mut waits = vec![0; count];
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (node, list) in dependencies.iter().enumerate() {
            for &dependency in list {
                if dependency >= count {
                    return Err(GraphError::Unknown {
                        node,
                        dependency,
                        count,
                    });
                }
                // Named twice it is still waited for once; its followers are added in ascending order.
                if followers[dependency].last() != Some(&node) {
                    followers[dependency].push(node);
                    waits[node] += 1;
                }
            }
        }
        let order = topological(&waits, &followers)
            .map_err(|stuck| GraphError::Cycle(circle(&stuck, dependencies)))?;
        let mut chain = vec![1; count];
        for &node in order.iter().rev() {
            for &follower in &followers[node] {
                chain[node] = chain[node].max(chain[follower] + 1);
            }
        }
        let ready = (0..count)
            .filter(|&node| waits[node] == 0)
            .map(|node| (chain[node], Reverse(node)))
            .collect();
        Ok(Self {
            states: vec![State::Waiting; count],
            waits,
            followers,
            chain,
            ready,
            left: count,
        })
    }

    /// Up to `limit` tasks that may start now; they count as running from here on.
    pub fn take(&mut self, limit: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some((_, Reverse(node))) = self.ready.pop() else {
                break;
            };
            self.states[node] = State::Running;
            taken.push(node);
        }
        taken
    }

    /// A running task is done; what waited only for it becomes ready.
    pub fn finish(&mut self, node: usize) -> Result<(), GraphError> {
        self.end(node, State::Done)?;
        for index in 0..self.followers[node].len() {
            let follower = self.followers[node][index];
            self.waits[follower] -= 1;
            if self.waits[follower] == 0 && self.states[follower] == State::Waiting {
                self.ready.push((self.chain[follower], Reverse(follower)));
            }
        }
        Ok(())
    }

    /// A running task has failed: the tasks that wait for it, directly or not, will never start. They are returned in
    /// ascending order.
    pub fn fail(&mut self, node: usize) -> Result<Vec<usize>, GraphError> {
        self.end(node, State::Dropped)?;
        let mut dropped = Vec::new();
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            for &follower in &self.followers[node] {
                if self.states[follower] == State::Waiting {
                    self.states[follower] = State::Dropped;
                    self.left -= 1;
                    dropped.push(follower);
                    open.push(follower);
                }
            }
        }
        dropped.sort_unstable();
        Ok(dropped)
    }

    /// How many tasks are running, ready or waiting.
    pub fn left(&self) -> usize {
        self.left
    }

    fn end(&mut self, node: usize, state: State) -> Result<(), GraphError> {
        if self.states.get(node) != Some(&State::Running) {
            return Err(GraphError::NotRunning(node));
        }
        self.states[node] = state;
        self.left -= 1;
        Ok(())
    }
}

/// The nodes in an order in which each comes after what it waits for, or those that have no place in one.
fn topological(waits: &[usize], followers: &[Vec<usize>]) -> Result<Vec<usize>, Vec<bool>> {
    let mut waits = waits.to_vec();
    let mut order: Vec<usize> = (0..waits.len()).filter(|&node| waits[node] == 0).collect();
    let mut next = 0;
    while next < order.len() {
        for &follower in &followers[order[next]] {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                order.push(follower);
            }
        }
        next += 1;
    }
    if order.len() == waits.len() {
        Ok(order)
    } else {
        Err(waits.iter().map(|&left| left > 0).collect())
    }
}

/// One circle among the nodes that are `stuck`: each of them waits for another of them.
fn circle(stuck: &[bool], dependencies: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![usize::MAX; stuck.len()];
    let mut path = Vec::new();
    let mut node = stuck.iter().position(|&stuck| stuck);
    while let Some(current) = node {
        if seen[current] != usize::MAX {
            return path.split_off(seen[current]);
        }
        seen[current] = path.len();
        path.push(current);
        node = dependencies[current].iter().copied().find(|&d| stuck[d]);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(dependencies: &[&[usize]]) -> Result<Graph, GraphError> {
        Graph::new(
            &dependencies
                .iter()
                .map(|list| list.to_vec())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_diamond_runs_its_sides_together() {
        let mut diamond = graph(&[&[], &[0], &[0], &[1, 2]]).unwrap();
        assert_eq!(diamond.take(9), [0]);
        assert!(diamond.take(9).is_empty());
        diamond.finish(0).unwrap();
        assert_eq!(diamond.take(9), [1, 2]);
        diamond.finish(2).unwrap();
        assert!(diamond.take(9).is_empty());
        diamond.finish(1).unwrap();
        assert_eq!(diamond.take(9), [3]);
        diamond.finish(3).unwrap();
        assert_eq!(diamond.left(), 0);
    }

    #[test]
    fn the_longest_chain_goes_first() {
        let mut uneven = graph(&[&[], &[], &[1], &[2]]).unwrap();
        assert_eq!(uneven.take(1), [1]);
        assert_eq!(uneven.take(1), [0]);
    }

    #[test]
    fn a_failure_drops_all_that_waits_for_it_and_nothing_else() {
        let mut tree = graph(&[&[], &[0], &[1], &[], &[3, 1]]).unwrap();
        assert_eq!(tree.take(9), [0, 3]);
        assert_eq!(tree.fail(0).unwrap(), [1, 2, 4]);
        tree.finish(3).unwrap();
        assert_eq!((tree.take(9), tree.left()), (vec![], 0));
    }

    #[test]
    fn a_circle_is_named() {
        let found = graph(&[&[], &[3, 0], &[1], &[2]]).err().unwrap();
        assert_eq!(found, GraphError::Cycle(vec![1, 3, 2]));
        assert_eq!(graph(&[&[0]]).err(), Some(GraphError::Cycle(vec![0])));
    }

    #[test]
    fn what_is_unknown_or_named_twice() {
        let unknown = graph(&[&[], &[7]]).err().unwrap();
        assert_eq!(
            unknown,
            GraphError::Unknown {
                node: 1,
                dependency: 7,
                count: 2
            }
        );
        let mut twice = graph(&[&[], &[0, 0]]).unwrap();
        assert_eq!(twice.take(9), [0]);
        twice.finish(0).unwrap();
        assert_eq!(twice.take(9), [1]);
    }

    #[test]
    fn only_a_running_task_ends() {
        let mut single = graph(&[&[]]).unwrap();
        assert_eq!(single.finish(0), Err(GraphError::NotRunning(0)));
        assert_eq!(single.fail(5), Err(GraphError::NotRunning(5)));
        single.take(1);
        single.finish(0).unwrap();
        assert_eq!(single.finish(0), Err(GraphError::NotRunning(0)));
    }
}
