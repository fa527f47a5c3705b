//! LOCK and UNLOCK, and what is refused meanwhile.

use std::time::Duration;

use crate::world::{Said, World};

const INFO: &str = "<D:lockinfo xmlns:D=\"DAV:\"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
<D:owner><D:href>mailto:alice@example.org</D:href></D:owner></D:lockinfo>";

fn lock(world: &World, name: &str, depth: &str) -> Said {
    world.ask("LOCK", name, &[("depth", depth), ("timeout", "Infinite, Second-4100000000")], INFO)
}

fn token(said: &Said) -> String {
    said.header("lock-token").trim_matches(['<', '>']).to_owned()
}

#[test]
fn nothing_changes_without_the_token() {
    let world = World::new();
    world.put("a", "one");
    world.put("b", "b");
    let said = lock(&world, "a", "0");
    said.is(200).has("<D:timeout>Second-3").has("mailto:alice@example.org").has("/a</D:href></D:lockroot>");
    let token = token(&said);
    let to = |name: &str| world.address(name);
    for (method, name, fields) in [
        ("PUT", "a", vec![]),
        ("DELETE", "a", vec![]),
        ("PROPPATCH", "a", vec![]),
        ("MOVE", "a", vec![("destination", to("c"))]),
        ("COPY", "b", vec![("destination", to("a"))]),
        ("MOVE", "b", vec![("destination", to("a"))]),
        ("LOCK", "a", vec![("depth", "0".to_owned())]),
    ] {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let said = world.ask(method, name, &fields, if method == "LOCK" { INFO } else { "x" });
        assert_eq!(said.status, 423, "{method} {name}: {said:?}");
        assert!(said.text.contains("<D:href>/dav"), "{said:?}");
    }
    assert_eq!(world.content("a"), "one");
    world.ask("COPY", "a", &[("destination", &to("c"))], "").is(201);
    let shown = format!("(<{token}>)");
    world.ask("PUT", "a", &[("if", &shown)], "two").is(204);
    let elsewhere = format!("<https://other.example.org{}> (<{token}>)", to("a"));
    world.ask("PUT", "a", &[("if", &elsewhere)], "three").is(412);
    let tagged = format!("<https://portal.example.org{}> (<{token}>)", to("a"));
    world.ask("PUT", "a", &[("if", &tagged)], "three").is(204);
    world.ask("PUT", "a", &[("if", "(<urn:uuid:0>)")], "four").is(412);
    world.ask("PUT", "a", &[("if", "(Not <urn:uuid:0>)")], "four").is(423);
    world.ask("UNLOCK", "b", &[("lock-token", &format!("<{token}>"))], "").is(409);
    world.ask("UNLOCK", "a", &[("lock-token", &token)], "").is(400);
    world.ask("UNLOCK", "a", &[("lock-token", &format!("<{token}>"))], "").is(204);
    world.ask("PUT", "a", &[], "four").is(204);
}

#[test]
fn a_directory_is_locked_with_what_is_in_it() {
    let world = World::new();
    std::fs::create_dir_all(world.at("d/e")).unwrap();
    world.put("d/e/f", "x");
    let token = token(lock(&world, "d", "infinity").is(200));
    world.ask("PUT", "d/e/f", &[], "y").is(423);
    world.ask("PUT", "d/new", &[], "y").is(423);
    world.ask("MKCOL", "d/e/g", &[], "").is(423);
    world.ask("DELETE", "d", &[], "").is(423);
    lock(&world, "d/e/f", "0").is(423).has("no-conflicting-lock").has("/d</D:href>");
    let shown = format!("<{}> (<{token}>)", world.address("d"));
    world.ask("PUT", "d/e/f", &[("if", &shown)], "y").is(204);
    world
        .ask("MOVE", "d", &[("if", &format!("(<{token}>)")), ("destination", &world.address("m"))], "")
        .is(201);
    world.ask("PUT", "m/e/f", &[], "z").is(204);
    world.ask("MKCOL", "d", &[], "").is(201);
    world.ask("PUT", "d/free", &[], "z").is(201);
    // By itself: who its members are, and not what is in them.
    world.put("d/old", "x");
    lock(&world, "d", "0").is(200);
    world.ask("PUT", "d/old", &[], "y").is(204);
    world.ask("PUT", "d/new", &[], "y").is(423);
    world.ask("DELETE", "d/old", &[], "").is(423);
    lock(&world, "d", "1").is(400);
}

