//! Which attribute of which element holds what (HTML Standard, "Attributes"; SVG 2; obsolete ones that browsers still
//! follow).

/// What an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One URL.
    Url,
    /// URLs with white space between.
    Urls,
    /// Image candidates.
    Srcset,
    /// Declarations of CSS, or one value.
    Style,
    /// A document.
    Srcdoc,
    /// Delay and URL of a refresh.
    Refresh,
    /// A content security policy.
    Policy,
}

/// A name in small letters, when it is short enough to be one that counts.
pub(super) struct Name {
    letters: [u8; 16],
    length: usize,
}

impl Name {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut letters = [0; 16];
        let mut length = 0;
        if bytes.len() <= letters.len() {
            for (slot, byte) in letters.iter_mut().zip(bytes) {
                *slot = byte.to_ascii_lowercase();
            }
            length = bytes.len();
        }
        Self { letters, length }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.letters.get(..self.length).unwrap_or_default()
    }
}

/// Whether an element of HTML has attributes of its own that count, beside `style`.
pub(super) fn has_any(tag: &[u8]) -> bool {
    matches!(
        tag,
        b"a" | b"area"
            | b"link"
            | b"base"
            | b"img"
            | b"script"
            | b"iframe"
            | b"frame"
            | b"embed"
            | b"input"
            | b"source"
            | b"track"
            | b"audio"
            | b"video"
            | b"object"
            | b"form"
            | b"button"
            | b"meta"
            | b"blockquote"
            | b"q"
            | b"del"
            | b"ins"
            | b"body"
            | b"table"
            | b"thead"
            | b"tbody"
            | b"tfoot"
            | b"tr"
            | b"td"
            | b"th"
            | b"html"
            | b"image"
            | b"bgsound"
            | b"style"
    )
}

/// What an attribute of an HTML element holds, if it counts. What depends on other attributes is decided elsewhere.
pub(super) fn kind(tag: &[u8], attribute: &[u8]) -> Option<Kind> {
    let kind = match attribute {
        b"style" => Kind::Style,
        b"href" => match tag {
            b"a" | b"area" | b"link" | b"base" | b"image" => Kind::Url,
            _ => return None,
        },
        b"src" => match tag {
            b"img" | b"script" | b"iframe" | b"frame" | b"embed" | b"input" | b"source" | b"track"
            | b"audio" | b"video" | b"image" | b"bgsound" => Kind::Url,
            _ => return None,
        },
        b"srcset" if matches!(tag, b"img" | b"source" | b"image") => Kind::Srcset,
        b"imagesrcset" if tag == b"link" => Kind::Srcset,
        b"action" if tag == b"form" => Kind::Url,
        b"formaction" if matches!(tag, b"button" | b"input") => Kind::Url,
        b"ping" if matches!(tag, b"a" | b"area") => Kind::Urls,
        b"poster" if tag == b"video" => Kind::Url,
        b"data" if tag == b"object" => Kind::Url,
        b"cite" if matches!(tag, b"blockquote" | b"q" | b"del" | b"ins") => Kind::Url,
        b"longdesc" if matches!(tag, b"img" | b"iframe" | b"frame") => Kind::Url,
        b"background" => match tag {
            b"body" | b"table" | b"thead" | b"tbody" | b"tfoot" | b"tr" | b"td" | b"th" => Kind::Url,
            _ => return None,
        },
        b"manifest" if tag == b"html" => Kind::Url,
        b"srcdoc" if tag == b"iframe" => Kind::Srcdoc,
        _ => return None,
    };
    Some(kind)
}

/// The same for SVG and MathML.
pub(super) fn foreign_kind(attribute: &[u8]) -> Option<Kind> {
    match attribute {
        b"href" | b"xlink:href" => Some(Kind::Url),
        b"style" | b"fill" | b"stroke" | b"filter" | b"mask" | b"clip-path" | b"cursor" | b"marker-start"
        | b"marker-mid" | b"marker-end" => Some(Kind::Style),
        _ => None,
    }
}
