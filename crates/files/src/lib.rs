//! Reads and writes files on behalf of a user's browser. It runs in a process that has that user's rights and no more:
//! the kernel decides what is permitted, and this crate never asks in its place.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`rel_path`] | what a browser may call a file |
//! | [`address`] | how a path stands in an address |
//! | [`root`] | the directory that paths begin at, and how far links may lead |
//! | [`roots`] | what of the file system is shown |
//! | [`reading`] | opens regular files, and takes pieces of those that grow |
//! | [`put`] | replaces a file whole, or not at all |
//! | [`listing`] | what a directory holds |
//! | [`ahead`] | the same, looked at ahead of time |
//! | [`tree`] | makes directories, removes and renames |
//! | [`copy`] | copies and moves, in the place of what has the new name |
//! | [`remove`] | removes a directory with all that is in it |
//! | [`attributes`] | what a user keeps with a file (xattr(7)) |
//! | [`settings`] | permissions and time |
//! | [`space`] | how much room there is |
//! | [`status`] | what is known of a file, and how to tell that it changed |
//! | [`error`] | every way to fail that a page has its own sentence for |
//! | [`limits`] | every bound |
//!
//! Invariants: every path of a browser's is resolved by openat2(2), with the policy that its root was opened with, and
//! what is then done is done in the directory that this gave, not by the path again. No FIFO, socket or device is ever
//! waited for. All calls block, on a network file system for as long as it likes: asynchronous callers give them a
//! thread.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod ahead;
pub mod attributes;
pub mod copy;
pub mod error;
pub mod limits;
pub mod listing;
pub mod put;
pub mod reading;
pub mod rel_path;
pub mod remove;
pub mod root;
pub mod roots;
pub mod settings;
pub mod space;
mod staging;
pub mod status;
pub mod tree;
mod turn;

pub use address::{Address, AddressError};
pub use ahead::Overview;
pub use copy::{Deep, To};
pub use error::Error;
pub use listing::{Entries, Entry, Listed};
pub use put::{Finish, NewMode, Only, Put};
pub use reading::{OpenFile, Piece};
pub use rel_path::{PathError, RelPath};
pub use remove::Left;
pub use root::{Root, Within};
pub use roots::{Found, Roots};
pub use space::Space;
pub use staging::PUT_PREFIX;
pub use status::{Identity, Kind, Status};
pub use tree::Over;
