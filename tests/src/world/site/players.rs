//! Users' programs on the nodes that connect, listen and send datagrams as a test tells them: see `player.py`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Site;
use crate::world::process::Running;
use crate::world::testbed::pause;

const PLAYER: &str = include_str!("player.py");
/// How long an answer may take: what it asked for has a patience of its own.
const ANSWER: Duration = Duration::from_secs(60);

impl Site {
    /// A user's program on a node. `group`: run by `sg`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn player(&self, node: &str, user: &str, group: Option<&str>) -> Player {
        let run = match group {
            Some(group) => format!("exec sg {group} -c \"exec python3 $file\""),
            None => "exec python3 $file".to_owned(),
        };
        self.player_by(node, user, &run)
    }

    /// The same, by a command that runs `python3 $file`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn player_by(&self, node: &str, user: &str, run: &str) -> Player {
        let file = format!("file=$(mktemp); chmod 644 $file; cat >$file <<'PYTHON'\n{PLAYER}PYTHON\n{run}");
        let player = Player { running: self.start(node, user, &file) };
        let ready = player.running.line(ANSWER);
        assert_eq!(ready.as_deref(), Some("ready"), "{node}: {user}: {}", player.running.stderr());
        player
    }
}

/// Programs of one user on one node. They end with this value.
#[derive(Debug)]
pub struct Player {
    running: Running,
}

/// What came of something, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// A value, or the name of an errno.
    pub said: String,
    /// By the program's own clock.
    pub took: Duration,
}

impl Player {
    /// Does it: an expression over what `player.py` has.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn does(&mut self, expression: &str) -> Outcome {
        self.begins(expression);
        self.ends(expression)
    }

    /// Begins it: [`ends`](Self::ends) has the answer.
    ///
    /// # Panics
    /// When it does not read.
    pub fn begins(&mut self, expression: &str) {
        self.running.say(expression);
    }

    /// The answer to what was begun first.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ends(&mut self, what: &str) -> Outcome {
        let line = self.running.line(ANSWER);
        let line = line.unwrap_or_else(|| panic!("{what}: no answer: {}", self.running.stderr()));
        let (said, took) = line.rsplit_once('\t').unwrap_or_else(|| panic!("{what}: {line:?}"));
        Outcome { said: said.to_owned(), took: Duration::from_millis(took.parse().expect("milliseconds")) }
    }

    /// Does it, and it must come out so.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn must(&mut self, expression: &str, said: &str) -> Duration {
        let outcome = self.does(expression);
        assert_eq!(outcome.said, said, "{expression}");
        outcome.took
    }

    /// Does it again and again until it comes out so.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn until(&mut self, expression: &str, said: &str, patience: Duration) -> Duration {
        let started = Instant::now();
        loop {
            let outcome = self.does(expression);
            if outcome.said == said {
                return started.elapsed();
            }
            assert!(started.elapsed() < patience, "{expression}: not {said} but {outcome:?}");
            pause();
        }
    }

    /// Listens at an address; the port. The socket has the name "l".
    ///
    /// # Panics
    /// When it can't.
    #[track_caller]
    pub fn listens(&mut self, address: &str) -> u16 {
        let outcome = self.does(&format!("listen('l', '{address}')"));
        outcome.said.parse().unwrap_or_else(|_| panic!("{address}: {outcome:?}"))
    }

    /// Has a socket for datagrams at an address; its port. The socket has the name "d".
    ///
    /// # Panics
    /// When it can't.
    #[track_caller]
    pub fn takes_datagrams(&mut self, address: &str) -> u16 {
        let outcome = self.does(&format!("datagrams('d', '{address}')"));
        outcome.said.parse().unwrap_or_else(|_| panic!("{address}: {outcome:?}"))
    }

    /// Connects; what came of it. The socket has the name "c".
    pub fn connects(&mut self, to: (&str, u16)) -> Outcome {
        self.does(&format!("connect('c', '{}', {})", to.0, to.1))
    }

    /// The port that a socket has.
    ///
    /// # Panics
    /// When there is no such socket.
    pub fn port_of(&mut self, name: &str) -> u16 {
        self.does(&format!("port_of('{name}')")).said.parse().expect("a port")
    }

    /// Its process, as the test's machine counts; it ends when its input does.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }
}

/// As `portreeve why` writes an end.
#[must_use]
pub fn end(address: &str, port: u16) -> String {
    SocketAddr::new(address.parse().expect("an address"), port).to_string()
}
