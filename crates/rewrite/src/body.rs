//! Whether an answer's body is rewritten, and how. Before: the portal's `forward`. After: its `answer`.
//!
//! Invariant: a body that needs nothing costs nothing, there is no [`Rewriter`] for it; memory is bounded whatever the
//! body; what is rewritten has no field that speaks of the body as it was.

use std::rc::Rc;
use std::sync::Arc;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::charset;
use crate::coding::{Coding, CodingError, Decoder};
use crate::css::{self, Css};
use crate::headers;
use crate::html::{Html, Reading};
use crate::manifest;
use crate::place::{Base, Place};
use crate::policy::{Effects, Injection};
use crate::script;

/// How much one call of [`Rewriter::push`] writes before it asks to be called again, in bytes.
pub const ENOUGH: usize = 256 << 10;

/// Input that goes through in one step.
const STEP: usize = 16 << 10;

/// How much of a body's beginning may be needed to tell what it is.
const BEGINNING: usize = 128;

/// What the browser wants the answer for: `Sec-Fetch-Dest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// A page, or a page within one.
    Document,
    /// A script asked for it: `fetch`, `XMLHttpRequest`.
    Script,
    /// A worker of any kind, whose first script it is.
    Worker,
    /// Style.
    Style,
    /// Images, scripts, fonts, sound: part of a page.
    Part,
    /// The browser doesn't say.
    Unknown,
}

impl Destination {
    /// What the field says.
    #[must_use]
    pub fn named(field: &[u8]) -> Self {
        match field {
            b"document" | b"iframe" | b"frame" | b"embed" | b"object" | b"fencedframe" => Self::Document,
            b"empty" => Self::Script,
            b"worker" | b"sharedworker" | b"serviceworker" => Self::Worker,
            b"style" => Self::Style,
            b"manifest" => Self::Unknown,
            _ => Self::Part,
        }
    }
}

/// One request and where its application appears.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// Where the application appears.
    pub place: &'a Arc<Place>,
    /// The request's method.
    pub method: &'a Method,
    /// What the answer is for.
    pub destination: Destination,
    /// The answer's status.
    pub status: StatusCode,
    /// The script that goes into pages; `None` to put none in.
    pub injection: Option<&'a Rc<Injection>>,
    /// The name that the portal's cookies begin with.
    pub our_cookie: &'a str,
}

/// Makes an answer's fields fit for the browser, and says what is to be done with its body; `None`: nothing. Fields of
/// one hop are the caller's to remove, before.
#[must_use]
pub fn towards_browser(headers: &mut HeaderMap, exchange: &Exchange<'_>) -> Option<Rewriter> {
    if exchange.status == StatusCode::NOT_MODIFIED && exchange.place.rewrites_bodies() {
        // The page that the browser has goes with the policy it came with, nonce and all.
        headers.remove(header::CONTENT_SECURITY_POLICY);
        headers.remove(header::CONTENT_SECURITY_POLICY_REPORT_ONLY);
        weaken_etag(headers);
    }
    let kind = exchange.place.rewrites_bodies().then(|| Kind::of(headers)).flatten();
    if matches!(kind, Some(Kind::Html { .. } | Kind::Worker)) {
        // What a page gets, a script that asks for the same does not.
        headers.append(header::VARY, HeaderValue::from_static("Sec-Fetch-Dest"));
    }
    let kind = kind.filter(|kind| exchange.wants(*kind, headers));
    let coding = kind.and_then(|_| Coding::of(headers));
    let is_document = matches!(kind, Some(Kind::Html { .. }))
        && coding.is_some()
        && matches!(exchange.destination, Destination::Document | Destination::Unknown);
    let injection = exchange.injection.filter(|_| is_document);
    let effects = headers::towards_browser(
        headers,
        exchange.place,
        exchange.our_cookie,
        injection.map(|injection| &**injection),
    );
    let (kind, coding) = (kind?, coding?);
    let charset = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(charset::of_content_type);
    if charset.is_some_and(|charset| !charset::is_readable(charset)) {
        return None;
    }
    rewritten(headers);
    Some(Rewriter {
        decoder: Decoder::new(coding),
        plain: Vec::new(),
        stage: Stage::Beginning(Vec::new()),
        what: What {
            kind,
            place: Arc::clone(exchange.place),
            injection: injection.cloned(),
            for_script: exchange.destination == Destination::Script,
            charset,
            effects,
        },
    })
}

