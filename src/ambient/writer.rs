//! A writer thread that takes jobs in groups: the mechanism behind group commit.
//!
//! Many callers hand in one job each; the thread takes what has gathered (at most `group_max`) and has it written as
//! one. The queue is bounded: a caller waits for a place, so a slow disk slows callers and never fills memory.

use std::fmt;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

/// The writer thread has ended: nothing that is handed in now will be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer has stopped")]
pub struct WriterClosed;

/// A handle on the writer thread. Dropping it lets the thread finish what is queued and waits for it.
pub struct GroupWriter<J> {
    jobs: Option<mpsc::Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J> fmt::Debug for GroupWriter<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupWriter({} queued)", self.queued())
    }
}

impl<J: Send + 'static> GroupWriter<J> {
    /// Starts the thread. `write` is called with 1 to `group_max` jobs in the order they were handed in.
    pub fn start(
        name: &str,
        queue_max: usize,
        group_max: usize,
        mut write: impl FnMut(Vec<J>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel(queue_max.max(1));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut group = Vec::new();
            while queue.blocking_recv_many(&mut group, group_max.max(1)) > 0 {
                write(std::mem::take(&mut group));
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands a job in, waiting for a place in the queue.
    pub async fn hand_in(&self, job: J) -> Result<(), WriterClosed> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).await.map_err(|_| WriterClosed),
            None => Err(WriterClosed),
        }
    }
}

impl<J> GroupWriter<J> {
    /// How many jobs wait now.
    pub fn queued(&self) -> usize {
        self.jobs.as_ref().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }
}

impl<J> Drop for GroupWriter<J> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has dropped its jobs' reply channels: their callers know already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc as std_mpsc;

    #[tokio::test]
    async fn jobs_keep_their_order_and_gather_while_the_writer_is_busy() {
        let (entered, is_in) = std_mpsc::channel::<usize>();
        let (release, gate) = std_mpsc::channel::<()>();
        let (written, log) = std_mpsc::channel::<Vec<u32>>();
        let writer = GroupWriter::start("test", 64, 8, move |group: Vec<u32>| {
            entered.send(group.len()).unwrap();
            gate.recv().unwrap();
            written.send(group).unwrap();
        })
        .unwrap();
        writer.hand_in(0).await.unwrap();
        assert_eq!(is_in.recv().unwrap(), 1);
        for job in 1..=10 {
            writer.hand_in(job).await.unwrap();
        }
        for _ in 0..3 {
            release.send(()).unwrap();
        }
        drop(writer);
        let groups: Vec<Vec<u32>> = log.iter().collect();
        assert_eq!(groups, [vec![0], (1..=8).collect(), vec![9, 10]]);
    }
}
