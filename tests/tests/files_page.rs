//! The page *Files*: lists, looks, and forms that work without scripts; the same changes by programs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use portreeve_tests::world::{Answer, Client, Portal};
use serde_json::{Value, json};

/// `/PREFIX/PATH` of a path in plain characters.
fn at(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.display())
}

fn secret(page: &Answer) -> String {
    page.text().split("name=\"page\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// As a browser sends a form.
async fn submit(client: &Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut form = String::new();
    for (name, value) in fields {
        let encoded: String = value.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02X}");
            text
        });
        let _ = write!(form, "&{name}={encoded}");
    }
    client
        .clone()
        .with("origin", &client.origin())
        .with("sec-fetch-site", "same-origin")
        .post(path, &form[1..])
        .await
}

#[tokio::test]
async fn the_page_lists_and_its_forms_do_without_scripts() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.browser();
    for (name, content) in [("b.txt", "text"), ("<i>&\"", "odd"), ("a.txt", "longer text")] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let here = at("/files", dir.path()) + "/";
    let page = client.get(&here).await;
    page.assert_status(200);
    let text = page.text();
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(
        place("folder/</a>") < place("&#60;i&#62;&#38;") && place("a.txt</a>") < place("b.txt</a>"),
        "directories first"
    );
    assert!(
        !text.contains("<i>&\"")
            && text.contains("4 entries")
            && text.contains("Only you can change it") | text.contains("only you can change it")
    );
    let by_size = client.get(&format!("{here}?sort=size&order=down")).await.text();
    assert!(by_size.find("a.txt</a>").unwrap() < by_size.find("b.txt</a>").unwrap());
    let filtered = client.get(&format!("{here}?filter=B.T")).await.text();
    assert!(
        filtered.contains("b.txt</a>") && !filtered.contains("a.txt</a>") && filtered.contains("1 entry")
    );
    client.get(&format!("{here}?sort=colour")).await.assert_status(400);

    let secret = secret(&page);
    let submit = async |fields: &[(&str, &str)]| {
        let with: Vec<_> = fields.iter().copied().chain([("page", secret.as_str())]).collect();
        submit(&client, &here, &with).await
    };
    submit(&[("do", "folder"), ("name", "new one")]).await.assert_status(303);
    assert!(dir.path().join("new one").is_dir());
    for bad in ["a/b", "..", "", "new one"] {
        let refused = submit(&[("do", "folder"), ("name", bad)]).await;
        assert!(refused.status.is_client_error(), "{bad}: {refused:?}");
    }
    submit(&[("do", "rename"), ("n", "b.txt"), ("to", "c.txt")]).await.assert_status(303);
    submit(&[("do", "rename"), ("n", "c.txt"), ("to", "a.txt")]).await.assert_status(412);
    submit(&[("do", "mode"), ("n", "c.txt"), ("mode", "640")]).await.assert_status(303);
    submit(&[("do", "mode"), ("n", "c.txt"), ("mode", "4755")]).await.assert_status(422);
    assert_eq!(std::fs::metadata(dir.path().join("c.txt")).unwrap().permissions().mode() & 0o7777, 0o640);
    let asked = submit(&[("do", "copy"), ("n", "a.txt"), ("n", "c.txt")]).await;
    assert!(asked.status == 200 && asked.text().contains("Copy where?"), "{}", asked.text());
    let to = dir.path().join("folder").display().to_string();
    submit(&[("do", "copy"), ("sure", "yes"), ("n", "a.txt"), ("n", "c.txt"), ("to", &to)])
        .await
        .assert_status(303);
    submit(&[("do", "move"), ("sure", "yes"), ("n", "a.txt"), ("to", &to)]).await.assert_status(412);
    assert!(dir.path().join("a.txt").exists() && dir.path().join("folder/c.txt").exists());
    // What is gone is asked about first.
    let asked = submit(&[("do", "delete"), ("n", "folder")]).await;
    assert!(asked.text().contains("Delete for good?") && dir.path().join("folder").exists());
    submit(&[("do", "delete"), ("sure", "yes"), ("n", "folder"), ("n", "%3Ci%3E%26%22")])
        .await
        .assert_status(303);
    assert!(!dir.path().join("folder").exists() && !dir.path().join("<i>&\"").exists());
    submit(&[("do", "delete"), ("sure", "yes"), ("n", "..%2Fx")]).await.assert_status(422);
    submit(&[("do", "delete"), ("sure", "yes")]).await.assert_status(409);
}

