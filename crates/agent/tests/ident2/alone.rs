//! On one machine: who may ask, what is answered, and what happens to who asks badly.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use portreeve_agent::ident2::client::{Ident2, Question};
use portreeve_model::wire::ident2::{Flags, Op, Protocol, Request, TcpStates};

use crate::world::{
    Caller, PATIENCE, PROJECT, Running, Service, at, given, holds, listener_of, listens, only, skip, until,
    user,
};

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[test]
fn a_question_and_its_answer_byte_by_byte() {
    let service = Service::start("", None);
    let caller = service.caller();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (operation, answered) in [(1, 2), (3, 4)] {
        let mut question = vec![0; 60];
        for (place, bytes) in [
            (0, &[operation][..]),
            (1, &0x0102_0304_0506_0708_u64.to_ne_bytes()),
            (9, &0x1112_1314_1516_1718_u64.to_ne_bytes()),
            (18, &[4, 6]),
            (20, &(1_u32 << 10).to_ne_bytes()),
            (24, &[127, 0, 0, 1]),
            (56, &port.to_ne_bytes()),
        ] {
            question[place..place + bytes.len()].copy_from_slice(bytes);
        }
        caller.say(&question);
        let mut answer = vec![0; 34];
        for (place, bytes) in [
            (0, &[answered][..]),
            (1, &0x0102_0304_0506_0708_u64.to_ne_bytes()),
            (9, &0x1112_1314_1516_1718_u64.to_ne_bytes()),
            (17, &[1]),
            (22, &me().to_ne_bytes()),
        ] {
            answer[place..place + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(caller.hear(), answer);
        // Nothing listens on the discard port.
        question[56..58].copy_from_slice(&9_u16.to_ne_bytes());
        caller.say(&question);
        answer[17] = 0;
        answer[22..26].fill(0);
        assert_eq!(caller.hear(), answer);
    }
}

#[test]
fn this_machine_answers_for_its_own_addresses_alone() {
    let service = Service::start("", None);
    let caller = service.caller();
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let flags = Flags::default();
    for (ip, is_ours) in [
        ("127.0.0.1", true),
        ("127.0.0.2", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("192.0.2.1", false),
        ("::ffff:192.0.2.1", false),
        ("2001:db8::1", false),
        ("0.0.0.0", false),
        ("::", false),
    ] {
        for op in [Op::Local, Op::Remote] {
            let answer = caller.ask(&Request { flags, ..listens(op, 7, at(ip, port)) });
            assert_eq!((answer.op, answer.query_id), (op, 7));
            assert_eq!(answer.found, only(me()).filter(|_| is_ours), "{ip} {op:?}");
        }
    }
    // As from the other system: the first caller, asking about another node, hears its own id.
    let outside = caller.ask(&listens(Op::Remote, 8, at("192.0.2.1", port)));
    assert_eq!((outside.client_id, outside.query_id, outside.found), (1, 8, None));
    let second = service.caller().ask(&listens(Op::Remote, 8, at("192.0.2.1", port)));
    assert_eq!(second.client_id, 2);
    assert!(service.log().contains("in none of the peers' ranges"), "{}", service.log());
}

#[test]
fn a_socket_of_systemds_is_taken_over_and_stays_as_it_was_made() {
    let activate = "/usr/bin/systemd-socket-activate";
    if !std::path::Path::new(activate).exists() {
        return skip("systemd-socket-activate is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, config) = (dir.path().join("systemds"), dir.path().join("ident2.toml"));
    // What the file says of the socket is not done.
    std::fs::write(&config, format!("socket = {:?}\nsocket_other = true\n", dir.path().join("own"))).unwrap();
    let start = |kind: &[&str]| {
        let mut command = Command::new(activate);
        command.args(kind).arg("--listen").arg(&path).arg(env!("CARGO_BIN_EXE_portreeve-agent"));
        command.arg("ident2").arg("--config").arg(&config);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let program = Running(command.stderr(log).spawn().unwrap());
        until("it is listened on", || {
            std::fs::read(dir.path().join("log")).unwrap().starts_with(b"Listening on")
        });
        program
    };
    let program = start(&["--seqpacket"]);
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode();
    let made = mode();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let question = listens(Op::Local, 1, listener.local_addr().unwrap());
    let question = Request { flags: Flags::default(), ..question };
    let caller = Caller::at(&path);
    assert_eq!(caller.ask(&question).found, only(me()));
    assert!(mode() == made && !dir.path().join("own").exists());
    drop(program);
    std::fs::remove_file(&path).unwrap();
    // One of another kind.
    let mut program = start(&[]);
    let _caller = std::os::unix::net::UnixStream::connect(&path).unwrap();
    until("it ends", || program.0.try_wait().unwrap().is_some());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!program.0.wait().unwrap().success() && log.contains("ListenSequentialPacket"), "{log}");
}

#[test]
fn the_holders_group_and_supplementary_groups() {
    let Some(alice) = user() else { return };
    let service = Service::start("", None);
    let caller = service.caller();
    let listener = listener_of(alice, "0.0.0.0:0");
    let request = listens(Op::Local, 1, at("127.0.0.1", listener.local_addr().unwrap().port()));
    assert_eq!(caller.ask(&request).found, only(alice), "nobody of alice's holds it");
    let holder = holds(&listener, alice, PROJECT, "20901,20902");
    let mut found = None;
    // That nobody was seen to hold it is remembered for a second.
    until("the holder", || {
        found = caller.ask(&request).found;
        found.as_ref().is_some_and(|found| found.gid.is_some())
    });
    let found = found.unwrap();
    assert_eq!((found.uid, found.gid, found.pid), (alice, Some(PROJECT), Some(holder.pid())));
    assert_eq!(found.groups, Some(vec![20_901, 20_902]));
    let flags = |flags| caller.ask(&Request { flags, ..request }).found.unwrap();
    assert_eq!(flags(Flags::GID).groups, None);
    assert_eq!((flags(Flags::GID).gid, flags(Flags::GID).pid), (Some(PROJECT), Some(holder.pid())));
    assert_eq!(flags(Flags::default()), only(alice).unwrap());
    // A second process with the same group, which lacks one supplementary group.
    let second = holds(&listener, alice, PROJECT, "20902,20903");
    until("both", || flags(Flags::GROUPS).groups == Some(vec![20_902]));
    drop(second);
    // And one with another group: whose is it then?
    let _other = holds(&listener, alice, PROJECT + 1, "20901");
    until("doubt", || Some(flags(Flags::GID)) == only(alice));
}

#[test]
fn sockets_of_two_users_are_nobodys() {
    let (Some(alice), Some(bob)) = (user(), user()) else { return };
    let service = Service::start("", None);
    let caller = service.caller();
    let flags = Flags::default();
    let sharing = |at: SocketAddrV4| {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&socket, sockopt::ReusePort, &true).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::from(at)).unwrap();
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
        TcpListener::from(socket)
    };
    let one = sharing(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let server = one.local_addr().unwrap();
    let SocketAddr::V4(here) = server else { panic!() };
    let two = sharing(here);
    let who_listens = Request { flags, ..listens(Op::Local, 1, server) };
    let (one, two) = (given(one, alice), given(two, alice));
    assert_eq!(caller.ask(&who_listens).found, only(alice));
    let (one, two) = (one, given(two, bob));
    assert_eq!(caller.ask(&who_listens).found, None);
    drop(two);
    // A process that another test starts has a copy for a moment.
    until("one is left", || caller.ask(&who_listens).found == only(alice));

    let connected = Request { states: TcpStates::CONNECTED, ..who_listens };
    assert_eq!(caller.ask(&connected).found, None, "nobody is connected");
    let clients: Vec<_> = (0..2).map(|_| TcpStream::connect(server).unwrap()).collect();
    let accepted: Vec<_> = clients.iter().map(|_| given(one.accept().unwrap().0, alice)).collect();
    assert_eq!(caller.ask(&connected).found, only(alice));
    let [first, second] = <[TcpStream; 2]>::try_from(accepted).unwrap();
    let second = given(second, bob);
    assert_eq!(caller.ask(&connected).found, None);
    for (socket, owner) in [(&first, alice), (&second, bob)] {
        let exact = Request { remote: socket.peer_addr().unwrap(), ..connected };
        assert_eq!(caller.ask(&exact).found, only(owner));
    }
}

#[test]
fn of_roots_sockets_no_more_than_the_uid_unless_asked_for() {
    let Some(_) = user() else { return };
    let service = Service::start("", None);
    let caller = service.caller();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let request = listens(Op::Local, 1, listener.local_addr().unwrap());
    assert_eq!(caller.ask(&request).found, only(0));
    // With the rights that the service keeps.
    let mut probe = Command::new("setpriv");
    probe.args(["--bounding-set", "-all,+sys_ptrace,+dac_read_search", "--", "ls", "-l", "/proc/1/fd"]);
    if !probe.output().is_ok_and(|done| done.status.success()) {
        return skip("not all of root's processes may be looked at on this machine");
    }
    // Between fork and exec, a process of another test may hold it as well, with another group already.
    let all = Request { flags: request.flags.and(Flags::OF_ROOT), ..request };
    until("root's process", || {
        let found = caller.ask(&all).found.unwrap();
        (found.uid, found.gid, found.groups.is_some()) == (0, Some(0), true)
    });
}

#[test]
fn who_may_ask() {
    for (config, mode) in [("", 0o600), ("socket_group = 'root'", 0o660), ("socket_other = true", 0o666)] {
        if config.contains("group") && user().is_none() {
            continue;
        }
        let service = Service::start(config, None);
        let meta = std::fs::metadata(service.socket()).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{config}");
        assert!(!config.contains("group") || meta.gid() == 0);
    }
}

#[test]
fn what_is_no_question_ends_the_connection_and_no_other() {
    let service = Service::start("", None);
    let other = service.caller();
    let good = listens(Op::Local, 1, at("127.0.0.1", 9));
    let bytes = good.to_bytes();
    let with = |place: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[place] = value;
        bytes
    };
    for bad in [
        vec![9],
        bytes[..59].to_vec(),
        [&bytes[..], &[0]].concat(),
        with(0, 5),
        with(0, 2),
        with(18, 5),
        with(19, 1),
        good.answer(only(1)).to_bytes(),
        vec![1; 100_000],
    ] {
        let caller = service.caller();
        caller.say(b"\0hello");
        assert_eq!(caller.ask(&good).found, None);
        caller.say(&bad);
        assert!(caller.hear().is_empty(), "{:?}", &bad[..bad.len().min(60)]);
    }
    assert_eq!(other.ask(&good).found, None);
}

#[test]
fn many_questions_of_ours_at_once() {
    let service = Service::start("", None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = std::sync::Arc::new(Ident2::new(service.socket()));
        let question = |port: u16| Question {
            op: Op::Remote,
            flags: Flags::default(),
            protocol: Protocol::Tcp,
            states: TcpStates::LISTEN,
            local: at("127.0.0.1", port),
            remote: at("0.0.0.0", 0),
        };
        let mut asked = tokio::task::JoinSet::new();
        let listens = listener.local_addr().unwrap().port();
        for n in 0..500 {
            let (client, port) = (std::sync::Arc::clone(&client), if n % 2 == 0 { listens } else { 9 });
            asked.spawn(async move { (port, client.ask(question(port), PATIENCE).await.unwrap()) });
        }
        while let Some(done) = asked.join_next().await {
            let (port, found) = done.unwrap();
            assert_eq!(found, only(me()).filter(|_| port == listens));
        }
    });
}

#[test]
fn it_ends_when_it_is_told_to_and_starts_where_it_was() {
    let mut service = Service::start("", None);
    let before = service.caller();
    let question = listens(Op::Local, 1, at("127.0.0.1", 9));
    assert_eq!(before.ask(&question).found, None);
    // Its socket lies there still, as after a crash.
    service.restart(|| assert!(before.hear().is_empty()));
    assert_eq!(service.caller().ask(&question).found, None);
}

#[test]
fn what_stands_in_the_way_of_its_socket_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (file, path) = (dir.path().join("c"), dir.path().join("not-a-socket"));
    std::fs::write(&path, "mine").unwrap();
    std::fs::write(&file, format!("socket = '{}'", path.display())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve-agent"));
    let done = command.arg("ident2").arg("--config").arg(&file).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && error.contains("can't listen there"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn the_configuration_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve-agent"));
        let done = command.arg("ident2").arg("--check").arg("--config").arg(&file).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8(said).unwrap())
    };
    let (fine, said) = check("peers = ['172.16.0.0/12']\nsocket_group = 'root'");
    assert!(fine && said.contains("root and the group root may ask"), "{said}");
    assert!(said.contains("172.16.0.0/12 at UDP port 99"), "{said}");
    let (fine, said) = check("port = 1024");
    assert!(!fine && said.contains("port: 1024 is out of range"), "{said}");
    let (fine, said) = check("socket_group = 'nobody is in it'");
    assert!(!fine && said.contains("there is no group nobody is in it"), "{said}");
}