/// What kind of body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Html { xml: bool },
    Svg,
    Css,
    Manifest,
    Worker,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let essence = value.split(|byte| *byte == b';').next()?.trim_ascii();
        let is = |kind: &str| essence.eq_ignore_ascii_case(kind.as_bytes());
        let scripts = [
            "text/javascript",
            "application/javascript",
            "application/x-javascript",
            "text/ecmascript",
            "application/ecmascript",
        ];
        if is("text/html") {
            Some(Self::Html { xml: false })
        } else if is("application/xhtml+xml") {
            Some(Self::Html { xml: true })
        } else if is("text/css") {
            Some(Self::Css)
        } else if is("image/svg+xml") {
            Some(Self::Svg)
        } else if is("application/manifest+json") {
            Some(Self::Manifest)
        } else {
            scripts.into_iter().any(is).then_some(Self::Worker)
        }
    }
}

impl Exchange<'_> {
    fn wants(&self, kind: Kind, headers: &HeaderMap) -> bool {
        // A part of a body can't be told from another's middle; and nothing has no body.
        let has_body = *self.method != Method::HEAD
            && !self.status.is_informational()
            && !matches!(
                self.status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::NOT_MODIFIED
                    | StatusCode::PARTIAL_CONTENT
            );
        // What is saved is saved as it is.
        let is_saved = headers.get(header::CONTENT_DISPOSITION).is_some_and(|value| {
            value.as_bytes().get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"attachment"))
        });
        let is_shown = match kind {
            Kind::Worker => self.destination == Destination::Worker,
            Kind::Css | Kind::Manifest => true,
            Kind::Html { .. } | Kind::Svg => {
                !matches!(self.destination, Destination::Part | Destination::Style | Destination::Worker)
            }
        };
        has_body && !is_saved && is_shown
    }
}

/// Takes off what speaks of the body as it was.
fn rewritten(headers: &mut HeaderMap) {
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::ACCEPT_RANGES,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ] {
        headers.remove(name);
    }
    weaken_etag(headers);
}

fn weaken_etag(headers: &mut HeaderMap) {
    if let Some(etag) = headers.get(header::ETAG)
        && !etag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

/// Why a body was broken off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It can't be decoded.
    #[error("the application's answer can't be decoded")]
    Coding(#[from] CodingError),
}

/// One body on its way.
pub struct Rewriter {
    decoder: Option<Decoder>,
    plain: Vec<u8>,
    stage: Stage,
    what: What,
}

impl std::fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rewriter").field("kind", &self.what.kind).finish_non_exhaustive()
    }
}

/// What is known before the first byte.
struct What {
    kind: Kind,
    place: Arc<Place>,
    injection: Option<Rc<Injection>>,
    for_script: bool,
    charset: Option<&'static Encoding>,
    effects: Effects,
}

enum Stage {
    /// Not yet enough to tell what it is.
    Beginning(Vec<u8>),
    Html(Box<Html>),
    Css(Box<Css>),
    Manifest(Vec<u8>),
    /// As it is.
    Pass,
}

impl Rewriter {
    /// Takes some of a body, and writes what of it can go. Returns how many bytes were taken: fewer than all once
    /// [`ENOUGH`] was written; the rest is to be handed over again.
    ///
    /// # Errors
    /// When the body is not in its content coding, or inflates beyond measure. What was written may still go out; the
    /// answer must then be broken off.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<usize, BodyError> {
        let begun = out.len();
        let mut taken = 0;
        while taken < piece.len() && out.len() - begun < ENOUGH {
            let rest = piece.get(taken..).unwrap_or_default();
            if let Some(decoder) = &mut self.decoder {
                let mut plain = std::mem::take(&mut self.plain);
                plain.clear();
                let step = decoder.step(rest, &mut plain);
                self.stage.push(&self.what, &plain, out);
                self.plain = plain;
                taken += step?;
            } else {
                let step = rest.len().min(STEP);
                self.stage.push(&self.what, rest.get(..step).unwrap_or_default(), out);
                taken += step;
            }
        }
        Ok(taken)
    }

    /// Writes what is left when the body is complete.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if let Some(decoder) = &mut self.decoder {
            let mut plain = Vec::new();
            decoder.finish(&mut plain);
            self.stage.push(&self.what, &plain, out);
        }
        self.stage.finish(&self.what, out);
    }
}

