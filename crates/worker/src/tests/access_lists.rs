//! Access lists (acl(5)), which say more than the permissions do.

use super::world::*;

#[test]
fn where_an_access_list_applies_it_is_said() {
    run(async || {
        let worker = Worker::new();
        let ticket = format!("portreeve-ticket: {}", worker.ticket(|_| ()));
        let dir = tempfile::tempdir().unwrap();
        for name in ["listed", "plain"] {
            std::fs::write(dir.path().join(name), "text").unwrap();
        }
        let listed = dir.path().join("listed");
        let set = std::process::Command::new("setfacl").args(["-m", "u:12345:r"]).arg(listed).status();
        if !set.is_ok_and(|status| status.success()) {
            return println!("SKIPPED: access lists: needs setfacl, and a file system with lists");
        }
        let here = dir.path().display();
        let mut connection = worker.connect();
        let list = format!("/api/v1/files{here}/");
        let said = ask(&mut connection, "GET", &list, &[&ticket], b"").await;
        let said: serde_json::Value = serde_json::from_str(&said.body).unwrap();
        let access = |at: usize| said["entries"][at]["access"].as_str().unwrap();
        assert!(access(0).ends_with("; an access list also applies"), "{said}");
        assert!(!access(1).contains("access list"), "{said}");
        for (name, is_said) in [("listed", true), ("plain", false)] {
            let page = ask(&mut connection, "GET", &format!("/files{here}/{name}"), &[&ticket], b"").await;
            assert_eq!(page.status, 200);
            assert_eq!(page.body.contains("an access list also applies"), is_said, "{}", page.body);
        }
    });
}
