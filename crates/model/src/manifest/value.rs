//! Judges what somebody filled in. Before: a form, or a program's request. After: the script's environment and Slurm's arguments.
//!
//! Invariant: an [`Answer`] fits its field, has no NUL and no control character but the line ends of a field that may have lines,
//! and is no longer than an environment variable can be.

use jiff::SignedDuration;

use super::{Choice, Field, FieldKind, Resource};

/// Minutes that a job may ask for: 366 days.
pub(super) const MINUTES: std::ops::RangeInclusive<u32> = 1..=366 * 24 * 60;
/// GiB of memory that a job may ask for.
pub const MEMORY_GIB: std::ops::RangeInclusive<i64> = 1..=1 << 20;
/// Bytes of an answer at most: the kernel takes 128 KiB for a variable with its name (`MAX_ARG_STRLEN`, execve(2)).
pub(super) const BYTES: usize = 64 * 1024;

/// Wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minutes(pub u32);

/// An answer that fits its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    text: String,
}

/// Why an answer does not fit: a clause for whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAnswer(String);

impl Answer {
    /// What was answered; a checkbox's is `1` or empty, a duration's its minutes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Minutes {
    /// Of `90m`, `1h 30m`, `2 days`, and of Slurm's `90`, `1:30:00`, `2-12` and `2-12:30`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let minutes = slurm_minutes(text).or_else(|| {
            let whole: SignedDuration = text.parse().ok()?;
            u32::try_from(whole.as_secs().checked_add(59)? / 60).ok().filter(|_| !whole.is_negative())
        })?;
        MINUTES.contains(&minutes).then_some(Self(minutes))
    }
}

/// `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes[:seconds]` (sbatch(1), --time).
fn slurm_minutes(text: &str) -> Option<u32> {
    let number = |text: &str| -> Option<u32> {
        let plain = (1..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| plain)
    };
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts: Vec<u32> = rest.split(':').map(number).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (days, &parts[..]) {
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (None | Some(_), [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    hours.checked_mul(60)?.checked_add(minutes)?.checked_add(seconds.div_ceil(60))
}

impl Field {
    /// Judges an answer. `offered`: what a select from the site offers now; `None`: nobody knows, and any word will do.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn answer(&self, given: &str, offered: Option<&[Choice]>) -> Result<Answer, BadAnswer> {
        let refuse = |why: String| Err(BadAnswer(why));
        if given.len() > BYTES {
            return refuse(format!("it has more than {BYTES} bytes"));
        }
        let lines = matches!(self.kind, FieldKind::Text { lines: true, .. });
        // What browsers send for a line's end.
        let given = if lines { given.replace("\r\n", "\n") } else { given.trim().to_owned() };
        if given.chars().any(|one| one.is_control() && !(lines && matches!(one, '\n' | '\t'))) {
            return refuse("it has a character that can't be printed".to_owned());
        }
        if given.is_empty() {
            return match (&self.kind, self.required) {
                (FieldKind::Checkbox, _) | (_, false) => Ok(Answer { text: given }),
                (_, true) => refuse("it must be filled in".to_owned()),
            };
        }
        let text = match &self.kind {
            FieldKind::Text { pattern, most, .. } => {
                if given.chars().count() > *most {
                    return refuse(format!("it has more than {most} characters"));
                }
                if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.matches(&given)) {
                    return refuse(format!("it does not have the form {}", pattern.as_str()));
                }
                given
            }
            FieldKind::Number { min, max } => match given.parse::<i64>() {
                Ok(number) if (*min..=*max).contains(&number) => number.to_string(),
                Ok(_) => return refuse(format!("it must be from {min} to {max}")),
                Err(_) => return refuse("it is no whole number".to_owned()),
            },
            FieldKind::Select(super::Offered::Listed(choices)) => one_of(given, choices)?,
            FieldKind::Select(_) => match offered {
                Some(choices) => one_of(given, choices)?,
                None => given,
            },
            FieldKind::Checkbox => match given.as_str() {
                "1" | "on" | "true" => "1".to_owned(),
                "0" | "off" | "false" => String::new(),
                _ => return refuse("it is neither yes nor no".to_owned()),
            },
            FieldKind::Duration => match Minutes::parse(&given) {
                Some(Minutes(minutes)) => minutes.to_string(),
                None => {
                    return refuse(
                        "it is no time from a minute to a year, such as 2h, 1h 30m or 1-12:00".to_owned(),
                    );
                }
            },
            FieldKind::File { .. } => {
                if given.split('/').any(|part| part == "..") {
                    return refuse("it has '..' in it".to_owned());
                }
                given
            }
        };
        match self.resource {
            Some(resource) => resource.admits(&text).map(|()| Answer { text }),
            None => Ok(Answer { text }),
        }
    }
}

fn one_of(given: String, choices: &[Choice]) -> Result<String, BadAnswer> {
    if choices.iter().any(|choice| choice.value == given) {
        Ok(given)
    } else {
        Err(BadAnswer("it is none of what is offered".to_owned()))
    }
}

impl Resource {
    /// Whether this can stand in an argument for Slurm.
    ///
    /// # Errors
    /// A clause saying why not.
    pub fn admits(self, text: &str) -> Result<(), BadAnswer> {
        let word = |also: &[u8]| {
            text.len() <= 128
                && !text.starts_with('-')
                && text.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) || also.contains(&byte)
                })
        };
        let fits = match self {
            Self::Partition | Self::Account | Self::Qos | Self::Reservation | Self::GpuType => word(b"+"),
            // sbatch(1), --constraint.
            Self::Feature => word(b"&|"),
            Self::Nodes | Self::Tasks | Self::Cores | Self::Gpus => {
                text.parse::<u32>().is_ok_and(|number| number <= 1_000_000)
            }
            Self::Memory => text.parse::<i64>().is_ok_and(|gib| MEMORY_GIB.contains(&gib)),
            Self::Exclusive => matches!(text, "" | "1"),
            Self::Time => text.parse::<u32>().is_ok_and(|minutes| MINUTES.contains(&minutes)),
            Self::Directory => true,
        };
        if fits {
            Ok(())
        } else {
            Err(BadAnswer(format!("it is no {} that Slurm could take", self.as_str())))
        }
    }
}
