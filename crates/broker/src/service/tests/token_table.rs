//! The table of access tokens by itself.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use portreeve_model::Scope;

use super::*;

const HOUR: u32 = 3600;

fn owner(uid: u32) -> Identity {
    Identity { name: UserName::parse(&format!("u{uid}")).unwrap(), uid, gid: uid, groups: vec![] }
}

fn called(text: &str) -> TokenName {
    TokenName::parse(text).unwrap()
}

fn apps() -> Scopes {
    Scopes::new(&[Scope::Apps]).unwrap()
}

fn load(dir: &Path) -> Tokens {
    Tokens::load(dir.join("tokens.json")).unwrap()
}

fn make(tokens: &mut Tokens, uid: u32, name: &str, now: i64) -> Result<Secret, NotMade> {
    tokens.make(&owner(uid), called(name), apps(), HOUR, now).map(|(token, _)| token)
}

fn rows(reply: ControlReply) -> (Vec<TokenRow>, bool) {
    match reply {
        ControlReply::Tokens { rows, more } => (rows, more),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_has_a_prefix_and_160_random_bits_and_only_its_hash_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let (one, other) = (make(&mut tokens, 1000, "a", 0).unwrap(), make(&mut tokens, 1000, "b", 0).unwrap());
    for token in [&one, &other] {
        let random = token.reveal().strip_prefix("ptr_").unwrap();
        assert!(random.len() == 32 && random.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')));
        let file = dir.path().join("tokens.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&file).unwrap().contains(random));
        assert!(!format!("{:?}", tokens.find(token.reveal(), 1).unwrap()).contains(random));
    }
    assert_ne!(one, other);
}

#[test]
fn it_is_found_until_its_end_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let token = make(&mut tokens, 1000, "a", 1000).unwrap();
    let claims = tokens.find(token.reveal(), 1000).unwrap().claims(1000, 1001);
    for tokens in [&tokens, &load(dir.path())] {
        let found = tokens.find(token.reveal(), 1000 + i64::from(HOUR) - 1).unwrap();
        assert_eq!(found.claims(1000, 1001), claims);
        assert_eq!(tokens.find(token.reveal(), 1000 + i64::from(HOUR)), Err(BadToken::Expired));
        for wrong in ["", "ptr_", "a", &token.reveal().to_uppercase(), &token.reveal()[..35], "ptr_a\0"] {
            assert_eq!(tokens.find(wrong, 1000), Err(BadToken::Unknown), "{wrong}");
        }
    }
    assert_eq!((claims.exp, claims.how), (1000 + i64::from(HOUR), SignIn::Token(apps())));
}

#[test]
fn a_token_that_was_made_while_the_clock_was_days_ahead_does_not_last_longer_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let token = make(&mut tokens, 1000, "a", 100 * DAY).unwrap();
    assert_eq!(tokens.find(token.reveal(), 0), Err(BadToken::Unknown));
    assert!(tokens.find(token.reveal(), 98 * DAY).is_ok(), "a clock that was put right a little");
}

#[test]
fn a_name_is_one_tokens_and_an_expired_one_gives_it_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let old = make(&mut tokens, 1000, "a", 0).unwrap();
    assert!(matches!(make(&mut tokens, 1000, "a", 1), Err(NotMade::NameTaken)));
    make(&mut tokens, 1001, "a", 1).unwrap();
    let new = make(&mut tokens, 1000, "a", i64::from(HOUR)).unwrap();
    assert_eq!(tokens.find(old.reveal(), 1), Err(BadToken::Unknown));
    assert!(tokens.find(new.reveal(), i64::from(HOUR)).is_ok());
    assert_eq!(rows(tokens.list(Some(1000), None, None)).0.len(), 1);
}

#[test]
fn a_user_has_so_many_and_expired_ones_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    for n in 0..limits::TOKENS_OF_A_USER {
        make(&mut tokens, 1000, &format!("t{n}"), 0).unwrap();
    }
    assert!(matches!(make(&mut tokens, 1000, "more", 1), Err(NotMade::TooMany)));
    make(&mut tokens, 1001, "other", 1).unwrap();
    make(&mut tokens, 1000, "more", i64::from(HOUR)).unwrap();
    assert_eq!(rows(tokens.list(Some(1000), None, None)).0.len(), limits::TOKENS_OF_A_USER);
}

#[test]
fn the_table_is_bounded_and_a_full_one_fits_into_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let longest = |letter: &str, n: usize| format!("{}{n:05}", letter.repeat(59));
    let (first, many) = (1_000_000_000, limits::TOKENS - 1);
    for n in 0..many {
        let hash = Hash::of(&n.to_string());
        tokens.put(Token {
            id: SessionId::from_bytes((n as u128).to_be_bytes()),
            name: called(&longest("t", n)),
            user: UserName::parse(&longest("u", n)).unwrap(),
            uid: u32::MAX - n as u32,
            scopes: Scopes::new(&Scope::ALL).unwrap(),
            hash,
            created: first,
            expires: first * 3,
            used: Some(first),
        });
    }
    make(&mut tokens, 7, "last", first).unwrap();
    assert!(matches!(make(&mut tokens, 8, "more", first), Err(NotMade::Full)));
    let again = load(dir.path());
    assert_eq!(again.by_id, tokens.by_id);
    let (mut seen, mut after) = (0, None);
    loop {
        let (rows, more) = rows(again.list(None, None, after.as_ref()));
        seen += rows.len();
        after = rows.last().map(|row| row.id.clone());
        if !more {
            break;
        }
        assert_eq!(rows.len(), MAX_TOKEN_ROWS);
    }
    assert_eq!(seen, limits::TOKENS);
    // One that expired makes room.
    make(&mut tokens, 8, "more", first + i64::from(HOUR)).unwrap();
}

