use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::Mode;

const SCRIPT: &str = "<script src=\"/-/rewrite.js\" nonce=\"N\" data-prefix=\"/fw/tb\" data-base=\"\" data-origins=\"c1:12001\"></script>";
const MAP: &str = "<script type=\"importmap\" nonce=\"N\">{\"imports\":{\"/\":\"/fw/tb/\",\"/fw/tb/\":\"/fw/tb/\",\"http://c1:12001/\":\"/fw/tb/\"}}</script>";

fn reading(injects: bool) -> Reading {
    Reading {
        place: Arc::new(Place::new("/fw/tb", "", "portal", Mode::Strip).unwrap().with_origins(["c1:12001"])),
        encoding: None,
        injection: injects
            .then(|| Rc::new(Injection { src: "/-/rewrite.js".into(), integrity: None, nonce: "N".into() })),
        xml: false,
        effects: Effects::default(),
        nested: false,
    }
}

fn run(reading: Reading, page: &[u8], size: usize) -> Vec<u8> {
    let mut html = Html::new(reading);
    let mut out = Vec::new();
    for piece in page.chunks(size.max(1)) {
        html.push(piece, &mut out);
    }
    html.finish(&mut out);
    out
}

fn cut(reading: impl Fn() -> Reading, page: &[u8]) -> String {
    let whole = run(reading(), page, usize::MAX);
    for size in [1, 2, 3, 7, 50] {
        assert_eq!(
            String::from_utf8_lossy(&run(reading(), page, size)),
            String::from_utf8_lossy(&whole),
            "in pieces of {size}"
        );
    }
    String::from_utf8_lossy(&whole).into_owned()
}

fn fragment(page: &str) -> String {
    cut(|| reading(false), page.as_bytes())
}

fn document(page: &str) -> String {
    cut(|| reading(true), page.as_bytes()).replace(SCRIPT, "[S]").replace(MAP, "[M]")
}

