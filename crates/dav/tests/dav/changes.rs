//! MKCOL, DELETE, COPY, MOVE, and what they are told of roots.

use std::os::unix::fs::symlink;

use crate::world::World;

const HERE: &str = "https://portal.example.org";

#[test]
fn directories_are_made_and_removed() {
    let world = World::new();
    world.ask("MKCOL", "d", &[], "").is(201);
    world.ask("MKCOL", "d/", &[], "").is(405);
    world.ask("MKCOL", "e/", &[], "").is(201);
    world.ask("MKCOL", "x/y", &[], "").is(409);
    world.ask("MKCOL", "f", &[], "<a/>").is(415);
    world.put("d/file", "x");
    world.ask("MKCOL", "d/file", &[], "").is(405);
    world.ask("MKCOL", "d/file/x", &[], "").is(409);
    world.ask("DELETE", "d", &[("depth", "0")], "").is(400);
    world.ask("DELETE", "d", &[("depth", "infinity")], "").is(204);
    world.ask("DELETE", "d", &[], "").is(404);
    assert!(!world.exists("d"));
    let mut root = world.asked("DELETE", "", &[]);
    root.path = "/dav/".to_owned();
    world.send(&root, "").is(403);
}

#[test]
fn copies_and_moves_and_what_they_replace() {
    let world = World::new();
    world.put("a", "a");
    std::fs::create_dir_all(world.at("d/e")).unwrap();
    world.put("d/e/f", "f");
    let to = |name: &str| format!("{HERE}{}", world.address(name));
    let transfer = |method: &str, from: &str, to: &str, fields: &[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().copied().chain([("destination", to)]).collect();
        world.ask(method, from, &fields, "").status.as_u16()
    };
    assert_eq!(transfer("COPY", "a", &to("b"), &[]), 201);
    assert_eq!(transfer("COPY", "a", &to("b"), &[("overwrite", "F")]), 412);
    assert_eq!(transfer("COPY", "a", &to("b"), &[("overwrite", "T")]), 204);
    assert_eq!(transfer("COPY", "a", &to("b"), &[("overwrite", "x")]), 400);
    assert_eq!(transfer("COPY", "a", &to("none/b"), &[]), 409);
    assert_eq!(transfer("COPY", "none", &to("b"), &[]), 404);
    assert_eq!(transfer("COPY", "a", &to("a"), &[]), 403);
    assert_eq!(transfer("COPY", "a", &world.address("c"), &[]), 201, "a path will do");
    assert_eq!(transfer("COPY", "a", "https://other.example.org/dav/tmp/x", &[]), 502);
    assert_eq!(transfer("COPY", "a", &format!("{HERE}/fw/x/y"), &[]), 502);
    assert_eq!(transfer("COPY", "a", &format!("{HERE}/davtmp/x"), &[]), 502);
    assert_eq!(transfer("COPY", "a", &format!("{HERE}/dav/%2e%2e/x"), &[]), 400);
    assert_eq!(transfer("COPY", "d", &to("copy"), &[("depth", "0")]), 201);
    assert!(world.exists("copy") && !world.exists("copy/e"));
    assert_eq!(transfer("COPY", "d", &to("copy"), &[]), 204);
    assert_eq!(world.content("copy/e/f"), "f");
    assert_eq!(transfer("COPY", "d", &to("copy"), &[("depth", "1")]), 400);
    assert_eq!(transfer("MOVE", "d", &to("moved"), &[("depth", "0")]), 400);
    assert_eq!(transfer("MOVE", "d", &to("d/e/inside"), &[]), 403);
    assert_eq!(transfer("MOVE", "d/e", &to("d"), &[]), 403);
    assert_eq!(transfer("MOVE", "d", &to("copy"), &[("overwrite", "F")]), 412);
    assert_eq!(transfer("MOVE", "d", &to("copy"), &[]), 204);
    assert!(!world.exists("d") && world.exists("copy/e/f"));
    assert_eq!(transfer("MOVE", "b", &to("copy"), &[]), 204, "a file in a directory's place");
    assert_eq!(world.content("copy"), "a");
    assert_eq!(world.ask("COPY", "a", &[], "").status, 400);
    symlink("nowhere", world.at("dangling")).unwrap();
    assert_eq!(transfer("MOVE", "dangling", &to("still"), &[]), 201);
    assert_eq!(transfer("COPY", "still", &to("x"), &[]), 404);
    let left: Vec<_> =
        std::fs::read_dir(world.at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn with_roots_named_nothing_else_is_reached() {
    let world = World::limited(&["home", "data/proj"]);
    std::fs::write(world.at("secret"), "s").unwrap();
    std::fs::create_dir(world.at("other")).unwrap();
    symlink("../secret", world.at("home/link")).unwrap();
    symlink("/etc", world.at("home/etc")).unwrap();
    symlink("../other", world.at("home/other")).unwrap();
    world.ask("PUT", "home/file", &[], "x").is(201);
    for (method, name, status) in [
        ("GET", "secret", 404),
        ("GET", "home/link", 403),
        ("GET", "home/etc/passwd", 403),
        ("PUT", "secret", 404),
        ("PUT", "new", 404),
        ("PUT", "home/link", 403),
        ("PUT", "home/other/x", 403),
        ("PUT", "home", 403),
        ("DELETE", "home", 403),
        ("DELETE", "data", 403),
        ("MKCOL", "data/new", 404),
        ("MKCOL", "home/other/x", 403),
        ("PROPFIND", "other", 404),
        ("PROPFIND", "home/other/", 403),
        ("LOCK", "secret", 412),
    ] {
        let said = world.ask(method, name, &[("depth", "0")], "");
        assert!(said.status.is_client_error() && world.content("secret") == "s", "{method} {name}: {said:?}");
        assert_eq!(said.status, status, "{method} {name}");
    }
    for (to, status) in
        [("other/x", 404), ("secret", 404), ("home", 403), ("home/other/x", 403), ("data/proj/x", 201)]
    {
        let said = world.ask("COPY", "home/file", &[("destination", &world.address(to))], "");
        assert_eq!(said.status, status, "{to}: {said:?}");
    }
    let above = world.ask("PROPFIND", "", &[("depth", "1")], "");
    above.is(207).has("/home/</D:href>").has("/data/</D:href>").has_not("secret").has_not("/other");
    world.ask("PROPFIND", "data/", &[("depth", "1")], "").is(207).has("/data/proj/</D:href>");
    world.ask("PROPFIND", "home/", &[("depth", "1")], "").is(207).has("/home/file</D:href>");
    // A link itself may be removed.
    world.ask("DELETE", "home/link", &[], "").is(204);
}
