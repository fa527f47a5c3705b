//! What is said about an application that can't be reached, or breaks off.

use http::StatusCode;

use super::{Form, Text, sentence, text};
use crate::connect::ConnectError;
use crate::forward::ForwardError;

pub(super) fn connect_text(error: &ConnectError, form: Form) -> Text {
    use StatusCode as S;
    match error {
        ConnectError::NotListening(address) => text(
            S::SERVICE_UNAVAILABLE,
            "not-listening",
            "The application does not answer yet",
            format!("Nothing is listening on {address}. It may still be starting, or have ended."),
            "This page opens it as soon as it answers.",
        ),
        ConnectError::LoopbackOnly(address) => text(
            S::BAD_GATEWAY,
            "loopback-only",
            "The application listens on its node's loopback address only",
            format!(
                "What you run on port {} takes connections from its own node alone, on 127.0.0.1 or ::1.",
                address.port()
            ),
            "Start it so that it listens on the node's address: with --host \"$(hostname -s)\", or --ip for Jupyter.",
        ),
        ConnectError::NoAddress => text(
            S::BAD_GATEWAY,
            "unreachable",
            "The application can't be reached",
            sentence(error),
            form.no_address(),
        ),
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
            text(S::UNAUTHORIZED, "not-signed-in", "Sign in first", sentence(error), form.sign_in())
        }
        ConnectError::NoDialer(_) => text(
            S::SERVICE_UNAVAILABLE,
            "no-dialer",
            "The portal can't connect for you at the moment",
            "The process that connects to applications in your name can't be had.",
            "Try again in a moment; when it stays so, the portal's log has the reason, under the number below.",
        ),
        ConnectError::NoRoute { address, .. } => text(
            S::BAD_GATEWAY,
            "no-route",
            "The application can't be reached",
            format!("There is no way to {address}: its node is gone, or does not let you through."),
            form.no_route(),
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

pub(super) fn forward_text(error: &ForwardError) -> Text {
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
