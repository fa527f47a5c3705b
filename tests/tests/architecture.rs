//! What must hold of the house itself: which crate may reach which, where unsafe code may stand, what the program
//! links.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use portreeve_model::wire::broker::Question;
use portreeve_tests::world::{skip, system};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The crates that a package reaches, as `cargo tree` has them.
fn reached(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            package,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.contains(&package.to_owned()));
    names
}

#[test]
fn who_reaches_whom() {
    for (package, never) in [
        // The broker holds the keys: no HTTP and no TLS in its process.
        (
            "portreeve-broker",
            &[
                "hyper",
                "hyper-util",
                "h2",
                "http",
                "rustls",
                "tokio-rustls",
                "portreeve-portal",
                "portreeve-worker",
                "portreeve-pam",
                "pam-client2",
            ][..],
        ),
        // PAM's modules are other people's code: in a program of its own, which speaks to the broker alone.
        (
            "portreeve-pam",
            &["tokio", "hyper", "rustls", "jsonwebtoken", "portreeve-portal", "portreeve-broker"],
        ),
        // It speaks TLS to the portal, and HTTP to nobody.
        ("portreeve-agent", &["hyper", "h2", "http", "portreeve-portal", "portreeve-broker"]),
        // It is the user's: it speaks to the portal on sockets that it is given, and knows neither TLS nor PAM.
        (
            "portreeve-worker",
            &["rustls", "tokio-rustls", "h2", "portreeve-portal", "portreeve-agent", "portreeve-pam"],
        ),
        // Bytes in, bytes out: it reads what hostile applications answer.
        ("portreeve-rewrite", &["tokio", "nix", "hyper", "rustls", "portreeve-sys", "portreeve-portal"]),
        // No input and output at all.
        ("portreeve-model", &["tokio", "nix", "hyper", "rustls", "portreeve-sys"]),
        ("portreeve-sys", &["tokio", "hyper", "rustls", "portreeve-model"]),
        // One cryptographic library, not two that quarrel at run time.
        (
            "portreeve",
            &["ring", "openssl", "openssl-sys", "native-tls", "reqwest", "portreeve-pam", "pam-client2"],
        ),
    ] {
        let names = reached(package);
        for other in never {
            assert!(!names.iter().any(|name| name == other), "{package} reaches {other}");
        }
    }
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn crates() -> Vec<PathBuf> {
    std::fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// All sources below a directory.
fn sources(of: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    rust_files(of, &mut files);
    assert!(!files.is_empty(), "{} has no sources", of.display());
    files
}

/// Whether `text` has `name`, and not as a part of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| !text[at + name.len()..].starts_with(is_part))
}

#[test]
fn only_sys_may_have_unsafe_code() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    for dir in crates() {
        if dir.ends_with("sys") {
            continue;
        }
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} does not take the workspace's lints",
            dir.display()
        );
        for file in sources(&dir) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap();
                let has = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe"]
                    .iter()
                    .any(|word| code.contains(word));
                assert!(!has, "{}:{}: {line}", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn files_stay_short_and_say_where_they_stand() {
    for dir in crates() {
        for file in sources(&dir) {
            let text = std::fs::read_to_string(&file).unwrap();
            let lines = text.lines().count();
            assert!(lines <= 520, "{} has {lines} lines", file.display());
            let is_tests =
                file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
            assert!(text.starts_with("//!") || is_tests, "{} has no header", file.display());
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(
                !["utils", "util", "common", "helpers", "misc"].contains(&name.as_str()),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn every_limit_of_the_portal_has_its_name_in_one_file() {
    let text = std::fs::read_to_string(root().join("crates/portal/src/limits.rs")).unwrap();
    let guide = std::fs::read_to_string(root().join("docs/admin-guide.md")).unwrap();
    let mut sources = sources(&root().join("crates/portal/src"));
    // A folder `tests`, or a file of that name, is compiled for tests alone.
    let is_tests = |file: &Path| {
        file.components().any(|part| ["tests", "tests.rs"].iter().any(|t| part.as_os_str() == *t))
    };
    let portal = root().join("crates/portal/src");
    sources.retain(|file| !file.ends_with("limits.rs") && !is_tests(file.strip_prefix(&portal).unwrap()));
    let mut all = String::new();
    for file in &sources {
        let source = std::fs::read_to_string(file).unwrap();
        let product = source.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        // `Duration::from` and a number: a wait without a name.
        assert!(!product.contains("Duration::from"), "{} has a wait of its own", file.display());
        all.push_str(product);
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let name = line.split(':').next().unwrap();
        assert!(has_word(&all, &format!("limits::{name}")), "nothing keeps to {name}");
        assert!(
            guide.contains(&format!("\n| `{name}` | ")),
            "the administrator's guide does not know {name}"
        );
    }
}

/// Names what a portal may ask the broker. With a question that is not among them this does not compile.
macro_rules! questions {
    ($($name:ident),* $(,)?) => {
        const QUESTIONS: &[&str] = &[$(stringify!($name)),*];
        const _: fn(&Question) = |question| match question {
            $(Question::$name { .. })|* => {}
        };
    };
}

questions![
    Begin,
    Reply,
    Look,
    Enter,
    Token,
    Renew,
    Entry,
    TakeEntry,
    SignOut,
    Groups,
    Dialer,
    Worker,
    Forward,
    Ident2,
    Login,
    LoginAddress,
];

#[test]
fn what_each_question_gives_whoever_takes_a_portal_over_is_written_down() {
    let model = std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let section = model.split("\n### A portal of a cluster that was taken over\n").nth(1).unwrap();
    let rows = section.split("\n#").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row.split(" | ").next().unwrap().split('`').skip(1).step_by(2));
    assert_eq!(names.collect::<BTreeSet<_>>(), QUESTIONS.iter().copied().collect());
}

#[test]
fn the_program_links_only_what_every_machine_has() {
    let mut program = std::env::current_exe().unwrap();
    program.pop();
    program.pop();
    let program = std::env::var_os("PORTREEVE_BIN").map_or(program.join("portreeve"), PathBuf::from);
    let Some(output) = system("ldd", &[&program.display().to_string()]) else {
        return skip("the_program_links_only_what_every_machine_has", "needs ldd");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let library = line.split_whitespace().next().unwrap_or_default();
        let known = [
            "linux-vdso",
            "libgcc_s",
            "libc.so",
            "libm.so",
            "libpthread",
            "libdl",
            "librt",
            "/lib64/ld-",
            "/lib/ld-",
            "statically",
        ];
        assert!(known.iter().any(|name| library.starts_with(name)), "links {line}");
    }
}
