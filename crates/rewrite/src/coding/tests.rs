use std::io::Read;

use proptest::prelude::*;

use super::*;

fn decode(coding: Coding, mut bytes: &[u8], size: usize) -> Result<Vec<u8>, CodingError> {
    let mut decoder = Decoder::new(coding).unwrap();
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        let taken = decoder.step(&bytes[..bytes.len().min(size)], &mut plain)?;
        bytes = &bytes[taken..];
    }
    decoder.finish(&mut plain);
    Ok(plain)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzEncoder::new(text, flate2::Compression::best()).read_to_end(&mut out).unwrap();
    out
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::ZlibEncoder::new(text, flate2::Compression::best()).read_to_end(&mut out).unwrap();
    out
}

fn raw(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::DeflateEncoder::new(text, flate2::Compression::best()).read_to_end(&mut out).unwrap();
    out
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

/// `brotli -q 5` of `TEXT`.
const BROTLI: &[u8] = include_bytes!("text.br");
/// Twenty million zeros.
const BROTLI_BOMB: &[u8] = include_bytes!("bomb.br");

fn text() -> Vec<u8> {
    (0..2000).map(|line| format!("<a href=/x{line}>line {line}</a>\n")).collect::<String>().into_bytes()
}

#[test]
fn each_coding_is_taken_off() {
    let text = text();
    for (coding, coded) in [
        (Coding::Gzip, gzip(&text)),
        (Coding::Deflate, zlib(&text)),
        (Coding::Deflate, raw(&text)),
        (Coding::Zstd, zstd(&text)),
        (Coding::Brotli, BROTLI.to_vec()),
    ] {
        for size in [1, 7, 1000, usize::MAX] {
            assert!(decode(coding, &coded, size).unwrap() == text, "{coding:?} in pieces of {size}");
        }
        let mut longer = coded.clone();
        if coding != Coding::Zstd {
            longer.extend_from_slice(b"what follows");
            assert!(decode(coding, &longer, 100).is_ok_and(|plain| plain == text), "{coding:?} and more");
        }
        let part = decode(coding, &coded[..coded.len() / 2], 100).unwrap();
        assert!(text.starts_with(&part), "{coding:?} cut off");
    }
}

#[test]
fn the_first_byte_leaves_before_the_last_arrives() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"the beginning").unwrap();
    encoder.flush().unwrap();
    let mut plain = Vec::new();
    Decoder::new(Coding::Gzip).unwrap().step(encoder.get_ref(), &mut plain).unwrap();
    assert_eq!(plain, b"the beginning");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let zeros = vec![0; 40 << 20];
    for (coding, bomb) in [
        (Coding::Gzip, gzip(&zeros)),
        (Coding::Deflate, zlib(&zeros)),
        (Coding::Brotli, BROTLI_BOMB.to_vec()),
        (Coding::Zstd, zstd(&zeros)),
    ] {
        let mut decoder = Decoder::new(coding).unwrap();
        let mut rest = bomb.as_slice();
        let (mut plain, mut most) = (Vec::new(), 0);
        let outcome = loop {
            match decoder.step(rest, &mut plain) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) => break Err(error),
            }
            most = most.max(plain.len());
            plain.clear();
            if rest.is_empty() {
                break Ok(());
            }
        };
        assert_eq!(outcome, Err(CodingError::Inflates), "{coding:?}, {} bytes", bomb.len());
        assert!(most <= 40 << 20, "{coding:?} {most}");
    }
}

#[test]
fn what_is_known_and_what_not() {
    for (field, expected) in [
        ("", Some(Coding::Identity)),
        ("identity", Some(Coding::Identity)),
        ("GZip", Some(Coding::Gzip)),
        ("x-gzip", Some(Coding::Gzip)),
        ("identity, br", Some(Coding::Brotli)),
        ("zstd", Some(Coding::Zstd)),
        ("gzip, gzip", None),
        ("compress", None),
        ("dcb", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(field));
        assert_eq!(Coding::of(&headers), expected, "{field}");
    }
}

#[test]
fn only_what_is_known_is_asked_for() {
    for (from, to) in [
        ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
        ("dcb, gzip;q=0.5, *;q=0", "gzip;q=0.5"),
        ("dcz", "identity"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(from));
        narrow_accept_encoding(&mut headers);
        assert_eq!(headers[ACCEPT_ENCODING], to);
    }
    let mut headers = HeaderMap::new();
    narrow_accept_encoding(&mut headers);
    assert!(headers.is_empty());
}

proptest! {
    #[test]
    fn nonsense_is_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), flip in 0_usize..400) {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            let _ = decode(coding, &bytes, 13);
        }
        for (coding, mut coded) in [(Coding::Gzip, gzip(&text())), (Coding::Zstd, zstd(&text())), (Coding::Brotli, BROTLI.to_vec())] {
            let at = flip % coded.len();
            coded[at] ^= 0x55;
            let _ = decode(coding, &coded, 100);
        }
    }
}
