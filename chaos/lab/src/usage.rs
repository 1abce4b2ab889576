//! What processes use, from /proc: memory with their share of what is mapped,
//! and time of the CPU.

use std::fs;
use std::time::Duration;

use crate::error::{Context, LabError, Result};
use crate::process::ProcessId;

/// Proportional set size, bytes: anonymous memory, and of every mapped file the
/// resident part, divided by those who share it.
///
/// # Errors
/// The process is gone, or not ours.
pub fn pss(id: ProcessId) -> Result<u64> {
    let path = format!("/proc/{}/smaps_rollup", id.pid);
    parse_pss(&fs::read_to_string(&path).step("usage", &path)?)
}

fn parse_pss(text: &str) -> Result<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"));
    let kib: Option<u64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.map(|n| n * 1024).ok_or_else(|| LabError::new("usage", "smaps_rollup without Pss"))
}

/// Time of the CPU that a process has used in user and system mode.
///
/// # Errors
/// The process is gone.
pub fn cpu(id: ProcessId) -> Result<Duration> {
    let path = format!("/proc/{}/stat", id.pid);
    parse_cpu(&fs::read_to_string(&path).step("usage", &path)?)
}

fn parse_cpu(text: &str) -> Result<Duration> {
    // The name may hold spaces and brackets: fields start after the last ')'.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(LabError::new("usage", "stat without times"));
    };
    // SAFETY: asks for a constant.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
    Ok(Duration::from_secs_f64((user + system) as f64 / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_the_cpu() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        let held = vec![1u8; 32 << 20];
        assert!(pss(own).unwrap() > held.len() as u64);
        let before = cpu(own).unwrap();
        let mut n = 1u64;
        while cpu(own).unwrap() < before + Duration::from_millis(30) {
            n = std::hint::black_box(n.wrapping_mul(3));
        }
        assert!(cpu(own).unwrap() > before);
    }

    #[test]
    fn figures_are_read_where_the_kernel_writes_them() {
        assert_eq!(parse_pss("Rss: 9 kB\nPss:      12 kB\nPss_Dirty: 3 kB\n").unwrap(), 12 << 10);
        let stat = "7 (a ) b) S 1 1 1 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 9 9 9";
        assert_eq!(parse_cpu(stat).unwrap(), Duration::from_secs(2));
        assert!(parse_pss("").is_err() && parse_cpu("7 (a) S").is_err());
    }
}
