//! Plays a browser or a program that asks the portal, with a jar of cookies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::PATIENCE;
use super::link::{self, Link, SendBody};
use super::tls::Secure;

/// A WebSocket through the portal.
pub type WebSocket = tokio_tungstenite::WebSocketStream<Secure>;

/// A connection through the portal that speaks another protocol now.
pub type Tunnel = TokioIo<Upgraded>;

/// The name of the session's cookie.
pub const SESSION_COOKIE: &str = "__Host-portreeve";

/// Where a code is given in.
#[must_use]
pub fn enter(code: &str) -> String {
    format!("/-/enter?code={code}")
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header field as text, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Where a redirect leads.
    pub fn location(&self) -> &str {
        self.header(LOCATION.as_str())
    }

    /// The short name of the portal's refusal, empty when the answer is not the portal's.
    pub fn error(&self) -> &str {
        self.header("x-portreeve-error")
    }

    /// The cookie of this name that the answer sets, with its attributes.
    pub fn set_cookie(&self, name: &str) -> Option<String> {
        let start = format!("{name}=");
        let lines = self.headers.get_all(SET_COOKIE).iter();
        lines.filter_map(|line| line.to_str().ok()).find(|line| line.starts_with(&start)).map(str::to_owned)
    }

    /// Panics unless it is the portal's refusal of this status and short name.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.error()), (status, code), "{self:?}");
        assert!(!self.header("x-request-id").is_empty(), "a refusal has a request id: {self:?}");
    }

    /// Panics unless the status is this one.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn assert_status(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
    }
}

/// Who asks. Cheap to clone; a clone has its own cookies from then on.
#[derive(Debug, Clone)]
pub struct Client {
    address: IpAddr,
    port: u16,
    host: String,
    version: Version,
    cookies: Vec<(String, String)>,
    headers: HeaderMap,
}

impl Client {
    /// Somebody without cookies, at `https://localhost:PORT`.
    pub fn new(port: u16) -> Self {
        let (host, version) = ("localhost".into(), Version::HTTP_11);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { address, port, host, version, cookies: Vec::new(), headers: HeaderMap::new() }
    }