impl Stage {
    fn push(&mut self, what: &What, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Beginning(held) => {
                held.extend_from_slice(piece);
                if what.is_enough(held) {
                    self.begin(what, out);
                }
            }
            Self::Html(html) => html.push(piece, out),
            Self::Css(css) => css.push(piece, out),
            Self::Manifest(held) => {
                held.extend_from_slice(piece);
                if held.len() > manifest::LONGEST {
                    out.append(held);
                    *self = Self::Pass;
                }
            }
            Self::Pass => out.extend_from_slice(piece),
        }
    }

    fn begin(&mut self, what: &What, out: &mut Vec<u8>) {
        let Self::Beginning(held) = std::mem::replace(self, Self::Pass) else { return };
        *self = what.stage(&held, out);
        self.push(what, &held, out);
    }

    fn finish(&mut self, what: &What, out: &mut Vec<u8>) {
        if matches!(self, Self::Beginning(_)) {
            self.begin(what, out);
        }
        match self {
            Self::Html(html) => html.finish(out),
            Self::Css(css) => css.finish(out),
            Self::Manifest(held) => match manifest::map(held, &what.place) {
                Some(mapped) => out.extend_from_slice(&mapped),
                None => out.append(held),
            },
            Self::Beginning(_) | Self::Pass => {}
        }
    }
}

impl What {
    /// Whether this beginning tells all that there is to tell.
    fn is_enough(&self, begin: &[u8]) -> bool {
        let has_rule = begin.contains(&b';');
        begin.len() >= BEGINNING
            || match self.kind {
                Kind::Worker | Kind::Manifest => true,
                Kind::Css => begin.len() >= 10 && (has_rule || !begin.starts_with(b"@charset \"")),
                Kind::Html { .. } | Kind::Svg => {
                    begin.len() >= 4 && begin.iter().any(|byte| !byte.is_ascii_whitespace())
                }
            }
    }

    fn stage(&self, begin: &[u8], out: &mut Vec<u8>) -> Stage {
        let mark = Encoding::for_bom(begin).map(|(encoding, _)| encoding);
        // Letters of two bytes without a mark.
        let is_wide = matches!(begin, [0, b'<', ..] | [b'<', 0, ..]);
        if is_wide || mark.is_some_and(|mark| mark == UTF_16BE || mark == UTF_16LE) {
            return Stage::Pass;
        }
        let encoding = mark.or(self.charset);
        match self.kind {
            Kind::Worker => {
                out.extend_from_slice(script::for_worker(&self.place).as_bytes());
                Stage::Pass
            }
            Kind::Manifest => Stage::Manifest(Vec::new()),
            Kind::Css => {
                let encoding = encoding.or_else(|| css::declared(begin));
                if encoding.is_some_and(|encoding| !charset::is_readable(encoding)) {
                    return Stage::Pass;
                }
                Stage::Css(Box::new(Css::new(Arc::clone(&self.place), Base::Ours, encoding)))
            }
            Kind::Html { .. } | Kind::Svg => {
                let first = begin.iter().find(|byte| !byte.is_ascii_whitespace());
                // JSON that is called a page, as some programs answer scripts.
                if self.for_script && matches!(first, Some(b'{' | b'[' | b'"')) {
                    return Stage::Pass;
                }
                let xml = matches!(self.kind, Kind::Svg | Kind::Html { xml: true });
                Stage::Html(Box::new(Html::new(Reading {
                    place: Arc::clone(&self.place),
                    encoding: encoding.or(xml.then_some(UTF_8)),
                    injection: self.injection.clone(),
                    xml,
                    effects: self.effects,
                    nested: false,
                })))
            }
        }
    }
}

#[cfg(test)]
mod tests;
