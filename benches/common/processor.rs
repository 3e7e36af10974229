//! What this process has had of the processor, and which part of it it may have.

#![allow(dead_code, reason = "each bench uses its part")]

use std::time::Duration;

/// Of all threads, in user code and in the kernel.
#[cfg(target_os = "linux")]
pub fn time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(target_os = "linux"))]
pub fn time() -> Duration {
    panic!("the time of the processor is read on Linux only")
}

/// Keeps this thread, and what it starts, to some of the cores it may run on: those in the range,
/// of their number. Does nothing where none would be left.
#[cfg(target_os = "linux")]
pub fn keep_to(which: impl FnOnce(usize) -> std::ops::Range<usize>) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).unwrap();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let Some(cores) = cores.get(which(cores.len())).filter(|cores| !cores.is_empty()) else {
        return;
    };
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).unwrap();
}

#[cfg(not(target_os = "linux"))]
pub fn keep_to(_: impl FnOnce(usize) -> std::ops::Range<usize>) {}
