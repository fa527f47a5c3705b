use super::*;

const WHOLE: &str = r##"title = "Jupyter"
description = "Notebooks"
icon = "Jy"
on_portal_node = true
script = '''#!/bin/bash -l
exec portreeve launch -- jupyter lab
'''

[open]
path = "lab?token={token}"

[resources]
nodes = 1
time = "2h"
exclusive = false

[[field]]
name = "queue"
kind = "select"
options_from = "partitions"
resource = "partition"

[[field]]
name = "cores"
label = "Cores"
kind = "number"
min = 1
max = 64
default = 4
resource = "cores"

[[field]]
name = "args"
pattern = "[a-z ]*"
default = "a b"

[[field]]
name = "kind_of"
kind = "select"
options = ["lab", ["notebook", "Classic notebook"]]
required = true
default = "lab"
"##;

fn parse(text: &str) -> Manifest {
    match ManifestFile::parse(text, "app.toml") {
        Ok(ManifestFile::Application(manifest)) => *manifest,
        other => panic!("{other:?}"),
    }
}

fn problems(text: &str) -> Vec<String> {
    ManifestFile::parse(text, "app.toml").unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_manifest() {
    let manifest = parse(WHOLE);
    assert_eq!((manifest.title.as_str(), manifest.icon.as_str()), ("Jupyter", "Jy"));
    assert_eq!(manifest.open.as_ref().unwrap().path, "lab?token={token}");
    assert!(manifest.on_portal_node && manifest.script.starts_with("#!/bin/bash -l\n"));
    let fixed: Vec<(&str, &str)> =
        manifest.fixed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(fixed, [("nodes", "1"), ("exclusive", ""), ("time", "120")]);
    let queue = manifest.field("queue").unwrap();
    assert_eq!(
        (queue.resource, &queue.kind),
        (Some(Resource::Partition), &FieldKind::Select(Offered::Partitions))
    );
    let cores = manifest.field("cores").unwrap();
    assert_eq!(
        (cores.default.as_str(), cores.label.as_str(), cores.name.variable().as_str()),
        ("4", "Cores", "APP_CORES")
    );
    assert_eq!(manifest.field("kind_of").unwrap().label, "kind of");
    assert!(manifest.field("none").is_none());
}

#[test]
fn one_that_is_not_offered() {
    assert_eq!(ManifestFile::parse("disabled = true\n", "x"), Ok(ManifestFile::Disabled));
    assert!(ManifestFile::parse("disabled = true\ntitel = 1\n", "x").is_err());
}

#[test]
fn every_problem_has_its_line() {
    let script = "title = \"T\"\nscript = '''#!/bin/sh\n'''\n";
    for (text, expected) in [
        ("", &["app.toml:1: title: it is missing", "app.toml:1: script: it is missing"][..]),
        ("title = 3\nscript = \"#!/bin/sh\"\n", &["app.toml:1: title: an integer where a string belongs"]),
        ("title = \"\"\nscript = \"\"\n", &["title: it is missing", "script: it is missing"]),
        (
            "title = \"T\"\nscript = \"echo\"\n",
            &["app.toml:2: script: it does not say which program runs it"],
        ),
        ("title = \"T\"\nscript = \"\\u0000\"\n", &["app.toml:2: script: it does not say"]),
        ("title = \"a\\nb\"\nscript = \"#!/bin/sh\"\n", &["app.toml:1: title: it has a line's end"]),
        ("title = \"T\nscript = \"#!/bin/sh\"\n", &["app.toml:1: "]),
        (&format!("{script}tilte = 1\n"), &["app.toml:4: tilte: there is no such key; did you mean title?"]),
        (&format!("{script}[open]\npath = \"/lab\"\n"), &["app.toml:4: open.path: this is a whole path"]),
        (
            &format!("{script}[open]\npath = \"https://evil/\"\n"),
            &["app.toml:4: open.path: this is a whole path"],
        ),
        (&format!("{script}[resources]\nnodes = -1\n"), &["app.toml:5: resources.nodes: it is no nodes"]),
        (&format!("{script}[resources]\ntime = \"soon\"\n"), &["app.toml:5: resources.time: it is no time"]),
        (
            &format!("{script}[resources]\npartition = \"--uid=0\"\n"),
            &["app.toml:5: resources.partition: it is no"],
        ),
        (
            &format!("{script}[resources]\ncolour = \"red\"\n"),
            &["app.toml:5: resources.colour: there is no such key"],
        ),
        (&format!("{script}[[field]]\n"), &["app.toml:4: field.name: the field has no name"]),
        (
            &format!("{script}[[field]]\nname = \"A\"\n"),
            &["app.toml:5: field.name: \"A\" is no field's name"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"colour\"\n"),
            &["app.toml:6: field.kind: there is no kind"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nmin = 1\n"),
            &["app.toml:6: field.min: there is no such key"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\npattern = \"(\"\n"),
            &["app.toml:6: field.pattern: error: unclosed group"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\npattern = \")(\"\n"),
            &["app.toml:6: field.pattern: error: unopened group"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\npattern = \"(?:[a-z]{{1000}}){{1000}}\"\n"),
            &["app.toml:6: field.pattern: Compiled regex exceeds size limit"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"number\"\nmin = 5\nmax = 1\n"),
            &["app.toml:4: field.max: there is no number from 5 to 1"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"number\"\ndefault = \"x\"\n"),
            &["app.toml:7: field.default: it is no whole number"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"select\"\n"),
            &["app.toml:4: field.options: a select needs"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"select\"\noptions = [\"x\", \"x\"]\n"),
            &["app.toml:7: field.options: an option is there twice"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"select\"\noptions_from = \"moon\"\n"),
            &["app.toml:7: field.options: nobody has such a list"],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\nkind = \"checkbox\"\nresource = \"cores\"\n"),
            &[
                "app.toml:7: field.resource: a field of this kind can't decide the cores; make it kind = number or select",
            ],
        ),
        (
            &format!("{script}[[field]]\nname = \"a\"\n[[field]]\nname = \"a\"\n"),
            &["app.toml:6: field: there is another field a"],
        ),
        (
            &format!(
                "{script}[[field]]\nname = \"a\"\nresource = \"account\"\n[[field]]\nname = \"b\"\nresource = \"account\"\n"
            ),
            &["app.toml:7: field: a decides the account already"],
        ),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{text}\n{found}\n{expected}");
        }
    }
}