#[test]
fn every_url_attribute_is_mapped() {
    for (from, to) in [
        ("<a href=/x>", "<a href=/fw/tb/x>"),
        ("<A HREF='/x' class=b>", "<A HREF='/fw/tb/x' class=b>"),
        ("<a href = \"/x\" >", "<a href = \"/fw/tb/x\" >"),
        ("<a href=\"/x?a=1&amp;b=2&copy=3\">", "<a href=\"/fw/tb/x?a=1&amp;b=2&copy=3\">"),
        ("<a href=\"&#x2f;x&quot;\">", "<a href=\"/fw/tb/x&quot;\">"),
        ("<a href=&sol;x>", "<a href=\"/fw/tb/x\">"),
        ("<a href='/a&amp;b'>", "<a href='/fw/tb/a&amp;b'>"),
        ("<a href=http://c1:12001/x>", "<a href=https://portal/fw/tb/x>"),
        (
            "<a href=\"//c1:12001/x\" ping=\"/p  http://e/ /q\">",
            "<a href=\"//portal/fw/tb/x\" ping=\"/fw/tb/p  http://e/ /fw/tb/q\">",
        ),
        ("<area href=/x><link rel=x href=/x>", "<area href=/fw/tb/x><link rel=x href=/fw/tb/x>"),
        (
            "<img src=/x srcset=\"/a 1x, b 2x,/c 3x\" longdesc=/l>",
            "<img src=/fw/tb/x srcset=\"/fw/tb/a 1x, b 2x,/fw/tb/c 3x\" longdesc=/fw/tb/l>",
        ),
        ("<img srcset=/x>", "<img srcset=\"/fw/tb/x\">"),
        ("<script src=/x></script>", "<script src=/fw/tb/x></script>"),
        ("<iframe src=/x></iframe><frame src=/x>", "<iframe src=/fw/tb/x></iframe><frame src=/fw/tb/x>"),
        (
            "<embed src=/x><input src=/x formaction=/y>",
            "<embed src=/fw/tb/x><input src=/fw/tb/x formaction=/fw/tb/y>",
        ),
        (
            "<source src=/x srcset='/y'><track src=/x>",
            "<source src=/fw/tb/x srcset='/fw/tb/y'><track src=/fw/tb/x>",
        ),
        (
            "<audio src=/x><video src=/x poster=/y>",
            "<audio src=/fw/tb/x><video src=/fw/tb/x poster=/fw/tb/y>",
        ),
        ("<form action=/x><button formaction=/y>", "<form action=/fw/tb/x><button formaction=/fw/tb/y>"),
        (
            "<object data=/x><q cite=/x><body background=/x>",
            "<object data=/fw/tb/x><q cite=/fw/tb/x><body background=/fw/tb/x>",
        ),
        ("<link imagesrcset='/a 1x'>", "<link imagesrcset='/fw/tb/a 1x'>"),
        (
            "<svg><use xlink:href=/x#a /><image href=/y /><a href='/z'>",
            "<svg><use xlink:href=/fw/tb/x#a /><image href=/fw/tb/y /><a href='/fw/tb/z'>",
        ),
        ("<svg><path fill='url(/x#a)'/></svg>", "<svg><path fill='url(/fw/tb/x#a)'/></svg>"),
        ("<div style=\"a:url(&quot;/x&quot;)\">", "<div style=\"a:url(&quot;/fw/tb/x&quot;)\">"),
        ("<div style='a:url(/x)'>", "<div style='a:url(/fw/tb/x)'>"),
        ("<style>@import '/x';</style>", "<style>@import '/fw/tb/x';</style>"),
        (
            "<style type='text/css '>a{b:url(/x)}</style><style>a{b:url(/x)}",
            "<style type='text/css '>a{b:url(/fw/tb/x)}</style><style>a{b:url(/fw/tb/x)}",
        ),
        (
            "<svg><style>a{b:url(/x)}</style><style/><a href=/x>",
            "<svg><style>a{b:url(/fw/tb/x)}</style><style/><a href=/fw/tb/x>",
        ),
        (
            "<meta http-equiv=Refresh content='0; url=/x'>",
            "<meta http-equiv=Refresh content='0; url=/fw/tb/x'>",
        ),
        (
            "<meta http-equiv=content-security-policy content=\"img-src http://c1:12001\">",
            "<meta http-equiv=content-security-policy content=\"img-src https://portal\">",
        ),
        (
            "<iframe srcdoc=\"<a href='/x'>&amp;amp;\"></iframe>",
            "<iframe srcdoc=\"&lt;a href=&#39;/fw/tb/x&#39;&gt;&amp;amp;\"></iframe>",
        ),
        ("<iframe srcdoc='<a href=/x>'></iframe>", "<iframe srcdoc='<a href=/fw/tb/x>'></iframe>"),
        (
            "<script type=importmap>{\"imports\":{\"a\":\"/x\"}}</script>",
            "<script type=importmap>{\"imports\":{\"a\":\"/fw/tb/x\"}}</script>",
        ),
        (
            "<script type=speculationrules>{\"prefetch\":[{\"urls\":[\"/x\"]}]}</script>",
            "<script type=speculationrules>{\"prefetch\":[{\"urls\":[\"/fw/tb/x\"]}]}</script>",
        ),
        ("<template><a href=/x></template>", "<template><a href=/fw/tb/x></template>"),
    ] {
        assert_eq!(fragment(from), to, "{from}");
    }
}

