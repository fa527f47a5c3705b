//! One line of a forward file: where an application is. Before: `forward_file::parse`. Invariant: see there.

use super::ForwardFileError as Error;
use crate::names::{NodeName, Port};
use std::fmt::{self, Write as _};

/// How to talk to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port when none is written: 80 or 443.
    #[must_use]
    pub fn default_port(self) -> Port {
        const HTTP: Port = Port::new(80).expect("80 is not 0");
        const HTTPS: Port = Port::new(443).expect("443 is not 0");
        match self {
            Self::Http => HTTP,
            Self::Https => HTTPS,
        }
    }
}

/// Where a forward leads. Display is the canonical line without the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForwardTarget {
    /// How to talk to it.
    pub scheme: Scheme,
    /// The node.
    pub node: NodeName,
    /// The port; the scheme's own if none was written.
    pub port: Port,
    /// Begins with '/'; percent-encoded as written; without dot segments, query or fragment.
    pub path: String,
    /// What the application wants to be told (Basic authentication).
    pub credentials: Option<Credentials>,
    /// The only certificate that the server may show.
    pub pin: Option<CertificatePin>,
    /// How it wants its paths; `None`: to be found out.
    pub mode: Option<PathMode>,
    /// Whether it is told its own `NODE:PORT` as the host, instead of the one in the browser's address.
    pub own_host: bool,
}

/// How an application below a prefix of the portal wants its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathMode {
    /// Whole, prefix included: it was started with the prefix as its base URL.
    Keep,
    /// Without the prefix: it believes to be at the root.
    Strip,
}

impl PathMode {
    /// `keep` or `strip`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Strip => "strip",
        }
    }

    /// The same, read.
    ///
    /// # Errors
    /// `Option` for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        [Self::Keep, Self::Strip].into_iter().find(|mode| mode.as_str() == text).ok_or(Error::Option)
    }
}

/// A user and a password for the application, percent-decoded. Debug leaves the password out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Without ':' (RFC 7617, section 2); may be empty.
    pub user: String,
    /// May be empty.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The SHA-256 of a server's certificate (of its DER form).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificatePin(pub [u8; 32]);

impl CertificatePin {
    /// `sha256:` and 64 hexadecimal digits, in any case; with a colon between every two, or with none.
    ///
    /// # Errors
    /// `Pin` for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix("sha256:").ok_or(Error::Pin)?;
        let step = match digits.len() {
            64 => 2,
            95 => 3,
            _ => return Err(Error::Pin),
        };
        let mut pin = [0; 32];
        for (byte, group) in pin.iter_mut().zip(digits.as_bytes().chunks(step)) {
            *byte = match *group {
                [high, low] | [high, low, b':'] => hex_byte(high, low).ok_or(Error::Pin)?,
                _ => return Err(Error::Pin),
            };
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for CertificatePin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl ForwardTarget {
    /// One line: `http[s]://[USER:PASSWORD@]NODE[:PORT][/PATH] [pin=sha256:HEX] [mode=keep|strip] [host=target]`, the options in
    /// any order, blanks around it removed.
    ///
    /// # Errors
    /// What is outside the grammar. A ':' with nothing after it is an error: a script whose variable was empty.
    pub fn parse(line: &str) -> Result<Self, Error> {
        let printable = |c: char| matches!(c, ' '..='~' | '\t');
        if let Some(found) = line.chars().find(|&c| !printable(c)) {
            return Err(Error::Character(found));
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let mut target = Self::parse_url(words.next().ok_or(Error::Scheme)?)?;
        for word in words {
            let again = match word.split_once('=') {
                Some(("pin", pin)) => target.pin.replace(CertificatePin::parse(pin)?).is_some(),
                Some(("mode", mode)) => target.mode.replace(PathMode::parse(mode)?).is_some(),
                Some(("host", "target")) => std::mem::replace(&mut target.own_host, true),
                _ => true,
            };
            if again {
                return Err(Error::Option);
            }
        }
        match (target.scheme, target.pin) {
            (Scheme::Http, Some(_)) => Err(Error::PinWithoutTls),
            _ => Ok(target),
        }
    }

    fn parse_url(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").ok_or(Error::Scheme)?;
        let scheme = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => return Err(Error::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(Error::QueryOrFragment);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // The first '@' ends the user information: a second one lands in the node and is refused there, so that no
        // reader takes another part for the node than we do.
        let (credentials, place) = match authority.split_once('@') {
            Some((user, place)) => (Some(Credentials::parse(user)?), place),
            None => (None, authority),
        };
        let after_address = place.rfind(']').map_or(0, |i| i + 1);
        let (node, port) = match place[after_address..].find(':').map(|i| i + after_address) {
            Some(colon) => (&place[..colon], Port::parse(&place[colon + 1..]).map_err(Error::Port)?),
            None => (place, scheme.default_port()),
        };
        let node = NodeName::parse(node).map_err(Error::Node)?;
        check_path(path)?;
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        Ok(Self { scheme, node, port, path, credentials, pin: None, mode: None, own_host: false })
    }

    /// The canonical line with the credentials: what a forward file holds. A secret if they are.
    #[must_use]
    pub fn to_line(&self) -> String {
        let user = self.credentials.as_ref().map(Credentials::to_user_information).unwrap_or_default();
        self.line_with(&user)
    }

    fn line_with(&self, user_information: &str) -> String {
        let Self { scheme, node, port, path, credentials: _, pin, mode, own_host } = self;
        let pin = pin.map(|pin| format!(" pin={pin}")).unwrap_or_default();
        let mode = mode.map(|mode| format!(" mode={}", mode.as_str())).unwrap_or_default();
        let host = if *own_host { " host=target" } else { "" };
        format!("{}://{user_information}{node}:{port}{path}{pin}{mode}{host}", scheme.as_str())
    }
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line_with(""))
    }
}

impl Credentials {
    /// `USER[:PASSWORD]` in RFC 3986's characters.
    fn parse(text: &str) -> Result<Self, Error> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if text.is_empty() || !text.bytes().all(|b| is_unreserved_or_delimiter(b) || matches!(b, b':' | b'%'))
        {
            return Err(Error::Credentials);
        }
        let decode = |part| String::from_utf8(percent_decode(part)?).map_err(|_| Error::Credentials);
        let (user, password) = (decode(user)?, decode(password)?);
        // RFC 7617, section 2: no control characters in either, and no colon in the user.
        if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
            return Err(Error::Credentials);
        }
        Ok(Self { user, password })
    }

