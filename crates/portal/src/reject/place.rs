//! What is said about a place that leads nowhere.

use http::StatusCode;
use portreeve_broker::ReadError;
use portreeve_model::Refusal;

use super::{Form, SHARE, Text, UNPRIVILEGED, sentence, text};
use crate::resolve::ResolveError;

pub(super) fn resolve_text(error: &ResolveError, form: Form) -> Text {
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
            text(S::UNAUTHORIZED, error.code(), "Sign in first", sentence(error), form.sign_in())
        }
        ResolveError::Unavailable => text(
            S::SERVICE_UNAVAILABLE,
            error.code(),
            "This forward can't be looked up at the moment",
            sentence(error),
            "Try again in a moment.",
        ),
        ResolveError::TooMany => text(
            S::TOO_MANY_REQUESTS,
            error.code(),
            "Too many requests at once",
            sentence(error),
            "Wait a moment, and try again.",
        ),
        ResolveError::PrivilegedPort => {
            let refusal = Refusal::PrivilegedPort;
            text(S::FORBIDDEN, error.code(), "You may not open this port", refusal.to_string(), UNPRIVILEGED)
        }
        ResolveError::Ourselves => text(
            S::FORBIDDEN,
            error.code(),
            "That is the portal itself",
            sentence(error),
            "Compare the port with the one on which your application listens.",
        ),
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
                    SHARE,
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