#[test]
fn what_is_not_there_is_made_by_its_lock() {
    let world = World::new();
    let said = lock(&world, "new", "0");
    said.is(201);
    assert_eq!(world.content("new"), "");
    world.ask("PUT", "new", &[], "x").is(423);
    lock(&world, "none/new", "0").is(409);
    assert!(world.dav.has_locks());
    world.ask("DELETE", "new", &[("if", &format!("(<{}>)", token(&said)))], "").is(204);
    assert!(!world.dav.has_locks(), "a lock goes with what it locks, and none is left of what failed");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a lock's time is the clock's, and nobody is served here")]
fn a_lock_ends_unless_it_is_refreshed() {
    let world = World::new();
    world.put("a", "x");
    let token = token(world.ask("LOCK", "a", &[("depth", "0"), ("timeout", "Second-1")], INFO).is(200));
    let shown = format!("(<{token}>)");
    world.ask("LOCK", "a", &[("if", &shown), ("timeout", "Second-2")], "").is(200).has("Second-");
    std::thread::sleep(Duration::from_millis(1200));
    world.ask("PUT", "a", &[], "y").is(423);
    std::thread::sleep(Duration::from_millis(1000));
    world.ask("PUT", "a", &[], "y").is(204);
    world.ask("LOCK", "a", &[("if", &shown)], "").is(412);
    world.ask("LOCK", "a", &[], "").is(412);
    world.ask("LOCK", "a", &[("depth", "0")], "<a/>").is(400);
    world.ask("LOCK", "a", &[("depth", "0")], &INFO.replace("write", "read")).is(400);
    let long = INFO.replace("alice", &"a".repeat(5000));
    world.ask("LOCK", "a", &[("depth", "0")], &long).is(413);
}

#[test]
fn locks_are_shown() {
    let world = World::new();
    world.put("a", "x");
    let token = token(&lock(&world, "a", "0"));
    world
        .ask("PROPFIND", "a", &[("depth", "0")], "")
        .has(&format!("<D:locktoken><D:href>{token}</D:href></D:locktoken>"));
    let shared = INFO.replace("exclusive", "shared");
    world.put("b", "x");
    world.ask("LOCK", "b", &[("depth", "0")], &shared).is(200);
    world.ask("LOCK", "b", &[("depth", "0")], &shared).is(200);
    lock(&world, "b", "0").is(423);
    let listed = world.ask("PROPFIND", "", &[("depth", "1")], "");
    assert_eq!(listed.text.matches("<D:activelock>").count(), 3);
}

/// Whoever knows no lock is told whom to ask, as far as its client said that.
#[test]
fn who_holds_a_lock_is_told() {
    for (owner, told) in [
        (
            "<D:owner><D:href>mailto:alice@example.org</D:href></D:owner>",
            "it, by the name \"mailto:alice@example.org\".",
        ),
        (
            "<D:owner>\n LibreOffice,\n <x xmlns=\"urn:x\">alice<y/></x> </D:owner>",
            "it, by the name \"LibreOffice, alice\".",
        ),
        ("<D:owner>&lt;b&gt;</D:owner>", "it, by the name \"<b>\"."),
        ("<D:owner> </D:owner>", "Somebody has locked it."),
        ("", "Somebody has locked it."),
    ] {
        let world = World::new();
        world.put("a", "x");
        let begin = INFO.find("<D:owner>").unwrap();
        let info = format!("{}{owner}</D:lockinfo>", &INFO[..begin]);
        world.ask("LOCK", "a", &[("depth", "0")], &info).is(200);
        let path = world.at("a").display().to_string();
        let path = portreeve_files::RelPath::parse(path.trim_start_matches('/').as_bytes()).unwrap();
        let refusal = world.dav.is_free(&path).unwrap_err();
        assert!(refusal.status == 423 && refusal.why.ends_with(told), "{owner}: {refusal:?}");
    }
}
