//! What a load saw. Times in microseconds.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Gathers while the load runs.
pub(crate) struct Seen {
    began: Instant,
    times: Vec<u32>,
    bytes: u64,
    resumed: u64,
    problems: Vec<String>,
}

/// The line at the end.
#[derive(Serialize)]
pub(crate) struct Figures {
    requests: usize,
    seconds: f64,
    bytes: u64,
    resumed: u64,
    p50_us: Option<u32>,
    p99_us: Option<u32>,
    p999_us: Option<u32>,
    problems: Vec<String>,
}

/// More of them say nothing new.
const PROBLEMS: usize = 10;

impl Seen {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), times: Vec::new(), bytes: 0, resumed: 0, problems: Vec::new() }
    }

    pub(crate) fn took(&mut self, time: Duration) {
        self.times.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(crate) fn resumed(&mut self) {
        self.resumed += 1;
    }

    pub(crate) fn problem(&mut self, why: &anyhow::Error) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(format!("{why:#}"));
        }
    }

    pub(crate) fn figures(mut self) -> Figures {
        self.times.sort_unstable();
        let rank = |part: usize, of: usize| {
            let place = (self.times.len() * part).div_ceil(of);
            self.times.get(place.saturating_sub(1)).copied()
        };
        Figures {
            requests: self.times.len(),
            seconds: self.began.elapsed().as_secs_f64(),
            bytes: self.bytes,
            resumed: self.resumed,
            p50_us: rank(50, 100),
            p99_us: rank(99, 100),
            p999_us: rank(999, 1000),
            problems: self.problems,
        }
    }
}

impl Figures {
    #[expect(clippy::expect_used, reason = "plain numbers and texts")]
    pub(crate) fn say(&self) {
        println!("{}", serde_json::to_string(self).expect("it is JSON"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let mut seen = Seen::begin();
        for time in (1..=1000).rev() {
            seen.took(Duration::from_micros(time));
        }
        let figures = seen.figures();
        assert_eq!((figures.p50_us, figures.p99_us, figures.p999_us), (Some(500), Some(990), Some(999)));
        assert_eq!(Seen::begin().figures().p50_us, None);
    }
}
