//! The script that maps what other scripts make at run time: `script/rewrite.js`.

use std::sync::LazyLock;

use crate::place::Place;
use crate::policy::Injection;

/// The script as it is served at [`Injection::src`]: its lines without what is for readers of the source, indentation and lines
/// of comment.
pub static SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let lines = include_str!("../script/rewrite.js").lines().map(str::trim_start);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).map(|line| format!("{line}\n")).collect()
});

/// The tag that loads the script and tells it where it is.
pub(crate) fn tag(place: &Place, injection: &Injection) -> String {
    let origins: Vec<String> = place.origins().collect();
    let integrity = injection
        .integrity
        .as_ref()
        .map(|integrity| format!(" integrity=\"{}\"", attribute(integrity)))
        .unwrap_or_default();
    format!(
        "<script src=\"{}\"{integrity} nonce=\"{}\" data-prefix=\"{}\" data-base=\"{}\" data-origins=\"{}\"></script>",
        attribute(&injection.src),
        attribute(&injection.nonce),
        place.prefix(),
        attribute(place.base()),
        origins.join(" "),
    )
}

/// Text between double quotes.
pub(crate) fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

/// What goes before the text of a worker's script: no import map reaches it, and no page carries ours to it. It ends
/// with a line break.
pub(crate) fn for_worker(place: &Place) -> String {
    let place = serde_json::json!({
        "prefix": place.prefix(),
        "base": place.base(),
        "origins": place.origins().collect::<Vec<_>>(),
    });
    format!("self.__portreeve={place};{}", *SCRIPT)
}
