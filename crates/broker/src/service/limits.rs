//! Every wait, buffer and queue of the broker, by name.

use std::time::Duration;

/// Connections that portals have taken. One more waits in the portal's queue.
pub(super) const PORTALS: usize = 8;
/// Between two tries to reach the portal's socket: first.
pub(super) const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Between two tries to reach the portal's socket: at most.
pub(super) const RECONNECT_MOST: Duration = Duration::from_secs(5);
/// Between two messages about ended sessions: a portal that hears nothing for five seconds answers nobody.
pub(super) const NEWS: Duration = Duration::from_secs(1);
/// Ended sessions in one message: 64 KiB of them.
pub(super) const NEWS_SESSIONS: usize = 2000;
/// Users all of whose sessions ended, in one message.
pub(super) const NEWS_USERS: usize = 1000;
/// Ended sessions that wait for a portal that does not read; past that it is told all of them again.
pub(super) const NEWS_WAITING: usize = 20_000;
/// So many messages a portal that has not taken its connection can't be sent: past that it has.
pub(super) const UNREAD: u32 = 24;

/// How often it is tried again to write down that sessions ended, which could not be written: the disk was full. In seconds.
pub(super) const WRITE_AGAIN: u32 = 5;

/// Conversations with PAM at once.
pub(super) const CONVERSATIONS: usize = 128;
/// Conversations of browsers that are known, at once: strangers can't take these places.
pub(super) const MARKED_CONVERSATIONS: usize = 128;
/// Conversations at once of one address.
pub(super) const CONVERSATIONS_OF_AN_ADDRESS: usize = 32;
/// A conversation's whole life.
pub(super) const CONVERSATION: Duration = Duration::from_secs(180);
/// What one who may not be served waits, at least, for the same refusal that a wrong password gets; and up to twice that.
pub(super) const NOT_SERVED: Duration = Duration::from_millis(1500);

/// For the spawner, from an order to its answer.
pub(super) const START: Duration = Duration::from_secs(10);
/// For a child, from the end of its channel to its own; then it is ended.
pub(super) const CHILD_ENDS: Duration = Duration::from_secs(5);
/// For the user database, or a file system.
pub(super) const LOOK_UP: Duration = Duration::from_secs(15);
/// Look-ups at once.
pub(super) const LOOK_UPS: usize = 64;
/// Forward files that are read at once, beside the look-ups: signing in waits for none of them.
pub(super) const FORWARD_READS: usize = 32;
/// For PAM's account check.
pub(super) const ACCOUNT_CHECK: Duration = Duration::from_secs(30);
/// Account checks at once.
pub(super) const ACCOUNT_CHECKS: usize = 32;
/// A granted account check is good for so long.
pub(super) const CHECKED: Duration = Duration::from_secs(5 * 60);
/// Groups are good for so long, or for `groups.refresh` if that is shorter: a portal that asks every five minutes gets fresh
/// ones.
pub(super) const GROUPS: Duration = Duration::from_secs(60);
/// That there is no such account is good for so long.
pub(super) const NO_ACCOUNT: Duration = Duration::from_secs(5);
/// A login group is good for so long.
pub(super) const LOGIN_GROUP: Duration = Duration::from_secs(5 * 60);
/// Answers of each sort that are remembered.
pub(super) const REMEMBERED: usize = 8192;
/// Between two answers that an account is gone, before its sessions are ended: a user database that restarts has nobody for
/// a moment.
pub(super) const GONE: Duration = Duration::from_secs(10);

/// Of the children that the spawner has room for, so many are kept free of dialers and workers.
pub(super) const PASSING_CHILDREN: usize = 512;
/// For a dialer or worker, to take one more channel. Past that it hangs, and another one is started.
pub(super) const HAND_OVER: Duration = Duration::from_secs(5);
/// For a dialer or worker, to take what it is handed first: PAM opens a session before a worker begins.
pub(super) const BEGINS: Duration = Duration::from_secs(60);
/// A dialer or worker that lives shorter has died at once.
pub(super) const LIVES: Duration = Duration::from_secs(5);
/// Before one that died at once is started again: first, then twice that each time.
pub(super) const RESTART_FIRST: Duration = Duration::from_secs(1);
/// Before one that died at once is started again: at most.
pub(super) const RESTART_MOST: Duration = Duration::from_secs(60);

/// Sessions that are shown to the sysadmin.
pub(super) const SESSIONS: usize = 64 * 1024;
/// Sign-in codes of one user that are open.
pub(super) const CODES_OF_A_USER: usize = 16;
/// Entry codes of one session that are open.
pub(super) const ENTRIES_OF_A_SESSION: usize = 64;

/// Access tokens of one user, expired ones that are still shown among them.
pub(super) const TOKENS_OF_A_USER: usize = 64;
/// Access tokens of everybody: 4 MiB of them.
pub(super) const TOKENS: usize = 8192;

/// Callers of the login socket at once.
pub(super) const CALLERS: usize = 128;
/// Callers at once of one user.
pub(super) const CALLERS_OF_A_USER: usize = 8;
/// For a caller's question and its answer.
pub(super) const CALLER: Duration = Duration::from_secs(30);
