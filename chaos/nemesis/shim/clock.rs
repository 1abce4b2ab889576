//! Loaded into a replica before libc (LD_PRELOAD): the wall clock that the
//! program reads is the machine's plus an offset that another process sets.
//!
//! The offset is eight bytes (nanoseconds, signed, native order) in the file
//! that `TRIARCH_CLOCK_OFFSET` names, mapped and shared, so that it can jump
//! while the program runs. Monotonic clocks are passed through, as a real jump
//! leaves them alone too. Files' times are the kernel's and do not move.

#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};
use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicUsize, Ordering};

const NANOS: i64 = 1_000_000_000;
const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;
const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanos: c_long,
}

#[repr(C)]
pub struct Timeval {
    seconds: i64,
    micros: c_long,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn close(descriptor: c_int) -> c_int;
    fn mmap(at: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
}

static REAL: AtomicUsize = AtomicUsize::new(0);
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(core::ptr::null_mut());
/// What is read when there is no file.
static NONE: AtomicI64 = AtomicI64::new(0);

type ClockGettime = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;

fn offset() -> i64 {
    let mut at = OFFSET.load(Ordering::Acquire);
    if at.is_null() {
        at = map();
        OFFSET.store(at, Ordering::Release);
    }
    // SAFETY: either the static above or a mapping that is never removed.
    unsafe { (*at).load(Ordering::Relaxed) }
}

fn map() -> *mut AtomicI64 {
    let none = &raw const NONE as *mut AtomicI64;
    // SAFETY: C strings that are constants or the environment's; the mapping's
    // length is the file's.
    unsafe {
        let path = getenv(c"TRIARCH_CLOCK_OFFSET".as_ptr());
        if path.is_null() {
            return none;
        }
        let file = open(path, 0);
        if file < 0 {
            return none;
        }
        let at = mmap(core::ptr::null_mut(), 8, PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if at as isize == -1 { none } else { at.cast() }
    }
}

/// # Safety
/// As clock_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, out: *mut Timespec) -> c_int {
    let mut real = REAL.load(Ordering::Relaxed);
    if real == 0 {
        // SAFETY: a constant C string.
        real = unsafe { dlsym(RTLD_NEXT, c"clock_gettime".as_ptr()) } as usize;
        REAL.store(real, Ordering::Relaxed);
    }
    if real == 0 {
        return -1;
    }
    // SAFETY: the C library's own function has this signature.
    let real: ClockGettime = unsafe { core::mem::transmute(real) };
    // SAFETY: the caller's pointer, passed on.
    let done = unsafe { real(clock, out) };
    if done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && !out.is_null() {
        // SAFETY: the call above has just written there.
        let out = unsafe { &mut *out };
        let offset = offset();
        let nanos = (out.nanos as i64).wrapping_add(offset.wrapping_rem(NANOS));
        out.seconds = out.seconds.wrapping_add(offset.wrapping_div(NANOS)).wrapping_add(nanos.div_euclid(NANOS));
        out.nanos = nanos.rem_euclid(NANOS) as c_long;
    }
    done
}

/// # Safety
/// As gettimeofday(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(out: *mut Timeval, _zone: *mut c_void) -> c_int {
    let mut now = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: a local variable.
    let done = unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    if done == 0 && !out.is_null() {
        // SAFETY: the caller's pointer, not null.
        unsafe { out.write(Timeval { seconds: now.seconds, micros: now.nanos / 1000 }) };
    }
    done
}

/// # Safety
/// As time(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(out: *mut i64) -> i64 {
    let mut now = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: a local variable.
    unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    if !out.is_null() {
        // SAFETY: the caller's pointer, not null.
        unsafe { out.write(now.seconds) };
    }
    now.seconds
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
