use super::*;

/// Bytes at places that were counted by hand from the packed structures, the operation's byte being place 0.
fn layout(length: usize, places: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (at, part) in places {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn question() -> (Request, Vec<u8>) {
    let request = Request {
        op: Op::Remote,
        client_id: 0x0102_0304_0506_0708,
        query_id: 0x1112_1314_1516_1718,
        flags: Flags::PROCESS.and(Flags::GROUPS),
        protocol: Protocol::Tcp,
        states: TcpStates::SYN_SENT,
        local: end("172.16.3.4:40000"),
        remote: end("172.16.5.6:8888"),
    };
    let bytes = layout(
        60,
        &[
            (0, &[3]),
            (1, &0x0102_0304_0506_0708_u64.to_ne_bytes()),
            (9, &0x1112_1314_1516_1718_u64.to_ne_bytes()),
            (17, &[12]),
            (18, &[4]),
            (19, &[6]),
            (20, &4_u32.to_ne_bytes()),
            (24, &[172, 16, 3, 4]),
            (40, &[172, 16, 5, 6]),
            (56, &40_000_u16.to_ne_bytes()),
            (58, &8888_u16.to_ne_bytes()),
        ],
    );
    (request, bytes)
}

fn answer() -> (Response, Vec<u8>) {
    let found =
        Found { uid: 1001, gid: Some(2002), pid: Some(4_194_303), groups: Some(vec![7, 4_000_000_000]) };
    let response = Response { op: Op::Local, client_id: 9, query_id: u64::MAX, found: Some(found) };
    let bytes = layout(
        42,
        &[
            (0, &[2]),
            (1, &9_u64.to_ne_bytes()),
            (9, &[0xff; 8]),
            (17, &[1 | 2 | 4 | 8]),
            (18, &4_194_303_i32.to_ne_bytes()),
            (22, &1001_u32.to_ne_bytes()),
            (26, &2002_u32.to_ne_bytes()),
            (30, &2_u32.to_ne_bytes()),
            (34, &7_u32.to_ne_bytes()),
            (38, &4_000_000_000_u32.to_ne_bytes()),
        ],
    );
    (response, bytes)
}

#[test]
fn a_question_has_its_bytes_in_their_places() {
    let (request, bytes) = question();
    assert_eq!(request.to_bytes(), bytes);
    assert_eq!(parse(&bytes), Ok(Message::Question(request)));
    // What stands behind an IPv4 address means nothing.
    let mut dirty = bytes.clone();
    dirty[28..40].fill(0xaa);
    dirty[44..56].fill(0xbb);
    assert_eq!(parse(&dirty), Ok(Message::Question(request)));

    let six = Request {
        op: Op::Local,
        protocol: Protocol::Udp,
        states: TcpStates::ANY,
        local: end("[fd00::1]:53"),
        remote: end("[::ffff:10.0.0.1]:1"),
        ..request
    };
    let mut expected = bytes;
    for (at, part) in [
        (0, &[1][..]),
        (18, &[6, 17]),
        (20, &[0; 4]),
        (24, &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (40, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]),
        (56, &53_u16.to_ne_bytes()),
        (58, &1_u16.to_ne_bytes()),
    ] {
        expected[at..at + part.len()].copy_from_slice(part);
    }
    assert_eq!(six.to_bytes(), expected);
    assert_eq!(parse(&expected), Ok(Message::Question(six)));
    // Ends of two families are one question of version 6.
    let mixed = Request { remote: end("10.0.0.1:1"), ..six };
    assert_eq!(mixed.to_bytes(), expected);
    let whichever = Request { remote: end("0.0.0.0:0"), ..six };
    assert_eq!(parse(&whichever.to_bytes()), Ok(Message::Question(Request { remote: end("[::]:0"), ..six })));
}

#[test]
fn an_answer_has_its_bytes_in_their_places() {
    let (response, bytes) = answer();
    assert_eq!(response.to_bytes(), bytes);
    assert_eq!(parse(&bytes), Ok(Message::Answer(response.clone())));
    let only_uid = Found { uid: 1001, gid: None, pid: None, groups: None };
    let only_uid = Response { op: Op::Remote, found: Some(only_uid), ..response };
    let expected = layout(
        34,
        &[(0, &[4]), (1, &9_u64.to_ne_bytes()), (9, &[0xff; 8]), (17, &[1]), (22, &1001_u32.to_ne_bytes())],
    );
    assert_eq!(only_uid.to_bytes(), expected);
    assert_eq!(parse(&expected), Ok(Message::Answer(only_uid.clone())));
    // Without the flag that there is an answer, nothing of it is one.
    let mut none = bytes;
    none[17] = 2 | 4 | 8;
    none[0] = 4;
    let nothing = Response { found: None, ..only_uid };
    assert_eq!(parse(&none), Ok(Message::Answer(nothing.clone())));
    assert_eq!(nothing.to_bytes(), layout(34, &[(0, &[4]), (1, &9_u64.to_ne_bytes()), (9, &[0xff; 8])]));
}

#[test]
fn each_flag_says_what_is_there() {
    let found = |flags: u8| {
        let (_, mut bytes) = answer();
        bytes[17] = flags;
        match parse(&bytes) {
            Ok(Message::Answer(answer)) => answer.found.map(|f| (f.gid, f.pid, f.groups)),
            other => panic!("{other:?}"),
        }
    };
    let groups = || Some(vec![7, 4_000_000_000]);
    for (flags, expected) in [
        (0, None),
        (2 | 4 | 8 | 16, None),
        (1, Some((None, None, None))),
        (1 | 2, Some((Some(2002), None, None))),
        // A process that is known has a group that is known.
        (1 | 4, Some((Some(2002), Some(4_194_303), None))),
        (1 | 8, Some((None, None, groups()))),
        (1 | 2 | 4 | 8, Some((Some(2002), Some(4_194_303), groups()))),
    ] {
        assert_eq!(found(flags), expected, "{flags}");
    }
    let (_, mut bytes) = answer();
    bytes[18..22].copy_from_slice(&(-1_i32).to_ne_bytes());
    let Ok(Message::Answer(answer)) = parse(&bytes) else { panic!() };
    assert_eq!(answer.found.unwrap().pid, None, "there is no such process");
}

#[test]
fn what_is_no_message() {
    let ((_, question), (_, answer)) = (question(), answer());
    let with = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    assert_eq!(parse(&[]), Err(Malformed::Empty));
    assert_eq!(parse(&[5]), Err(Malformed::Operation(5)));
    assert_eq!(parse(&with(&question, 0, 255)), Err(Malformed::Operation(255)));
    for version in [0, 5, 7, 255] {
        assert_eq!(parse(&with(&question, 18, version)), Err(Malformed::Version(version)));
    }
    for protocol in [0, 1, 132, 255] {
        assert_eq!(parse(&with(&question, 19, protocol)), Err(Malformed::Protocol(protocol)));
    }
    for length in (1..60).chain([61, 120]) {
        let mut bytes = question.clone();
        bytes.resize(length, 0);
        assert_eq!(parse(&bytes), Err(Malformed::Length(length)));
    }
    // Any length but that of as many groups as it says.
    for length in (1..answer.len()).chain(answer.len() + 1..answer.len() + 9) {
        let mut bytes = answer.clone();
        bytes.resize(length, 0);
        assert_eq!(parse(&bytes), Err(Malformed::Length(length)));
    }
    for count in [0, 1, 3, u32::MAX] {
        let mut bytes = answer.clone();
        bytes[30..34].copy_from_slice(&count.to_ne_bytes());
        assert_eq!(parse(&bytes), Err(Malformed::Length(42)), "{count}");
    }
    assert_eq!(parse(b"\0"), Ok(Message::Hello));
    assert_eq!(parse(b"\0hello"), Ok(Message::Hello));
}

#[test]
fn groups_are_all_there_or_not_told() {
    let many = |count: usize| {
        let groups = Some((0..count).map(|n| u32::try_from(n).unwrap()).collect());
        let found = Some(Found { uid: 1, gid: Some(2), pid: Some(3), groups });
        Response { op: Op::Remote, client_id: 1, query_id: 2, found }
    };
    for count in [0, 1, 350, MAX_GROUPS] {
        let bytes = many(count).to_bytes();
        assert_eq!(bytes.len(), 34 + 4 * count);
        assert_eq!(parse(&bytes), Ok(Message::Answer(many(count))));
    }
    assert_eq!((MAX_MESSAGE, many(MAX_GROUPS).to_bytes().len()), (9214, 9214));
    let Ok(Message::Answer(too_many)) = parse(&many(MAX_GROUPS + 1).to_bytes()) else { panic!() };
    let found = too_many.found.unwrap();
    assert_eq!((found.uid, found.gid, found.groups), (1, Some(2), None));
    let mut longer = many(MAX_GROUPS).to_bytes();
    longer.extend([0; 4]);
    longer[30..34].copy_from_slice(&u32::try_from(MAX_GROUPS + 1).unwrap().to_ne_bytes());
    assert_eq!(parse(&longer), Err(Malformed::Length(9218)));
}

/// Any bytes are read without a panic, and what is read is written so that it reads the same.
#[test]
fn any_bytes_are_read_or_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut read = 0;
    for round in 0..200_000 {
        let operation = (random() % 6) as u8;
        let length = match round % 4 {
            0 => 60,
            1 => 34 + 4 * (random() % 8) as usize,
            _ => (random() % 80) as usize,
        };
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            *first = operation;
        }
        if length == 60 {
            bytes[18] = [4, 6, 5][(random() % 3) as usize];
            bytes[19] = [6, 17, 1][(random() % 3) as usize];
        } else if length >= 34 {
            let count = u32::try_from((length - 34) / 4).unwrap();
            bytes[30..34].copy_from_slice(&count.to_ne_bytes());
        }
        let Ok(message) = parse(&bytes) else { continue };
        read += 1;
        let again = match &message {
            Message::Hello => continue,
            Message::Question(question) => question.to_bytes(),
            Message::Answer(answer) => answer.to_bytes(),
        };
        assert_eq!(parse(&again), Ok(message), "{bytes:?}");
    }
    assert!(read > 10_000, "only {read} were messages");
}

#[test]
fn what_is_asked_for() {
    assert!(!Flags::default().wants_process(1000) && !Flags::OF_ROOT.wants_process(1000));
    for flag in [Flags::GID, Flags::PROCESS, Flags::GROUPS] {
        assert!(flag.wants_process(1000) && !flag.wants_process(0));
        assert!(flag.and(Flags::OF_ROOT).wants_process(0));
    }
    // ESTABLISHED, SYN_SENT, FIN_WAIT1 and 2, TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING.
    let numbers: Vec<u8> = (0..=255).filter(|&number| TcpStates::CONNECTED.allow(number)).collect();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8, 9, 11]);
    assert!(TcpStates::LISTEN.allow(10) && !TcpStates::LISTEN.allow(1) && TcpStates::ANY.allow(200));
    assert!(!TcpStates(u32::MAX).allow(32));
}
