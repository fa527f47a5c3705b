//! Which bytes are which letters: what a body declares, and a reading of it in which all that counts is ASCII.

use std::borrow::Cow;

use encoding_rs::{BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_2022_JP, SHIFT_JIS};

/// The same length, in valid UTF-8: each byte that is no ASCII letter of its own is a `_`.
pub(crate) fn shadow<'a>(bytes: &'a [u8], encoding: Option<&'static Encoding>) -> Cow<'a, str> {
    if bytes.is_ascii()
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return Cow::Borrowed(text);
    }
    let pairs = encoding.is_some_and(has_pairs);
    let shift_jis = encoding == Some(SHIFT_JIS);
    let mut text = String::with_capacity(bytes.len());
    let mut is_second = false;
    for byte in bytes {
        if is_second || !byte.is_ascii() {
            text.push('_');
            is_second = pairs
                && !is_second
                && (0x81..=0xfe).contains(byte)
                && !(shift_jis && (0xa0..=0xdf).contains(byte));
        } else {
            text.push(char::from(*byte));
        }
    }
    Cow::Owned(text)
}

/// Letters of two bytes, the second of which may look like ASCII.
fn has_pairs(encoding: &'static Encoding) -> bool {
    [BIG5, EUC_JP, EUC_KR, GB18030, GBK, SHIFT_JIS].contains(&encoding)
}

/// Whether markup and style can be told in it byte by byte.
pub(crate) fn is_readable(encoding: &'static Encoding) -> bool {
    encoding.is_ascii_compatible() && encoding != ISO_2022_JP
}

/// The text of these bytes; `None` when they are not text of that encoding.
pub(crate) fn decode<'a>(bytes: &'a [u8], encoding: Option<&'static Encoding>) -> Option<Cow<'a, str>> {
    match encoding {
        Some(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
        None => match std::str::from_utf8(bytes) {
            Ok(text) => Some(Cow::Borrowed(text)),
            Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling_and_without_replacement(bytes),
        },
    }
}

/// The way back. A letter that the encoding lacks becomes a character reference, right in markup alone.
pub(crate) fn encode(text: String, encoding: Option<&'static Encoding>, was: &[u8]) -> Vec<u8> {
    match encoding {
        Some(encoding) => encoding.encode(&text).0.into_owned(),
        None if std::str::from_utf8(was).is_ok() => text.into_bytes(),
        None => encoding_rs::WINDOWS_1252.encode(&text).0.into_owned(),
    }
}

/// The charset that a content type names.
pub(crate) fn of_content_type(value: &str) -> Option<&'static Encoding> {
    let at = value.to_ascii_lowercase().find("charset")?;
    let name = value.get(at + 7..)?.trim_start().strip_prefix('=')?.trim_start();
    let name = match name.strip_prefix(['"', '\'']) {
        Some(quoted) => quoted.split(['"', '\'']).next()?,
        None => name.split([';', ' ', '\t']).next()?,
    };
    Encoding::for_label(name.as_bytes())
}
