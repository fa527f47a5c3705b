//! Sends one kind of load to a server and says in a line of JSON what came of it. Also what stands behind the proxies and beside them.
//!
//! | file | what it does |
//! | --- | --- |
//! | `target` | where the load goes, and connections to it |
//! | `effort` | how much of it |
//! | `connects` | connections that are made and ended |
//! | `handshakes` | a new connection for each request |
//! | `transfers` | large bodies, down or up |
//! | `files` | files to keep, and directories to list |
//! | `websockets` | messages that come back, or connections that only stay open |
//! | `pages` | many requests at once, as a browser loads a page |
//! | `backend` | echoes WebSocket messages, and takes bodies |
//! | `floor` | a proxy of the bare libraries, without any policy: what Portreeve can't be cheaper than |
//! | `figures` | what is said in the end |
//!
//! Everything runs on one thread, so that it can be held to one core.

mod backend;
mod connects;
mod effort;
mod figures;
mod files;
mod floor;
mod handshakes;
mod pages;
mod target;
mod transfers;
mod websockets;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The load and the backend of benches/run, where wrk and h2load don't reach")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A new connection, and on it a handshake and one request, again and again
    Handshakes(handshakes::Handshakes),
    /// Large bodies, one after the other on each connection
    Transfers(transfers::Transfers),
    /// Files to keep
    Puts(files::Puts),
    /// Directories to list, by WebDAV
    Lists(files::Lists),
    /// WebSocket messages that come back
    Echoes(websockets::Echoes),
    /// WebSockets that only stay open
    Idle(websockets::Idle),
    /// Many requests at once, on one HTTP/2 connection or six of HTTP/1.1
    Pages(pages::Pages),
    /// A new connection, with nothing said on it, again and again
    Connects(connects::Connects),
    /// What takes these
    Taker(connects::Taker),
    /// What stands behind the proxies
    Backend(backend::Backend),
    /// A proxy of hyper and rustls alone
    Floor(floor::Floor),
}

fn main() -> anyhow::Result<()> {
    let Arguments { what } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match what {
            What::Handshakes(load) => load.run().await?.say(),
            What::Transfers(load) => load.run().await?.say(),
            What::Puts(load) => load.run().await?.say(),
            What::Lists(load) => load.run().await?.say(),
            What::Echoes(load) => load.run().await?.say(),
            What::Idle(load) => load.run().await?,
            What::Pages(load) => load.run().await?.say(),
            What::Connects(load) => load.run().await?.say(),
            What::Taker(taker) => taker.run().await?,
            What::Backend(backend) => backend.run().await?,
            What::Floor(floor) => floor.run().await?,
        }
        Ok(())
    })
}
