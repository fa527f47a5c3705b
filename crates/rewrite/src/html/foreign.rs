//! Whether an element is one of HTML, or of SVG or MathML (HTML Standard, "The rules for parsing tokens in foreign
//! content"): text of `style` and `script` is read otherwise there, and `CDATA` counts.

/// How deep one may stand in the other. Beyond that a page is none that somebody means.
const DEEPEST: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Html,
    Svg,
    MathMl,
}

/// Where the page is just now.
#[derive(Default)]
pub(super) struct Foreign {
    /// From the outermost that is not HTML, each entered within the one before.
    open: Vec<Space>,
}

/// What of a start tag is to be known.
pub(super) trait StartTag {
    /// The value of an attribute, as it is written.
    fn attribute(&self, name: &[u8]) -> Option<&[u8]>;
}

impl Foreign {
    /// Whether the innermost element is not one of HTML.
    pub(super) fn is_inside(&self) -> bool {
        self.space() != Space::Html
    }

    fn space(&self) -> Space {
        self.open.last().copied().unwrap_or(Space::Html)
    }

    /// Whether the page goes deeper than is followed.
    pub(super) fn is_too_deep(&self) -> bool {
        self.open.len() > DEEPEST
    }

    /// A start tag. Returns whether its element is foreign.
    pub(super) fn start(&mut self, name: &[u8], is_closed: bool, tag: &impl StartTag) -> bool {
        let space = self.space();
        let within = match name {
            b"svg" => Some(Space::Svg),
            b"math" => Some(Space::MathMl),
            _ => None,
        };
        if let Some(within) = within {
            if !is_closed {
                self.open.push(within);
            }
            return true;
        }
        if space == Space::Html {
            return false;
        }
        if breaks_out(name)
            || (name == b"font"
                && [b"color".as_slice(), b"face", b"size"].iter().any(|one| tag.attribute(one).is_some()))
        {
            while self.is_inside() {
                self.open.pop();
            }
            return false;
        }
        let holds_html = match space {
            Space::Svg => holds_html_in_svg(name),
            _ if name == b"annotation-xml" => tag.attribute(b"encoding").is_some_and(|encoding| {
                encoding.eq_ignore_ascii_case(b"text/html")
                    || encoding.eq_ignore_ascii_case(b"application/xhtml+xml")
            }),
            _ => holds_html_in_mathml(name),
        };
        if holds_html && !is_closed {
            self.open.push(Space::Html);
        }
        true
    }

    /// An end tag.
    pub(super) fn end(&mut self, name: &[u8]) {
        let outer = self.open.len().checked_sub(2).and_then(|at| self.open.get(at).copied());
        let is_over = match (self.space(), outer) {
            (Space::Svg, _) if name == b"svg" => true,
            (Space::MathMl, _) if name == b"math" => true,
            (Space::Html, Some(Space::Svg)) => holds_html_in_svg(name),
            (Space::Html, Some(Space::MathMl)) => holds_html_in_mathml(name) || name == b"annotation-xml",
            (Space::Svg | Space::MathMl, _) if matches!(name, b"p" | b"br") => {
                while self.is_inside() {
                    self.open.pop();
                }
                false
            }
            _ => false,
        };
        if is_over {
            self.open.pop();
        }
    }
}

/// Elements of HTML that end what is foreign.
fn breaks_out(name: &[u8]) -> bool {
    matches!(
        name,
        b"b" | b"big"
            | b"blockquote"
            | b"body"
            | b"br"
            | b"center"
            | b"code"
            | b"dd"
            | b"div"
            | b"dl"
            | b"dt"
            | b"em"
            | b"embed"
            | b"h1"
            | b"h2"
            | b"h3"
            | b"h4"
            | b"h5"
            | b"h6"
            | b"head"
            | b"hr"
            | b"i"
            | b"img"
            | b"li"
            | b"listing"
            | b"menu"
            | b"meta"
            | b"nobr"
            | b"ol"
            | b"p"
            | b"pre"
            | b"ruby"
            | b"s"
            | b"small"
            | b"span"
            | b"strong"
            | b"strike"
            | b"sub"
            | b"sup"
            | b"table"
            | b"tt"
            | b"u"
            | b"ul"
            | b"var"
    )
}

fn holds_html_in_svg(name: &[u8]) -> bool {
    matches!(name, b"desc" | b"title" | b"foreignobject")
}

fn holds_html_in_mathml(name: &[u8]) -> bool {
    matches!(name, b"mi" | b"mo" | b"mn" | b"ms" | b"mtext")
}
