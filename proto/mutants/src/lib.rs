//! Mistakes on purpose, which the simulation must find.
//!
//! At the place where a mistake would be made stands `mutant("its-name")`. In
//! every ordinary build that is the constant `false`, and nothing of it is
//! left in the program; with the feature `on`, which only the simulation asks
//! for, one mistake at a time can be made in the thread that runs a seed.
//! What the mistakes are, and which invariant must find each, is listed in
//! `chaos/sim/src/mutants.rs`.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<&'static str> = const { Cell::new("") };
}

/// Whether mistakes can be made in this build.
pub const BUILT: bool = cfg!(feature = "on");

/// Whether this thread makes the mistake `name`.
#[cfg(feature = "on")]
pub fn mutant(name: &str) -> bool {
    ACTIVE.get() == name
}

/// Whether this thread makes the mistake `name`: never.
#[cfg(not(feature = "on"))]
#[inline(always)]
pub const fn mutant(_name: &str) -> bool {
    false
}

/// Makes the mistake `name` in this thread until it is dropped, where mistakes
/// are [`BUILT`].
#[derive(Debug)]
pub struct Active(());

impl Active {
    pub fn new(name: &'static str) -> Active {
        ACTIVE.set(name);
        Active(())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.set("");
    }
}