#[test]
fn all_else_stays_byte_for_byte() {
    for page in [
        "",
        "text /x href=/x",
        "<a href>x</a><a href=><a href=''><a href='x'><a href=#x><a href=//evil/x><a href='javascript:/x'>",
        "<div href=/x src=/x action=/x data=/x><p cite=/x><img href=/x alt=/x title=/x><a src=/x data-href=/x>",
        "<!-- <a href=/x> --><![CDATA[ <a href=/x> ]]>",
        "<script>var a = '<a href=/x>'; // </scrip",
        "<script type=module>import '/x'</script><script type=x-importmap>{\"imports\":{\"a\":\"/x\"}}</script>",
        "<script type=importmap>{ no </script><script type=speculationrules>[1, 2]</script>",
        "<textarea><a href=/x></textarea><title><a href=/x></title><xmp><a href=/x></xmp>",
        "<style>a{content:'/x'} /* url(/x) */</style><style type=text/less>a{b:url(/x)}</style>",
        "<meta content='0;url=/x'><meta name=x content='/x'><meta http-equiv=refresh content=5>",
        "<link rel=stylesheet href=//evil/x integrity=sha256-x><script src=x integrity=sha256-x></script>",
        "<a href='/fw/tb/x'><a href=/fw/tb/>",
        "<a href=\"x\" a=' b = c d='\"'><<a <<b></a/ x></ /><!x><?y?><",
        "<a href=/x",
        "<svg><path d='/x'/><desc href=x>",
        "<a b='/x'href=x c>",
        "<img srcset='data:,/x 1x, //e/x 2x'>",
        "<input value=/x type=hidden><param name=movie value=/x>",
    ] {
        assert_eq!(fragment(page), page);
    }
    let page = b"<p>\xff\xfe\x00</p><a title='\xff' href=x>\xc3";
    assert_eq!(run(reading(false), page, 1), page);
}

#[test]
fn the_base_decides_whose_the_root_is() {
    assert_eq!(fragment("<base href=/b/><a href=/x>"), "<base href=/fw/tb/b/><a href=/fw/tb/x>");
    let page = "<base href=//cdn/><a href=/x><a href=http://c1:12001/x><style>a{b:url(/x)}</style>";
    assert_eq!(fragment(page), page.replace("http://c1:12001/x", "https://portal/fw/tb/x"));
    assert_eq!(
        fragment("<base href=/b/><base href=//cdn/><a href=/x>"),
        "<base href=/fw/tb/b/><base href=//cdn/><a href=/fw/tb/x>"
    );
}

#[test]
fn integrity_goes_where_the_body_changes() {
    assert_eq!(
        fragment("<link rel=\"stylesheet x\" href=/a.css integrity=\"sha256-x\" crossorigin>"),
        "<link rel=\"stylesheet x\" href=/fw/tb/a.css  crossorigin>"
    );
    assert_eq!(
        fragment("<link integrity=x rel=preload as=style href=a.css>"),
        "<link  rel=preload as=style href=a.css>"
    );
    assert_eq!(
        fragment("<script integrity=x src=/a.js></script>"),
        "<script integrity=x src=/fw/tb/a.js></script>"
    );
    let page =
        "<link rel=preload as=script integrity=x href=a.js><link rel=modulepreload integrity=x href=a.js>";
    assert_eq!(fragment(page), page);
}

#[test]
fn ours_goes_in_before_all_that_matters() {
    for (from, to) in [
        (
            "<!doctype html><html><head><meta></head><body>",
            "<!doctype html><html><head>[S]<meta>[M]</head><body>",
        ),
        ("<!doctype html><title>x</title><body>", "<!doctype html>[S]<title>x</title>[M]<body>"),
        ("<p>x", "[S]<p>x"),
        ("<html><body>", "<html>[S][M]<body>"),
        (
            "<head><script type=module src=x></script></head>",
            "<head>[S][M]<script type=module src=x></script></head>",
        ),
        (
            "<head><link rel=modulepreload href=x></head>",
            "<head>[S][M]<link rel=modulepreload href=x></head>",
        ),
        ("<head><script>a</script></head><body>", "<head>[S]<script>a</script>[M]</head><body>"),
        ("<header></header><svg></svg>", "[S]<header></header><svg></svg>"),
        ("", ""),
        ("text", "text"),
        ("<!-- <head> --><HEAD>", "<!-- <head> --><HEAD>[S]"),
    ] {
        assert_eq!(document(from), to, "{from}");
    }
}

