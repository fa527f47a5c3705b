//! Why a request gets no answer from an application, and what its person is told: status, code, what happened, what
//! to do. One table, so that the pages speak with one voice. `respond` makes pages of it.

use http::StatusCode;
use portreeve_broker::{CodeError, ReadError};
use portreeve_model::wire::pam::PamRefusal;
use portreeve_model::{Refusal, Unowned};

use crate::authenticate::Unauthenticated;
use crate::connect::ConnectError;
use crate::forward::ForwardError;
use crate::powers::{PowerError, WorkerError};
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
    /// Somebody else's application, and no origin of its own to show it in.
    #[error("somebody else's application can't share the portal's address")]
    ForeignHere,
    /// A page of another origin asked with this visitor's cookie.
    #[error("the request comes from another site's page")]
    CrossSite,
    #[error("too many requests at once")]
    TooMany,
    #[error("too many wrong codes")]
    TooManyCodes,
    #[error("the request can't be understood: {0}")]
    BadRequest(&'static str),
    #[error("the application did not complete the change of protocol")]
    NoWebSocket,
    #[error("only WebSockets are carried over HTTP/2")]
    UnknownProtocol,
    #[error("this method is not for this address")]
    Method,
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

const ASK_FOR_AN_ADDRESS: &str =
    "Run `portreeve login` on the machine where the portal runs, and open the address that it prints.";

impl From<PowerError> for Reject {
    fn from(error: PowerError) -> Self {
        match error {
            PowerError::Code(error) => Self::Code(error),
            PowerError::Over => Self::Unauthenticated(Unauthenticated::Over),
            PowerError::Refused(why) => Self::Account(why),
            PowerError::Wait(seconds) => Self::Wait(seconds),
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

    /// What is said about it.
    pub(crate) fn text(&self) -> Text {
        use StatusCode as S;
        match self {
            Self::Site(SiteError::Misdirected(name)) => text(
                S::MISDIRECTED_REQUEST,
                "wrong-host",
                "This is not the address of this portal",
                format!("The request is for {name:?}, which is no name of this portal."),
                "Open the address that the portal printed when it started.",
            ),
            Self::Site(error) => {
                text(S::BAD_REQUEST, "bad-request", "The request can't be understood", sentence(error), "")
            }
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
                ASK_FOR_AN_ADDRESS,
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
                format!("Signing in is slowed after wrong tries. Wait {seconds} s, and try again."),
                "",
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
                ASK_FOR_AN_ADDRESS,
            ),
            Self::Forward(ForwardError::Withdrawn(why)) => text(
                S::FORBIDDEN,
                "withdrawn",
                "You may not open this application any more",
                sentence(why),
                "",
            ),
            Self::Unauthenticated(error) => {
                text(S::UNAUTHORIZED, "not-signed-in", "Sign in first", sentence(error), ASK_FOR_AN_ADDRESS)
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
            Self::Resolve(error) => resolve_text(error),
            Self::Connect(error) => connect_text(error),
            Self::Refused(refusal @ Refusal::UnknownOwner(Unowned::Lookup(why))) => text(
                S::SERVICE_UNAVAILABLE,
                refusal.code(),
                "It can't be seen whose application this is",
                format!("Nothing was sent to it: {why}."),
                what_to_do(refusal),
            ),
            Self::Refused(refusal) | Self::Forward(ForwardError::Refused(refusal)) => text(
                S::FORBIDDEN,
                refusal.code(),
                "You may not open this application",
                refusal.to_string(),
                what_to_do(refusal),
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
                    ASK_FOR_AN_ADDRESS,
                )
            }
            Self::Elsewhere(_) => {
                text(S::SEE_OTHER, "elsewhere", "This application has its own address", sentence(self), "")
            }
            Self::ForeignHere => text(
                S::FORBIDDEN,
                "foreign-application",
                "This application needs an address of its own",
                "It belongs to somebody else. Under the portal's own address it could act in your name.",
                "Open the portal under the name localhost on this machine, where each application has an address of its own.",
            ),
            Self::CrossSite => text(
                S::FORBIDDEN,
                "cross-site",
                "Another site's page asked for this",
                "A page from a different address tried to use your session.",
                "If that was you, open the address yourself.",
            ),
            Self::TooMany => text(
                S::TOO_MANY_REQUESTS,
                "too-many-requests",
                "Too many requests at once",
                "Your session has as many requests and connections open as it may.",
                "Close some tabs, or wait a moment.",
            ),
            Self::TooManyCodes => text(
                S::TOO_MANY_REQUESTS,
                "too-many-codes",
                "Too many wrong codes",
                "Several codes from your address were refused.",
                "Wait a minute. Then run `portreeve login`, and open the address that it prints.",
            ),
            Self::BadRequest(what) => {
                text(S::BAD_REQUEST, "bad-request", "The request can't be understood", *what, "")
            }
            Self::Method => {
                text(S::METHOD_NOT_ALLOWED, "method", "This can't be done here", sentence(self), "")
            }
            Self::NoWebSocket => text(
                S::BAD_GATEWAY,
                "no-websocket",
                "The application did not open a WebSocket",
                sentence(self),
                "Look at its output: it may have no WebSocket at this address.",
            ),
            Self::UnknownProtocol => {
                text(S::NOT_IMPLEMENTED, "protocol", "This protocol is not carried", sentence(self), "")
            }
            Self::SignOutNotKept(why) => text(
                S::INTERNAL_SERVER_ERROR,
                "sign-out-not-kept",
                "You are signed out, for now",
                "The portal could not write down that your session has ended. It goes on trying. Should it be restarted before it can, whoever has a copy of your cookie could use it again; this browser's was removed.",
                match why {
                    PowerError::Unavailable(_) => {
                        "The part of the portal that keeps it does not answer at the moment. The portal's log says when it is written."
                    }
                    _ => {
                        "Make room on the disk that holds the portal's state directory. The portal's log has the reason, and says when it is written."
                    }
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

fn resolve_text(error: &ResolveError) -> Text {
    use StatusCode as S;
    match error {
        ResolveError::UnknownNode(node) => text(
            S::NOT_FOUND,
            error.code(),
            "This machine is not known here",
            format!("{node} is not this machine."),
            "This portal serves the machine that it runs on: write localhost, its name, or one of its addresses.",
        ),
        ResolveError::NoSuchNode(node) => text(
            S::NOT_FOUND,
            error.code(),
            "This node is not known here",
            format!("{node} is no node of this cluster."),
            "Compare it with what hostname -s prints there. The list of nodes is the sysadmin's: portreeve nodes.",
        ),
        ResolveError::Over => {
            text(S::UNAUTHORIZED, error.code(), "Sign in first", sentence(error), ASK_FOR_AN_ADDRESS)
        }
        ResolveError::Unavailable => text(
            S::SERVICE_UNAVAILABLE,
            error.code(),
            "This forward can't be looked up at the moment",
            sentence(error),
            "Try again in a moment.",
        ),
        ResolveError::PrivilegedPort => {
            let refusal = Refusal::PrivilegedPort;
            text(
                S::FORBIDDEN,
                error.code(),
                "You may not open this port",
                refusal.to_string(),
                "Start the application on a port from 1024 up.",
            )
        }
        ResolveError::Ourselves => {
            text(S::FORBIDDEN, error.code(), "That is the portal itself", sentence(error), "")
        }
        ResolveError::Disabled => text(
            S::GONE,
            error.code(),
            "This forward is disabled",
            "Its owner has switched it off; the name stays theirs.",
            "If it is yours: portreeve forward add NAME TARGET.",
        ),
        ResolveError::Hanging => text(
            S::GATEWAY_TIMEOUT,
            error.code(),
            "The file system does not answer",
            sentence(error),
            "Try again in a moment.",
        ),
        ResolveError::Forward(read) => match &**read {
            ReadError::NotFound => text(
                S::NOT_FOUND,
                error.code(),
                "There is no forward of this name",
                "Nobody has made it, or it was removed.",
                "portreeve forward list shows yours.",
            ),
            ReadError::NotExecutable => {
                let refusal = Refusal::NotExecutable;
                text(
                    S::FORBIDDEN,
                    error.code(),
                    "This forward is not shared with you",
                    refusal.to_string(),
                    "Its owner can share it with a group: portreeve forward share NAME --group GROUP. If it is yours: chmod u+x on its file.",
                )
            }
            ReadError::Invalid(cause) => text(
                S::BAD_GATEWAY,
                error.code(),
                "This forward can't be understood",
                sentence(cause),
                "Its last line must be an address like http://localhost:8888/.",
            ),
            ReadError::NotUnderstood(why) => text(
                S::BAD_GATEWAY,
                error.code(),
                "This forward can't be understood",
                format!("{why}."),
                "Its last line must be an address like http://localhost:8888/.",
            ),
            ReadError::Io(_) => text(
                S::BAD_GATEWAY,
                error.code(),
                "This forward can't be read",
                sentence(&**read),
                "The portal's log has the reason.",
            ),
            other => text(
                S::FORBIDDEN,
                error.code(),
                "This forward is not used",
                sentence(other),
                "Its owner can make it anew: portreeve forward add NAME TARGET.",
            ),
        },
    }
}

fn connect_text(error: &ConnectError) -> Text {
    use StatusCode as S;
    match error {
        ConnectError::NotListening(address) => text(
            S::SERVICE_UNAVAILABLE,
            "not-listening",
            "The application does not answer yet",
            format!("Nothing is listening on {address}. It may still be starting, or have ended."),
            "This page opens it as soon as it answers.",
        ),
        ConnectError::NoAddress => {
            text(S::BAD_GATEWAY, "unreachable", "The application can't be reached", sentence(error), "")
        }
        ConnectError::TimedOut(address) => text(
            S::GATEWAY_TIMEOUT,
            "connect-timeout",
            "The application does not answer",
            format!("{address} did not take a connection in time."),
            "It may be overloaded. Try again in a moment.",
        ),
        ConnectError::NoDescriptor(_) => text(
            S::SERVICE_UNAVAILABLE,
            "no-descriptor",
            "The portal has too much open",
            "It may open no more connections now.",
            "Try again in a moment. Whoever runs the portal can let it open more files (ulimit -Hn).",
        ),
        ConnectError::Over => {
            text(S::UNAUTHORIZED, "not-signed-in", "Sign in first", sentence(error), ASK_FOR_AN_ADDRESS)
        }
        ConnectError::NoDialer(_) => text(
            S::SERVICE_UNAVAILABLE,
            "no-dialer",
            "The portal can't connect for you at the moment",
            "The process that connects to applications in your name can't be had.",
            "Try again in a moment; when it stays so, the portal's log has the reason, under the number below.",
        ),
        ConnectError::Failed { address, .. } => text(
            S::BAD_GATEWAY,
            "unreachable",
            "The application can't be reached",
            format!("No connection to {address} could be made."),
            "The portal's log has the reason, under the number below.",
        ),
    }
}

fn forward_text(error: &ForwardError) -> Text {
    use StatusCode as S;
    match error {
        ForwardError::BodyStalled => text(
            S::REQUEST_TIMEOUT,
            "body-stalled",
            "The upload stood still",
            "Nothing of it arrived for a while, so it was given up.",
            "Try again.",
        ),
        ForwardError::Body(_) => {
            text(S::BAD_REQUEST, "body-cut-off", "The upload was cut off", sentence(error), "Try again.")
        }
        ForwardError::TimedOut(_) => text(
            S::GATEWAY_TIMEOUT,
            "application-timeout",
            "The application takes too long",
            sentence(error),
            "Look at its output, or try again.",
        ),
        ForwardError::Tls(_) => text(
            S::BAD_GATEWAY,
            "application-tls",
            "No secure connection with the application",
            "It speaks no TLS there, or its certificate is not the one that the forward names.",
            "Compare the forward's scheme and pin with what the application uses.",
        ),
        _ => text(
            S::BAD_GATEWAY,
            "broke-off",
            "The application broke off",
            "It closed the connection, or did not speak HTTP, before it had answered.",
            "Look at its output. It may have ended, or speak another protocol on this port.",
        ),
    }
}

fn what_to_do(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotYours { .. } => {
            "Ask its owner to share it: with a forward, or by running it under a group that you are both in (sg GROUP)."
        }
        Refusal::RootSocket => "Run the application as yourself.",
        Refusal::GroupGrantsNothing { .. } => "Ask its owner to use a group made for sharing (sg PROJECT).",
        Refusal::GroupUnknown(_) | Refusal::GroupNotLooked => {
            "Without more rights, this portal can't see other users' processes. Ask the owner for a forward file of their own."
        }
        Refusal::ForwardWritable => "Its owner can mend it: chmod go-w on its file.",
        Refusal::ForwardOwnerDiffers { .. } => "The forward may be out of date: ask its owner to look.",
        Refusal::UnknownOwner(_) => "Try again in a moment; when it stays so, the log has the reason.",
        Refusal::NotExecutable | Refusal::PrivilegedPort => "",
    }
}

/// An error's text with a capital and a full stop.
fn sentence(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}
