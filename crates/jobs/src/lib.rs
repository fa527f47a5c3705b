//! Applications as jobs: which there are, how one is handed over to Slurm or started on this machine, what became of it, and
//! the history of all. Runs as the person whose jobs they are; nothing here has more rights than that person.
//!
//! | file | what it does |
//! | --- | --- |
//! | `catalog` | finds the applications' manifests: shipped, the sysadmin's, one's own |
//! | `submission` | makes a job of a manifest and of what was filled in |
//! | `slurm` | asks Slurm, by its own commands |
//! | `here` | starts and ends jobs on this machine |
//! | `history` | one directory for each job that was ever started |
//! | `shared` | jobs that are over, shown to a group |
//! | `shares` | what a job's application is lent to a group by |
//! | `records` | what stands in its files |
//! | `state` | what all that says about a job: its state, and the reason |
//!
//! Invariant: what is not known is said to be not known. That Slurm does not answer never makes a job disappear or end.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod catalog;
pub mod here;
pub mod history;
pub mod limits;
pub mod records;
pub mod shared;
pub mod shares;
pub mod slurm;
pub mod state;
pub mod submission;

pub use catalog::{App, Catalog, Source};
pub use history::{History, Kept};
pub use records::{Endpoint, Entry, EntryId, JobRef, Outcome, Progress, Run, Usage};
pub use shared::{Shared, Shown};
pub use slurm::Slurm;
pub use state::{Job, Seen, State};
pub use submission::{Draft, Person, Refusal};
