//! The site with the attacker in the portal's place: `portreeve-test-hostile`, started by systemd with the portal's own unit.
//!
//! Invariant: however a test ends, the portal is back, and was waited for, before the next one begins.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use portreeve_model::wire::broker::{Answer, PublicKey, Question};
use portreeve_model::{Claims, Secret, UserName};

use super::site::{PROGRAMS, Site};
use crate::hostile::{Denied, Lead, Order, Outcome, Report};

/// Where the portal's program is.
const PORTAL: &str = "/usr/libexec/portreeve/portreeve-portal";
/// How long something that happens at once may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// The site while it is the attacker's.
pub struct Taken<'s> {
    site: &'s Site,
    orders: RefCell<BufReader<UnixStream>>,
    _alone: super::site::Alone<'s>,
}

impl Site {
    /// Puts the attacker in the portal's place.
    ///
    /// # Panics
    /// When it does not begin.
    pub fn taken_over(&self) -> Taken<'_> {
        let alone = self.alone();
        self.root("login", &format!("while mountpoint -q {PORTAL}; do umount -l {PORTAL}; done"));
        self.root("login", &format!("mount --bind {PROGRAMS}/portreeve-test-hostile {PORTAL}"));
        let taken = Taken { site: self, orders: RefCell::new(self.begun_anew(None)), _alone: alone };
        // Nobody is signed in.
        taken.site.root("login", "for user in alice bob carol; do portreeve revoke $user; done");
        taken
    }

    fn main_process(&self, unit: &str) -> u32 {
        self.root("login", &format!("systemctl show --property MainPID --value {unit}"))
            .parse()
            .expect("a pid")
    }

    /// Waits until the attacker answers, as another process than `before`.
    fn begun_anew(&self, before: Option<u32>) -> BufReader<UnixStream> {
        if before.is_none() {
            self.root(
                "login",
                "systemctl kill --signal=KILL portreeve-portal || systemctl start portreeve-portal",
            );
        }
        let path = format!("/proc/{}/root/run/portreeve/metrics.sock", self.pid("login"));
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "the attacker does not begin");
            std::thread::park_timeout(Duration::from_millis(50));
            let pid = self.main_process("portreeve-portal");
            let program = self.shell("login", "root", &format!("readlink /proc/{pid}/exe")).out;
            if !program.contains("hostile") && !program.contains("portreeve-portal") || before == Some(pid) {
                continue;
            }
            let Ok(stream) = UnixStream::connect(&path) else { continue };
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
            let mut orders = BufReader::new(stream);
            // The portal itself would answer otherwise, or not at all.
            if let Ok(Report::Outcomes(_)) = told(&mut orders, &Order::Close("nothing".to_owned())) {
                return orders;
            }
        }
    }
}

fn told(orders: &mut BufReader<UnixStream>, order: &Order) -> std::io::Result<Report> {
    let mut line = serde_json::to_string(order)?;
    line.push('\n');
    orders.get_mut().write_all(line.as_bytes())?;
    let mut said = String::new();
    orders.read_line(&mut said)?;
    Ok(serde_json::from_str(&said)?)
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let _ = self.site.shell("login", "root", &format!("umount -l {PORTAL}"));
        self.site.give_back_portal();
    }
}

impl Taken<'_> {
    /// Gives an order.
    ///
    /// # Panics
    /// When the attacker is gone.
    pub fn tell(&self, order: &Order) -> Report {
        told(&mut self.orders.borrow_mut(), order).unwrap_or_else(|error| panic!("{order:?}: {error}"))
    }

    /// Several attacks.
    ///
    /// # Panics
    /// When the order makes none.
    pub fn all(&self, order: &Order) -> Vec<Outcome> {
        match self.tell(order) {
            Report::Outcomes(outcomes) => outcomes,
            other => panic!("{order:?}: {other:?}"),
        }
    }

    /// One attack.
    ///
    /// # Errors
    /// When it was denied.
    ///
    /// # Panics
    /// When the order makes another number of them.
    pub fn try_to(&self, order: &Order) -> Result<String, Denied> {
        let [outcome] = <[Outcome; 1]>::try_from(self.all(order)).expect("one attack");
        outcome.result
    }

    /// What is no attack.
    ///
    /// # Panics
    /// When it fails.
    pub fn done(&self, order: &Order) -> String {
        self.try_to(order).unwrap_or_else(|denied| panic!("{order:?}: {denied:?}"))
    }

    /// Makes an attack that ends the attacker, and waits until systemd has started it again. Says how it ended, in systemd's words;
    /// or what it gained.
    ///
    /// # Panics
    /// When it does neither.
    pub fn fatal(&self, order: &Order) -> Result<String, String> {
        let before = self.site.main_process("portreeve-portal");
        let mut orders = self.orders.borrow_mut();
        match told(&mut orders, order) {
            Ok(report) => Err(format!("{report:?}")),
            Err(_) => {
                *orders = self.site.begun_anew(Some(before));
                let said = "journalctl --no-pager --output cat _PID=1 UNIT=portreeve-portal.service | grep exited | tail -n 1";
                Ok(self.site.root("login", said))
            }
        }
    }

    /// Asks the broker; `None` when it ended the line.
    ///
    /// # Panics
    /// When the attacker is gone.
    pub fn ask_with(
        &self,
        line: &str,
        question: Question,
        with: &[&str],
    ) -> (Option<Answer>, Vec<PublicKey>) {
        let with = with.iter().map(|name| (*name).to_owned()).collect();
        match self.tell(&Order::Ask { line: line.to_owned(), question, with }) {
            Report::Answered { answer, keys } => (answer.map(|answer| *answer), keys),
            other => panic!("{other:?}"),
        }
    }

    /// Asks on the line called `line`.
    ///
    /// # Panics
    /// When the broker ends it.
    pub fn ask(&self, question: Question) -> Answer {
        self.ask_with("line", question, &[]).0.expect("the broker answers")
    }

    /// Takes the broker's connection that waits, as `into`.
    pub fn take_line(&self, into: &str) {
        self.done(&Order::Accept { listener: "broker".to_owned(), into: into.to_owned() });
    }

    /// Somebody signs in while the attacker has the portal.
    ///
    /// # Panics
    /// When the broker does not let them.
    pub fn sign_in(&self, user: &str) -> (Claims, Secret) {
        let from = "192.0.2.1".parse().expect("an address");
        let begin = Question::Begin { user: UserName::parse(user).expect("a name"), from, mark: None };
        let Answer::Prompts { conversation, .. } = self.ask(begin) else {
            panic!("{user} is not asked for a password")
        };
        let answers = vec![Secret::new(format!("{user}-password"))];
        match self.ask(Question::Reply { conversation, answers }) {
            Answer::SignedIn { claims, ticket, .. } => (*claims, ticket),
            other => panic!("{user}: {other:?}"),
        }
    }

    /// Makes a pair of sockets of this kind, called `name` and `name-there`.
    pub fn pair(&self, kind: i32, name: &str) {
        self.done(&Order::Pair { kind, names: [name.to_owned(), format!("{name}-there")] });
    }

    /// Tries to lead a socket somewhere in every way; what came of each.
    pub fn lead_everywhere(
        &self,
        socket: &str,
        to: std::net::SocketAddr,
    ) -> Vec<(Lead, Result<String, Denied>)> {
        let lead = |how| Order::Lead { socket: socket.to_owned(), how, to };
        Lead::ALL.map(|how| (how, self.try_to(&lead(how)))).into()
    }
}
