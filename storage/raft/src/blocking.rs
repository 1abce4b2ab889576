//! Where work that blocks on a disk is done: a thread of its own, or, in the
//! simulation, in place.

use std::sync::mpsc;

use tokio::sync::oneshot;
use triarch_env::priority;

type Job = Box<dyn FnOnce() + Send>;

/// A place for blocking work; clones share it.
#[derive(Clone)]
pub enum Blocking {
    /// In the caller's task: for disks in memory.
    Inline,
    /// On a thread, one job after another.
    Thread(mpsc::SyncSender<Job>),
}

impl Blocking {
    /// Starts a thread that ends when the last clone is dropped. It and those that
    /// its jobs start have this nice value (see [`priority`]); 0: that of the process.
    pub fn thread(name: &str, nice: i32) -> std::io::Result<Blocking> {
        let (tx, rx) = mpsc::sync_channel::<Job>(16);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            if nice > 0 {
                priority::set(nice);
            }
            rx.into_iter().for_each(|job| job());
        })?;
        Ok(Blocking::Thread(tx))
    }

    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        match self {
            Blocking::Inline => Ok(work()),
            Blocking::Thread(jobs) => {
                let (tx, rx) = oneshot::channel();
                let job: Job = Box::new(move || drop(tx.send(work())));
                jobs.try_send(job).map_err(|e| format!("the thread for it does not take work: {e}"))?;
                rx.await.map_err(|_| "the thread for it ended".to_owned())
            }
        }
    }
}
