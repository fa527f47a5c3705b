//! What a browser says about a request of its own accord (Fetch Metadata, <https://www.w3.org/TR/fetch-metadata/>): whose page
//! asks, and what for. Programs and old browsers say nothing.
//!
//! Read once for each request, in one walk over its fields: several steps ask.

use http::header::HeaderMap;

use crate::rewrite::Destination;

/// The fields' first values, as far as anybody asks for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetch {
    /// `Sec-Fetch-Site`: whether another origin's page asks. `None`: it is not said.
    pub(crate) is_foreign: Option<bool>,
    /// `Sec-Fetch-Mode`: whether a window or a frame is led there. `None`: it is not said.
    pub(crate) navigates: Option<bool>,
    /// `Sec-Fetch-Dest`: what it is for, and whether that is a window's own page. `None`: it is not said.
    pub(crate) destination: Option<(Destination, bool)>,
    /// `Service-Worker`, whatever its value: it asks for the script of one.
    pub(crate) for_service_worker: bool,
}

impl Fetch {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let (name, value) = (name.as_str(), value.as_bytes());
            // All four are as long. Most fields of most requests are told apart from them by that.
            if name.len() != "sec-fetch-site".len() {
                continue;
            }
            match name {
                "sec-fetch-site" => {
                    said.is_foreign.get_or_insert(matches!(value, b"same-site" | b"cross-site"));
                }
                "sec-fetch-mode" => {
                    said.navigates.get_or_insert(value == b"navigate");
                }
                "sec-fetch-dest" => {
                    said.destination.get_or_insert((Destination::named(value), value == b"document"));
                }
                "service-worker" => said.for_service_worker = true,
                _ => {}
            }
        }
        said
    }

    /// Whether a window's own page is asked for, as far as is said.
    pub(crate) fn is_document(&self) -> bool {
        self.destination.is_some_and(|(_, is_document)| is_document)
    }

    /// What the answer is for.
    pub(crate) fn destination(&self) -> Destination {
        self.destination.map_or(Destination::Unknown, |(destination, _)| destination)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> Fetch {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Fetch::of(&headers)
    }

    #[test]
    fn who_says_nothing_said_nothing() {
        assert_eq!(of(&[("host", "x"), ("sec-fetch-user", "?1"), ("accept-charset", "x")]), Fetch::default());
        assert_eq!(Fetch::default().destination(), Destination::Unknown);
        assert!(!Fetch::default().is_document());
    }

    #[test]
    fn the_first_value_counts() {
        for (value, is_foreign) in
            [("same-site", true), ("cross-site", true), ("same-origin", false), ("none", false), ("", false)]
        {
            assert_eq!(of(&[("sec-fetch-site", value)]).is_foreign, Some(is_foreign), "{value}");
        }
        let said = of(&[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "document"),
        ]);
        assert_eq!((said.is_foreign, said.navigates), (Some(true), Some(false)));
        assert_eq!((said.destination(), said.is_document()), (Destination::Part, false));
    }

    #[test]
    fn a_frame_is_a_document_but_no_window() {
        let said = |value| of(&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", value)]);
        assert!(said("document").is_document() && !said("iframe").is_document());
        assert_eq!(said("iframe").destination(), Destination::Document);
        assert!(of(&[("service-worker", "script")]).for_service_worker);
    }
}