#[test]
fn an_import_map_of_the_applications_gets_ours() {
    let page = document(
        "<head><script type=importmap>{\"imports\":{\"a\":\"/x\"}}</script><script type=module>1</script></head>",
    );
    assert!(page.starts_with("<head>[S]<script type=importmap>{"), "{page}");
    assert_eq!(page.matches("importmap").count(), 1);
    assert!(page.contains("\"a\":\"/fw/tb/x\"") && page.contains("\"/\":\"/fw/tb/\""), "{page}");
}

#[test]
fn pages_within_pages_get_ours_too_but_not_deeper() {
    let page = document("<head></head><iframe srcdoc='<p>'></iframe>");
    assert!(page.contains("srcdoc='&lt;script src=&quot;/-/rewrite.js&quot;"), "{page}");
    let page = "<iframe srcdoc=\"<iframe srcdoc='<a href=/x>'>\">";
    assert_eq!(fragment(page), page);
}

#[test]
fn a_policy_in_the_page_lets_ours_in() {
    let page = document(
        "<head><meta http-equiv=Content-Security-Policy content=\"script-src 'sha256-x'\"><script type=importmap>{}</script></head>",
    );
    assert!(
        page.contains("content=\"script-src &#39;sha256-x&#39; &#39;nonce-N&#39;\"")
            || page.contains("content=\"script-src 'sha256-x' 'nonce-N'\""),
        "{page}"
    );
    assert!(page.contains("<script nonce=\"N\" type=importmap>"), "{page}");
}

#[test]
fn style_that_is_allowed_by_its_hash_stays() {
    let by_hash =
        || Reading { effects: Effects { style_by_hash: true, script_by_hash: false }, ..reading(false) };
    let page = "<style>a{b:url(/x)}</style><p style='a:url(/x)'><style nonce=a>a{b:url(/x)}</style>";
    assert_eq!(
        cut(by_hash, page.as_bytes()),
        "<style>a{b:url(/x)}</style><p style='a:url(/x)'><style nonce=a>a{b:url(/fw/tb/x)}</style>"
    );
}

#[test]
fn charsets() {
    // Latin-1 by declaration: the letter stays one byte, and one that it lacks stays a reference.
    let latin = || Reading { encoding: Some(encoding_rs::WINDOWS_1252), ..reading(false) };
    assert_eq!(run(latin(), b"<a href='/\xe4&amp;&hearts;'>", 3), b"<a href='/fw/tb/\xe4&amp;&#9829;'>");
    let page = b"<meta charset=shift_jis><a href='/\x83\x5c&amp;x'>";
    assert_eq!(run(reading(false), page, 5), b"<meta charset=shift_jis><a href='/fw/tb/\x83\x5c&amp;x'>");
    let page = b"<meta charset=iso-2022-jp><a href=/x>";
    assert_eq!(run(reading(false), page, 100), page);
    // Not what it says it is: left alone rather than damaged.
    let utf8 = || Reading { encoding: Some(encoding_rs::UTF_8), ..reading(false) };
    let page = b"<a href='/\xff&amp;'>";
    assert_eq!(run(utf8(), page, 100), page);
}

#[test]
fn xml_gets_ours_into_its_head_only() {
    let xml = || Reading { xml: true, ..reading(true) };
    let page = "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><a href='/x'/></svg>";
    assert_eq!(cut(xml, page.as_bytes()), page.replace("/x", "/fw/tb/x"));
    let page = "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head/><body/></html>";
    assert!(cut(xml, page.as_bytes()).contains("importmap"));
}

