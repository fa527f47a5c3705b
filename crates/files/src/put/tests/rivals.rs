//! Several who write the same file.

use std::sync::Barrier;

use nix::libc;

use super::*;

#[test]
fn of_two_writers() {
    for room in Room::each() {
        // The last one to finish wins.
        let (mut first, mut second) = (room.put("f").unwrap(), room.put("f").unwrap());
        second.write(b"second").unwrap();
        first.write(b"first").unwrap();
        second.finish(ALWAYS).unwrap();
        first.finish(ALWAYS).unwrap();
        assert_eq!(room.content("f"), "first");
        // Who wanted to create it loses.
        assert!(matches!(room.write("f", "third", ABSENT), Err(Error::Exists)));
        // Who had seen something else loses.
        let seen = room.root.status(&path("f")).unwrap().identity;
        let now = room.write("f", "fourth", only(Only::IfStill(seen))).unwrap().identity;
        assert!(matches!(room.write("f", "fifth", only(Only::IfStill(seen))), Err(Error::Changed)));
        assert_eq!(room.content("f"), "fourth");
        // What was removed has changed too.
        fs::remove_file(room.at("f")).unwrap();
        assert!(matches!(room.write("f", "sixth", only(Only::IfStill(now))), Err(Error::Changed)));
        assert!(room.names().is_empty());
    }
}

#[test]
fn of_many_writers_at_once_one_wins() {
    const WRITERS: usize = 8;
    for room in Room::each() {
        for round in 0..20 {
            let name = format!("f{round}");
            let start = Barrier::new(WRITERS);
            let race = |how: Finish| {
                let wins = std::thread::scope(|scope| {
                    let write = |writer: usize| {
                        let (room, start, name) = (&room, &start, &name);
                        move || {
                            let mut put = room.put(name).unwrap();
                            put.write(&[u8::try_from(writer).unwrap(); 1000]).unwrap();
                            start.wait();
                            put.finish(how)
                        }
                    };
                    let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
                    let answers = writers.into_iter().map(|writer| writer.join().unwrap());
                    answers.filter(Result::is_ok).count()
                });
                let content = fs::read(room.at(&name)).unwrap();
                assert_eq!(content.len(), 1000);
                assert!(content.iter().all(|byte| *byte == content[0]), "one writer's, whole");
                wins
            };
            assert_eq!(race(ABSENT), 1);
            let seen = room.root.status(&path(&name)).unwrap().identity;
            assert_eq!(race(only(Only::IfStill(seen))), 1);
            assert_eq!(race(ALWAYS), WRITERS);
        }
        assert_eq!(room.names().len(), 20);
    }
}

#[test]
fn where_no_rename_refuses_a_link_does() {
    for room in Room::each() {
        alone(|| {
            // As NFS answers.
            refuse(libc::SYS_renameat2, libc::EINVAL);
            let status = room.write("f", "one", ABSENT).unwrap();
            assert_eq!(status, room.root.status(&path("f")).unwrap(), "what finish says is what is there");
            assert!(matches!(room.write("f", "two", ABSENT), Err(Error::Exists)));
            // Between the look and the link.
            let mut late = room.put("g").unwrap();
            fs::write(room.at("g"), "theirs").unwrap();
            assert!(matches!(late.staged.create(), Err(Error::Exists)));
        });
        assert_eq!(room.names(), ["f", "g"]);
        assert_eq!((room.content("f"), room.content("g")), ("one".into(), "theirs".into()));
    }
}
