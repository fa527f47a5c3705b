//! A terminal, and a browser as its page would be.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use portreeve_terminal::{Settings, Stop, Terminal, TerminalError, Token};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What is kept of the output, in bytes: more than a server keeps.
const SEEN: usize = 16 * 1024 * 1024;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal in a thread of its own.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) stop: Stop,
    running: JoinHandle<Result<ExitStatus, TerminalError>>,
}

pub(crate) fn settings(script: &str) -> Settings {
    let program = ["sh", "-c", script].map(Into::into).to_vec();
    let mut settings = Settings::new(program, ([127, 0, 0, 1], 0).into(), Token::parse(TOKEN).unwrap());
    settings.owner = Some("alice".to_owned());
    settings.title = "a test".to_owned();
    settings
}

impl Server {
    pub(crate) fn of(script: &str) -> Self {
        Self::with(settings(script))
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let terminal = Terminal::bind(settings).unwrap();
        let (port, stop) = (terminal.address().port(), terminal.stopper());
        Self { port, stop, running: std::thread::spawn(move || terminal.run()) }
    }

    pub(crate) async fn browser(&self) -> Browser {
        Browser::attach(self.port, &[], json!({"cols": 80, "rows": 24})).await
    }

    pub(crate) async fn browser_of(&self, user: &str) -> Browser {
        Browser::attach(self.port, &[("x-forwarded-user", user)], json!({"cols": 80, "rows": 24})).await
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> ExitStatus {
        let joined = tokio::task::spawn_blocking(move || self.running.join().unwrap());
        timeout(PATIENCE, joined).await.expect("the terminal does not end").unwrap().unwrap()
    }
}

/// The whole answer to a request that ends with its connection.
pub(crate) async fn asked(port: u16, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A browser that shows the terminal.
pub(crate) struct Browser {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) run: String,
    /// Of the next byte.
    pub(crate) offset: u64,
    /// What it was sent, without pictures.
    pub(crate) seen: Vec<u8>,
    pub(crate) screen: vt100::Parser,
    /// Every message in JSON.
    pub(crate) said: Vec<Value>,
    pub(crate) closed: Option<CloseFrame>,
    /// Bytes of a picture that are yet to come.
    picture: u64,
    acknowledges: bool,
}

pub(crate) fn request(port: u16, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = format!("ws://127.0.0.1:{port}/ws").into_client_request().unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

impl Browser {
    /// Connects and says nothing.
    pub(crate) async fn connect(port: u16, fields: &[(&str, &str)]) -> Result<Self, Error> {
        let cookie = format!("portreeve-terminal-{port}={TOKEN}");
        let origin = format!("http://127.0.0.1:{port}");
        let ours = [("cookie", cookie.as_str()), ("origin", origin.as_str())];
        let (socket, _) = connect_async(request(port, &[&ours, fields].concat())).await?;
        Ok(Self {
            socket,
            run: String::new(),
            offset: 0,
            seen: Vec::new(),
            screen: vt100::Parser::new(24, 80, 0),
            said: Vec::new(),
            closed: None,
            picture: 0,
            acknowledges: true,
        })
    }

    pub(crate) async fn attach(port: u16, fields: &[(&str, &str)], mut how: Value) -> Self {
        let mut browser = Self::connect(port, fields).await.unwrap();
        how["type"] = "attach".into();
        browser.say(how).await;
        browser
    }

    /// One that says nothing of what it has shown.
    pub(crate) fn lazy(mut self) -> Self {
        self.acknowledges = false;
        self
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    pub(crate) async fn type_in(&mut self, text: impl AsRef<[u8]>) {
        self.socket.send(Message::Binary(text.as_ref().to_vec().into())).await.unwrap();
    }

    /// Reads until it is so.
    pub(crate) async fn until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let reading = async {
            while !so(self) && self.read().await {}
            so(self)
        };
        match timeout(PATIENCE, reading).await {
            Ok(true) => {}
            end => panic!(
                "never {what} ({end:?}); said {:?}, closed {:?}, screen:\n{}",
                self.said,
                self.closed,
                self.screen.screen().contents()
            ),
        }
    }

    pub(crate) async fn until_shown(&mut self, text: &str) {
        self.until(text, |browser| browser.shows(text)).await;
    }

    pub(crate) fn shows(&self, text: &str) -> bool {
        self.screen.screen().contents().contains(text)
    }

    pub(crate) async fn until_exited(&mut self) {
        self.until("exited", |browser| browser.last("exited").is_some()).await;
    }

    /// Reads until the server closes the connection; says why it did.
    pub(crate) async fn until_closed(&mut self) -> (u16, String) {
        let reading = async { while self.read().await {} };
        timeout(PATIENCE, reading).await.expect("never closed");
        let frame = self.closed.as_ref().expect("closed without a word");
        (frame.code.into(), frame.reason.to_string())
    }

    /// The last message of a kind.
    pub(crate) fn last(&self, kind: &str) -> Option<&Value> {
        self.said.iter().rev().find(|message| message["type"] == kind)
    }

    pub(crate) fn types(&self) -> bool {
        self.last("writer").is_some_and(|writer| writer["you"] == true)
    }

    /// Takes one message. Says whether there may be another.
    async fn read(&mut self) -> bool {
        match self.socket.next().await {
            None | Some(Err(_)) => return false,
            Some(Ok(Message::Text(text))) => self.hear(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Binary(frame))) => {
                let (offset, bytes) = frame.split_at(8);
                let offset = u64::from_be_bytes(offset.try_into().unwrap());
                assert!(bytes.len() <= 64 * 1024);
                assert_eq!(offset, self.offset, "a gap");
                self.screen.process(bytes);
                let count = bytes.len() as u64;
                if self.picture > 0 {
                    self.picture -= count;
                } else {
                    if self.seen.len() < SEEN {
                        self.seen.extend_from_slice(bytes);
                    }
                    self.offset += count;
                }
                if self.acknowledges {
                    let ack = json!({"type": "ack", "bytes": count}).to_string();
                    // The server may have gone.
                    let _ = self.socket.send(Message::text(ack)).await;
                }
            }
            Some(Ok(Message::Close(frame))) => {
                self.closed = frame;
                return false;
            }
            Some(Ok(_)) => {}
        }
        true
    }

    fn hear(&mut self, message: Value) {
        let size = |message: &Value| {
            let number = |name: &str| u16::try_from(message[name].as_u64().unwrap()).unwrap();
            // The parser can't have fewer rows.
            (number("rows").max(2), number("cols"))
        };
        match message["type"].as_str().unwrap() {
            "hello" => self.run = message["run"].as_str().unwrap().to_owned(),
            "snapshot" => {
                let (rows, cols) = size(&message);
                self.screen = vt100::Parser::new(rows, cols, 0);
                self.offset = message["offset"].as_u64().unwrap();
                self.picture = message["bytes"].as_u64().unwrap();
                self.seen.clear();
            }
            "size" => {
                let (rows, cols) = size(&message);
                self.screen.screen_mut().set_size(rows, cols);
            }
            _ => {}
        }
        self.said.push(message);
    }
}

/// A terminal in a process of its own.
pub(crate) struct Process {
    pub(crate) child: tokio::process::Child,
    pub(crate) port: u16,
}

const SCRIPT: &str = "PORTREEVE_TEST_SCRIPT";

impl Process {
    pub(crate) async fn of(script: &str) -> Self {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "world::in_a_process", "--ignored", "--nocapture"])
            .env(SCRIPT, script)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = timeout(PATIENCE, async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it says where it listens");
                if let Some((_, port)) = line.split_once("the port is ") {
                    return port.parse().unwrap();
                }
            }
        });
        Self { port: port.await.unwrap(), child }
    }

    /// The most memory that it ever had, in kB.
    pub(crate) fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) async fn code(mut self) -> i32 {
        timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap().code().unwrap()
    }
}

#[test]
#[ignore = "not a test: the process that other tests start"]
fn in_a_process() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    let terminal = Terminal::bind(settings(&script)).unwrap();
    println!("\nthe port is {}", terminal.address().port());
    let ended = terminal.run().unwrap();
    std::process::exit(ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap()));
}
