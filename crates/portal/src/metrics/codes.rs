//! The codes of refusals, as pages, logs and `X-Portreeve-Error` have them. A closed set: what is not in it counts as
//! `other`, and a test holds it against the table in `docs/request-life.md`.

/// In alphabetical order.
pub(super) const CODES: &[&str] = &[
    "account",
    "application-timeout",
    "application-tls",
    "bad-forward",
    "bad-name",
    "bad-request",
    "bad-token",
    "body-cut-off",
    "body-stalled",
    "broke-off",
    "code-expired",
    "code-unknown",
    "code-used",
    "connect-timeout",
    "cross-site",
    "disabled",
    "file-system",
    "for-people",
    "for-windows",
    "foreign-application",
    "forward-owner-differs",
    "forward-refused",
    "forward-unreadable",
    "forward-writable",
    "full",
    "group-grants-nothing",
    "group-not-looked",
    "group-unknown",
    "internal",
    "late",
    "loopback-only",
    "method",
    "no-descriptor",
    "no-dialer",
    "no-route",
    "no-such-forward",
    "no-websocket",
    "not-executable",
    "not-found",
    "not-listening",
    "not-signed-in",
    "not-yours",
    "ourselves",
    "privileged-port",
    "protocol",
    "root-socket",
    "scope",
    "sign-out-not-kept",
    "too-large",
    "too-many-codes",
    "too-many-requests",
    "unavailable",
    "unknown-node",
    "unknown-owner",
    "unreachable",
    "wait",
    "withdrawn",
    "worker",
    "wrong-host",
];

/// What any other code counts as.
pub(super) const OTHER: &str = "other";

/// Its place in [`CODES`], or the place behind the last.
pub(super) fn number(code: &str) -> usize {
    CODES.binary_search(&code).unwrap_or(CODES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_number() {
        assert!(CODES.is_sorted());
        for (expected, code) in CODES.iter().enumerate() {
            assert_eq!(number(code), expected, "{code}");
        }
        assert_eq!(number("no-such-code"), CODES.len());
    }
}
