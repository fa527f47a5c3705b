//! A portal, a visitor who signed in, and the application between which everything happens.

use std::time::Duration;

use super::application::Application;
use super::frames::Frames;
use super::http2::Http2;
use super::soon;
use super::stream::{Message, Wire};
use super::visitor::{Version, Visitor};
use crate::world::{Portal, PortalOptions, SESSION_COOKIE, Secure};

/// All three. Should a test fail, it shows the end of the portal's log.
#[derive(Debug)]
pub struct Rig {
    /// The portal.
    pub portal: Portal,
    /// The application.
    pub app: Application,
    cookie: String,
    user: String,
}

impl Rig {
    /// With a portal as it is by default.
    pub async fn new(app: Application) -> Self {
        Self::with(app, "").await
    }

    /// With a portal of this configuration.
    ///
    /// # Panics
    /// When nobody can sign in.
    pub async fn with(app: Application, config: &str) -> Self {
        let config = (!config.is_empty()).then(|| config.to_owned());
        Self::start(app, PortalOptions { config, ..PortalOptions::default() }).await
    }

    /// With a portal that is started like this.
    ///
    /// # Panics
    /// When nobody can sign in.
    pub async fn start(app: Application, options: PortalOptions) -> Self {
        let portal = Portal::start(options);
        let path =
            portal.sign_in_address().strip_prefix(portal.url()).expect("a sign-in address is the portal's");
        let mut client = portal.stranger();
        let answer = client.get(&format!("/{path}")).await;
        client.take_cookies(&answer);
        let cookie = format!("{SESSION_COOKIE}={}", client.ticket());
        let user =
            nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().expect("we have a name").name;
        Self { portal, app, cookie, user }
    }

    /// Who signed in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The session's cookie, with its name.
    #[must_use]
    pub fn cookie(&self) -> String {
        self.cookie.clone()
    }

    /// `localhost:PORT` of the portal.
    #[must_use]
    pub fn host(&self) -> String {
        format!("localhost:{}", self.portal.port())
    }

    /// Under which path the application appears.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("/fw2/localhost:{}", self.app.port)
    }

    /// A path of the application.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        self.prefix() + rest
    }

    /// The head of a request to the application: `fields` are whole lines.
    #[must_use]
    pub fn head(&self, method: &str, path: &str, fields: &str) -> String {
        let (path, host, cookie) = (self.path(path), self.host(), &self.cookie);
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n{fields}\r\n")
    }

    /// Somebody with the session's cookie, on a connection of their own.
    pub async fn visitor(&self, version: Version) -> Visitor<'_> {
        Visitor::begin(self, version, format!("cookie: {}\r\n", self.cookie)).await
    }

    /// Somebody without it.
    pub async fn stranger(&self, version: Version) -> Visitor<'_> {
        Visitor::begin(self, version, String::new()).await
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn http1(&self) -> Wire<Secure> {
        Wire::new(self.portal.tls(&[b"http/1.1"]).await)
    }

    /// A connection that speaks HTTP/2.
    pub async fn http2(&self) -> Http2 {
        Http2::begin(self.portal.tls(&[b"h2"]).await, 1 << 20, 1 << 20).await
    }

    /// The same with these windows, in bytes, for a stream and for all of them.
    pub async fn http2_with_windows(&self, stream: u32, connection: u32) -> Http2 {
        Http2::begin(self.portal.tls(&[b"h2"]).await, stream, connection).await
    }

    /// A connection for HTTP/2 frames by hand.
    ///
    /// # Panics
    /// When the portal closes at once.
    pub async fn frames(&self) -> Frames<Secure> {
        Frames::begin(self.portal.tls(&[b"h2"]).await).await.expect("the connection is open")
    }

    /// A request to the application over HTTP/2, with the session's cookie.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        self.bare_request(method, &self.path(path)).header("cookie", &self.cookie)
    }

    /// A request to the portal over HTTP/2 without a cookie.
    pub fn bare_request(&self, method: &str, path: &str) -> http::request::Builder {
        http::Request::builder().method(method).uri(format!("https://{}{path}", self.host()))
    }

    /// Sends bytes on a new connection and takes one answer to GET.
    ///
    /// # Panics
    /// When there is none.
    pub async fn ask(&self, request: &str) -> Message {
        let mut client = self.http1().await;
        // The portal may have refused before it has read all; its answer counts.
        let _ = client.send(request).await;
        let method = request.split(' ').next().unwrap_or_default();
        let shown: String = request.chars().take(300).collect();
        let answer = soon(&format!("an answer to {shown:?}"), client.answer_to(method)).await;
        answer.unwrap_or_else(|error| panic!("no answer to {shown:?}: {error}"))
    }

    /// Gets a path of the application on a new connection.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Message {
        self.ask(&self.head("GET", path, "")).await
    }

    /// The status of the portal's own sign of life, on a new connection.
    pub async fn get_health(&self) -> u16 {
        self.ask(&format!("GET /-/health HTTP/1.1\r\nhost: {}\r\n\r\n", self.host())).await.status()
    }

    /// Sends bytes on a new connection, and takes every answer until the portal closes or has nothing more to say. It
    /// is not told that this was all: a client that closes its side has left, in the eyes of many servers.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<Message> {
        const SILENCE: Duration = Duration::from_millis(400);
        let mut client = self.http1().await;
        // The portal may have refused before it has read all.
        let _ = client.send(bytes).await;
        let mut answers = Vec::new();
        while let Ok(Ok(answer)) = tokio::time::timeout(SILENCE, client.answer()).await {
            let last = !answer.complete;
            answers.push(answer);
            if last {
                break;
            }
        }
        answers
    }

    /// Resident memory of the portal, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        self.portal.resident_kib()
    }

    /// The most that it ever had, in KiB.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.portal.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM is there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.portal.stderr();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- the portal's log ends\n{}\n---",
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
    }
}
