//! One record for every decision: who, what, which connection, whose it is, the verdict, the reason. Written with the
//! log, under the target `audit`.
//!
//! A request that is judged like the one before it on the same connection leaves no second record: the decision is
//! the connection's. A refusal is always written.

use portreeve_model::{Owner, Refusal, Tuple, Why};

use crate::reject::Reject;
use crate::resolve::{Grant, ResolveError, Withdrawn};
use crate::route::What;
use crate::sessions::Session;

/// A judgement of a connection.
pub(crate) fn decided(
    session: &Session,
    grant: &Grant,
    tuple: &Tuple,
    owner: Option<&Owner>,
    judged: &Result<Why, Refusal>,
) {
    let owner = owner.map(|owner| owner.uid);
    let (user, session, Tuple { client, server }) = (&session.user, session.id.as_str(), tuple);
    match judged {
        Ok(why) => tracing::info!(
            target: "audit", %user, session, what = %grant, from = %client, to = %server, owner, verdict = "allow",
            reason = why.code(), "{why}"
        ),
        Err(refusal) => tracing::warn!(
            target: "audit", %user, session, what = %grant, from = %client, to = %server, owner, verdict = "deny",
            reason = refusal.code(), "{refusal}"
        ),
    }
}

/// A place that leads nowhere for this person.
pub(crate) fn unresolved(session: &Session, what: &What, why: &ResolveError) {
    tracing::warn!(
        target: "audit", user = %session.user, session = session.id.as_str(), what = %what.path(), verdict = "deny",
        reason = why.code(), "{why}"
    );
}

/// An application that its visitor may use, but that is not shown to them here and now.
pub(crate) fn not_here(session: &Session, grant: &Grant, why: &Reject) {
    tracing::warn!(
        target: "audit", user = %session.user, session = session.id.as_str(), what = %grant, verdict = "deny",
        reason = why.code(), "{why}"
    );
}

/// Somebody wants another user's application shown beside their own.
pub(crate) fn consented(session: &Session, grant: &Grant, owner: u32) {
    tracing::info!(
        target: "audit", event = "consent", user = %session.user, session = session.id.as_str(), what = %grant, owner
    );
}

/// A tunnel, a long answer or a request that waited for one was ended because its right does not hold any more.
pub(crate) fn ended(session: &Session, grant: &Grant, why: &Withdrawn) {
    tracing::warn!(
        target: "audit", user = %session.user, session = session.id.as_str(), what = %grant, verdict = "end",
        reason = why.code(), "{why}"
    );
}

/// Another user of this machine connected to the portal, and was not answered.
pub(crate) fn stranger(uid: u32, from: std::net::SocketAddr) {
    tracing::warn!(target: "audit", event = "stranger", uid, %from, "not the portal's own user");
}

/// Somebody signed in or out, or tried to.
pub(crate) fn session(
    event: &'static str,
    user: Option<&str>,
    session: Option<&str>,
    from: std::net::SocketAddr,
) {
    let from = std::net::SocketAddr::new(from.ip().to_canonical(), from.port());
    tracing::info!(target: "audit", event, user, session, %from);
}
