//! What a worker is told by the broker, and shown by the portal, which may have been taken over; the page that it makes of
//! that, in which programs and nodes have the names that somebody gave them.

use portreeve_model::wire::worker::{MAX_BODY, Nodes, Reader, ToWorker, Visit};
use portreeve_model::wire::{MAX_FRAME, decode, encode_bare};

/// A message on the control channel, or the body of a request for the workspace.
pub fn worker_messages(data: &[u8]) {
    if let Ok(message) = decode::<ToWorker>(data) {
        assert!((1..=MAX_FRAME).contains(&data.len()));
        // The form with [ ] for { } is shorter: it may be read, but is not written.
        if let Ok(frame) = encode_bare(&message) {
            assert_eq!(decode::<ToWorker>(&frame).ok(), Some(message));
        }
    }
    if data.len() > MAX_BODY {
        return;
    }
    let Ok(nodes) = serde_json::from_slice::<Nodes>(data) else { return };
    let written = serde_json::to_vec(&nodes).expect("nodes have a JSON form");
    assert_eq!(serde_json::from_slice::<Nodes>(&written).ok().as_ref(), Some(&nodes));
    let visit = Visit {
        user: portreeve_model::UserName::parse("alice").expect("a name"),
        origin: "https://portal".to_owned(),
        own_origins: None,
        shared_origin: None,
        modes: std::collections::BTreeMap::new(),
        page_secret: None,
        reader: Reader::Window,
    };
    let Some(page) = portreeve_worker::fuzz::page(&visit, &nodes) else {
        return assert_eq!(nodes.nodes, None);
    };
    // A row is some hundred bytes of ours beside what it shows, each of which is one character reference at most.
    assert!(page.len() < 16 * 1024 + 40 * data.len(), "{} bytes of {}", page.len(), data.len());
    let main =
        page.split_once("<main").and_then(|(_, rest)| rest.split_once("</main>")).expect("it is whole").0;
    for tag in main.split('<').skip(1) {
        let name =
            tag.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        let ours = [
            "h1", "h2", "p", "section", "form", "label", "input", "button", "div", "table", "tr", "th", "td",
        ];
        assert!(ours.contains(&name) || ["a", "bdi", "code", "br", "span", "ul"].contains(&name), "<{tag}");
        let attributes = tag.split('>').next().unwrap_or_default().to_ascii_lowercase();
        assert!(!attributes.contains(" on"), "<{tag}");
    }
    for link in main.split("href=\"").skip(1) {
        let link = link.split('"').next().unwrap_or_default();
        assert!(link.starts_with("/fw2/") || link.starts_with("https://"), "{link}");
    }
}
