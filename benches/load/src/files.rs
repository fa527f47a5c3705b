//! What a file server is asked beside a download: files to keep, and directories to list.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use crate::effort::Effort;
use crate::figures::{Figures, Seen};
use crate::target::{Asked, Sessions, Target};
use crate::transfers::{Pieces, pieces};

#[derive(clap::Args)]
pub(crate) struct Puts {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    effort: Effort,
    /// How long a file is, in bytes
    #[arg(long)]
    bytes: u64,
    /// A new file each time, whose name is the path and a number; else always the same one
    #[arg(long)]
    new: bool,
}

#[derive(clap::Args)]
pub(crate) struct Lists {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    effort: Effort,
    /// How many entries the directory has
    #[arg(long)]
    entries: usize,
}

impl Puts {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let Self { asked, effort, bytes, new } = self;
        let target = asked.target(Sessions::Fresh, b"http/1.1")?;
        let count = Cell::new(0);
        let connection = async |seen: &RefCell<Seen>, until| {
            puts(&target, seen, until, bytes, new.then_some(&count)).await
        };
        Ok(effort.spend(connection).await)
    }
}

async fn puts(
    target: &Target,
    seen: &RefCell<Seen>,
    until: Instant,
    bytes: u64,
    count: Option<&Cell<u64>>,
) -> anyhow::Result<()> {
    let mut send = target.http1::<Pieces>().await?;
    while Instant::now() < until {
        let began = Instant::now();
        let name = count.map_or_else(String::new, |count| count.replace(count.get() + 1).to_string());
        let mut request = target.request_below("PUT", &name, pieces(bytes)?)?;
        request.headers_mut().insert("content-length", bytes.into());
        send.ready().await?;
        let answer = send.send_request(request).await?;
        ensure!(matches!(answer.status().as_u16(), 201 | 204), "status {}", answer.status());
        answer.into_body().collect().await?;
        let mut seen = seen.borrow_mut();
        seen.took(began.elapsed());
        seen.bytes(bytes);
    }
    Ok(())
}

impl Lists {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let Self { asked, effort, entries } = self;
        let target = asked.target(Sessions::Fresh, b"http/1.1")?;
        Ok(effort.spend(async |seen, until| lists(&target, seen, until, entries).await).await)
    }
}

async fn lists(target: &Target, seen: &RefCell<Seen>, until: Instant, entries: usize) -> anyhow::Result<()> {
    /// What a program that mounts it asks for.
    const WANTED: &[u8] =
        b"<?xml version=\"1.0\"?><propfind xmlns=\"DAV:\"><prop><resourcetype/><getcontentlength/>\
        <getlastmodified/><creationdate/><getetag/></prop></propfind>";
    let mut send = target.http1().await?;
    while Instant::now() < until {
        let began = Instant::now();
        let mut request = target.request("PROPFIND", false, Full::new(Bytes::from_static(WANTED)))?;
        request.headers_mut().insert("depth", "1".parse()?);
        request.headers_mut().insert("content-type", "application/xml".parse()?);
        send.ready().await?;
        let answer = send.send_request(request).await?;
        ensure!(answer.status() == 207, "status {}", answer.status());
        let body = answer.into_body().collect().await?.to_bytes();
        let took = began.elapsed();
        // All of them say `D:`, and the directory is one of its own entries.
        let told = std::str::from_utf8(&body)?.matches("</D:response>").count();
        ensure!(told == entries + 1, "{told} entries of {entries}, and the directory");
        let mut seen = seen.borrow_mut();
        seen.took(took);
        seen.bytes(body.len() as u64);
    }
    Ok(())
}
