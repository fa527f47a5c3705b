//! What an application answers, as it must read below a path of the portal.
mod place;
mod reference;
pub use place::{Mode, Place, PlaceError};
