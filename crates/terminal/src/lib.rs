//! A terminal in the browser: one program on a pseudoterminal, shown to the browsers of its user. It runs inside a job,
//! under the user's uid, and the portal shows it below a path that it does not know.
//!
//! | file | what it does |
//! | --- | --- |
//! | `settings` | what a terminal is to be |
//! | `run` | its life, from the port's opening to the program's end |
//! | `program` | the program on its pseudoterminal |
//! | `log`, `front`, `escape` | its output: the last of it as it came, a picture of what came before |
//! | `room`, `seat` | who looks, who types, and how far each of them is |
//! | `connection`, `routes` | HTTP/1.1; which request goes where, a file below it for each |
//! | `place`, `whereabouts` | what the page calls a file; where the program is |
//! | `access` | who may look, and who may type |
//! | `respond` | answers, and which refusal has which status |
//! | `viewer`, `message` | the conversation with one browser |
//!
//! Invariants: the program never waits for a browser, and no browser for another. Without the token nobody sees or does
//! anything. What one browser does wrong ends its own connection and nothing else.

// In a test, a panic is the report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod connection;
mod desk;
mod ended;
mod escape;
mod front;
mod limits;
mod log;
mod message;
mod place;
mod program;
mod respond;
mod room;
mod routes;
mod run;
mod seat;
mod settings;
mod size;
mod viewer;
mod whereabouts;

pub use program::ProgramError;
pub use run::{Stop, Terminal, TerminalError, run};
pub use settings::{Settings, TOKEN_VARIABLE, Token, TokenError};