#[tokio::test]
async fn a_name_that_is_no_text_stays_what_it_is() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.browser();
    let odd = dir.path().join(OsStr::from_bytes(b"odd \xff"));
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join(OsStr::from_bytes(b"\xfe.txt")), "text").unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let above = at("/files", dir.path()) + "/";
    let here = format!("{above}odd%20%FF/");
    let secret = secret(&client.get(&above).await);
    let to = dir.path().join("folder").display().to_string();
    for (page, what, name) in [(&here, "copy", "%FE.txt"), (&above, "move", "odd%20%FF")] {
        let fields = [("do", what), ("sure", "yes"), ("n", name), ("to", &*to), ("page", &*secret)];
        submit(&client, page, &fields).await.assert_status(303);
    }
    let moved = dir.path().join("folder").join(OsStr::from_bytes(b"odd \xff"));
    assert_eq!(std::fs::read(moved.join(OsStr::from_bytes(b"\xfe.txt"))).unwrap(), b"text");
    assert_eq!(
        std::fs::read(dir.path().join("folder").join(OsStr::from_bytes(b"\xfe.txt"))).unwrap(),
        b"text"
    );
    assert!(!odd.exists());
    // And where it is to be is said, not guessed.
    let fields = [("do", "move"), ("sure", "yes"), ("n", "folder"), ("to", ""), ("page", &*secret)];
    submit(&client, &above, &fields).await.assert_status(422);
}

/// What stands for such a path in a field is the name of something else, which somebody may have put there.
#[tokio::test]
async fn a_path_that_is_no_text_is_handed_to_nothing() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.browser();
    for name in [&b"x\xff"[..], "x\u{fffd}".as_bytes(), b"a\nb"] {
        let directory = dir.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("f"), "text").unwrap();
        std::fs::write(directory.join(OsStr::from_bytes(b"f\xff")), "text").unwrap();
    }
    let handed = ["data-path=", "id=\"upload\"", "/apps/terminal?", "/apps/compile?", "/apps/run?"];
    let above = at("/files", dir.path());
    for (address, offers) in [
        ("x%FF/", 0),
        ("x%FF?about", 0),
        ("x%FF/f", 0),
        ("x%FF/f%FF", 0),
        ("x%EF%BF%BD/f%FF", 0),
        ("a%0Ab/", 0),
        ("a%0Ab/f", 0),
        ("x%EF%BF%BD/", 3),
        ("x%EF%BF%BD?about", 1),
        ("x%EF%BF%BD/f", 2),
    ] {
        let page = client.get(&format!("{above}/{address}")).await;
        page.assert_status(200);
        // Only what is on the page, not what its scripts speak of.
        let text = page.text();
        let text = text.split("<script").next().unwrap();
        let is_said = text.contains("is no plain text");
        let offered: Vec<_> = handed.iter().filter(|what| text.contains(**what)).collect();
        assert!(offered.len() == offers && is_said == (offers == 0), "{address}: {offered:?}: {text}");
    }
    // Where to copy to is left open, and what is done by address is done where it is said.
    let secret = secret(&client.get(&format!("{above}/x%FF/")).await);
    let here = format!("{above}/x%FF/");
    let asked = submit(&client, &here, &[("do", "copy"), ("n", "f"), ("page", &secret)]).await.text();
    assert!(asked.contains("name=\"to\" value=\"\""), "{asked}");
    submit(&client, &here, &[("do", "folder"), ("name", "made"), ("page", &secret)]).await.assert_status(303);
    assert!(dir.path().join(OsStr::from_bytes(b"x\xff/made")).is_dir());
    assert!(!dir.path().join("x\u{fffd}/made").exists());
}

#[tokio::test]
async fn a_form_without_the_pages_secret_changes_nothing() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.browser();
    std::fs::write(dir.path().join("kept"), "x").unwrap();
    let here = at("/files", dir.path()) + "/";
    for secret in ["", "guessed"] {
        let fields = [("do", "delete"), ("sure", "yes"), ("n", "kept"), ("page", secret)];
        submit(&client, &here, &fields).await.assert_status(403);
    }
    let script =
        client.clone().program().with("sec-fetch-mode", "cors").with("sec-fetch-site", "same-origin");
    script.get(&here).await.assert_refused(403, "for-windows");
    portal.stranger().browser().get(&here).await.assert_status(303);
    assert!(dir.path().join("kept").exists());
}

