use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::Mode;

fn place() -> Arc<Place> {
    Arc::new(Place::new("/fw/tb", "", "portal", Mode::Strip).unwrap().with_origins(["c1:12001"]))
}

fn pieces(text: &[u8], size: usize) -> Vec<u8> {
    let mut css = Css::new(place(), Base::Ours, None);
    let mut out = Vec::new();
    for piece in text.chunks(size.max(1)) {
        css.push(piece, &mut out);
        assert!(css.carry.len() <= LONGEST);
    }
    css.finish(&mut out);
    out
}

fn rewritten(text: &str) -> String {
    let whole = pieces(text.as_bytes(), usize::MAX);
    for size in [1, 2, 3, 7] {
        assert_eq!(
            String::from_utf8_lossy(&pieces(text.as_bytes(), size)),
            String::from_utf8_lossy(&whole),
            "{text:?} in pieces of {size}"
        );
    }
    String::from_utf8(whole).unwrap()
}

#[test]
fn references_are_mapped() {
    for (from, to) in [
        ("a{b:url(/x)}", "a{b:url(/fw/tb/x)}"),
        ("a{b:URL( /x )}", "a{b:URL( /fw/tb/x )}"),
        ("a{b:url('/x')}", "a{b:url('/fw/tb/x')}"),
        ("a{b:url( \"/x\" )}", "a{b:url( \"/fw/tb/x\" )}"),
        ("a{b:url(http://c1:12001/x)}", "a{b:url(https://portal/fw/tb/x)}"),
        ("@import \"/x\";", "@import \"/fw/tb/x\";"),
        ("@IMPORT/**/'/x' screen;", "@IMPORT/**/'/fw/tb/x' screen;"),
        ("@import url(/x) layer(a);", "@import url(/fw/tb/x) layer(a);"),
        ("@import url('/x');", "@import url('/fw/tb/x');"),
        (
            "a{b:image-set('/x' 1x type('/y'), url(/z) 2x)}",
            "a{b:image-set('/fw/tb/x' 1x type('/y'), url(/fw/tb/z) 2x)}",
        ),
        ("a{b:-webkit-image-set(\"/x\" 1x)}", "a{b:-webkit-image-set(\"/fw/tb/x\" 1x)}"),
        ("a{b:url(\\2f x)}", "a{b:url(\"/fw/tb/x\")}"),
        ("a{b:u\\72 l(/x)}", "a{b:url(\"/fw/tb/x\")}"),
        ("@import '\\/x';", "@import \"/fw/tb/x\";"),
        (
            "@font-face{src:local(x),url(/ä.woff) format('woff')}",
            "@font-face{src:local(x),url(/fw/tb/ä.woff) format('woff')}",
        ),
        ("a{--b:url(/x)}", "a{--b:url(/fw/tb/x)}"),
        ("a{b:url(/x", "a{b:url(/fw/tb/x"),
        ("a{b:url('/x", "a{b:url('/fw/tb/x"),
        ("a{b:((((url(/x]}", "a{b:((((url(/fw/tb/x]}"),
        ("<!--\na{b:url(/x)}-->", "<!--\na{b:url(/fw/tb/x)}-->"),
        ("a{b:image-set(} c{d:'/x' url(/y)}", "a{b:image-set(} c{d:'/x' url(/fw/tb/y)}"),
    ] {
        assert_eq!(rewritten(from), to, "{from}");
    }
}

#[test]
fn all_else_stays() {
    for text in [
        "",
        "a{b:url(x)} c{d:url(//evil/x)} e{f:url(data:image/png;base64,/x==)} g{h:url(#x)}",
        "/* url(/x) @import '/x' */",
        "a{content:'/x'} b{content:\"url(/x)\"}",
        "@namespace url(/x); @namespace svg '/x';",
        "@charset \"/x\"; @media '/x' {}",
        "a[href='/x'] {} a{b:c('/x') d(/x)}",
        "a{b:url(/x y)}",
        "a{b:'\n/x' url(",
        "}}}}))))]]]]\\",
        "a{b:1url(/x)} #url(/x)",
        "<!--url('x')",
        "a{b:url(\\2f é)}",
    ] {
        assert_eq!(rewritten(text), text);
    }
}

#[test]
fn a_namespace_ends_with_its_rule() {
    assert_eq!(rewritten("@namespace a url(/x); b{c:url(/x)}"), "@namespace a url(/x); b{c:url(/fw/tb/x)}");
}

#[test]
fn long_tokens_pass_without_being_held() {
    let long = "x/".repeat(LONGEST);
    for text in [
        format!("a{{b:url(/{long}) url(/x)}}"),
        format!("a{{b:url('/{long}\\'') url(/x)}}"),
        format!("/*{long}***/ a{{b:url(/x)}}"),
        format!("a{{b:'{long}\\\r\n' url(/x)}}"),
        format!("a{{b:'{long}\n url(/x)}}"),
        format!("@{0}{0} '/x' url(/x)", "b".repeat(LONGEST)),
        format!("{} url(/x)", "\\61 ".repeat(LONGEST)),
        format!("{}\r\n url(/x)", "\\000061\\61\r\n".repeat(LONGEST)),
        format!("@import{}'/x'; a{{b:url(/x)}}", " ".repeat(2 * LONGEST)),
    ] {
        let whole = pieces(text.as_bytes(), usize::MAX);
        for size in [1, 5, 4096, LONGEST + 1] {
            assert!(pieces(text.as_bytes(), size) == whole, "{} in {size}", &text[..20]);
        }
        let whole = String::from_utf8(whole).unwrap();
        assert!(whole.contains("url(/fw/tb/x)"), "{}", &whole[whole.len() - 30..]);
    }
}

#[test]
fn the_first_byte_leaves_before_the_last_arrives() {
    let mut css = Css::new(place(), Base::Ours, None);
    let mut out = Vec::new();
    css.push(b"a{b:url(/x)} c{", &mut out);
    assert!(out.starts_with(b"a{b:url(/fw/tb/x)}"));
}

#[test]
fn letters_of_two_bytes_are_not_read_as_ascii() {
    // 0x83 0x5C is one letter; as a backslash, its second byte would hide the quote.
    let mut css = Css::new(place(), Base::Ours, Some(encoding_rs::SHIFT_JIS));
    let mut out = Vec::new();
    css.push(b"a{b:'\x83\x5c' url(/x)}", &mut out);
    css.finish(&mut out);
    assert_eq!(out, b"a{b:'\x83\x5c' url(/fw/tb/x)}");
}

fn css_like() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "url(",
        "'",
        "\"",
        "/x",
        ")",
        "@import",
        " ",
        "\\",
        "\n",
        "\r",
        "/*",
        "*/",
        "<!-",
        "-",
        "image-set(",
        "{",
        "}",
        "(",
        ";",
        "a",
        "1e",
        "+",
        "5",
        ".",
        "é",
        "\u{0}",
        "#",
        "@namespace",
        "http://c1:12001",
        "src(",
        "[",
        "]",
        "u",
        "url",
        "!",
        "<",
    ]);
    prop_oneof![
        prop::collection::vec(words, 0..60).prop_map(|words| words.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn however_it_is_cut(text in css_like(), size in 1_usize..20) {
        prop_assert_eq!(pieces(&text, size), pieces(&text, usize::MAX));
    }

    #[test]
    fn without_references_nothing_changes(text in prop::collection::vec(any::<u8>(), 0..400)) {
        if !text.contains(&b'/') && !text.contains(&b'\\') {
            prop_assert_eq!(pieces(&text, 7), text);
        }
    }
}
