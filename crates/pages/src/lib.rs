//! The look that every page of Portreeve shares, whichever process made the page.
//!
//! Invariant: a page is self-contained. It names no other host, loads no second file, and its content security
//! policy admits exactly the stylesheet and the script that are compiled in, by their hashes.

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine, engine::general_purpose::STANDARD};

const STYLE: &str = include_str!("../assets/style.css");
const WAIT_SCRIPT: &str = include_str!("../assets/wait.js");
const LIVE_SCRIPT: &str = include_str!("../assets/live.js");
const FILES_SCRIPT: &str = include_str!("../assets/files.js");
const BROWSE_SCRIPT: &str = include_str!("../assets/browse.js");

/// The `Content-Security-Policy` of every page made here.
pub static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| policy(""));

/// The same for pages whose forms may lead on to these origins as well: an answer that redirects there counts as the form's
/// target. Separated by blanks.
#[must_use]
pub fn policy(origins: &str) -> String {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}' 'sha256-{}' 'sha256-{}' 'sha256-{}'; connect-src 'self'; img-src data:; \
         form-action {}; frame-ancestors 'none'; base-uri 'none'",
        hash(STYLE),
        hash(WAIT_SCRIPT),
        hash(LIVE_SCRIPT),
        hash(FILES_SCRIPT),
        hash(BROWSE_SCRIPT),
        format!("'self' {origins}").trim_end()
    )
}

fn hash(text: &str) -> String {
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}

/// What a page adds to the frame.
#[derive(Debug, Default, Clone, Copy)]
pub struct Frame<'a> {
    /// Shown in the window's title and read first by a screen reader.
    pub title: &'a str,
    /// Name of the signed-in user; with it the page has a *Sign out* button.
    pub user: Option<&'a str>,
    /// The page asks again by itself until the application answers (`assets/wait.js`).
    pub waits: bool,
    /// Which part of the workspace it is; with it the page leads to the others.
    pub section: Option<Section>,
    /// The page changes by itself with what it shows (`assets/live.js`), which asks with this secret of our own pages.
    pub live: Option<&'a str>,
    /// Its form names files (`assets/files.js`), by paths that begin at this directory. Only where it is `live`.
    pub home: Option<&'a str>,
    /// It lists files (`assets/browse.js`). Only where it is `live`.
    pub browses: bool,
    /// Small print under the page: the request id of an error.
    pub footnote: Option<&'a str>,
}

/// A part of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What can be started, and what runs.
    Workspace,
    /// The person's files.
    Files,
    /// The queue.
    Jobs,
    /// All that ever ran.
    History,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Workspace, "/", "Workspace"),
        (Self::Files, "/files", "Files"),
        (Self::Jobs, "/jobs", "Jobs"),
        (Self::History, "/history", "History"),
    ];
}

#[derive(Template)]
#[template(path = "frame.html")]
struct FrameTemplate<'a> {
    frame: Frame<'a>,
    style: &'static str,
    wait_script: &'static str,
    live_script: &'static str,
    files_script: &'static str,
    browse_script: &'static str,
    body: &'a str,
}

impl Frame<'_> {
    /// The whole document around `body`, which must be HTML that was escaped already (an askama template's output).
    ///
    /// # Errors
    /// Only when memory for the text runs out.
    pub fn around(self, body: &str) -> Result<String, askama::Error> {
        let page = FrameTemplate {
            frame: self,
            style: STYLE,
            wait_script: WAIT_SCRIPT,
            live_script: LIVE_SCRIPT,
            files_script: FILES_SCRIPT,
            browse_script: BROWSE_SCRIPT,
            body,
        };
        page.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_all_hashes_and_nothing_unsafe() {
        let policy = &*CONTENT_SECURITY_POLICY;
        assert_eq!(policy.matches("'sha256-").count(), 5);
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn titles_and_names_are_escaped() {
        let frame = Frame { title: "<b>", user: Some("<i>"), ..Frame::default() };
        let page = frame.around("<p>kept</p>").unwrap();
        assert!(page.contains("<p>kept</p>"));
        assert!(!page.contains("<b>") && !page.contains("<i>"));
    }

    #[test]
    fn a_page_names_no_other_host() {
        let page = Frame { title: "t", waits: true, ..Frame::default() }.around("").unwrap();
        assert!(!page.contains("http:") && !page.contains("https:"), "{page}");
    }
}
