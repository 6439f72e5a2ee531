//! The threads that actors run on: one actix system on a thread of its own, and N arbiters.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use actix::{Arbiter, ArbiterHandle, System};

/// Runs actors until it is dropped.
#[derive(Debug)]
pub struct Arbiters {
    handles: Vec<ArbiterHandle>,
    system: System,
    thread: Option<JoinHandle<()>>,
}

impl Arbiters {
    /// Starts `count` arbiters (at least one).
    pub fn start(count: usize) -> io::Result<Self> {
        let (started, is_started) = mpsc::channel();
        let thread = std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
            let runner = System::new();
            let arbiters: Vec<Arbiter> = runner.block_on(async { (0..count.max(1)).map(|_| Arbiter::new()).collect() });
            let handles = arbiters.iter().map(Arbiter::handle).collect::<Vec<_>>();
            // The starter waits for this; were it gone, there would be nothing to run for.
            let _ = started.send((System::current(), handles));
            let _ = runner.run();
            for arbiter in arbiters {
                arbiter.stop();
                let _ = arbiter.join();
            }
        })?;
        let (system, handles) =
            is_started.recv().map_err(|_| io::Error::other("the actor system ended before it began"))?;
        Ok(Self { handles, system, thread: Some(thread) })
    }

    /// The arbiter that a key belongs to.
    pub fn of(&self, key: u64) -> &ArbiterHandle {
        let index = usize::try_from(key % self.handles.len() as u64).unwrap_or(0);
        &self.handles[index]
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own hook.
            let _ = thread.join();
        }
    }
}
