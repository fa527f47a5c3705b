//! The script that runs in the browser: its size, and what it does, in Node's `vm` with small fakes.

use std::io::Write;
use std::process::Command;

use portreeve_rewrite::SCRIPT;

#[test]
fn it_is_small() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(SCRIPT.as_bytes()).unwrap();
    let length = encoder.finish().unwrap().len();
    assert!(length < 4096, "{length} bytes with gzip");
    assert!(SCRIPT.is_ascii() && !SCRIPT.contains("</script"));
}

#[test]
fn it_maps_what_scripts_make() {
    let directory = env!("CARGO_MANIFEST_DIR");
    let run = Command::new("node").arg(format!("{directory}/tests/script.js")).output();
    match run {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: there is no node to run the script in");
        }
        Err(error) => panic!("node: {error}"),
        Ok(run) => assert!(
            run.status.success(),
            "{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        ),
    }
}
