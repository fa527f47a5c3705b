//! GET, HEAD and PUT.

use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::world::World;

#[test]
fn a_file_comes_back_as_it_went() {
    let world = World::new();
    world.ask("PUT", "a.txt", &[], "0123456789").is(201);
    world.ask("PUT", "a.txt", &[], "0123456789").is(204);
    let said = world.ask("GET", "a.txt", &[], "");
    assert_eq!((said.is(200).text.as_str(), said.header("content-length")), ("0123456789", "10"));
    assert_eq!((said.header("content-type"), said.header("accept-ranges")), ("text/plain", "bytes"));
    assert_eq!(said.header("content-disposition"), "attachment; filename*=UTF-8''a.txt");
    let head = world.ask("HEAD", "a.txt", &[], "");
    assert_eq!((head.is(200).text.as_str(), head.header("content-length")), ("", "10"));
    for (name, kind) in [
        ("page.html", "application/octet-stream"),
        ("x.svg", "application/octet-stream"),
        ("p.png", "image/png"),
        ("s.js", "application/octet-stream"),
    ] {
        world.put(name, "x");
        assert_eq!(world.ask("GET", name, &[], "").header("content-type"), kind, "{name}");
    }
}

#[test]
fn ranges() {
    let world = World::new();
    world.put("a", "0123456789");
    let tag = world.ask("HEAD", "a", &[], "").header("etag").to_owned();
    for (range, status, text, said) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=8-", 206, "89", "bytes 8-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
        ("bytes=10-", 416, "", "bytes */10"),
        ("bytes=0-1,4-5", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let answer = world.ask("GET", "a", &[("range", range)], "");
        assert_eq!((answer.status.as_u16(), answer.header("content-range")), (status, said), "{range}");
        if status != 416 {
            assert_eq!(answer.text, text, "{range}");
        }
    }
    world.ask("GET", "a", &[("range", "bytes=0-3"), ("if-range", &tag)], "").is(206);
    world.ask("GET", "a", &[("range", "bytes=0-3"), ("if-range", "\"other\"")], "").is(200);
    world.put("empty", "");
    world.ask("GET", "empty", &[("range", "bytes=0-")], "").is(416);
    world.ask("PUT", "a", &[("content-range", "bytes 0-3/10")], "xxxx").is(400);
    assert_eq!(world.content("a"), "0123456789");
}

#[test]
fn conditions() {
    let world = World::new();
    world.put("a", "one");
    let first = world.ask("GET", "a", &[], "").header("etag").to_owned();
    let said = world.ask("GET", "a", &[("if-none-match", &first)], "");
    assert_eq!(said.is(304).header("etag"), first);
    world.ask("PUT", "a", &[("if-match", &first)], "two").is(204);
    world.ask("PUT", "a", &[("if-match", &first)], "three").is(412);
    world.ask("PUT", "a", &[("if-match", "nonsense")], "three").is(412);
    world.ask("PUT", "a", &[("if-none-match", "*")], "three").is(412);
    world.ask("PUT", "b", &[("if-match", "*")], "three").is(412);
    world.ask("PUT", "b", &[("if-none-match", "*")], "new").is(201);
    world.ask("PUT", "b", &[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], "x").is(412);
    world.ask("GET", "b", &[("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")], "").is(304);
    let second = world.ask("GET", "a", &[], "").header("etag").to_owned();
    assert_ne!(first, second);
    world.ask("PUT", "a", &[("if", &format!("([{second}])"))], "three").is(204);
    world.ask("PUT", "a", &[("if", &format!("([{second}])"))], "four").is(412);
    world.ask("PUT", "a", &[("if", "nonsense")], "four").is(400);
    assert_eq!((world.content("a"), world.content("b")), ("three".to_owned(), "new".to_owned()));
}

#[test]
fn a_condition_holds_until_the_file_is_in_its_place() {
    let world = World::new();
    world.put("a", "one");
    let tag = world.ask("GET", "a", &[], "").header("etag").to_owned();
    let (mut put, writing) = world.dav.write(&world.asked("PUT", "a", &[("if-match", &tag)])).unwrap();
    put.write(b"slow").unwrap();
    world.put("a", "quick");
    assert_eq!(writing.finish(put).unwrap_err().status, 412);
    let (mut put, writing) = world.dav.write(&world.asked("PUT", "b", &[("if-none-match", "*")])).unwrap();
    put.write(b"slow").unwrap();
    world.put("b", "quick");
    assert_eq!(writing.finish(put).unwrap_err().status, 412);
    assert_eq!((world.content("a"), world.content("b")), ("quick".to_owned(), "quick".to_owned()));
}

#[test]
fn what_is_no_file_is_neither_read_nor_written() {
    let world = World::new();
    std::fs::create_dir(world.at("dir")).unwrap();
    mkfifo(&world.at("pipe"), Mode::S_IRWXU).unwrap();
    symlink("/dev/zero", world.at("device")).unwrap();
    symlink("nowhere", world.at("dangling")).unwrap();
    symlink("loop", world.at("loop")).unwrap();
    for (name, get, put) in [
        ("dir", 405, 405),
        ("dir/", 405, 405),
        ("pipe", 403, 403),
        ("device", 403, 403),
        ("loop", 508, 508),
        ("none", 404, 201),
        ("none/x", 404, 409),
        ("none/", 404, 405),
        ("a%00b", 400, 400),
        ("a%2Fb", 400, 400),
        ("%2e%2e/x", 400, 400),
        ("../x", 400, 400),
        ("a//b", 400, 400),
        ("%zz", 400, 400),
    ] {
        assert_eq!(world.ask("GET", name, &[], "").status, get, "GET {name}");
        if name != "none" {
            assert_eq!(world.ask("PUT", name, &[], "x").status, put, "PUT {name}");
        }
    }
    // Written through a link that leads nowhere, it is where the link leads, as with every program.
    world.ask("PUT", "dangling", &[], "x").is(201);
    assert_eq!(world.content("nowhere"), "x");
}

#[test]
fn macos_says_how_much_comes() {
    let world = World::new();
    world.ask("PUT", "a", &[("x-expected-entity-length", "3")], "one").is(201);
    world.ask("PUT", "a", &[("x-expected-entity-length", "5")], "two").is(400);
    assert_eq!(world.content("a"), "one");
    // Its files beside others are files like any.
    world.ask("PUT", "._a", &[], "resource fork").is(201);
    world.ask("PUT", ".DS_Store", &[], "x").is(201);
}