#[test]
fn the_first_byte_leaves_before_the_last_arrives() {
    let mut html = Html::new(reading(true));
    let mut out = Vec::new();
    html.push(b"<head><a href=/x>text", &mut out);
    assert!(out.ends_with(b"<a href=/fw/tb/x>text"), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn what_is_held_is_bounded_and_nothing_is_lost() {
    let piece = vec![b'x'; 1 << 20];
    let mut html = Html::new(reading(false));
    let mut out = Vec::new();
    html.push(b"<a href=/x><img src='data:", &mut out);
    for _ in 0..6 {
        html.push(&piece, &mut out);
        assert!(html.window.borrow().get(0, usize::MAX).len() <= MOST_HELD + piece.len());
    }
    html.push(b"'><a href=/x>", &mut out);
    html.finish(&mut out);
    assert!(out.starts_with(b"<a href=/fw/tb/x><img") && out.ends_with(b"xx'><a href=/x>"));
    assert_eq!(out.len(), "<a href=/x><img src='data:'><a href=/x>".len() + "/fw/tb".len() + 6 * piece.len());
    for (part, count) in [("<b>", 400_000), ("<svg><desc>", 100_000), ("a ", 1 << 21), ("<a ", 1 << 21)] {
        let page = [part.repeat(count).as_bytes(), b"><a href=/x>"].concat();
        let out = run(reading(false), &page, 1 << 16);
        let mapped = [part.repeat(count).as_bytes(), b"><a href=/fw/tb/x>"].concat();
        assert!(out == page || out == mapped, "{part}");
    }
    // What the reader would keep letter by letter.
    for begin in ["<script><!--<", "<title></", "<script></", "<!doctype ", "<!--"] {
        let page = [begin.as_bytes(), &vec![b'x'; 5 << 20]].concat();
        assert!(run(reading(false), &page, 1 << 16) == page, "{begin}");
    }
    // Of very many attributes the first get a look.
    let many = "b ".repeat(10_000);
    assert_eq!(
        fragment(&format!("<a href=/x {many}ping=/x><a href=/x>")),
        format!("<a href=/fw/tb/x {many}ping=/x><a href=/fw/tb/x>")
    );
}

#[test]
fn what_is_foreign_is_read_as_such() {
    for (from, to) in [
        ("<svg/><style>a</style><a href=/x>", "<svg/><style>a</style><a href=/fw/tb/x>"),
        ("<svg><title><a href=/x></title></svg>", "<svg><title><a href=/fw/tb/x></title></svg>"),
        ("<svg></svg><title><a href=/x></title>", "<svg></svg><title><a href=/x></title>"),
        ("<svg><desc><title><a href=/x></title>", "<svg><desc><title><a href=/x></title>"),
        ("<svg><desc></desc><![CDATA[<a href=/x>]]>", "<svg><desc></desc><![CDATA[<a href=/x>]]>"),
        ("<svg><div><![CDATA[<a href=/x>]]>", "<svg><div><![CDATA[<a href=/x>]]>"),
        ("<svg><p><![CDATA[><a href=/x>]]>", "<svg><p><![CDATA[><a href=/fw/tb/x>]]>"),
        ("<svg><g><![CDATA[><a href=/x>]]>", "<svg><g><![CDATA[><a href=/x>]]>"),
        ("<svg></p><![CDATA[><a href=/x>]]>", "<svg></p><![CDATA[><a href=/fw/tb/x>]]>"),
        ("<svg><font size=1><![CDATA[><a href=/x>]]>", "<svg><font size=1><![CDATA[><a href=/fw/tb/x>]]>"),
        ("<math><mi><xmp><a href=/x></xmp></mi>", "<math><mi><xmp><a href=/x></xmp></mi>"),
        ("<math><ms></ms><xmp><a href=/x></xmp>", "<math><ms></ms><xmp><a href=/fw/tb/x></xmp>"),
        (
            "<math><annotation-xml encoding=Text/HTML><xmp><a href=/x>",
            "<math><annotation-xml encoding=Text/HTML><xmp><a href=/x>",
        ),
        ("<math><annotation-xml><xmp><a href=/x>", "<math><annotation-xml><xmp><a href=/fw/tb/x>"),
        // Style ends where the picture does.
        ("<svg><style>a{b:url(/x)}</svg> url(/x)", "<svg><style>a{b:url(/fw/tb/x)}</svg> url(/x)"),
        ("<svg><style>a{b:url(/x)}<p> url(/x)", "<svg><style>a{b:url(/fw/tb/x)}<p> url(/x)"),
    ] {
        assert_eq!(fragment(from), to, "{from}");
    }
}

#[test]
fn text_is_read_as_browsers_read_it() {
    for (from, to) in [
        ("<iframe a=><a href=/x></iframe><a href=/x>", "<iframe a=><a href=/x></iframe><a href=/fw/tb/x>"),
        ("<noframes><a href=/x></noframes>", "<noframes><a href=/x></noframes>"),
        ("<title></titles></TITLE ><a href=/x>", "<title></titles></TITLE ><a href=/fw/tb/x>"),
        ("<script></scrip></script\r\n/x><a href=/x>", "<script></scrip></script\r\n/x><a href=/fw/tb/x>"),
        (
            "<script><!--<script></script><a href=/x>--></script><a href=/x>",
            "<script><!--<script></script><a href=/x>--></script><a href=/fw/tb/x>",
        ),
        ("<plaintext></plaintext><a href=/x>", "<plaintext></plaintext><a href=/x>"),
        ("<!--><a href=/x>--><a href=/x>", "<!--><a href=/fw/tb/x>--><a href=/fw/tb/x>"),
        ("<!-- --!><a href=/x>", "<!-- --!><a href=/fw/tb/x>"),
        ("<!DocType html Public '><a href=/x>", "<!DocType html Public '><a href=/fw/tb/x>"),
        ("</&><a href=/x></ <a href=/x>", "</&><a href=/fw/tb/x></ <a href=/x>"),
        ("<a\rhref\r=\r'/x'>&<a &href=/x href=/x>", "<a\rhref\r=\r'/fw/tb/x'>&<a &href=/x href=/fw/tb/x>"),
    ] {
        assert_eq!(fragment(from), to, "{from}");
    }
}

fn html_like() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "<a href=",
        "/x",
        "'",
        "\"",
        ">",
        "<",
        "</",
        " ",
        "style",
        "=",
        "<style>",
        "</style>",
        "url(",
        ")",
        "<script>",
        "</script>",
        "<head>",
        "</head>",
        "<svg>",
        "</svg>",
        "<!--",
        "-->",
        "&amp;",
        "&#47;",
        "<meta charset=utf-8>",
        "<base href=",
        "<script type=importmap>",
        "{\"imports\":{}}",
        "srcdoc=",
        "<iframe ",
        "http://c1:12001/",
        "é",
        "\u{0}",
        "<body>",
        "<script type=module>",
        "<select>",
        "<table>",
        "<template>",
        "<math>",
        "<![CDATA[",
        "]]>",
        "<textarea>",
        "integrity=x",
        "<link rel=stylesheet ",
        "href=x",
        "/>",
        "<img srcset=",
        ",",
        "<plaintext>",
    ]);
    prop_oneof![
        4 => prop::collection::vec(words, 0..60).prop_map(|words| words.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn however_it_is_cut(page in html_like(), size in 1_usize..20) {
        let whole = run(reading(true), &page, usize::MAX);
        prop_assert_eq!(
            String::from_utf8_lossy(&run(reading(true), &page, size)).into_owned(),
            String::from_utf8_lossy(&whole).into_owned()
        );
    }

    #[test]
    fn without_references_only_ours_is_added(page in html_like()) {
        let text = String::from_utf8_lossy(&page);
        let page = text.replace("/x", "x").replace("c1:", "c2:").replace("<base ", "<bass ").replace("#47", "#48").replace("integrity", "");
        let page = page.replace("importmap", "map").replace("srcdoc", "src").replace('\\', "");
        // Browsers skip what stands before a reference and is invisible.
        let page: String = page.chars().filter(|letter| !letter.is_ascii_control()).collect();
        let out = String::from_utf8(run(reading(true), page.as_bytes(), 11)).unwrap();
        let out = out.replace(SCRIPT, "").replace(MAP, "");
        if !page.contains("=/") && !page.contains("'/") && !page.contains("\"/") && !page.contains(",/") && !page.contains(" /") && !page.contains("(/") {
            prop_assert_eq!(out, page);
        }
    }
}