fn field(kind: FieldKind, resource: Option<Resource>) -> Field {
    let name = FieldName::parse("f").unwrap();
    Field {
        name,
        label: String::new(),
        help: String::new(),
        kind,
        required: false,
        default: String::new(),
        resource,
    }
}

fn text(pattern: Option<&str>, lines: bool) -> FieldKind {
    FieldKind::Text { pattern: pattern.map(|written| Pattern::parse(written).unwrap()), most: 10, lines }
}

#[test]
fn answers_that_fit_and_others() {
    let file = || FieldKind::File { directory: false, upload: false };
    let choices = vec![Choice { value: "a".to_owned(), label: "A".to_owned() }];
    for (kind, given, expected) in [
        (text(None, false), "plain", Some("plain")),
        (text(None, false), "  trimmed ", Some("trimmed")),
        (text(None, false), "$(id) `x`", Some("$(id) `x`")),
        (text(None, false), "'\"\\;|&", Some("'\"\\;|&")),
        (text(None, false), "zwölf äöü", Some("zwölf äöü")),
        (text(None, false), "a\nb", None),
        (text(None, false), "a\0b", None),
        (text(None, false), "a\u{1b}[b", None),
        (text(None, false), "elevenchars", None),
        (text(None, true), "a\r\nb", Some("a\nb")),
        (text(None, true), "a\u{7}", None),
        (text(Some("[a-z]+"), false), "abc", Some("abc")),
        (text(Some("[a-z]+"), false), "abc1", None),
        (text(Some("a|b"), false), "ac", None),
        (text(Some("[a-z]+"), false), "", Some("")),
        (FieldKind::Number { min: 1, max: 8 }, "8", Some("8")),
        (FieldKind::Number { min: 1, max: 8 }, "+08", Some("8")),
        (FieldKind::Number { min: 1, max: 8 }, "9", None),
        (FieldKind::Number { min: 1, max: 8 }, "1e0", None),
        (FieldKind::Number { min: 1, max: 8 }, "99999999999999999999", None),
        (FieldKind::Select(Offered::Listed(choices.clone())), "a", Some("a")),
        (FieldKind::Select(Offered::Listed(choices)), "b", None),
        (FieldKind::Select(Offered::Partitions), "anything", Some("anything")),
        (FieldKind::Checkbox, "on", Some("1")),
        (FieldKind::Checkbox, "", Some("")),
        (FieldKind::Checkbox, "false", Some("")),
        (FieldKind::Checkbox, "maybe", None),
        (FieldKind::Duration, "2h", Some("120")),
        (FieldKind::Duration, "1h 30m", Some("90")),
        (FieldKind::Duration, "90", Some("90")),
        (FieldKind::Duration, "1:30:00", Some("90")),
        (FieldKind::Duration, "1-12", Some("2160")),
        (FieldKind::Duration, "1-12:30", Some("2190")),
        (FieldKind::Duration, "30s", Some("1")),
        (FieldKind::Duration, "0", None),
        (FieldKind::Duration, "-1h", None),
        (FieldKind::Duration, "9999999", None),
        (FieldKind::Duration, "for ever", None),
        (file(), "work/a.c", Some("work/a.c")),
        (file(), "../../etc/passwd", None),
        (file(), "a..b", Some("a..b")),
    ] {
        let field = field(kind, None);
        let answer = field.answer(given, None);
        assert_eq!(
            answer.as_ref().ok().map(Answer::as_str),
            expected,
            "{:?} {given:?}: {answer:?}",
            field.kind
        );
    }
    let long = "x".repeat(70_000);
    assert!(field(FieldKind::File { directory: false, upload: false }, None).answer(&long, None).is_err());
}

