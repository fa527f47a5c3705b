//! PROPFIND and PROPPATCH.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use portreeve_dav::{Answer, limits};

use crate::world::World;

fn find(world: &World, name: &str, depth: &str, properties: &str) -> crate::world::Said {
    let body =
        format!("<D:propfind xmlns:D=\"DAV:\" xmlns:x=\"urn:x\"><D:prop>{properties}</D:prop></D:propfind>");
    world.ask("PROPFIND", name, &[("depth", depth)], &body)
}

fn set(world: &World, name: &str, property: &str) -> crate::world::Said {
    let body = format!(
        "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:x=\"urn:x\"><D:set><D:prop>{property}</D:prop></D:set></D:propertyupdate>"
    );
    world.ask("PROPPATCH", name, &[], &body)
}

#[test]
fn a_directory_is_listed_whatever_its_names_are() {
    let world = World::new();
    for name in [
        &b"plain"[..],
        b"a b&c<d>\"'",
        b"new\nline",
        b"\xff\xfe",
        b"50%25",
        b"%2e%2e",
        b"\xc3\xa4",
        &[b'n'; 255],
    ] {
        std::fs::write(world.at("").join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    std::fs::create_dir(world.at("dir")).unwrap();
    symlink("nowhere", world.at("dangling")).unwrap();
    symlink("dir", world.at("to-dir")).unwrap();
    mkfifo(&world.at("pipe"), Mode::S_IRWXU).unwrap();
    let said = find(&world, "", "1", "<D:displayname/><D:resourcetype/><D:getcontentlength/>");
    assert_eq!(said.is(207).text.matches("<D:response>").count(), 13);
    for part in [
        "/plain</D:href>",
        "/a%20b%26c%3Cd%3E%22%27</D:href>",
        "/new%0Aline</D:href>",
        "/%FF%FE</D:href>",
        "/50%2525</D:href>",
        "/%252e%252e</D:href>",
        "/dir/</D:href>",
        "/to-dir/</D:href>",
        "<D:displayname>a b&amp;c&lt;d&gt;&quot;&apos;</D:displayname>",
    ] {
        said.has(part);
    }
    // Each address leads to what it was said of.
    for address in said.text.split("<D:href>").skip(1).map(|rest| rest.split("</D:href>").next().unwrap()) {
        let mut asked = world.asked("PROPFIND", "", &[("depth", "0")]);
        asked.path = address.to_owned();
        let status = world.send(&asked, "").status.as_u16();
        assert!(status == 207 || (status == 404 && address.ends_with("dangling")), "{address}: {status}");
    }
    let itself = find(&world, "", "0", "<D:resourcetype/>");
    assert_eq!(itself.is(207).text.matches("<D:response>").count(), 1);
}

#[test]
fn a_tree_is_not_walked_and_nonsense_is_refused() {
    let world = World::new();
    world.put("a", "x");
    world.ask("PROPFIND", "", &[("depth", "infinity")], "").is(403).has("propfind-finite-depth");
    world.ask("PROPFIND", "", &[], "").is(403).has("propfind-finite-depth");
    world.ask("PROPFIND", "", &[("depth", "2")], "").is(400);
    // Of a file that is no more than itself, and what is not there is not there.
    world.ask("PROPFIND", "a", &[], "").is(207).has("getcontentlength");
    world.ask("PROPFIND", "a", &[("depth", "infinity")], "").is(207);
    world.ask("PROPFIND", "none", &[], "").is(404);
    world.ask("PROPFIND", "none", &[("depth", "0")], "").is(404);
    for (body, status) in [
        ("<a/>", 400),
        ("<D:propfind xmlns:D=\"DAV:\"/>", 400),
        ("<D:propfind xmlns:D=\"DAV:\"><D:prop/><D:allprop/></D:propfind>", 400),
        ("<D:propfind xmlns:D=\"DAV:\"><D:prop><b:x xmlns:b=\"\"/></D:prop></D:propfind>", 400),
        (
            "<!DOCTYPE a [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><D:propfind xmlns:D=\"DAV:\"><D:allprop/></D:propfind>",
            403,
        ),
        (
            "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><D:propfind xmlns:D=\"DAV:\"><D:allprop/></D:propfind>",
            403,
        ),
        ("not xml", 400),
    ] {
        world.ask("PROPFIND", "a", &[("depth", "0")], body).is(status).has_not("root:");
    }
    world.ask("PROPFIND", "a", &[("depth", "0")], &"<a>".repeat(30_000)).is(413);
    find(&world, "a", "0", &"<x:a/>".repeat(256)).is(207);
    find(&world, "a", "0", &"<x:a/>".repeat(257)).is(400);
}

#[test]
fn windows_asks_for_what_is_in_it_alone() {
    let world = World::new();
    world.put("a", "x");
    let said = world.ask("PROPFIND", "", &[("depth", "1,noroot")], "").is(207).text.clone();
    assert!(
        said.starts_with("<?xml") && said.matches("<D:response>").count() == 1 && said.contains("/a<"),
        "{said}"
    );
    world.ask("PROPFIND", "", &[("depth", "infinity,noroot")], "").is(400);
}

#[test]
fn a_large_directory_comes_in_pieces() {
    let world = World::new();
    for number in 0..2000 {
        std::fs::write(world.at(&format!("{number:04}-{}", "n".repeat(200))), "").unwrap();
    }
    let Answer::Listing(_, mut listing) =
        world.dav.answer(&world.asked("PROPFIND", "", &[("depth", "1")]), b"")
    else {
        panic!("no listing");
    };
    let mut pieces = Vec::new();
    while let Some(piece) = listing.next(&world.dav).unwrap() {
        pieces.push(piece.len());
    }
    let most = limits::PIECE + 4096;
    assert!(pieces.len() > 3 && pieces.iter().all(|length| *length <= most), "{pieces:?}");
}

#[test]
fn live_properties_are_the_files_own() {
    let world = World::new();
    world.put("a.txt", "1234");
    let said = world.ask("PROPFIND", "a.txt", &[("depth", "0")], "").is(207).text.clone();
    for part in [
        "<D:getcontentlength>4</D:getcontentlength>",
        "<D:getcontenttype>text/plain</D:getcontenttype>",
        "<D:resourcetype/>",
        "<D:getetag>\"",
        " GMT</D:getlastmodified>",
        "<D:supportedlock>",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("quota"), "only who asks is told");
    find(&world, "", "0", "<D:quota-available-bytes/><D:quota-used-bytes/>")
        .has("<D:quota-available-bytes>")
        .has_not("404");
    find(&world, "a.txt", "0", "<D:getetag/><x:none/>")
        .has("<D:getetag>")
        .has("<none xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 404");
    let names = "<D:propfind xmlns:D=\"DAV:\"><D:propname/></D:propfind>";
    world.ask("PROPFIND", "a.txt", &[("depth", "0")], names).has("<D:getetag/>").has_not("1234");
    set(&world, "a.txt", "<D:getetag>x</D:getetag><x:a>1</x:a>")
        .is(207)
        .has("403 Forbidden")
        .has("424 Failed")
        .has("cannot-modify-protected-property");
    find(&world, "a.txt", "0", "<x:a/>").has("404");
}

#[test]
fn dead_properties_stay_with_the_file() {
    let world = World::new();
    world.put("a", "x");
    let said =
        set(&world, "a", "<x:one xml:lang=\"de\">eins<y xmlns=\"urn:y\"/></x:one><two>&#x1F600;&amp;</two>");
    let root = portreeve_files::Root::open(&world.at(""), portreeve_files::Within::Root).unwrap();
    if matches!(root.set_attribute(None, "probe", Some(b"x")), Err(portreeve_files::Error::Unsupported(_))) {
        said.has("403");
        return println!("SKIPPED: dead properties: this file system keeps no attributes");
    }
    said.is(207).has("200 OK");
    let kept = |name: &str| find(&world, name, "0", "<x:one/><two/>").text.clone();
    assert!(
        kept("a").contains("xml:lang=\"de\">eins<y xmlns=\"urn:y\"/></x:one>")
            && kept("a").contains(">&#x1F600;&amp;</two>")
    );
    world.put("a", "written anew");
    world.ask("COPY", "a", &[("destination", &world.address("b"))], "").is(201);
    world.ask("MOVE", "a", &[("destination", &world.address("c"))], "").is(201);
    for name in ["b", "c"] {
        assert!(kept(name).contains("eins"), "{name}");
    }
    let remove = "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:x=\"urn:x\"><D:remove><D:prop><x:one/><x:none/></D:prop></D:remove></D:propertyupdate>";
    world.ask("PROPPATCH", "b", &[], remove).is(207).has("200 OK");
    find(&world, "b", "0", "<x:one/>").has("404");
    find(&world, "b", "0", "<two/>").has_not("404");
    set(&world, "b", &format!("<x:large>{}</x:large>", "x".repeat(62_000))).is(207).has("507");
    find(&world, "b", "0", "<two/>").has_not("404");
    set(&world, "none", "<x:a/>").is(404);
    // What somebody else wrote there is told only if it can stand in the answer.
    for (element, is_told) in [
        (r#"<x xmlns=\"urn:x\">fine</x>"#, true),
        (r#" <x xmlns=\"urn:x\">fine</x>"#, false),
        (r#"<?xml version=\"1.0\"?><x xmlns=\"urn:x\">fine</x>"#, false),
        (r#"<x xmlns=\"urn:x\" b=\"\u0001\">fine</x>"#, false),
        (r#"<x xmlns=\"urn:x\">fine</x></D:prop>"#, false),
        (r#"<x xmlns=\"urn:x\">fine]]></x>"#, false),
        (r#"<x xmlns=\"urn:other\">fine</x>"#, false),
    ] {
        let kept = format!("[[\"urn:x\",\"x\",\"{element}\"]]");
        let root = portreeve_files::Root::open(&world.at(""), portreeve_files::Within::Root).unwrap();
        let path = portreeve_files::RelPath::parse(b"b").unwrap();
        root.set_attribute(Some(&path), "portreeve.dav", Some(kept.as_bytes())).unwrap();
        let said = find(&world, "b", "0", "<x:x/>").is(207).text.clone();
        assert_eq!(said.contains("fine"), is_told, "{element}: {said}");
    }
    world.ask("PROPPATCH", "b", &[], "").is(400);
}

#[test]
fn what_programs_keep_in_properties_that_is_a_files_own() {
    let world = World::new();
    world.put("a", "x");
    std::fs::set_permissions(world.at("a"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let mode = || std::fs::metadata(world.at("a")).unwrap().permissions().mode() & 0o777;
    let executable = |value: &str| {
        format!("<e:executable xmlns:e=\"http://apache.org/dav/props/\">{value}</e:executable>")
    };
    set(&world, "a", &executable("T")).has("200 OK");
    assert_eq!(mode(), 0o750);
    find(&world, "a", "0", "<executable xmlns=\"http://apache.org/dav/props/\"/>").has(">T</executable>");
    set(&world, "a", &executable("F")).has("200 OK");
    assert_eq!(mode(), 0o640);
    set(&world, "a", &executable("maybe")).has("403");
    // It is none of a directory's: there the mode says who gets in.
    world.ask("MKCOL", "d", &[], "").is(201);
    let before = std::fs::metadata(world.at("d")).unwrap().permissions();
    find(&world, "d", "0", "<executable xmlns=\"http://apache.org/dav/props/\"/>").has("404");
    for value in ["F", "T"] {
        set(&world, "d", &(executable(value) + "<x:beside/>")).has("403").has("424 Failed");
        assert_eq!(std::fs::metadata(world.at("d")).unwrap().permissions(), before);
    }
    let time = "<w:Win32LastModifiedTime xmlns:w=\"urn:schemas-microsoft-com:\">Sun, 06 Nov 1994 08:49:37 GMT</w:Win32LastModifiedTime>";
    if set(&world, "a", time).text.contains("200 OK") {
        find(&world, "a", "0", "<D:getlastmodified/>").has("Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