    /// The same towards a portal at another address.
    #[must_use]
    pub fn towards(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// The same over HTTP/2.
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// The same at another host name, which must lead to the loopback.
    #[must_use]
    pub fn at(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// The same, without any cookie.
    #[must_use]
    pub fn without_cookies(mut self) -> Self {
        self.cookies.clear();
        self
    }

    /// The same with a header field on every request.
    ///
    /// # Panics
    /// When it is no header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a field's name");
        self.headers.insert(name, HeaderValue::try_from(value).expect("a field's value"));
        self
    }

    /// The same as a browser that opens a page in its window.
    #[must_use]
    pub fn browser(self) -> Self {
        self.with("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .with("sec-fetch-mode", "navigate")
            .with("sec-fetch-dest", "document")
            .with("sec-fetch-site", "none")
    }

    /// The same as something other than a browser's window.
    #[must_use]
    pub fn program(mut self) -> Self {
        for name in ["accept", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-site"] {
            self.headers.remove(name);
        }
        self
    }

    /// `localhost:8443`: the host as a browser sends it.
    pub fn authority(&self) -> String {
        if self.port == 443 {
            return self.host.clone();
        }
        format!("{}:{}", self.host, self.port)
    }

    /// `https://localhost:8443`
    pub fn origin(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The session's ticket.
    ///
    /// # Panics
    /// When there is none.
    pub fn ticket(&self) -> &str {
        self.cookie(SESSION_COOKIE).expect("signed in")
    }

    /// Whether the portal takes it for somebody who has signed in.
    ///
    /// # Panics
    /// When it answers neither as to such a one nor as to a stranger.
    pub async fn is_signed_in(&self) -> bool {
        let answer = self.get("/").await;
        assert!(matches!(answer.status.as_u16(), 200 | 303 | 401), "{answer:?}");
        answer.status == 200
    }

    /// Sets a cookie.
    pub fn set_cookie(&mut self, name: &str, value: &str) {
        self.cookies.retain(|(known, _)| known != name);
        self.cookies.push((name.into(), value.into()));
    }

    /// Takes the cookies that an answer sets, and drops those that it removes.
    pub fn take_cookies(&mut self, answer: &Answer) {
        for line in answer.headers.get_all(SET_COOKIE) {
            let line = line.to_str().unwrap_or_default();
            let Some((name, value)) = line.split(';').next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            self.cookies.retain(|(known, _)| known != name);
            if !line.to_ascii_lowercase().contains("max-age=0") {
                self.cookies.push((name.into(), value.into()));
            }
        }
    }

    /// A request with this client's host, cookies and header fields.
    ///
    /// # Panics
    /// When method or path are malformed.
    pub fn prepare(&self, method: &str, path: &str) -> Request<()> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let uri =
            if self.version == Version::HTTP_2 { format!("{}{path}", self.origin()) } else { path.into() };
        let mut request = Request::builder().method(method).uri(uri).version(self.version);
        if self.version != Version::HTTP_2 {
            request = request.header(HOST, self.authority());
        }
        if !self.cookies.is_empty() {
            request = request.header(COOKIE, self.cookie_line());
        }
        let mut request = request.body(()).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        request.headers_mut().extend(self.headers.clone());
        request
    }

    /// The Cookie header's value.
    pub fn cookie_line(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// A connection of its own.
    ///
    /// # Panics
    /// When there is none.
    pub async fn link(&self) -> Link {
        Link::open(SocketAddr::new(self.address, self.port), &self.host, self.version)
            .await
            .expect("the portal takes a connection")
    }

    /// Sends a request on a fresh connection and waits for the answer's head.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn send(&self, request: Request<SendBody>) -> Response<Incoming> {
        let shown = format!("{} {}", request.method(), request.uri());
        let mut link = self.link().await;
        let answer = tokio::time::timeout(PATIENCE, link.send(request)).await;
        answer
            .unwrap_or_else(|_| panic!("{shown}: no answer"))
            .unwrap_or_else(|error| panic!("{shown}: {error:?}"))
    }

    /// Sends a request on this connection; the whole answer.
    ///
    /// # Errors
    /// When the connection breaks before.
    ///
    /// # Panics
    /// When no answer comes in time.
    pub async fn ask_on(&self, link: &mut Link, request: Request<()>) -> hyper::Result<Answer> {
        let shown = format!("{} {}", request.method(), request.uri());
        let (parts, ()) = request.into_parts();
        let sent = link.send(Request::from_parts(parts, Full::default().boxed()));
        let answer = tokio::time::timeout(PATIENCE, sent).await;
        Ok(whole(answer.unwrap_or_else(|_| panic!("{shown}: no answer"))?).await)
    }

    /// GET on a fresh connection; the whole answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(self.prepare("GET", path), "").await
    }

    /// GET on a connection that is open already, to the same thread of the portal; the whole answer.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn get_on(&self, link: &mut Link, path: &str) -> Answer {
        let request = self.prepare("GET", path).map(|()| Full::default().boxed());
        let answer = tokio::time::timeout(PATIENCE, link.send(request)).await;
        whole(answer.expect("an answer").unwrap_or_else(|error| panic!("{path}: {error:?}"))).await
    }

    /// GET on a fresh connection, where there may be no answer.
    ///
    /// # Errors
    /// What went wrong, or that it took longer than `patience`.
    pub async fn try_get(&self, path: &str, patience: Duration) -> Result<Answer, String> {
        let (parts, ()) = self.prepare("GET", path).into_parts();
        self.try_request(Request::from_parts(parts, Full::default().boxed()), patience).await
    }

