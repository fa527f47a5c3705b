//! Access tokens of programs, kept in one file. What is kept of a token is its hash.
//!
//! Invariants: who reads the file can't use a token; a token is known by 160 random bits and by nothing else; its session
//! and its scopes never change; the table is bounded, for each user and as a whole.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use portreeve_model::wire::broker::BadToken;
use portreeve_model::wire::control::MAX_TOKEN_ROWS;
use portreeve_model::wire::spawner::Identity;
use portreeve_model::wire::{ControlReply, TokenRow};
use portreeve_model::{
    Audience, Claims, Scopes, Secret, SessionId, SignIn, TOKEN_PREFIX, TokenName, UserName,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::limits;
use super::random::{NoRandom, random};
use crate::authority::ISSUER;
use crate::private_file::{self, FileError};

/// Behind [`TOKEN_PREFIX`], so many random bytes in base32, lower case: 32 characters.
const RANDOM: usize = 20;
/// An expired token is shown for so long, in seconds: 7 days.
const SHOWN_EXPIRED: i64 = 7 * DAY;
/// A clock that goes back by less than this costs nobody a token, in seconds.
const CLOCK_MENDED: i64 = 2 * DAY;
const DAY: i64 = 24 * 3600;

/// A token as it is kept. Times are unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// Of its session.
    id: SessionId,
    name: TokenName,
    pub(super) user: UserName,
    pub(super) uid: u32,
    scopes: Scopes,
    hash: Hash,
    created: i64,
    expires: i64,
    /// The day on which it was last used, as the second in which that began (UTC).
    used: Option<i64>,
}

/// SHA-256 of a token; base64url in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hash([u8; 32]);

impl Hash {
    fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or("this is no SHA-256 in base64url")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        BASE64URL_NOPAD.encode(&hash.0)
    }
}

/// The table.
pub(super) struct Tokens {
    path: PathBuf,
    by_id: BTreeMap<SessionId, Token>,
    by_hash: HashMap<Hash, SessionId>,
    /// The file lacks a day of use, or an end.
    is_behind: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    tokens: Vec<Token>,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// Reading or writing failed.
    #[error("the access tokens can't be kept")]
    File(#[from] FileError),
    /// The file is damaged.
    #[error("{0} is damaged; remove it (all access tokens are over then)")]
    Damaged(PathBuf),
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotMade {
    #[error("you have a token of this name: revoke it first, or choose another name")]
    NameTaken,
    #[error("you have {} tokens, and no more are kept: revoke one first", limits::TOKENS_OF_A_USER)]
    TooMany,
    #[error("no more tokens can be kept on this cluster: ask its administrators")]
    Full,
    #[error(transparent)]
    Random(#[from] NoRandom),
    #[error("the token could not be written down: the disk may be full")]
    File(#[source] FileError),
}

impl Token {
    /// What its tickets say. `iat` and `auth_time` are of the moment; all else is the token's.
    pub(super) fn claims(&self, iat: i64, auth_time: i64) -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            sub: self.user.clone(),
            uid: self.uid,
            sid: self.id.clone(),
            iat,
            auth_time,
            exp: self.expires,
            how: SignIn::Token(self.scopes),
            aud: Audience::Portal,
        }
    }

    fn row(&self) -> TokenRow {
        let Self { id, name, user, uid, scopes, hash: _, created, expires, used } = self.clone();
        TokenRow { id, name, user, uid, scopes, created, expires, used }
    }
}

impl Tokens {
    /// Those kept at `path`; a file that is not there has none.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub(super) fn load(path: PathBuf) -> Result<Self, TokensError> {
        let damaged = || TokensError::Damaged(path.clone());
        let kept = match private_file::read(&path)? {
            None => Kept { tokens: Vec::new() },
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| damaged())?,
        };
        let by_hash: HashMap<_, _> = kept.tokens.iter().map(|token| (token.hash, token.id.clone())).collect();
        let number = kept.tokens.len();
        let by_id: BTreeMap<_, _> = kept.tokens.into_iter().map(|token| (token.id.clone(), token)).collect();
        if by_hash.len() != number || by_id.len() != number {
            return Err(damaged());
        }
        Ok(Self { path, by_id, by_hash, is_behind: false })
    }

    /// Makes a token. It is on disk when it is handed out.
    ///
    /// # Errors
    /// When its owner has one of that name or too many, or it can't be kept: then there is none.
    pub(super) fn make(
        &mut self,
        owner: &Identity,
        name: TokenName,
        scopes: Scopes,
        lifetime: u32,
        now: i64,
    ) -> Result<(Secret, i64), NotMade> {
        let is_own = |token: &&Token| token.uid == owner.uid;
        // Whoever has a new one of the name does not want the old one to be shown any longer.
        let replaced = self.first(|token| is_own(&token) && token.name == name);
        if replaced.as_ref().is_some_and(|old| now < old.expires) {
            return Err(NotMade::NameTaken);
        }
        let mut expired = replaced;
        if expired.is_none() && self.by_id.values().filter(is_own).count() >= limits::TOKENS_OF_A_USER {
            expired = self.first(|token| is_own(&token) && now >= token.expires);
            if expired.is_none() {
                return Err(NotMade::TooMany);
            }
        }
        if expired.is_none() && self.by_id.len() >= limits::TOKENS {
            expired = self.first(|token| now >= token.expires);
            if expired.is_none() {
                return Err(NotMade::Full);
            }
        }
        let token = secret()?;
        let made = Token {
            id: SessionId::from_bytes(random()?),
            name,
            user: owner.name.clone(),
            uid: owner.uid,
            scopes,
            hash: Hash::of(&token),
            created: now,
            expires: now.saturating_add(i64::from(lifetime)),
            used: None,
        };
        let (id, expires) = (made.id.clone(), made.expires);
        if let Some(expired) = &expired {
            self.take(&expired.id);
        }
        self.put(made);
        if let Err(error) = self.write() {
            self.take(&id);
            expired.into_iter().for_each(|expired| self.put(expired));
            return Err(NotMade::File(error));
        }
        Ok((Secret::new(token.to_string()), expires))
    }

