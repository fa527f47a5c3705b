//! Under which conditions a request is meant: the field `If` (RFC 4918, section 10.4), and those of HTTP itself (RFC 9110, section 13).

use headers::{HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince};
use http::{HeaderMap, Method, StatusCode};
use portreeve_files::Status;

use crate::limits;
use crate::refusal::Refusal;

/// The field `If`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct If {
    lists: Vec<List>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    /// Of which resource: an address; `None` is the one that is asked for.
    of: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
struct Condition {
    not: bool,
    state: State,
}

/// What a resource may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A lock with this token.
    Token(String),
    /// This entity tag, with its quotes.
    Tag(String),
}

impl If {
    /// What a request says; nothing if it has no such field.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let malformed = || Refusal::plain(StatusCode::BAD_REQUEST, "The field If is not understood.");
        let mut fields = headers.get_all("if").iter();
        let Some(field) = fields.next() else { return Ok(Self::default()) };
        let text = field.to_str().ok().filter(|text| text.len() <= limits::IF && fields.next().is_none());
        Self::parse(text.ok_or_else(malformed)?).ok_or_else(malformed)
    }

    fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut of, mut lists) = (text.trim_start(), None, Vec::new());
        let mut tagged_without_list = false;
        while !rest.is_empty() {
            if let Some(tag) = rest.strip_prefix('<') {
                // No-tag lists are first, and then none has a tag.
                if tagged_without_list || (of.is_none() && !lists.is_empty()) {
                    return None;
                }
                let (address, after) = tag.split_once('>')?;
                (of, rest, tagged_without_list) = (Some(address.to_owned()), after.trim_start(), true);
                continue;
            }
            let (conditions, after) = Self::list(rest.strip_prefix('(')?)?;
            lists.push(List { of: of.clone(), conditions });
            (rest, tagged_without_list) = (after.trim_start(), false);
        }
        (!lists.is_empty() && !tagged_without_list).then_some(Self { lists })
    }

    fn list(text: &str) -> Option<(Vec<Condition>, &str)> {
        let (mut rest, mut conditions) = (text.trim_start(), Vec::new());
        loop {
            if let Some(after) = rest.strip_prefix(')') {
                return (!conditions.is_empty()).then_some((conditions, after));
            }
            let not = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("not"));
            if not {
                rest = rest[3..].trim_start();
            }
            let (state, after) = match rest.as_bytes().first()? {
                b'<' => {
                    let (token, after) = rest[1..].split_once('>')?;
                    (State::Token(token.to_owned()), after)
                }
                b'[' => {
                    let weak = rest[1..].starts_with("W/");
                    let opened = rest[1..].strip_prefix("W/").unwrap_or(&rest[1..]).strip_prefix('"')?;
                    let (tag, after) = opened.split_once('"')?;
                    let tag = format!("{}\"{tag}\"", if weak { "W/" } else { "" });
                    (State::Tag(tag), after.strip_prefix(']')?)
                }
                _ => return None,
            };
            conditions.push(Condition { not, state });
            rest = after.trim_start();
        }
    }

    /// The tokens that are shown, wherever they stand.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &str> {
        self.lists.iter().flat_map(|list| &list.conditions).filter_map(|condition| match &condition.state {
            State::Token(token) => Some(token.as_str()),
            State::Tag(_) => None,
        })
    }

    /// Whether one of the lists is true, where `is` says what a resource has.
    pub(crate) fn holds(&self, is: impl Fn(Option<&str>, &State) -> bool) -> bool {
        self.lists.is_empty()
            || self.lists.iter().any(|list| {
                list.conditions
                    .iter()
                    .all(|condition| is(list.of.as_deref(), &condition.state) != condition.not)
            })
    }
}

/// The entity tag of a file with that status, with its quotes.
pub(crate) fn tag(status: &Status) -> String {
    format!("\"{}\"", status.identity)
}

/// Whether HTTP's own conditions hold for a resource; `None`: there is none.
pub(crate) fn check(headers: &HeaderMap, method: &Method, status: Option<&Status>) -> Result<(), Refusal> {
    let failed = Err(Refusal::plain(StatusCode::PRECONDITION_FAILED, "It is no longer what it was."));
    let understood = |name: &str, is: bool| headers.contains_key(name) && !is;
    let tag = status.and_then(|status| tag(status).parse::<headers::ETag>().ok());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let if_match = headers.typed_get::<IfMatch>();
    let if_none_match = headers.typed_get::<IfNoneMatch>();
    // What is not understood is not met, or something would be overwritten that was to be kept.
    if understood("if-match", if_match.is_some())
        || (!reads && understood("if-none-match", if_none_match.is_some()))
    {
        return failed;
    }
    match if_match {
        Some(wanted) => {
            let is_met = tag.as_ref().is_some_and(|tag| wanted.precondition_passes(tag));
            if !is_met {
                return failed;
            }
        }
        None => {
            let unmodified = headers.typed_get::<IfUnmodifiedSince>();
            if let (Some(since), Some(status)) = (unmodified, status)
                && !since.precondition_passes(status.modified)
            {
                return failed;
            }
        }
    }
    match if_none_match {
        Some(unwanted) => {
            let is_met = tag.as_ref().is_none_or(|tag| unwanted.precondition_passes(tag));
            match (is_met, reads) {
                (true, _) => {}
                (false, true) => return Err(Refusal::not_modified()),
                (false, false) => return failed,
            }
        }
        None if reads => {
            if let (Some(since), Some(status)) = (headers.typed_get::<IfModifiedSince>(), status)
                && !since.is_modified(status.modified)
            {
                return Err(Refusal::not_modified());
            }
        }
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_if() {
        let holds = |text: &str, has: &[&str]| {
            If::parse(text).map(|field| {
                field.holds(|of, state| {
                    let (State::Token(name) | State::Tag(name)) = state;
                    has.contains(&format!("{}{name}", of.unwrap_or_default()).as_str())
                })
            })
        };
        for (text, has, expected) in [
            ("(<t>)", &["t"][..], Some(true)),
            ("(<t>)", &[], Some(false)),
            ("(Not <t>)", &[], Some(true)),
            ("(<t> [\"e\"])", &["t", "\"e\""], Some(true)),
            ("(<t> [\"e\"])", &["t"], Some(false)),
            ("(<t>) (<u>)", &["u"], Some(true)),
            ("(<t>)(not<u>[W/\"e\"])", &["W/\"e\""], Some(true)),
            ("</a> (<t>) </b> (<u>) (<v>)", &["/bv"], Some(true)),
            ("</a> (<t>)", &["t"], Some(false)),
            ("", &[], None),
            ("()", &[], None),
            ("(<t>", &[], None),
            ("<t>", &[], None),
            ("</a> </b> (<t>)", &[], None),
            ("(<t>) </a> (<u>)", &[], None),
            ("([e])", &[], None),
            ("(t)", &[], None),
            ("(\u{e4})", &[], None),
        ] {
            assert_eq!(holds(text, has), expected, "{text}");
        }
        let field = If::parse("</a> (<t> [\"e\"]) (Not <u>)").unwrap();
        assert_eq!(field.tokens().collect::<Vec<_>>(), ["t", "u"]);
    }
}
