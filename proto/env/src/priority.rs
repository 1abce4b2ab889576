//! Who is served first when more threads want to run than there are cores.
//!
//! A heartbeat of the log, or a GET, that waits behind a thousand pods' writes
//! is late; a pod that waits behind a GET is not.

/// Nice value of controllers, the scheduler, agents' sessions and the checkpoint's
/// writing: a third of the CPU that a request's thread gets when both want all of it.
pub const BACKGROUND: libc::c_int = 5;

/// Gives the calling thread, and those that it starts, this nice value (0 to 19).
/// A kernel that refuses leaves it as it is, which is slower and not wrong.
pub fn set(nice: libc::c_int) {
    // SAFETY: changes only the calling thread's priority; Linux takes 0 for it.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if done != 0 {
        tracing::debug!(nice, error = %std::io::Error::last_os_error(), "the thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_its_priority_and_hands_it_on_and_no_other_thread_has_it() {
        let nice = || {
            let status = std::fs::read_to_string("/proc/thread-self/stat").expect("a thread's own figures");
            let after_name = status.rsplit(')').next().expect("a name");
            after_name.split_whitespace().nth(16).and_then(|n| n.parse::<i32>().ok()).expect("a nice value")
        };
        let before = nice();
        let seen = std::thread::spawn(move || {
            set(BACKGROUND);
            (nice(), std::thread::spawn(nice).join().expect("ends"))
        });
        assert_eq!(seen.join().expect("ends"), (BACKGROUND, BACKGROUND));
        assert_eq!(nice(), before);
    }
}
