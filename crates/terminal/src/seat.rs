//! How far one viewer is: what it was told, what it has shown, and what it is told next.
//!
//! Invariants: a byte of the log is said once, in order, and in its size. Never is more under way than `limits::WINDOW`
//! and one piece. There is no queue: what to say follows from what was said and how things are now, so that a viewer that
//! is slow skips what is no longer so.

use bytes::Bytes;

use crate::limits;
use crate::log::Log;
use crate::message::{ToBrowser, output};
use crate::room::{Facts, Room};
use crate::size::Size;

pub(crate) struct Seat {
    /// Of the next byte. `None` before a snapshot.
    offset: Option<u64>,
    /// What is yet to be said of a picture.
    picture: Bytes,
    under_way: u64,
    greeted: bool,
    size: Option<Size>,
    writer: Option<(bool, bool)>,
    exited: bool,
}

/// A message.
#[derive(Debug)]
pub(crate) enum Next {
    Say(ToBrowser),
    Output(Bytes),
    /// Everything was said, and the connection is to end.
    Close,
}

impl Seat {
    /// For one that has seen the output up to an offset, or nothing of it.
    pub(crate) fn new(seen: Option<u64>, log: &Log) -> Self {
        Self {
            offset: seen.filter(|offset| (log.start()..=log.end()).contains(offset)),
            picture: Bytes::new(),
            under_way: 0,
            greeted: false,
            size: None,
            writer: None,
            exited: false,
        }
    }

    pub(crate) fn next(&mut self, room: &Room, log: &mut Log, facts: Facts) -> Option<Next> {
        let until = log.end();
        if !self.greeted {
            self.greeted = true;
            return Some(Next::Say(ToBrowser::Hello {
                run: room.run.clone(),
                title: room.title.clone(),
                until,
            }));
        }
        if self.writer != Some((facts.you, facts.other)) {
            self.writer = Some((facts.you, facts.other));
            let Facts { you, may, other, .. } = facts;
            return Some(Next::Say(ToBrowser::Writer { you, may, other }));
        }
        if !self.picture.is_empty() {
            return self.piece_of_picture();
        }
        let Some(offset) = self.offset.filter(|offset| *offset >= log.start()) else {
            return Some(Next::Say(self.snapshot(log, until)));
        };
        let size = log.size_at(offset);
        if self.size != Some(size) {
            self.size = Some(size);
            return Some(Next::Say(ToBrowser::Size(size)));
        }
        if offset < until {
            if self.under_way >= limits::WINDOW as u64 {
                return None;
            }
            let piece = log.piece(offset, limits::PIECE)?;
            self.offset = Some(offset + piece.len() as u64);
            self.under_way += piece.len() as u64;
            return Some(Next::Output(output(offset, &piece)));
        }
        let ended = facts.ended.filter(|_| !self.exited)?;
        self.exited = true;
        Some(Next::Say(ToBrowser::Exited(ended)))
    }

    /// Says whether so much was under way.
    pub(crate) fn acknowledge(&mut self, bytes: u64) -> bool {
        let left = self.under_way.checked_sub(bytes);
        self.under_way = left.unwrap_or(0);
        left.is_some()
    }

    /// It was told all there will be.
    pub(crate) fn knows_the_end(&self) -> bool {
        self.exited
    }

    fn snapshot(&mut self, log: &mut Log, until: u64) -> ToBrowser {
        let offset = log.start();
        let size = log.size_at(offset);
        self.offset = Some(offset);
        self.size = Some(size);
        self.picture = log.picture();
        let bytes = self.picture.len() as u64;
        ToBrowser::Snapshot { offset, bytes, until, cols: size.cols, rows: size.rows }
    }

    fn piece_of_picture(&mut self) -> Option<Next> {
        if self.under_way >= limits::WINDOW as u64 {
            return None;
        }
        let piece = self.picture.split_to(self.picture.len().min(limits::PIECE));
        self.under_way += piece.len() as u64;
        Some(Next::Output(output(self.offset.unwrap_or_default(), &piece)))
    }
}
