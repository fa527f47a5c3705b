//! How many records of one sort are written in a second: whoever may cause them without being known must not be able to fill
//! the log. What is left out is counted, so that the log can say how much it was.

use std::time::{Duration, Instant};

/// For so long a number of records is counted.
pub const RECORDS_SUMMED: Duration = Duration::from_secs(1);

/// Records of one sort.
#[derive(Debug)]
pub struct Records {
    /// In [`RECORDS_SUMMED`].
    most: u32,
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

/// What is to be done about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it decides whether the record is written"]
pub enum Due {
    /// It is written.
    Now,
    /// It is left out, the first one since the number was taken: whoever asks takes it after [`RECORDS_SUMMED`].
    Summed,
    /// It is left out.
    Not,
}

impl Records {
    /// So many are written in a second.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, since: None, written: 0, left_out: 0 }
    }

    /// One more could be written.
    pub fn next(&mut self, now: Instant) -> Due {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= RECORDS_SUMMED) {
            self.since = Some(now);
            self.written = 0;
        }
        if self.written < self.most {
            self.written += 1;
            return Due::Now;
        }
        self.left_out = self.left_out.saturating_add(1);
        if self.left_out == 1 { Due::Summed } else { Due::Not }
    }

    /// How many were left out since this was asked last.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_are_written_and_the_others_counted() {
        let start = Instant::now();
        let mut records = Records::new(2);
        let at = |ms| start + Duration::from_millis(ms);
        let dues: Vec<Due> = [0, 1, 2, 3, 999].into_iter().map(|ms| records.next(at(ms))).collect();
        assert_eq!(dues, [Due::Now, Due::Now, Due::Summed, Due::Not, Due::Not]);
        assert_eq!((records.take_left_out(), records.take_left_out()), (3, 0));
        for (ms, due) in [(1000, Due::Now), (1001, Due::Now), (1002, Due::Summed), (9000, Due::Now)] {
            assert_eq!(records.next(at(ms)), due, "{ms}");
        }
        assert_eq!(records.take_left_out(), 1, "nothing is lost");
    }
}
