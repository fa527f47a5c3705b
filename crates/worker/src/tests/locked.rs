//! What one program has locked, and another one wants to change.

use super::world::*;
use crate::respond::{Refused, Said as Body};
use portreeve_model::wire::worker::{Reader, Visit};

const INFO: &str = "<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
<D:owner>&lt;b&gt;alice \u{202e}OWNER</D:owner></D:lockinfo>";

#[test]
fn who_has_locked_a_file_is_said_and_what_they_call_themselves_does_no_harm() {
    run(async || {
        let worker = Worker::new();
        let ticket = format!("portreeve-ticket: {}", worker.ticket(|_| ()));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "text").unwrap();
        let at = |prefix: &str| format!("{prefix}{}/f", dir.path().display());
        let mut connection = worker.connect();
        let mut lock = async |owner: &str| {
            let info = INFO.replace("OWNER", owner);
            ask(&mut connection, "LOCK", &at("/dav"), &[&ticket, "depth: 0"], info.as_bytes()).await
        };
        assert_eq!(lock(&"x".repeat(1000)).await.status, 200);
        let said = ask(&mut worker.connect(), "DELETE", &at("/api/v1/files"), &[&ticket], b"").await;
        assert_eq!(said.status, 409, "{said:?}");
        let said: serde_json::Value = serde_json::from_str(&said.body).unwrap();
        let detail = said["detail"].as_str().unwrap();
        assert!(detail.starts_with("Somebody has locked it, by the name \"<b>alice \u{fffd}xxx"), "{detail}");
        assert!(detail.chars().count() < 310, "{detail}");
        // A page shows it as the text that it is.
        let visit = Visit { reader: Reader::Window, ..visit() };
        let page = Refused::Conflict(detail.to_owned()).shown(&visit).into_body();
        let Body::Whole(Some(page)) = page else { panic!("a page is sent at once") };
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(page.contains("&#60;b&#62;alice") && !page.contains("<b>"), "{page}");
    });
}
