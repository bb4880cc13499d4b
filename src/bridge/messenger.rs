//! Wakes loops that cannot watch a descriptor: one thread of its own calls their `call_soon_threadsafe`.

use super::event_loop::{Bridges, LoopBridge};
use super::wake::Wake;
use pyo3::prelude::*;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

pub struct Messenger {
    bridges: Arc<Bridges>,
    sender: Mutex<Option<Sender<usize>>>,
}

impl Messenger {
    pub fn new(bridges: Arc<Bridges>) -> Self {
        Self {
            bridges,
            sender: Mutex::default(),
        }
    }

    /// The wake of one loop. The thread starts with the first, and ends with the last.
    pub fn wake(&self, key: usize) -> Wake {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let to = sender.get_or_insert_with(|| {
            let (sender, keys) = channel();
            let bridges = self.bridges.clone();
            std::thread::spawn(move || deliver(&bridges, &keys));
            sender
        });
        Wake::Messenger {
            to: to.clone(),
            key,
        }
    }
}

fn deliver(bridges: &Bridges, keys: &Receiver<usize>) {
    for key in keys {
        // `None` while the interpreter exits: there is nobody left to wake.
        let attached = Python::try_attach(|py| {
            if let Ok(Some(bridge)) = bridges.get(py, key) {
                LoopBridge::call_soon(&bridge);
            }
        });
        if attached.is_none() {
            return;
        }
    }
}
