//! A request's body. Invariant: nothing is kept of what is longer than its limit, or late.

use std::collections::BTreeMap;
use std::fmt::Formatter;
use std::marker::PhantomData;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use portreeve_model::wire::worker::MAX_BODY;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use tokio::time::timeout;

use crate::limits;
use crate::respond::Refused;

/// The value in one of JSON.
pub(crate) async fn json<T, B>(body: B) -> Result<T, Refused>
where
    T: serde::de::DeserializeOwned,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes = whole(body, MAX_BODY).await?;
    // A list would be taken for an object's values in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Refused::NotUnderstood("Its body is no JSON object.".to_owned()));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        // Which line it is, not what stands there: that is for whoever wrote it.
        tracing::warn!(line = error.line(), column = error.column(), kind = ?error.classify(), "a body can't be understood");
        Refused::NotUnderstood(format!("Its body: {}.", crate::workspace::shown(&error.to_string(), limits::CLAUSE)))
    })
}

/// A map that says nothing twice: of two values nobody knows which one counts.
pub(crate) fn each_once<'de, T, D>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct EachOnce<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for EachOnce<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut values = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, T>()? {
                if values.contains_key(&name) {
                    return Err(serde::de::Error::custom(format!("{name} is there twice")));
                }
                values.insert(name, value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_map(EachOnce(PhantomData))
}

/// What a form says (application/x-www-form-urlencoded), in its order.
pub(crate) async fn form<B>(body: B) -> Result<Filled, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes = whole(body, limits::FORM).await?;
    Ok(Filled(form_urlencoded::parse(&bytes).into_owned().collect()))
}

/// A form that was filled in.
#[derive(Debug, Default)]
pub(crate) struct Filled(Vec<(String, String)>);

impl Filled {
    /// What stands in one of its fields.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All that stand in fields of that name.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All fields whose name begins so, without it.
    pub(crate) fn beginning_with(&self, prefix: &str) -> BTreeMap<String, String> {
        let named = self.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
        named.map(|(key, value)| (key.to_owned(), value.clone())).collect()
    }
}

/// All of it, if it is no longer than `most`.
pub(crate) async fn whole<B>(body: B, most: usize) -> Result<Bytes, Refused>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // What is announced is refused before it comes.
    if body.size_hint().lower() > most as u64 {
        return Err(Refused::TooLarge);
    }
    match timeout(limits::BODY, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::TooLarge),
        Ok(Err(error)) => {
            tracing::debug!(error = &*error as &dyn std::error::Error, "a body broke off");
            Err(Refused::Malformed)
        }
        Err(_) => Err(Refused::Late),
    }
}
