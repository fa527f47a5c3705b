//! The closed sets that labels are from: each is an enum, so that nothing from outside can become one.

use http::{StatusCode, Version};
use portreeve_model::SignIn;

use crate::connect::ConnectError;

/// A closed set of a label's values.
pub(super) trait Label: Copy + 'static {
    /// All of them, in the order of their numbers.
    const ALL: &'static [Self];

    /// From 0 up.
    fn number(self) -> usize;

    /// As the label says it.
    fn text(self) -> &'static str;
}

macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$what])* $variant,)+ }

        impl $name {
            /// How many there are.
            pub(super) const COUNT: usize = <Self as Label>::ALL.len();
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn number(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// Why a connection was turned away before TLS.
    Turned {
        /// Another user of this machine.
        Stranger = "stranger",
        /// From this machine, and nobody can tell whose it is.
        Unknown = "unknown",
        /// A trusted proxy's, without a good header.
        ProxyHeader = "proxy-header",
        /// Of an address that has as many as it may.
        Address = "address",
    }
}

label! {
    /// Why there is no TLS connection.
    HandshakeFailure {
        /// Somebody spoke plain HTTP.
        PlainHttp = "plain-http",
        /// It broke off, or both have nothing in common.
        Tls = "tls",
        /// It took too long.
        TimedOut = "timeout",
    }
}

label! {
    /// What a request came over.
    Protocol {
        /// HTTP/1.0
        Http10 = "1.0",
        /// HTTP/1.1
        Http11 = "1.1",
        /// HTTP/2
        Http2 = "2",
    }
}

label! {
    /// What it was answered with.
    Status {
        /// A change of protocol.
        Informational = "1xx",
        /// It worked.
        Success = "2xx",
        /// Elsewhere.
        Redirection = "3xx",
        /// Refused.
        ClientError = "4xx",
        /// Failed.
        ServerError = "5xx",
        /// Whoever asked left before there was an answer.
        None = "none",
    }
}

label! {
    /// What came of connecting to an application.
    Connect {
        /// A connection.
        Connected = "connected",
        /// Nothing listens there.
        NotListening = "not-listening",
        /// No answer.
        TimedOut = "timeout",
        /// The portal may open nothing more.
        NoDescriptor = "no-descriptor",
        /// The process that connects for this user can't be had.
        NoDialer = "no-dialer",
        /// The session ended.
        SessionOver = "session-over",
        /// Anything else.
        Failed = "failed",
    }
}

label! {
    /// What came of looking for a connection that is open already.
    Pooled {
        /// There was one.
        Hit = "hit",
        /// There was none.
        Miss = "miss",
    }
}

label! {
    /// What came of asking for a connection's owner.
    Looked {
        /// Somebody's.
        Found = "found",
        /// Nobody's, or nobody could tell.
        Unowned = "unowned",
    }
}

label! {
    /// Which way bytes go.
    Direction {
        /// From a browser to an application.
        ToApplication = "to-application",
        /// From an application to a browser.
        ToBrowser = "to-browser",
    }
}

label! {
    /// What they are part of.
    Kind {
        /// A request's or an answer's body.
        Body = "body",
        /// A tunnel.
        Tunnel = "tunnel",
    }
}

label! {
    /// A way in.
    Way {
        /// A single-use address.
        Code = "code",
        /// PAM's prompts.
        Pam = "pam",
        /// OpenID Connect.
        Oidc = "oidc",
        /// A client certificate.
        Certificate = "certificate",
        /// An access token.
        Token = "token",
    }
}

label! {
    /// What came of it.
    Entered {
        /// Signed in.
        In = "in",
        /// Refused.
        Refused = "refused",
    }
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        match version {
            Version::HTTP_2 => Self::Http2,
            Version::HTTP_11 => Self::Http11,
            _ => Self::Http10,
        }
    }
}

impl From<Option<StatusCode>> for Status {
    fn from(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16()) {
            None => Self::None,
            Some(..200) => Self::Informational,
            Some(200..300) => Self::Success,
            Some(300..400) => Self::Redirection,
            Some(400..500) => Self::ClientError,
            Some(500..) => Self::ServerError,
        }
    }
}

impl<T> From<&Result<T, ConnectError>> for Connect {
    fn from(connected: &Result<T, ConnectError>) -> Self {
        match connected {
            Ok(_) => Self::Connected,
            Err(ConnectError::NotListening(_) | ConnectError::LoopbackOnly(_)) => Self::NotListening,
            Err(ConnectError::TimedOut(_)) => Self::TimedOut,
            Err(ConnectError::NoDescriptor(_)) => Self::NoDescriptor,
            Err(ConnectError::NoDialer(_)) => Self::NoDialer,
            Err(ConnectError::Over) => Self::SessionOver,
            Err(ConnectError::NoAddress | ConnectError::NoRoute { .. } | ConnectError::Failed { .. }) => {
                Self::Failed
            }
        }
    }
}

impl From<SignIn> for Way {
    fn from(how: SignIn) -> Self {
        match how {
            SignIn::Code => Self::Code,
            SignIn::Pam => Self::Pam,
            SignIn::Oidc => Self::Oidc,
            SignIn::Certificate => Self::Certificate,
            SignIn::Token(_) => Self::Token,
        }
    }
}
