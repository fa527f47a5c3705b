//! Messages: frames of the control socket, and tickets with the claims in them.

use portreeve_model::wire::{
    ControlReply, ControlRequest, MAX_FRAME, WireError, decode, encode, frame_length,
};
use portreeve_model::{Audience, Claims, Scope, SignIn};
use portreeve_portal::fuzz as portal;

/// A frame as it comes from the socket: four bytes of length, then JSON.
pub fn control_frame(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<4>() else { return };
    if let Ok(length) = frame_length(*head) {
        assert!((1..=MAX_FRAME).contains(&length));
        assert_eq!(u32::try_from(length).map(u32::to_be_bytes), Ok(*head));
    }
    if let Ok(request) = decode::<ControlRequest>(rest) {
        assert!(rest.len() <= MAX_FRAME);
        let frame = encode(&request).expect("every request has a frame");
        assert_eq!(decode::<ControlRequest>(&frame[4..]).ok(), Some(request));
    }
    if let Ok(reply) = decode::<ControlReply>(rest) {
        match encode(&reply) {
            Ok(frame) => {
                let (head, body) = frame.split_first_chunk::<4>().expect("a frame has a head");
                assert_eq!(frame_length(*head).ok(), Some(body.len()));
                assert_eq!(decode::<ControlReply>(body).ok(), Some(reply.clone()));
            }
            // The shorter form with [ ] for { } may be read, but is not written.
            Err(WireError::TooLong { length }) => assert!(length > MAX_FRAME && rest.len() + 32 > MAX_FRAME),
            Err(other) => panic!("{other}"),
        }
        if let ControlReply::Address { url } = &reply {
            assert!(url.len() < 24 || !format!("{reply:?}").contains(url.as_str()), "the code is shown");
        }
        if let ControlReply::Token { token, expires } = &reply {
            let shown = format!("Token {{ token: (hidden), expires: {expires} }}");
            assert_eq!(format!("{reply:?}"), shown, "the token {} is shown", token.reveal().len());
        }
    }
}

/// The claims of a ticket.
pub fn claims(data: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Claims>(data) else { return };
    let written = serde_json::to_vec(&claims).expect("claims have a JSON form");
    let again: Claims = serde_json::from_slice(&written).expect("what we wrote can be read");
    assert_eq!(again, claims);
    let allowed = Scope::ALL.into_iter().filter(|scope| claims.allows(*scope));
    match claims.how {
        SignIn::Token(scopes) => {
            assert!(scopes.iter().count() > 0, "a token without a scope");
            assert!(allowed.eq(scopes.iter()), "a token is good for more than its scopes");
        }
        SignIn::Code | SignIn::Pam | SignIn::Oidc | SignIn::Certificate => assert_eq!(allowed.count(), 3),
    }
    if let Audience::Application(host) = &claims.aud {
        let host = host.as_str();
        assert!(host.contains('.') && host == host.to_ascii_lowercase() && host != "portal", "{host:?}");
    }
}

/// The public half of the key that signed `GENUINE`; it signed nothing else, and its private half was thrown away.
const PUBLIC: [u8; 32] = [
    0x55, 0x95, 0x15, 0xeb, 0xf3, 0x4a, 0xb4, 0xf9, 0xac, 0xdc, 0x21, 0x2d, 0x90, 0x6c, 0x35, 0xd6, 0x6f,
    0xdf, 0x9d, 0x86, 0xbb, 0xb7, 0x56, 0x98, 0x1a, 0x22, 0x40, 0xac, 0x14, 0x97, 0xa3, 0x15,
];
const KEY_ID: &str = "0123456789abcdef";
const GENUINE: &str = include_str!("../../fuzz/corpus/ticket/genuine");

/// A ticket as it stands in a cookie.
pub fn ticket(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let verify = |audience: &str, now: i64| portal::ticket(text, &PUBLIC, KEY_ID, audience, now);
    let is_genuine = text == GENUINE;
    for (audience, now, good) in [
        ("portal", 1500, is_genuine),
        ("portal", 1999, is_genuine),
        ("portal", 2000, false),
        ("portal", 900, false),
        ("portal", i64::MIN, false),
        ("c1-8888.localhost", 1500, false),
        ("", 1500, false),
    ] {
        let claims = verify(audience, now);
        assert_eq!(claims.is_some(), good, "{text:?} for {audience:?} at {now}");
        if let Some(claims) = claims {
            assert_eq!((claims.sub.as_str(), claims.uid, claims.exp), ("alice", 1000, 2000));
        }
    }
    assert_eq!(portal::ticket(text, &PUBLIC, "another", "portal", 1500), None, "the key id counts");
}