    async fn try_request(&self, request: Request<SendBody>, patience: Duration) -> Result<Answer, String> {
        let asked = async {
            let at = SocketAddr::new(self.address, self.port);
            let link = Link::open(at, &self.host, self.version).await;
            let mut link = link.map_err(|error| format!("no connection: {error}"))?;
            let response = link.send(request).await;
            let (parts, body) = response.map_err(|error| format!("no answer: {error}"))?.into_parts();
            let read = body.collect().await.map_err(|error| format!("cut off: {error}"))?;
            let trailers = read.trailers().cloned();
            Ok(Answer { status: parts.status, headers: parts.headers, body: read.to_bytes(), trailers })
        };
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err("nothing in time".to_owned()))
    }

    /// POST of a form on a fresh connection.
    pub async fn post(&self, path: &str, form: &str) -> Answer {
        let mut request = self.prepare("POST", path);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        self.request(request, form.to_owned()).await
    }

    /// The same, where the answer may take so long.
    ///
    /// # Panics
    /// When there is none within `patience`.
    pub async fn post_in(&self, patience: Duration, path: &str, form: &str) -> Answer {
        let mut request = self.prepare("POST", path);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        let (parts, ()) = request.into_parts();
        let body = Full::new(Bytes::from(form.to_owned())).boxed();
        let answer = self.try_request(Request::from_parts(parts, body), patience).await;
        answer.unwrap_or_else(|why| panic!("POST {path}: {why}"))
    }

    /// Any request with a body on a fresh connection; the whole answer.
    pub async fn request(&self, request: Request<()>, body: impl Into<Bytes>) -> Answer {
        let (parts, ()) = request.into_parts();
        let response = self.send(Request::from_parts(parts, Full::new(body.into()).boxed())).await;
        whole(response).await
    }

    /// Asks the workspace's API, with JSON unless it is null.
    pub async fn api(&self, method: &str, path: &str, body: serde_json::Value) -> Answer {
        let mut request = self.prepare(method, &format!("/api/v1/{path}"));
        if body.is_null() {
            return self.request(request, Bytes::new()).await;
        }
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        self.request(request, body.to_string()).await
    }

    /// GET of something that goes on; the body is for the caller to read.
    pub async fn stream(&self, path: &str) -> Response<Incoming> {
        let (parts, ()) = self.prepare("GET", path).into_parts();
        self.send(Request::from_parts(parts, Full::default().boxed())).await
    }

    /// Opens a WebSocket (RFC 6455) with this client's cookies and its own Origin.
    ///
    /// # Errors
    /// The portal's answer when it does not change protocols.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn websocket(&self, path: &str) -> Result<WebSocket, Response<Option<Vec<u8>>>> {
        let mut request =
            format!("wss://{}{path}", self.authority()).into_client_request().expect("an address");
        let headers = request.headers_mut();
        headers.insert("origin", HeaderValue::try_from(self.origin()).expect("an origin"));
        headers.extend(self.headers.clone());
        if !self.cookies.is_empty() {
            headers.insert(COOKIE, HeaderValue::try_from(self.cookie_line()).expect("cookies"));
        }
        let stream = link::secure(SocketAddr::new(self.address, self.port), &self.host, &[b"http/1.1"])
            .await
            .expect("a TLS connection");
        let opened = tokio::time::timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await;
        match opened.expect("an answer to the WebSocket's request") {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(*response),
            Err(error) => panic!("WebSocket: {error:?}"),
        }
    }

    /// The certificate that the portal shows.
    ///
    /// # Panics
    /// When it takes no connection.
    pub async fn certificate(&self) -> Vec<u8> {
        let at = SocketAddr::new(self.address, self.port);
        let stream = link::secure(at, &self.host, &[b"http/1.1"]).await.expect("a TLS connection");
        stream.get_ref().1.peer_certificates().expect("it shows one")[0].to_vec()
    }

    /// Asks for a change to this protocol: the tunnel, or the answer that has none.
    ///
    /// # Errors
    /// The answer.
    ///
    /// # Panics
    /// When there is neither.
    pub async fn tunnel(&self, path: &str, protocol: &str) -> Result<Tunnel, Answer> {
        let asks = self.clone().with("connection", "upgrade").with("upgrade", protocol);
        let response = asks.stream(path).await;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(whole(response).await);
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await.expect("the connection changes hands")))
    }

    /// The browser of this person, who signed in at the portal, in an application's own origin: it asks there, is sent
    /// to the portal, and comes back with a code.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn enter(&self, host: &str) -> Self {
        self.enter_by(host, "/").await
    }

    /// The same by way of this path.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn enter_by(&self, host: &str, path: &str) -> Self {
        let home = self.clone().browser();
        let mut there = Self::new(self.port).towards(self.address).at(host).browser();
        let sent = there.get(path).await;
        there.take_cookies(&sent);
        let to_portal = sent.location().strip_prefix(&home.origin());
        let opened = home.get(to_portal.unwrap_or_else(|| panic!("not sent to the portal: {sent:?}"))).await;
        let back = opened.location().strip_prefix(&there.origin());
        let entered = there.get(back.unwrap_or_else(|| panic!("not sent back: {opened:?}"))).await;
        entered.assert_status(303);
        there.take_cookies(&entered);
        there
    }
}

/// Reads an answer to its end.
///
/// # Panics
/// When it breaks off or does not end in time.
pub(super) async fn whole(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let read = tokio::time::timeout(PATIENCE, body.collect()).await;
    let read = read.unwrap_or_else(|_| panic!("the body does not end: {parts:?}"));
    let read = read.unwrap_or_else(|error| panic!("the body broke off: {error:?}; {parts:?}"));
    let trailers = read.trailers().cloned();
    Answer { status: parts.status, headers: parts.headers, body: read.to_bytes(), trailers }
}