#[test]
fn the_day_of_use_is_written_once_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let token = make(&mut tokens, 1000, "a", 10 * DAY).unwrap();
    let id = tokens.find(token.reveal(), 10 * DAY).unwrap().id.clone();
    let used = |tokens: &Tokens| rows(tokens.list(None, None, None)).0[0].used;
    assert_eq!(used(&tokens), None);
    tokens.used(&id, 10 * DAY + 77);
    assert_eq!((used(&tokens), used(&load(dir.path()))), (Some(10 * DAY), None));
    tokens.tidy(10 * DAY + 78).unwrap();
    assert_eq!(used(&load(dir.path())), Some(10 * DAY));
    std::fs::remove_file(dir.path().join("tokens.json")).unwrap();
    tokens.used(&id, 11 * DAY - 1);
    tokens.tidy(11 * DAY - 1).unwrap();
    assert!(!dir.path().join("tokens.json").exists(), "nothing had changed");
    tokens.used(&id, 11 * DAY);
    tokens.tidy(11 * DAY).unwrap();
    assert_eq!(used(&load(dir.path())), Some(11 * DAY));
}

#[test]
fn an_expired_one_is_shown_for_a_week() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    make(&mut tokens, 1000, "a", 0).unwrap();
    let end = i64::from(HOUR);
    tokens.tidy(end + SHOWN_EXPIRED - 1).unwrap();
    assert_eq!(rows(tokens.list(None, None, None)).0.len(), 1);
    tokens.tidy(end + SHOWN_EXPIRED).unwrap();
    assert_eq!(rows(load(dir.path()).list(None, None, None)).0.len(), 0);
}

#[test]
fn what_can_not_be_written_is_not_made_and_what_ends_is_over_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut tokens = load(&state);
    let kept = make(&mut tokens, 1000, "kept", 0).unwrap();
    std::fs::rename(&state, dir.path().join("away")).unwrap();
    assert!(matches!(make(&mut tokens, 1000, "new", 0), Err(NotMade::File(_))));
    assert_eq!(rows(tokens.list(None, None, None)).0.len(), 1);
    let (removed, written) = tokens.remove(|token| token.is(1000, &called("kept")));
    assert!(removed.len() == 1 && written.is_err());
    assert_eq!(tokens.find(kept.reveal(), 0), Err(BadToken::Unknown));
    assert!(tokens.tidy(0).is_err(), "it is tried again");
    std::fs::rename(dir.path().join("away"), &state).unwrap();
    tokens.tidy(0).unwrap();
    assert_eq!(load(&state).find(kept.reveal(), 0), Err(BadToken::Unknown));
}

#[test]
fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.json");
    let mut tokens = load(dir.path());
    make(&mut tokens, 1000, "a", 0).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let one = good.strip_prefix(r#"{"tokens":["#).unwrap().strip_suffix("]}").unwrap();
    for damaged in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        format!(r#"{{"tokens":[{one},{one}]}}"#),
        good.replace(r#"["apps"]"#, "[]"),
        good.replace(r#"["apps"]"#, r#"["root"]"#),
        good.replace(r#""hash":""#, r#""hash":"A"#),
        good.replace(r#""uid":1000"#, r#""uid":-1"#),
        good.replace(r#""uid":1000"#, r#""uid":1000,"more":1"#),
    ] {
        assert_ne!(damaged, good);
        private_file::write(&path, damaged.as_bytes()).unwrap();
        assert!(matches!(Tokens::load(path.clone()), Err(TokensError::Damaged(_))), "{damaged}");
    }
    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(Tokens::load(path), Err(TokensError::File(_))), "others could read it");
}

#[test]
fn a_full_table_of_the_longest_tokens_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokens = load(dir.path());
    let user = (1..).map_while(|n| UserName::parse(&"u".repeat(n)).ok()).last().unwrap();
    let name = (1..).map_while(|n| TokenName::parse(&"n".repeat(n)).ok()).last().unwrap();
    let owner = Identity { name: user, uid: u32::MAX, gid: u32::MAX, groups: vec![] };
    let scopes = Scopes::new(&[Scope::Apps, Scope::Files, Scope::Api]).unwrap();
    let (token, _) = tokens.make(&owner, name, scopes, u32::MAX, i64::MAX / 2).unwrap();
    let token = Token { used: Some(i64::MAX), ..tokens.find(token.reveal(), i64::MAX / 2).unwrap().clone() };
    let longest = serde_json::to_vec(&token).unwrap().len() as u64 + 1;
    assert!(longest * limits::TOKENS as u64 + 100 < private_file::MAX_FILE, "{longest}");
}