    fn to_user_information(&self) -> String {
        let mut text = String::new();
        for (part, end) in [(&self.user, ':'), (&self.password, '@')] {
            for b in part.bytes() {
                match b {
                    b'-' | b'.' | b'_' | b'~' => text.push(char::from(b)),
                    _ if b.is_ascii_alphanumeric() => text.push(char::from(b)),
                    // Writing to a String can't fail.
                    _ => _ = write!(text, "%{b:02X}"),
                }
            }
            text.push(end);
        }
        text
    }
}

/// RFC 3986's `pchar` and '/', and nothing that reads otherwise once decoded: a server that decodes `%2f` first sees
/// more segments than we do, so segments are looked at in the decoded path.
fn check_path(path: &str) -> Result<(), Error> {
    let allowed = |b: u8| is_unreserved_or_delimiter(b) || matches!(b, b':' | b'@' | b'/' | b'%');
    if let Some(found) = path.bytes().find(|&b| !allowed(b)) {
        return Err(Error::Character(char::from(found)));
    }
    let decoded = percent_decode(path)?;
    if decoded.iter().any(|b| b.is_ascii_control() || *b == b'\\') {
        return Err(Error::Percent);
    }
    // As a redirect, "//host" would name another host.
    if decoded.starts_with(b"//") {
        return Err(Error::DoubleSlash);
    }
    // A server that takes path parameters off first (";x") would see "..;x" as "..".
    let name = |segment: &[u8]| segment.split(|&b| b == b';').next().is_some_and(|s| s == b"." || s == b"..");
    if decoded.split(|&b| b == b'/').any(name) {
        return Err(Error::DotSegment);
    }
    Ok(())
}

/// RFC 3986, sections 2.2 and 2.3: `unreserved` and `sub-delims`.
fn is_unreserved_or_delimiter(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b)
}

/// One pass: `%25` becomes '%' and stays so.
fn percent_decode(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(b) = bytes.next() {
        decoded.push(match b {
            b'%' => bytes.next().zip(bytes.next()).and_then(|(h, l)| hex_byte(h, l)).ok_or(Error::Percent)?,
            _ => b,
        });
    }
    Ok(decoded)
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests;
