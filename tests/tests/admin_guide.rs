//! The administrator's pages are typed, from the first command to the last, on the nodes of the cluster.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use portreeve_tests::world::guide::{Block, What, blocks, is_said, pages};
use portreeve_tests::world::testbed::{Testbed, packages, pause, progress, repository};
use portreeve_tests::world::{built_if_possible, skip};

/// What is shown behind `wait` has come by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the pages call the portal's host.
const NAME: &str = "portal.cluster.example";

fn guide() -> Vec<Block> {
    let directory = repository().join("docs/admin");
    let pages = pages(&directory);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(pages.contains(&name), "docs/admin/README.md does not number {name}");
    }
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for page in pages {
        match blocks(&page, &std::fs::read_to_string(directory.join(&page)).unwrap()) {
            Ok(blocks) => all.extend(blocks),
            Err(more) => problems.extend(more),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    all
}

#[test]
fn every_command_says_where_it_is_typed() {
    assert!(guide().len() > 20);
}

/// Where the pages are typed: two nodes that know the portal's name and have the packages, and none of what the cluster
/// itself puts where packages put theirs.
struct Site(Testbed);

impl Site {
    fn new(testbed: Testbed) -> Self {
        let dir = tempfile::tempdir().unwrap();
        packages(dir.path(), &["--only", "deb"]);
        for package in std::fs::read_dir(dir.path()).unwrap() {
            let package = package.unwrap().path();
            for node in ["login", "c1"] {
                testbed.copy(
                    &package,
                    node,
                    &format!("/root/{}", package.file_name().unwrap().to_string_lossy()),
                );
            }
        }
        for (node, address) in [("login", "10.77.0.1"), ("c1", "10.77.0.1"), ("outside", "10.78.0.1")] {
            testbed.root(node, &format!("cp /etc/hosts /root/hosts && echo {address} {NAME} >>/etc/hosts"));
        }
        testbed
            .root("login", "mkdir -p /root/kept && mv /etc/pam.d/portreeve /root/kept && userdel portreeve");
        Self(testbed)
    }

    /// What is wrong with it, if anything is.
    fn carry_out(&self, block: &Block) -> Option<String> {
        let (commands, wait) = match &block.what {
            What::Write { path, content } => {
                self.0.root(&block.node, &format!("mkdir -p $(dirname {path})"));
                self.0.write(&block.node, &block.user, path, content.as_bytes());
                return None;
            }
            What::Type { commands, wait } => (commands, *wait),
        };
        for (command, shown) in commands {
            let started = Instant::now();
            loop {
                let (status, said) = self.type_there(block, command);
                if status == 0 && is_said(shown, &said) {
                    break;
                }
                if !wait || started.elapsed() > PATIENCE {
                    let shown = shown.join("\n");
                    return Some(format!(
                        "{}: {command}\nexit status {status}\n{said}\nshown:\n{shown}",
                        block.at
                    ));
                }
                pause();
            }
        }
        None
    }

    /// Its exit status, and what it said.
    fn type_there(&self, block: &Block, command: &str) -> (i32, String) {
        // There is no SSH between these nodes.
        if let Some(copied) = command.strip_prefix("scp ") {
            let (from, to) = copied.split_once(' ').unwrap();
            let (node, path) = to.split_once(':').unwrap();
            self.0.write(node, "root", path, &self.0.read(&block.node, from));
            return (0, String::new());
        }
        let done = self.0.shell(&block.node, &block.user, &format!("exec 2>&1; {command}"));
        (done.status, done.out)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for node in ["login", "c1"] {
            let _ = self.0.shell(
                node,
                "root",
                "systemctl stop 'portreeve*'; dpkg --purge portreeve portreeve-client portreeve-agent; rm -rf /etc/portreeve
                 rm -rf /var/lib/portreeve /root/portreeve*.deb /etc/portreeve-otp/carol /home/portal-forwards
                 rm -rf /etc/systemd/system/portreeve-portal.*.d /run/systemd/system/portreeve-portal.*.d
                 systemctl daemon-reload; systemctl reset-failed; scancel --user alice",
            );
        }
        let _ = self.0.shell(
            "login",
            "root",
            "userdel portreeve; groupadd --gid 20090 portreeve
             useradd --uid 20090 --gid 20090 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin portreeve
             mv /root/kept/portreeve /etc/pam.d",
        );
        for node in ["login", "c1", "outside"] {
            let _ = self.0.shell(node, "root", "cp /root/hosts /etc/hosts");
        }
    }
}

#[test]
fn what_the_pages_say_is_so() {
    let programs = ["portreeve-portal", "portreeve-worker", "portreeve-pam", "portreeve-broker"];
    if let Some(why) = programs.iter().find_map(|name| built_if_possible(name).err()) {
        return skip("what_the_pages_say_is_so", &why);
    }
    let testbed = match Testbed::empty("guide") {
        Ok(testbed) => testbed,
        Err(why) => return skip("what_the_pages_say_is_so", &why),
    };
    let site = Site::new(testbed);
    let mut wrong = Vec::new();
    for block in guide() {
        match site.carry_out(&block) {
            None => progress(&format!("ok      {}", block.at)),
            Some(why) => {
                progress(&format!("FAILED  {}", block.at));
                wrong.push(why);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}
