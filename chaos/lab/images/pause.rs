//! The process that holds a pod's namespaces: it reaps what is given to it and
//! goes when it is told to.
//!
//! Compiled alone by `rustc`, statically; libc's calls are declared here.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const WNOHANG: i32 = 1;

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn poll(fds: *mut u8, count: u64, milliseconds: i32) -> i32;
}

extern "C" fn stop(_: i32) {
    STOP.store(true, Ordering::SeqCst);
}

/// Being handled at all is what interrupts `poll`.
extern "C" fn child(_: i32) {}

fn main() {
    // SAFETY: the handlers only store to an atomic; the calls take no pointers
    // but null.
    unsafe {
        signal(SIGINT, stop);
        signal(SIGTERM, stop);
        signal(SIGCHLD, child);
        while !STOP.load(Ordering::SeqCst) {
            while waitpid(-1, std::ptr::null_mut(), WNOHANG) > 0 {}
            // A signal between the check and the wait costs at most this long.
            poll(std::ptr::null_mut(), 0, 1000);
        }
    }
}
