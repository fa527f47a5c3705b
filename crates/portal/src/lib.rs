//! The process that faces the network. It holds no power of its own: it carries bytes between a browser and an
//! application whose owner was proven. Begin reading at `serve.rs`, the life of one request; each step is a file.
//!
//! | step | file | what it yields |
//! | --- | --- | --- |
//! | accept | `accept.rs` | a TCP connection, given to one thread |
//! | proxied | `proxied.rs` | whose it is, where a trusted proxy stands between |
//! | tls | `tls.rs`, `front.rs`, `http2.rs` | HTTP/1.1 or HTTP/2 requests |
//! | authenticate | `authenticate.rs`, `fetch.rs` | a `Principal`, and whose page asks |
//! | route | `site.rs`, `route.rs` | which origin, and the `Place` that was asked for |
//! | resolve | `resolve.rs`, `nodes.rs` | a `Target`: literal addresses |
//! | connect | `connect.rs`, `pool.rs`, `link.rs` | a connection, not yet trusted |
//! | authorize | `authorize.rs` | `Owned`: the only thing that `forward` takes |
//! | forward | `forward.rs`, `tunnel.rs` | the application's answer, or a tunnel |
//! | rewrite | `rewrite.rs`, `headers.rs` | the answer as the browser may see it |
//! | respond | `reject.rs`, `respond.rs` | the one place where an error becomes a status and a page |
//!
//! Beside them: `record.rs` and `metrics/` count requests and write them down, `own/` answers `/-/...`, `flows.rs` ends what lives long when its session does, `room.rs` holds what
//! one thread keeps for itself, `aside.rs` does what may block, `limits.rs` has every limit.

mod accept;
mod addresses;
pub mod agents;
mod answer;
mod aside;
mod astray;
mod audit;
mod authenticate;
mod authorize;
mod capacity;
pub mod certificate;
mod chain;
mod connect;
mod fetch;
mod flows;
mod forward;
mod front;
mod front_body;
mod front_io;
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod growth;
mod headers;
mod http2;
mod interim;
mod journey;
mod latch;
pub mod limits;
mod link;
pub mod lookup;
mod metrics;
#[cfg(test)]
mod micro;
mod mode;
mod nodes;
mod own;
mod pool;
mod portal;
mod powers;
mod proxied;
mod record;
mod reject;
mod request_body;
mod resolve;
mod respond;
mod rewrite;
mod room;
mod route;
mod serve;
mod sessions;
mod site;
mod tls;
mod token;
mod tunnel;
mod upgrade;

pub use accept::{Listening, run};
pub use capacity::fit_connections;
pub use metrics::MetricsSocket;
pub use portal::{Portal, Settings, now};
pub use powers::{Embedded, Inherited, Served, Service, StateDir};
pub use tls::{TlsError, client_config, server_config};
