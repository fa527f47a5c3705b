//! Orders for `portreeve-test-hostile`, the program that takes the portal's place, and what it answers: one JSON value a line.
//! What it holds (sockets that it was given, accepted or made) has a name that the orders use.

use std::net::SocketAddr;

use portreeve_model::wire::broker::{Answer, PublicKey, Question};
use serde::{Deserialize, Serialize};

/// An order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Enters the portal's own sandbox, as the portal does at the end of its start.
    LockUp,
    /// What is open, and to what: `/proc/self/fd`.
    Descriptors,
    /// Makes one of `portreeve_sys::attempts`.
    Attempt(String),
    /// Makes all that come back, one after the other.
    Attempts,
    /// Tries all ways to get at these processes.
    OnProcesses(Vec<u32>),
    /// Tries the way to the process at a socket's other end.
    OnPeer {
        /// The socket.
        socket: String,
    },
    /// Has the kernel send this process a signal when something happens on a pair of sockets.
    SignalByDescriptor {
        /// The process.
        pid: u32,
    },
    /// Uses a path.
    Path {
        /// What for.
        to: Use,
        /// The path.
        path: String,
    },
    /// Looks at all there is, for names with this in it.
    Walk {
        /// Part of a name.
        mark: String,
    },
    /// Says a line on standard error.
    Log(String),
    /// Makes a socket, and lets it go again.
    Socket {
        /// As in socket(2).
        family: i32,
        /// As in socket(2).
        kind: i32,
        /// By socketpair(2).
        pair: bool,
    },
    /// Connects a new unix socket.
    ConnectUnix {
        /// As in socket(2).
        kind: i32,
        /// To where; `@` for what is no file.
        path: String,
    },
    /// Sends from one of a pair of datagram sockets.
    SendUnix {
        /// To where.
        path: String,
    },
    /// Connects or binds a new TCP socket.
    Tcp {
        /// To where.
        to: SocketAddr,
        /// Binds.
        listen: bool,
    },
    /// Accepts a connection.
    Accept {
        /// `https`, `agents`, `broker`.
        listener: String,
        /// The connection's name.
        into: String,
    },
    /// Tries to lead a socket that it holds to another place, or to spoil it.
    Lead {
        /// The socket.
        socket: String,
        /// How.
        how: Lead,
        /// Where to.
        to: SocketAddr,
    },
    /// Opens the network namespace of a socket, to enter it.
    NamespaceOf(String),
    /// Asks the broker, and waits for the answer.
    Ask {
        /// The connection with the broker.
        line: String,
        /// What.
        question: Question,
        /// What comes along.
        with: Vec<String>,
    },
    /// Asks for the login groups of so many uids from this one on, all at once.
    Flood {
        /// The connection with the broker.
        line: String,
        /// The first.
        uid: u32,
        /// How many.
        count: u32,
    },
    /// Makes a pair of unix sockets.
    Pair {
        /// As in socket(2).
        kind: i32,
        /// Their names.
        names: [String; 2],
    },
    /// Opens a file that it can read.
    Open {
        /// The path.
        path: String,
        /// Its name.
        into: String,
    },
    /// Sends a message, or bytes.
    Send {
        /// On what.
        on: String,
        /// What.
        text: String,
        /// What comes along.
        with: Vec<String>,
    },
    /// What comes next, as far as a few seconds are enough. `closed`: nothing any more.
    Receive(String),
    /// Has a dialer connect.
    Dial {
        /// Its channel.
        channel: String,
        /// Where to.
        to: SocketAddr,
        /// The connection's name.
        into: String,
    },
    /// Asks a worker for the workspace's page.
    Workspace {
        /// The connection with it.
        connection: String,
        /// Whose page.
        user: String,
        /// What to show.
        ticket: String,
    },
    /// Closes something.
    Close(String),
}

/// What a path is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// Reads a file, or lists a directory.
    Read,
    /// Opens a file to write in it.
    Write,
    /// Makes a file, and removes it.
    Create,
    /// Makes it its working directory.
    Enter,
}

/// How a socket could be led elsewhere, or spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lead {
    /// connect(2).
    Connect,
    /// The same, after it was taken off its connection with AF_UNSPEC.
    Reconnect,
    /// sendto(2) with MSG_FASTOPEN.
    FastOpen,
    /// sendmsg(2) with MSG_FASTOPEN.
    FastOpenMessage,
    /// sendmmsg(2) with MSG_FASTOPEN.
    FastOpenMessages,
    /// TCP_FASTOPEN_CONNECT, then connect(2) and write(2).
    FastOpenOption,
    /// TCP_FASTOPEN, so that others may send with their first packet.
    FastOpenListen,
    /// sendto(2) with an address, and no flag.
    Addressed,
    /// sendmsg(2) with an address, and no flag.
    AddressedMessage,
    /// TCP_REPAIR: state is made up.
    Repair,
    /// TCP_ULP: another protocol on top.
    Upper,
    /// listen(2).
    Listen,
    /// bind(2).
    Bind,
    /// SO_LOCK_FILTER: what it takes in can't be changed by whoever gets it next.
    Filter,
    /// shutdown(2), both ways: a listener listens no more, for whoever gets it next either.
    ShutDown,
}

impl Lead {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Reconnect,
        Self::FastOpen,
        Self::FastOpenMessage,
        Self::FastOpenMessages,
        Self::FastOpenOption,
        Self::FastOpenListen,
        Self::Addressed,
        Self::AddressedMessage,
        Self::Repair,
        Self::Upper,
        Self::Listen,
        Self::Bind,
        Self::Filter,
        Self::ShutDown,
    ];
}

/// What came of one attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub name: String,
    /// What was gained, or why nothing was.
    pub result: Result<String, Denied>,
}

/// Nothing was gained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The kernel's reason.
    pub errno: Option<i32>,
    /// In words.
    pub why: String,
}

/// What it answers to an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report {
    /// One or several attacks.
    Outcomes(Vec<Outcome>),
    /// What the broker said to `Ask`, and the keys that it told so far on that line. `None`: it has ended the line.
    Answered {
        /// The answer.
        answer: Option<Box<Answer>>,
        /// The keys.
        keys: Vec<PublicKey>,
    },
    /// To `Flood`: how many were answered, and how many of these as too many.
    Flooded {
        /// Answers.
        answered: u32,
        /// That the broker is busy.
        busy: u32,
    },
    /// To `Walk`.
    Walked {
        /// Names with the mark in them.
        marked: Vec<String>,
        /// What could be read, other than programs' libraries.
        readable: Vec<String>,
        /// Directories and files in which something could be written.
        writable: Vec<String>,
        /// How many names there were.
        seen: usize,
    },
}
