//! Dialers and workers, and what could be handed to them.

use std::fs::File;
use std::io::{Error, Read, Result};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use portreeve_model::wire::dialer::{Dial, Dialed};
use portreeve_model::wire::worker::{TICKET, VISIT, WORKSPACE};
use portreeve_model::wire::{decode, encode_bare};
use portreeve_sys::message;

use crate::Held;
use crate::files::late;
use crate::line::next;
use crate::sockets::{PATIENCE, wait};

impl Held {
    pub(crate) fn open(&mut self, path: &str, into: String) -> Result<()> {
        self.by_name.insert(into, File::open(path)?.into());
        Ok(())
    }

    pub(crate) fn send(&self, on: &str, text: &str, with: &[String]) -> Result<()> {
        let with = with.iter().map(|name| self.socket(name)).collect::<Result<Vec<_>>>()?;
        let with: Vec<_> = with.iter().map(|descriptor| descriptor.as_fd()).collect();
        message::send(self.socket(on)?, text.as_bytes(), &with)
    }

    pub(crate) fn receive(&self, name: &str) -> Result<String> {
        match next(self.socket(name)?)? {
            Some((bytes, _)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            None => Ok("closed".to_owned()),
        }
    }

    pub(crate) fn dial(&mut self, channel: &str, to: SocketAddr, into: String) -> Result<String> {
        let id = 7;
        let dial = encode_bare(&Dial { id, to, patience: 5000 }).map_err(Error::other)?;
        let channel = self.socket(channel)?;
        message::send(channel, &dial, &[])?;
        let mut socket = None;
        loop {
            let Some((bytes, mut descriptors)) = next(channel)? else {
                return Err(Error::other("the channel is closed"));
            };
            match decode(&bytes).map_err(Error::other)? {
                Dialed::Connected { .. } => socket = descriptors.pop(),
                Dialed::Failed { errno, .. } => return Err(Error::from_raw_os_error(errno)),
                Dialed::Released { .. } => break,
            }
        }
        let socket = socket.ok_or_else(|| Error::other("no socket came along"))?;
        self.by_name.insert(into, socket);
        Ok("connected".to_owned())
    }

    /// The status of the answer.
    pub(crate) fn workspace(&self, connection: &str, user: &str, ticket: &str) -> Result<String> {
        let socket = self.socket(connection)?;
        let visit = format!(
            r#"{{"user":"{user}","origin":"https://portal","own_origins":null,"shared_origin":null,"modes":{{}},"page_secret":null,"reader":"window"}}"#
        );
        let visit = data_encoding::BASE64URL_NOPAD.encode(visit.as_bytes());
        let body = r#"{"own_port":null,"not_understood":null,"nodes":[]}"#;
        let length = body.len();
        let request = format!(
            "POST {WORKSPACE} HTTP/1.1\r\nhost: worker\r\n{TICKET}: {ticket}\r\n{VISIT}: {visit}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        message::send(socket, request.as_bytes(), &[])?;
        let mut stream = File::from(socket.try_clone()?);
        let (mut said, mut part, started) = (Vec::new(), [0; 4096], Instant::now());
        while started.elapsed() < PATIENCE {
            wait(socket, PATIENCE)?;
            let length = match stream.read(&mut part) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            said.extend(&part[..length]);
            let text = String::from_utf8_lossy(&said);
            if length == 0 {
                return Ok(if text.is_empty() { "closed".to_owned() } else { text.into_owned() });
            }
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let wanted = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                    .unwrap_or_default();
                if body.len() >= wanted {
                    return Ok(head.split(' ').nth(1).unwrap_or_default().to_owned());
                }
            }
        }
        Err(late())
    }
}
