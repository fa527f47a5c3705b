//! Why a request gets no answer from an application, and what its person is told: status, code, what happened, what
//! to do. One table, so that the pages speak with one voice. `respond` makes pages of it.

mod application;
mod place;
mod remedy;

use http::StatusCode;
use portreeve_broker::CodeError;
use portreeve_model::wire::broker::BadToken;
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::{Refusal, Scope, Unowned};

use self::application::{connect_text, forward_text};
use self::place::resolve_text;
pub(crate) use self::remedy::Form;
use crate::authenticate::Unauthenticated;
use crate::connect::ConnectError;
use crate::forward::ForwardError;
use crate::powers::{PowerError, StateDir, WorkerError};
use crate::resolve::ResolveError;
use crate::route::RouteError;
use crate::site::SiteError;

/// Why a request gets no answer from an application.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reject {
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("a code was refused")]
    Code(#[from] CodeError),
    #[error(transparent)]
    Token(BadToken),
    #[error("the access token is not for this: it lacks the scope {0}")]
    Scope(Scope),
    #[error("pages are for people, not for access tokens")]
    ForPeople,
    #[error(transparent)]
    Account(PamRefusal),
    #[error("too many tries, or too many people at once: {0} s to wait")]
    Wait(u32),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("nobody who could do it answers")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The browser is sent to the application's own origin.
    #[error("the application has an origin of its own")]
    Elsewhere(String),
    /// Somebody else's application, which is not shown here. `has_origins`: there are addresses where it would be.
    #[error("somebody else's application can't share the portal's address")]
    ForeignHere { has_origins: bool },
    /// The browser gets a service worker that ends itself, in the place of one that it has or wants to have.
    #[error("an application that shares its origin, or is somebody else's, has no service worker")]
    NoServiceWorker,
    /// A page of another origin asked with this visitor's cookie.
    #[error("the request comes from another site's page")]
    CrossSite,
    /// Something in a page wants to have what is for a person to see.
    #[error("the request comes from inside of a page, which may be an application's")]
    ForWindows,
    #[error("too many requests at once")]
    TooMany,
    #[error("too many wrong codes")]
    TooManyCodes,
    #[error("the request can't be understood: {0}")]
    BadRequest(&'static str),
    #[error("its body is longer than a mebibyte")]
    TooLarge,
    #[error("its body did not come in time")]
    Late,
    #[error("the application did not complete the change of protocol")]
    NoWebSocket,
    #[error("only WebSockets are carried over HTTP/2")]
    UnknownProtocol,
    #[error("this method is not for this address")]
    Method(&'static str),
    #[error("a sign-out is in force, but a restart would undo it")]
    SignOutNotKept(#[source] PowerError),
    #[error("the portal failed")]
    Internal(#[source] Box<dyn std::error::Error>),
}

/// What is said.
pub(crate) struct Text {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    pub(crate) what: String,
    pub(crate) todo: String,
}

fn text(
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    what: impl Into<String>,
    todo: impl Into<String>,
) -> Text {
    Text { status, code, title, what: what.into(), todo: todo.into() }
}

const SHARE: &str = "Its owner can share it with a group: portreeve forward share NAME --group GROUP. If it is yours: chmod u+x on its file.";
const UNPRIVILEGED: &str = "Start the application on a port from 1024 up.";
const ASK_AGAIN: &str = "Go back and try again. A program must ask in another way.";

impl From<PowerError> for Reject {
    fn from(error: PowerError) -> Self {
        match error {
            PowerError::Code(error) => Self::Code(error),
            PowerError::Over => Self::Unauthenticated(Unauthenticated::Over),
            PowerError::Token(error) => Self::Token(error),
            PowerError::Refused(why) => Self::Account(why),
            PowerError::Wait(seconds) => Self::Wait(seconds),
            PowerError::TooMany => Self::TooMany,
            PowerError::Unavailable(source) => Self::Unavailable(source),
            PowerError::Failed(source) => Self::Internal(source),
        }
    }
}

impl Reject {
    /// Whether the visitor may not have the answer, rather than that there is none.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Self::Forward(error) => matches!(
                error,
                ForwardError::SessionOver
                    | ForwardError::SessionUnknown
                    | ForwardError::Withdrawn(_)
                    | ForwardError::Refused(_)
            ),
            other => matches!(other, Self::Refused(_)),
        }
    }

    /// The code, which is the same whoever says it.
    pub(crate) fn code(&self) -> &'static str {
        self.text(Form::Up(StateDir::Usual)).code
    }

    /// What is said about it, in which form.
    pub(crate) fn text(&self, form: Form) -> Text {
        use StatusCode as S;
        match self {
            Self::Site(SiteError::Misdirected(name)) => text(
                S::MISDIRECTED_REQUEST,
                "wrong-host",
                "This is not the address of this portal",
                format!("The request is for {name:?}, which is no name of this portal."),
                form.address(),
            ),
            Self::Site(error) => text(
                S::BAD_REQUEST,
                "bad-request",
                "The request can't be understood",
                sentence(error),
                "A program must send one Host field, with the portal's name.",
            ),
            Self::Unauthenticated(Unauthenticated::Full) => text(
                S::SERVICE_UNAVAILABLE,
                "full",
                "Too many people are signed in",
                "The portal takes no more sessions.",
                "Try again later.",
            ),
            Self::Unauthenticated(Unauthenticated::Unavailable)
            | Self::Unavailable(_)
            | Self::Forward(ForwardError::SessionUnknown) => text(
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "The portal can't answer anybody at the moment",
                "A part of it that knows who is signed in does not answer. Nobody is let in meanwhile; what runs on the nodes goes on.",
                "Try again in a moment.",
            ),
            Self::Worker(WorkerError::Over) => text(
                S::UNAUTHORIZED,
                "not-signed-in",
                "Sign in first",
                "Your session has ended.",
                form.sign_in(),
            ),
            Self::Token(error) => text(
                S::UNAUTHORIZED,
                "bad-token",
                "This access token is no good",
                sentence(error),
                "Make another one: portreeve token create.",
            ),
            Self::Scope(scope) => text(
                S::FORBIDDEN,
                "scope",
                "This access token is not for that",
                format!("It was not made with --scope {scope}."),
                "Make one that is: portreeve token create.",
            ),
            Self::ForPeople => text(
                S::FORBIDDEN,
                "for-people",
                "This is a page for people",
                sentence(self),
                "Open it in a browser, and sign in there.",
            ),
            Self::Account(why) => text(
                S::FORBIDDEN,
                "account",
                "This account may not sign in",
                sentence(why),
                "Ask whoever looks after the cluster's accounts.",
            ),
            Self::Wait(seconds) => text(
                S::TOO_MANY_REQUESTS,
                "wait",
                "Too many tries",
                "Signing in is slowed after wrong tries.",
                format!("Wait {seconds} s, and try again."),
            ),
            Self::TooMany | Self::Worker(WorkerError::TooMany) => text(
                S::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests at once",
                "You have as many requests and connections open as you may.",
                "Close some tabs, or wait a moment.",
            ),
            Self::Late | Self::Worker(WorkerError::BodyLate) => text(
                S::REQUEST_TIMEOUT,
                "late",
                "The request did not come in time",
                "Its body did not come in time.",
                "Try again, on a connection that is faster.",
            ),
            Self::Worker(error) => text(
                S::SERVICE_UNAVAILABLE,
                "worker",
                "Your workspace can't be shown at the moment",
                sentence(error),
                "Your applications are not affected. Try again in a moment; when it stays so, the portal's log has the reason, under the number below.",
            ),
            Self::Forward(ForwardError::SessionOver) => text(
                S::UNAUTHORIZED,
                "not-signed-in",
                "Sign in first",
                "Your session has ended.",
                form.sign_in(),
            ),
            Self::Forward(ForwardError::Withdrawn(why)) => text(
                S::FORBIDDEN,
                "withdrawn",
                "You may not open this application any more",
                sentence(why),
                "Open it again: if it is not yours to open, that page says what its owner can do.",
            ),
            Self::Unauthenticated(error) => {
                text(S::UNAUTHORIZED, "not-signed-in", "Sign in first", sentence(error), form.sign_in())
            }
            Self::Route(RouteError::NotFound) => text(
                S::NOT_FOUND,
                "not-found",
                "There is nothing here",
                "No page and no application has this address.",
                "Applications are at /fw2/NODE:PORT/ and /fw/NAME/.",
            ),
            Self::Route(error) => text(
                S::NOT_FOUND,
                "bad-name",
                "No application can have this address",
                sentence(error),
                "Applications are at /fw2/NODE:PORT/ and /fw/NAME/.",
            ),
            Self::Resolve(error) => resolve_text(error, form),
            Self::Connect(error) => connect_text(error, form),
            Self::Refused(refusal @ Refusal::UnknownOwner(Unowned::Lookup(why))) => text(
                S::SERVICE_UNAVAILABLE,
                refusal.code(),
                "It can't be seen whose application this is",
                format!("Nothing was sent to it: {why}."),
                what_to_do(refusal, form),
            ),
            Self::Refused(refusal) | Self::Forward(ForwardError::Refused(refusal)) => text(
                S::FORBIDDEN,
                refusal.code(),
                "You may not open this application",
                refusal.to_string(),
                what_to_do(refusal, form),
            ),
            Self::Forward(error) => forward_text(error),
            Self::Code(error) => {
                let (code, title) = match error {
                    CodeError::Used => ("code-used", "This address was already used"),
                    CodeError::Expired => ("code-expired", "This address is too old"),
                    CodeError::Unknown => ("code-unknown", "This address does not sign anybody in"),
                };
                text(
                    S::FORBIDDEN,
                    code,
                    title,
                    format!("{} Each address signs in once and for a short while.", sentence(error)),
                    form.sign_in(),
                )
            }
            Self::Elsewhere(_) => {
                text(S::SEE_OTHER, "elsewhere", "This application has its own address", sentence(self), "")
            }
            Self::NoServiceWorker => {
                text(S::OK, "no-service-worker", "No service worker", sentence(self), "")
            }
            Self::ForeignHere { has_origins } => text(
                S::FORBIDDEN,
                "foreign-application",
                "This application needs an address of its own",
                "It belongs to somebody else. Under the portal's own address it could act in your name.",
                form.own_origin(*has_origins),
            ),
            Self::CrossSite => text(
                S::FORBIDDEN,
                "cross-site",
                "Another site's page asked for this",
                "A page from a different address tried to use your session.",
                "If that was you, open the address yourself.",
            ),
            Self::ForWindows => text(
                S::FORBIDDEN,
                "for-windows",
                "This is for a window of its own",
                "A page asked for it from inside, perhaps an application's that shares the portal's address.",
                "If that was you, open the address yourself.",
            ),
            Self::TooManyCodes => text(
                S::TOO_MANY_REQUESTS,
                "too-many-codes",
                "Too many wrong codes",
                "Several codes from your address were refused.",
                form.sign_in_later(),
            ),
            Self::BadRequest(what) => text(
                S::BAD_REQUEST,
                "bad-request",
                "The request can't be understood",
                sentence(what),
                ASK_AGAIN,
            ),
            Self::TooLarge => text(
                S::PAYLOAD_TOO_LARGE,
                "too-large",
                "That is more than can be taken",
                sentence(self),
                ASK_AGAIN,
            ),
            Self::Method(_) => {
                text(S::METHOD_NOT_ALLOWED, "method", "This can't be done here", sentence(self), ASK_AGAIN)
            }
            Self::NoWebSocket => text(
                S::BAD_GATEWAY,
                "no-websocket",
                "The application did not open a WebSocket",
                sentence(self),
                "Look at its output: it may have no WebSocket at this address.",
            ),
            Self::UnknownProtocol => text(
                S::NOT_IMPLEMENTED,
                "protocol",
                "This protocol is not carried",
                sentence(self),
                "Ask over HTTP/1.1, with Upgrade.",
            ),
            Self::SignOutNotKept(why) => text(
                S::INTERNAL_SERVER_ERROR,
                "sign-out-not-kept",
                "You are signed out, for now",
                "The portal could not write down that your session has ended. It goes on trying. Should it be restarted before it can, whoever has a copy of your cookie could use it again; this browser's was removed.",
                match why {
                    PowerError::Unavailable(_) => {
                        "The part of the portal that keeps it does not answer at the moment. The portal's log says when it is written."
                    }
                    _ => form.full_disk(),
                },
            ),
            Self::Internal(_) => text(
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong",
                "The portal could not do this.",
                "The portal's log has the reason, under the number below.",
            ),
        }
    }
}

fn what_to_do(refusal: &Refusal, form: Form) -> &'static str {
    match refusal {
        Refusal::NotYours { .. } => {
            "Ask its owner to share it: with a forward, or by running it under a group that you are both in (sg GROUP). If yours has the same port at another address of the node, open that address: portreeve listening prints it."
        }
        Refusal::RootSocket => "Run the application as yourself.",
        Refusal::GroupGrantsNothing { .. } => "Ask its owner to use a group made for sharing (sg PROJECT).",
        Refusal::GroupUnknown(_) | Refusal::GroupNotLooked => form.unseen(),
        Refusal::ForwardWritable => "Its owner can mend it: chmod go-w on its file.",
        Refusal::ForwardOwnerDiffers { .. } => "The forward may be out of date: ask its owner to look.",
        Refusal::UnknownOwner(_) => "Try again in a moment; when it stays so, the log has the reason.",
        Refusal::NotExecutable => SHARE,
        Refusal::PrivilegedPort => UNPRIVILEGED,
    }
}

/// An error's text with a capital and a full stop.
fn sentence(error: &(impl std::fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

#[cfg(test)]
mod tests;
