//! The work queue in every order in which workers, callers and those who give up may come to it: no job is lost or run
//! twice, no place is lost, and nobody sleeps while there is a job for them.
//!
//! The sources are compiled into this test with the model checker's locks in the place of the standard library's.
#![allow(dead_code)]

mod lock {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}
#[path = "../../src/tools/places.rs"]
mod places;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use places::{Limits, Places, Slip};
use std::time::Duration;

type Jobs = Arc<Places<usize>>;

fn places(workers: usize, abandoned: usize) -> Jobs {
    Arc::new(Places::new(Limits { workers, abandoned }))
}

fn take(jobs: &Jobs) -> Option<usize> {
    jobs.take(Duration::MAX)
}

/// Something that has happened.
#[derive(Clone)]
struct Signal(Arc<(Mutex<bool>, Condvar)>);

impl Signal {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn set(&self) {
        *self.0 .0.lock().unwrap() = true;
        self.0 .1.notify_all();
    }

    fn wait(&self) {
        let mut set = self.0 .0.lock().unwrap();
        while !*set {
            set = self.0 .1.wait(set).unwrap();
        }
    }
}

fn assert_free(jobs: &Jobs, abandoned: u64) {
    let now = jobs.counts();
    assert_eq!((now.running, now.waiting, now.held), (0, 0, 0));
    assert!(now.abandoned <= abandoned);
}

#[test]
fn a_job_is_taken_back_or_runs_and_never_both() {
    loom::model(|| {
        let jobs = places(1, 1);
        let slip = Arc::new(jobs.slip(Some("tool".into())));
        assert_eq!(jobs.put(&slip, 1), Some(true));
        let (of_worker, slip_of_worker) = (jobs.clone(), slip.clone());
        let worker = thread::spawn(move || {
            let mut ran = 0;
            while take(&of_worker).is_some() {
                ran += 1;
                of_worker.finish(&slip_of_worker);
            }
            ran
        });
        let (of_other, slip_of_other) = (jobs.clone(), slip.clone());
        let other = thread::spawn(move || of_other.abandon(&slip_of_other).is_some());
        let taken_back = other.join().unwrap();
        let left = jobs.close().len();
        let ran = worker.join().unwrap();
        assert_eq!(ran + usize::from(taken_back) + left, 1);
        assert_eq!(jobs.counts().workers, 0);
        assert_free(&jobs, 1);
    });
}

#[test]
fn a_job_that_ends_while_it_is_abandoned_leaves_one_place() {
    loom::model(|| {
        let jobs = places(1, 1);
        let slip = Arc::new(jobs.slip(Some("tool".into())));
        jobs.put(&slip, 1);
        assert_eq!(take(&jobs), Some(1));
        let (of_other, slip_of_other) = (jobs.clone(), slip.clone());
        let other = thread::spawn(move || assert_eq!(of_other.abandon(&slip_of_other), None));
        jobs.finish(&slip);
        other.join().unwrap();
        assert_eq!(jobs.counts().done, 1);
        assert_free(&jobs, 1);
    });
}

#[test]
fn an_abandoned_job_leaves_its_turn_to_the_next_of_its_tool() {
    // A worker sleeps while a job of its tool runs, which may have one place of two. The running one is given up and never
    // comes back by itself: the sleeper must wake.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let jobs = places(2, 2);
        let slips: Vec<Slip> = (0..3)
            .map(|job| jobs.slip(Some(if job == 2 { "other" } else { "tool" }.into())))
            .collect();
        let slips = Arc::new(slips);
        jobs.put(&slips[0], 0);
        assert_eq!(take(&jobs), Some(0)); // by the first worker, for ever
        assert_eq!(jobs.put(&slips[2], 2), Some(true)); // for the second, which goes on to look for more
        jobs.put(&slips[1], 1);
        let ran = Signal::new();
        let (of_worker, slips_of_worker, told) = (jobs.clone(), slips.clone(), ran.clone());
        let worker = thread::spawn(move || {
            for _ in 0..2 {
                let job = take(&of_worker).expect("a job");
                of_worker.finish(&slips_of_worker[job]);
                if job == 1 {
                    told.set();
                }
            }
        });
        assert_eq!(jobs.abandon(&slips[0]), None);
        ran.wait();
        worker.join().unwrap();
        jobs.finish(&slips[0]);
        assert_free(&jobs, 1);
    });
}

#[test]
fn what_is_put_while_the_queue_closes_is_refused_or_given_back() {
    loom::model(|| {
        let jobs = places(1, 0);
        let slip = Arc::new(jobs.slip(None));
        let (of_other, slip_of_other) = (jobs.clone(), slip.clone());
        let other = thread::spawn(move || of_other.put(&slip_of_other, 1).is_some());
        let closed = jobs.close().len();
        let put = other.join().unwrap();
        assert_eq!(usize::from(put), closed + jobs.close().len());
        assert_eq!(jobs.abandon(&slip), None);
    });
}
