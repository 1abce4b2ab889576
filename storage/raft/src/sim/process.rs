//! A process of the simulation: a set of tasks that can be killed or paused as one.
//!
//! openraft starts its tasks through static functions, so the process whose
//! task is being polled is kept in a thread-local, and what is spawned meanwhile
//! belongs to it. Invariant: after [`Process::kill`] no line of the process's
//! code runs any more; while it is paused none does, but time goes on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::SimRuntime;
use parking_lot::Mutex;

thread_local! {
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// A handle on a simulated process; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    killed: bool,
    paused: bool,
    next: u64,
    tasks: BTreeMap<u64, Option<Waker>>,
    /// Woken while paused.
    due: BTreeMap<u64, Waker>,
    panics: Vec<String>,
    /// Microseconds that its wall clock is ahead of the world's.
    ahead: i64,
}

/// What a task of the process may do when it is polled.
enum Gate {
    Open,
    Closed,
    Gone,
}

impl Process {
    pub fn new() -> Process {
        Process::default()
    }

    /// Ends the process where it stands: its tasks are dropped, nothing is flushed.
    pub fn kill(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.0.lock();
            state.killed = true;
            state.due.clear();
            state.tasks.values_mut().filter_map(Option::take).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Stops the process, as SIGSTOP does.
    pub fn pause(&self) {
        self.0.lock().paused = true;
    }

    /// The process goes on; what became due meanwhile is due now.
    pub fn resume(&self) {
        let due = {
            let mut state = self.0.lock();
            state.paused = false;
            std::mem::take(&mut state.due)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Sets its wall clock `micros` ahead of the world's (negative: behind).
    /// The monotonic clock does not notice, as on a machine whose date is set.
    pub fn set_clock_ahead(&self, micros: i64) {
        self.0.lock().ahead = micros;
    }

    pub(super) fn clock_ahead(&self) -> i64 {
        self.0.lock().ahead
    }

    pub fn is_killed(&self) -> bool {
        self.0.lock().killed
    }

    pub fn is_paused(&self) -> bool {
        self.0.lock().paused
    }

    /// Panics of its tasks since they were last asked for.
    pub fn take_panics(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().panics)
    }

    /// Starts a task of this process.
    pub fn spawn(&self, fut: impl Future<Output = ()> + Send + 'static) {
        drop(SimRuntime::spawn(self.own(fut)));
    }

    fn own<F: Future>(&self, fut: F) -> Task<F> {
        let mut state = self.0.lock();
        state.next += 1;
        let id = state.next;
        state.tasks.insert(id, None);
        Task { process: self.clone(), id, fut: Some(Box::pin(fut)) }
    }

    fn gate(&self, id: u64, waker: &Waker) -> Gate {
        let mut state = self.0.lock();
        if state.killed {
            return Gate::Gone;
        }
        if state.paused {
            state.due.insert(id, waker.clone());
            return Gate::Closed;
        }
        let known = state.tasks.entry(id).or_default();
        if !known.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        Gate::Open
    }

    /// Runs `work` as code of this process.
    fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let done = catch_unwind(AssertUnwindSafe(work));
        CURRENT.set(before);
        done.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            self.0.lock().panics.push(text);
            resume_unwind(panic)
        })
    }
}

/// A task of a process. It never ends once the process is killed.
struct Task<F: Future> {
    process: Process,
    id: u64,
    fut: Option<Pin<Box<F>>>,
}

impl<F: Future> Unpin for Task<F> {}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        match this.process.gate(this.id, cx.waker()) {
            Gate::Closed => Poll::Pending,
            Gate::Gone => {
                let fut = this.fut.take();
                this.process.run(|| drop(fut));
                Poll::Pending
            }
            Gate::Open => match this.fut.as_mut() {
                Some(fut) => this.process.run(|| fut.as_mut().poll(cx)),
                None => Poll::Pending,
            },
        }
    }
}

impl<F: Future> Drop for Task<F> {
    fn drop(&mut self) {
        let mut state = self.process.0.lock();
        state.tasks.remove(&self.id);
        state.due.remove(&self.id);
    }
}

/// [`SimRuntime`], with every task a part of the process that started it.
#[derive(Debug)]
pub struct ProcessRuntime;

impl AsyncRuntime for ProcessRuntime {
    type JoinError = <SimRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = <SimRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <SimRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match CURRENT.with_borrow(Clone::clone) {
            Some(process) => SimRuntime::spawn(process.own(future)),
            None => SimRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        // The runtime is made by whoever runs the simulation; this one only names its types.
        let _ = threads;
        ProcessRuntime
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        SimRuntime::new(1).block_on(future)
    }

    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SimRuntime::spawn_blocking(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::sim::Simulation;

    #[test]
    fn a_killed_process_runs_no_more_and_a_paused_one_goes_on_where_it_was() {
        Simulation::new(1).block_on(async {
            let (process, ticks) = (Process::new(), Arc::new(AtomicU64::new(0)));
            let count = ticks.clone();
            process.spawn(async move {
                // The inner task is started as openraft starts its own.
                drop(ProcessRuntime::spawn(async move {
                    loop {
                        SimRuntime::sleep(Duration::from_millis(10)).await;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }));
            });
            let after = async |ms| {
                SimRuntime::sleep(Duration::from_millis(ms)).await;
                ticks.load(Ordering::Relaxed)
            };
            assert_eq!(after(105).await, 10);
            process.pause();
            assert_eq!(after(100).await, 10);
            process.resume();
            assert_eq!(after(51).await, 16, "the tick that was due meanwhile, and five more");
            process.kill();
            assert_eq!(after(100).await, 16);
            assert_eq!(Arc::strong_count(&ticks), 1, "what its tasks held is dropped");
        });
    }

    #[test]
    fn a_panic_is_told_by_its_process() {
        Simulation::new(1).block_on(async {
            let process = Process::new();
            process.spawn(async { panic!("on purpose") });
            SimRuntime::sleep(Duration::from_millis(1)).await;
            assert_eq!(process.take_panics(), ["on purpose"]);
            assert!(process.take_panics().is_empty());
        });
    }
}
