//! What an application answers, as it must read below a path of the portal.
//!
//! An application that believes to be at the root of `http://c1:12001/` appears to the browser below `/fw2/c1:12001/`
//! or `/fw/tb/` of the portal. Its answers are mapped on their way: fields ([`towards_browser`]), pages, stylesheets,
//! manifests ([`Rewriter`]); what its scripts make at run time is mapped in the browser, by a [`SCRIPT`] that goes into
//! its pages. An application that was started with the prefix as its base URL, or has an origin of its own, gets its
//! bodies untouched.
//!
//! | file | what |
//! | --- | --- |
//! | `place.rs`, `reference.rs` | where the application appears; what one URL reference becomes |
//! | `headers.rs`, `cookies.rs`, `policy.rs` | fields; `Set-Cookie` and back; content security policies |
//! | `body.rs` | whether and how a body is rewritten; the stream |
//! | `coding.rs` | content codings, taken off within bounds |
//! | `html/`, `css/`, `json.rs`, `manifest.rs` | pages; style; import maps and speculation rules; manifests |
//! | `script.rs`, `script/rewrite.js` | what runs in the browser |
//!
//! In the portal, once an answer's head has come:
//!
//! ```
//! # use std::{rc::Rc, sync::Arc};
//! # use http::{HeaderMap, Method, StatusCode, header::{CONTENT_TYPE, HeaderValue}};
//! use portreeve_rewrite::{Destination, Exchange, Injection, Mode, Place, towards_browser};
//!
//! let place = Place::new("/fw2/c1:12001", "", "portal.example", Mode::Strip)?.with_origins(["c1:12001"]);
//! let injection = Injection { src: "/-/rewrite.js".to_owned(), integrity: None, nonce: "cmFuZG9t".to_owned() };
//! let mut headers = HeaderMap::new();
//! headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
//! let rewriter = towards_browser(
//!     &mut headers,
//!     &Exchange {
//!         place: &Arc::new(place),
//!         method: &Method::GET,
//!         destination: Destination::Document,
//!         status: StatusCode::OK,
//!         injection: Some(&Rc::new(injection)),
//!         our_cookie: "__Host-portreeve",
//!     },
//! );
//! let Some(mut rewriter) = rewriter else { return Ok(()) };
//! let mut out = Vec::new();
//! let piece = b"<head></head><a href=/x>";
//! let taken = rewriter.push(piece, &mut out)?;
//! assert_eq!(taken, piece.len());
//! rewriter.finish(&mut out);
//! assert!(out.ends_with(b"<a href=/fw2/c1:12001/x>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariant: no input and output, no clock, no randomness here; no input makes it panic or hold more than a bound.

mod body;
mod charset;
mod coding;
mod cookies;
mod css;
mod headers;
mod html;
mod json;
mod manifest;
mod place;
mod policy;
mod reference;
mod script;

pub use body::{BodyError, Destination, ENOUGH, Exchange, Rewriter, towards_browser};
pub use coding::{CodingError, MOST_INFLATED, narrow_accept_encoding};
pub use cookies::{
    cookie_pairs, is_ours as is_our_cookie, towards_application as cookies_towards_application,
};
pub use headers::{links_towards_browser, trailers_towards_browser};
pub use place::{Mode, Place, PlaceError};
pub use policy::Injection;
pub use script::SCRIPT;
