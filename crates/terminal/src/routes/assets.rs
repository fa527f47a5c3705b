//! `GET /assets/...`: what the page is made of, compiled in.
//!
//! Invariant: a file's address holds its hash, so that a browser that has it never asks again, and one that has another
//! version never takes it for this one.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;

use crate::access::Admitted;
use crate::respond::{self, Answer, Refused};

pub(super) struct File {
    pub(super) name: &'static str,
    content: &'static [u8],
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(File { name: $name, content: include_bytes!(concat!("../../assets/", $name)) }),*]
    };
}

/// All of them, in the order in which the page takes them.
pub(super) static ALL: &[File] = files![
    "vendor/xterm.css",
    "terminal.css",
    "vendor/xterm.js",
    "vendor/addon-fit.js",
    "vendor/addon-search.js",
    "vendor/addon-unicode11.js",
    "vendor/addon-web-links.js",
    "link.js",
    "screen.js",
    "files.js",
    "terminal.js",
];

/// Their addresses below `assets/`.
static ADDRESSES: LazyLock<Vec<String>> = LazyLock::new(|| ALL.iter().map(hashed).collect());

fn hashed(file: &File) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.content);
    let hash = HEXLOWER.encode(digest.as_ref().get(..8).unwrap_or_default());
    let name = file.name.rsplit('/').next().unwrap_or(file.name);
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    format!("{stem}.{hash}.{kind}")
}

/// As the page names it.
pub(super) fn address(file: &File) -> String {
    format!("assets/{}", hashed(file))
}

pub(super) fn asset(_: &Admitted, name: &str) -> Result<Answer, Refused> {
    let known = ALL.iter().zip(&*ADDRESSES).find(|(_, address)| *address == name);
    let (file, _) = known.ok_or(Refused::NotFound)?;
    let kind = if file.name.ends_with(".css") {
        "text/css; charset=utf-8"
    } else {
        "text/javascript; charset=utf-8"
    };
    Ok(respond::asset(kind, file.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendored_files_are_the_published_ones() {
        let listed = include_str!("../../assets/vendor/VENDORED.md");
        let vendored: Vec<&File> = ALL.iter().filter(|file| file.name.starts_with("vendor/")).collect();
        for file in &vendored {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.content);
            let hash = HEXLOWER.encode(digest.as_ref());
            let name = file.name.trim_start_matches("vendor/");
            let line = listed.lines().find(|line| line.contains(&format!("`{name}`"))).unwrap();
            assert!(line.contains(&hash), "{name} is {hash}: {line}");
        }
        let there = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/vendor")).unwrap().count();
        assert_eq!(there, vendored.len() + 1, "a file that nobody serves");
    }
}