#[tokio::test]
async fn a_look_at_a_file_is_text_or_a_picture() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.browser();
    let about = async |name: &str| client.get(&at("/files", &dir.path().join(name))).await;
    std::fs::write(dir.path().join("page.html"), "<script>alert(1)</script>ü").unwrap();
    let page = about("page.html").await.text();
    assert!(
        page.contains("&#60;script&#62;alert(1)&#60;/script&#62;ü") && !page.contains("<script>alert"),
        "{page}"
    );
    std::fs::write(dir.path().join("p.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    assert!(about("p.png").await.text().contains("src=\"data:image/png;base64,iVBORw0KGgo=\""));
    std::fs::write(dir.path().join("x.svg"), "<svg onload=\"alert(1)\"/>").unwrap();
    let svg = about("x.svg").await.text();
    assert!(svg.contains("&#60;svg onload") && !svg.contains("data:image/svg+xml;base64"));
    std::fs::write(dir.path().join("binary"), [0, 159, 146, 150]).unwrap();
    assert!(!about("binary").await.text().contains("What is in it"));
    std::fs::write(dir.path().join("long"), "line\n".repeat(50_000)).unwrap();
    assert!(about("long").await.text().contains("How it begins"));
    about("none").await.assert_status(404);
    // What it is for.
    let page = about("long").await.text();
    assert!(page.contains("/apps/compile?f.source=") && page.contains("only you can change it"), "{page}");
    let path = dir.path().join("long").display().to_string();
    let form = client.get(&format!("/apps/run?f.program={path}&f.arguments=evil")).await.text();
    assert!(form.contains(&format!("value=\"{path}\"")) && !form.contains("evil"), "{form}");
    let home = client.get("/files").await;
    assert!(home.status == 303 && home.location().starts_with("/files/"), "{home:?}");
}

#[tokio::test]
async fn a_hundred_thousand_entries_are_told_a_window_at_a_time() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    let many = 20_000;
    for number in 0..many {
        std::fs::write(dir.path().join(format!("f{number:06}")), "").unwrap();
    }
    let here = at("/api/v1/files", dir.path()) + "/";
    let window = async |query: &str| client.get(&format!("{here}?{query}")).await.json();
    let first = window("limit=3").await;
    assert_eq!(
        (&first["total"], &first["more"], &first["entries"][2]["name"]),
        (&json!(many), &json!(true), &json!("f000002"))
    );
    let last = window("offset=19998&limit=10").await;
    assert_eq!((last["entries"].as_array().unwrap().len(), &last["more"]), (2, &json!(false)));
    let found = window("filter=99&limit=1&order=down").await;
    assert_eq!(found["entries"][0]["name"], "f019999");
    for bad in ["limit=10001", "limit=x", "offset=-1", "sort=x", "order=x"] {
        assert_eq!(client.get(&format!("{here}?{bad}")).await.status, 400, "{bad}");
    }
    let page = client.clone().browser().get(&(at("/files", dir.path()) + "/")).await.text();
    assert!(page.matches("<tr ").count() < 300 && page.contains("20000 entries"), "a page has so many rows");
}

#[tokio::test]
async fn programs_move_copy_remove_and_set_permissions() {
    let (portal, dir) = (Portal::plain(), tempfile::tempdir().unwrap());
    let client = portal.sign_in().await.program();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/f"), "x").unwrap();
    let files = |name: &str| at("files", &dir.path().join(name));
    let to = |name: &str| dir.path().join(name).display().to_string();
    let change =
        async |name: &str, value: Value| client.api("POST", &files(name), value).await.status.as_u16();
    assert_eq!(change("d", json!({ "do": "copy", "to": to("e") })).await, 204);
    assert_eq!(change("d", json!({ "do": "copy", "to": to("e") })).await, 412);
    assert_eq!(change("d", json!({ "do": "move", "to": to("e"), "replace": true })).await, 204);
    assert_eq!(change("e", json!({ "do": "move", "to": to("e/inside") })).await, 403);
    assert_eq!(change("e/f", json!({ "do": "mode", "mode": "0600" })).await, 204);
    assert_eq!(change("e/f", json!({ "do": "mode", "mode": "4777" })).await, 422);
    assert_eq!(change("none", json!({ "do": "mode", "mode": "600" })).await, 404);
    assert_eq!(change("e", json!({ "do": "dance" })).await, 400);
    let listed = client.get(&format!("/api/v1/{}/", files("e"))).await.json();
    assert_eq!(
        (&listed["entries"][0]["mode"], &listed["entries"][0]["access"]),
        (&json!("0600"), &json!("Only you can open and change this"))
    );
    client.api("DELETE", &files("e"), Value::Null).await.assert_status(204);
    client.api("DELETE", &files("e"), Value::Null).await.assert_status(404);
    client.api("DELETE", "files/", Value::Null).await.assert_status(403);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