#[test]
fn nothing_for_slurm_is_an_option_or_a_second_argument() {
    for resource in
        [Resource::Partition, Resource::Account, Resource::Feature, Resource::GpuType, Resource::Qos]
    {
        let field = field(FieldKind::Text { pattern: None, most: 1000, lines: false }, Some(resource));
        for good in ["gpu", "normal-2_x.y", ""] {
            assert_eq!(
                field.answer(good, None).is_ok(),
                !good.is_empty() || resource != Resource::Time,
                "{good}"
            );
        }
        for bad in ["--uid=0", "-p", "a b", "a;b", "a=b", "a,b", "a:b", "$(id)", "'", "ä", &"x".repeat(129)]
        {
            assert!(field.answer(bad, None).is_err(), "{resource:?} {bad}");
        }
    }
}

#[test]
fn what_must_be_answered_and_what_is_offered() {
    let mut field = field(FieldKind::Select(Offered::Partitions), Some(Resource::Partition));
    field.required = true;
    assert!(field.answer("", None).is_err() && field.answer(" ", None).is_err());
    let offered = [Choice { value: "gpu".to_owned(), label: String::new() }];
    assert!(field.answer("gpu", Some(&offered)).is_ok());
    assert!(field.answer("cpu", Some(&offered)).is_err());
}

#[test]
fn names() {
    for (text, good) in [
        ("jupyter", true),
        ("a-1", true),
        ("", false),
        ("1a", false),
        ("A", false),
        ("a_b", false),
        ("a/b", false),
    ] {
        assert_eq!(AppName::parse(text).is_some(), good, "{text}");
    }
    assert!(AppName::parse(&"a".repeat(33)).is_none());
}
