//! Replays the committed inputs of every fuzz target as an ordinary test.

use portreeve_tests::fuzz::TARGETS;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries
        .map(|entry| {
            entry.expect("the folder can be read").file_name().into_string().expect("names are UTF-8")
        })
        .collect()
}

#[test]
fn every_target_has_inputs_and_a_fuzzer() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets, names_in(&fuzz_dir().join("corpus")), "folders below fuzz/corpus");
    let sources: BTreeSet<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(sources, names_in(&fuzz_dir().join("fuzz_targets")), "files in fuzz/fuzz_targets");
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        let body = fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(body.contains(&format!("portreeve_fuzz::{name}(data)")), "{name} fuzzes something else");
    }
}

#[test]
fn the_inputs_are_few_and_small() {
    for (name, _) in TARGETS {
        let dir = fuzz_dir().join("corpus").join(name);
        let files = names_in(&dir);
        assert!((4..60).contains(&files.len()), "{name} has {} inputs", files.len());
        for file in files {
            let length = fs::metadata(dir.join(&file)).unwrap().len();
            assert!(length < 4096, "{name}/{file} has {length} bytes");
        }
    }
}

#[test]
fn every_input_passes() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let dir = fuzz_dir().join("corpus").join(name);
        for file in names_in(&dir) {
            let bytes = fs::read(dir.join(&file)).unwrap();
            // The panic itself has been printed by then.
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                failed.push(format!("{name}/{file}"));
            }
        }
    }
    assert!(failed.is_empty(), "inputs that fail: {failed:#?}");
}
