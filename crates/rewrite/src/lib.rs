//! What an application answers, as it must read below a path of the portal.
mod charset;
mod css;
mod html;
mod json;
mod place;
mod policy;
mod reference;
mod script;
pub use place::{Mode, Place, PlaceError};
pub use policy::Injection; pub use script::{SCRIPT, for_worker};
