//! What the machine spends, and what it can do at most.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};

/// What one phase took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub seconds: f64,
    pub cpu: f64,
    /// Peak memory of the process in MiB.
    pub peak: u64,
    /// Busy seconds of the whole machine.
    pub busy: f64,
}

impl Cost {
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            seconds: self.seconds - other.seconds,
            cpu: self.cpu - other.cpu,
            peak: self.peak,
            busy: self.busy - other.busy,
        }
    }

    /// Cores that others kept busy meanwhile.
    pub fn other_load(&self) -> f64 {
        (self.busy - self.cpu).max(0.0) / self.seconds
    }
}

/// Runs `work` and waits for the device before and after it.
pub fn timed<T, E>(device: &Device, work: impl FnOnce() -> Result<T, E>) -> Result<(T, Cost), E> {
    // Resets the peak, where the system lets us.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let _ = device.sync();
    let (start, cpu, busy) = (Instant::now(), cpu_seconds(), busy_seconds());
    let result = work()?;
    let _ = device.sync();
    let cost = Cost {
        seconds: start.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
        peak: status("VmHWM:") / 1024,
        busy: busy_seconds() - busy,
    };
    Ok((result, cost))
}

/// Multiplications with additions per second of large f32 matrix products: the best of several rounds.
pub fn matrix_rate(device: &Device) -> f64 {
    // Large enough to fill a GPU, not to bore a CPU.
    let mut best: f64 = 0.0;
    for size in [1024, 2048, 4096, 8192] {
        let a = Tensor::<2>::random([size, size], Distribution::Default, device);
        let b = Tensor::<2>::random([size, size], Distribution::Default, device);
        for _ in 0..3 {
            let _ = device.sync();
            let start = Instant::now();
            let product = a.clone().matmul(b.clone());
            let _ = device.sync();
            let seconds = start.elapsed().as_secs_f64();
            drop(product);
            best = best.max((size as f64).powi(3) / seconds);
        }
        if (size as f64).powi(3) * 8.0 / best > 2.0 {
            break; // The next size would take seconds a round.
        }
    }
    best
}

/// Bytes per second of reading one large array and writing another, several times over: the best of several rounds. 0
/// where the device did not do what it was told. With kernel fusion, which makes fewer passes of them, it is too much.
pub fn bandwidth(device: &Device) -> f64 {
    // 64 MiB: some drivers bind no more than 128 MiB at once.
    const VALUES: usize = 1 << 24;
    const TIMES: usize = 16;
    let rounds = (0..5).map(|_| {
        let mut sum = Tensor::<1>::zeros([VALUES], device);
        let _ = device.sync();
        let start = Instant::now();
        for _ in 0..TIMES {
            // A new array each time: nothing can be added in place.
            let before = sum.clone();
            sum = sum + 1.0;
            drop(before);
        }
        let _ = device.sync();
        let seconds = start.elapsed().as_secs_f64();
        let last: f32 = sum.narrow(0, VALUES - 1, 1).into_scalar();
        if last == TIMES as f32 { (8 * VALUES * TIMES) as f64 / seconds } else { 0.0 }
    });
    rounds.fold(0.0, f64::max)
}

/// A field of /proc/self/status in KiB; 0 where there is none.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Ticks are hundredths of a second on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields after the command's name, which may hold spaces; user and system time are the 12th and 13th of them.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let values: Vec<f64> = line.split_whitespace().skip(1).filter_map(|v| v.parse().ok()).collect();
    let idle: f64 = values.iter().skip(3).take(2).sum();
    (values.iter().take(8).sum::<f64>() - idle) / TICKS
}