    fn first(&self, is: impl Fn(&Token) -> bool) -> Option<Token> {
        self.by_id.values().find(|token| is(token)).cloned()
    }

    fn put(&mut self, token: Token) {
        self.by_hash.insert(token.hash, token.id.clone());
        self.by_id.insert(token.id.clone(), token);
    }

    fn take(&mut self, id: &SessionId) -> Option<Token> {
        let token = self.by_id.remove(id)?;
        self.by_hash.remove(&token.hash);
        Some(token)
    }

    /// The token that was shown.
    ///
    /// # Errors
    /// When it is none, or over.
    pub(super) fn find(&self, shown: &str, now: i64) -> Result<&Token, BadToken> {
        let id = self.by_hash.get(&Hash::of(shown)).ok_or(BadToken::Unknown)?;
        let token = self.by_id.get(id).ok_or(BadToken::Unknown)?;
        if now >= token.expires {
            return Err(BadToken::Expired);
        }
        // Made while the clock was days ahead: it would last too long.
        if token.created.saturating_sub(CLOCK_MENDED) > now {
            return Err(BadToken::Unknown);
        }
        Ok(token)
    }

    /// Whether there is a token with this session.
    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Notes that it was used. Written once a day at most, and not now.
    pub(super) fn used(&mut self, id: &SessionId, now: i64) {
        let day = now - now.rem_euclid(DAY);
        if let Some(token) = self.by_id.get_mut(id)
            && token.used != Some(day)
        {
            token.used = Some(day);
            self.is_behind = true;
        }
    }

    /// A part of the list, by id: of `uid` alone, of those whose owner has this name, or of everybody.
    pub(super) fn list(
        &self,
        uid: Option<u32>,
        user: Option<&UserName>,
        after: Option<&SessionId>,
    ) -> ControlReply {
        let behind = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut rows: Vec<TokenRow> = self
            .by_id
            .range::<SessionId, _>(behind)
            .map(|(_, token)| token)
            .filter(|token| uid.is_none_or(|uid| token.uid == uid))
            .filter(|token| user.is_none_or(|user| token.user == *user))
            .take(MAX_TOKEN_ROWS + 1)
            .map(Token::row)
            .collect();
        let more = rows.len() > MAX_TOKEN_ROWS;
        rows.truncate(MAX_TOKEN_ROWS);
        ControlReply::Tokens { rows, more }
    }

    /// The uids that have tokens under this name.
    pub(super) fn uids_of(&self, user: &UserName) -> Vec<u32> {
        self.by_id.values().filter(|token| token.user == *user).map(|token| token.uid).collect()
    }

    /// Removes tokens, in force at once. What could not be written is written later.
    ///
    /// # Errors
    /// When it could not be written now: they would come back with a restart.
    pub(super) fn remove(&mut self, is: impl Fn(&Token) -> bool) -> (Vec<Token>, Result<(), FileError>) {
        let ids: Vec<SessionId> =
            self.by_id.values().filter(|token| is(token)).map(|token| token.id.clone()).collect();
        let removed: Vec<Token> = ids.iter().filter_map(|id| self.take(id)).collect();
        let written = match removed.is_empty() {
            true => Ok(()),
            false => self.write(),
        };
        (removed, written)
    }

    /// Forgets what expired a while ago, and writes what the file lacks.
    ///
    /// # Errors
    /// When it could not be written.
    pub(super) fn tidy(&mut self, now: i64) -> Result<(), FileError> {
        let old = |token: &&Token| now >= token.expires.saturating_add(SHOWN_EXPIRED);
        let old: Vec<SessionId> = self.by_id.values().filter(old).map(|token| token.id.clone()).collect();
        for id in &old {
            self.take(id);
            self.is_behind = true;
        }
        match self.is_behind {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> Result<(), FileError> {
        self.is_behind = true;
        let kept = Kept { tokens: self.by_id.values().cloned().collect() };
        private_file::write(&self.path, &serde_json::to_vec(&kept).unwrap_or_default())?;
        self.is_behind = false;
        Ok(())
    }
}

impl Token {
    /// Whether it is this user's of this name.
    pub(super) fn is(&self, uid: u32, name: &TokenName) -> bool {
        self.uid == uid && self.name == *name
    }

    /// Whether it is of somebody who is called so, and has this name.
    pub(super) fn is_of(&self, user: &UserName, name: &TokenName) -> bool {
        self.user == *user && self.name == *name
    }

    /// Whether this is its session.
    pub(super) fn has(&self, id: &SessionId) -> bool {
        self.id == *id
    }

    /// For the log.
    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// A new one.
fn secret() -> Result<Zeroizing<String>, NoRandom> {
    let mut bytes = Zeroizing::new([0; RANDOM]);
    getrandom::fill(&mut *bytes).map_err(|_| NoRandom)?;
    let mut text = Zeroizing::new(BASE32_NOPAD.encode(&*bytes));
    text.make_ascii_lowercase();
    text.insert_str(0, TOKEN_PREFIX);
    Ok(text)
}

#[cfg(test)]
#[path = "tests/token_table.rs"]
mod tests;
