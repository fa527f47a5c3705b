//! A user database, shadow file and PAM configuration of a test's own: an `/etc` that only the programs that are started in
//! it see, in a mount namespace of theirs. Nothing on the machine changes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use super::people::Skip;

/// SHA-512 of `right` (crypt(5)).
const HASH: &str = "$6$YxB4VRkER0ucooqd$egyp9JASqN2WwS6YJ4UnJJiQdW8sI5XL5lCdmXgiO04f7DeRs4wKCCi50G5BYZB4j9rdgZcIFFBca4YrDG1aW.";
/// Everybody's password.
pub const PASSWORD: &str = "right";

const GROUP: &str = "root:x:0:\nshadow:x:42:\nalice:x:20001:\nbob:x:20002:\ncarol:x:20003:\ndave:x:20004:\nerin:x:20005:\n\
    proj:x:20100:alice,bob\nextra:x:20300:\n";

/// What of the real `/etc` programs need to run at all.
const NEEDED: [&str; 4] = ["ld.so.cache", "login.defs", "localtime", "security"];

/// The machine as a test has it.
#[derive(Debug)]
pub struct Etc {
    dir: tempfile::TempDir,
}

impl Etc {
    /// Alice may sign in; bob's account has expired, carol's password has; dave has no password and no home; erin's is
    /// locked. The PAM service `portreeve` is `service`, in which `DIR` stands for [`Etc::path`].
    ///
    /// # Errors
    /// When this is not root, or no mount namespace can be had.
    ///
    /// # Panics
    /// When the files can't be made.
    pub fn new(service: &str) -> Result<Self, Skip> {
        if !Uid::effective().is_root() {
            return Err("needs root".into());
        }
        if std::env::var_os("PORTREEVE_TESTS_FAST").is_some() {
            return Err("left out by --fast".into());
        }
        let unshared = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output();
        if !unshared.is_ok_and(|output| output.status.success()) {
            return Err("needs a mount namespace of its own".into());
        }
        let own = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        for name in ["etc", "etc/pam.d", "home", "out"] {
            std::fs::create_dir(own.path(name)).expect("a directory");
        }
        for needed in NEEDED {
            let from = Path::new("/etc").join(needed);
            if from.exists() {
                let copied = Command::new("cp").arg("-rL").arg(&from).arg(own.path("etc")).status();
                assert!(copied.is_ok_and(|status| status.success()), "{}", from.display());
            }
        }
        own.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\n");
        own.write("etc/group", GROUP);
        own.write("etc/gshadow", "");
        own.write("etc/environment", "");
        let home = |name: &str| own.path("home").join(name).display().to_string();
        let mut passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
        let mut shadow = format!("root:{HASH}:20000:0:99999:7:::\n");
        for (name, uid, rest) in [
            ("alice", 20001, format!("{HASH}:20000:0:99999:7:::")),
            // Fields of shadow(5): when it was changed, ..., when the account ends.
            ("bob", 20002, format!("{HASH}:20000:0:99999:7::1:")),
            ("carol", 20003, format!("{HASH}:0:0:99999:7:::")),
            ("dave", 20004, ":20000:0:99999:7:::".to_owned()),
            ("erin", 20005, format!("!{HASH}:20000:0:99999:7:::")),
        ] {
            passwd += &format!("{name}:x:{uid}:{uid}::{}:/bin/bash\n", home(name));
            shadow += &format!("{name}:{rest}\n");
            if name != "dave" {
                std::fs::create_dir(home(name)).expect("a directory");
                std::os::unix::fs::chown(home(name), Some(uid), Some(uid)).expect("root may");
                own.close(&format!("home/{name}"), 0o700);
            }
        }
        own.write("etc/passwd", &passwd);
        own.write("etc/shadow", &shadow);
        own.close("etc/shadow", 0o640);
        // Whoever becomes a user must get there, and say what became of them.
        for name in ["", "etc", "etc/security", "home"] {
            own.close(name, 0o755);
        }
        own.close("out", 0o1777);
        own.service("portreeve", service);
        own.service("other", "auth required pam_deny.so\naccount required pam_deny.so\n");
        Ok(own)
    }

    /// A path in the directory of this test.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it can't.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
        self.close(name, 0o644);
    }

    /// Writes a program.
    ///
    /// # Panics
    /// When it can't.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        self.write(name, &text.replace("DIR", &self.dir.path().display().to_string()));
        self.close(name, 0o755);
        self.path(name)
    }

    /// Configures a PAM service.
    ///
    /// # Panics
    /// When it can't.
    pub fn service(&self, name: &str, text: &str) {
        let text = text.replace("DIR", &self.dir.path().display().to_string());
        self.write(&format!("etc/pam.d/{name}"), &text);
    }

    /// A file's content; empty when it is not there.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn close(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), mode).expect("our own file");
    }

    /// The command line that runs a program in there. What is its standard input is descriptor 3 of the program.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc && shift && exec \"$@\" 3<&0 0</dev/null")
            .arg("sh")
            .arg(self.path("etc"))
            .arg(program)
            .stdout(Stdio::null());
        command
    }
}

/// Whether one of PAM's modules is installed.
#[must_use]
pub fn has_module(name: &str) -> bool {
    let roots = ["/lib/security", "/lib64/security", "/usr/lib/security", "/usr/lib64/security"];
    let multiarch = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut roots: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    roots.extend(multiarch.map(|entry| entry.path().join("security")));
    roots.iter().any(|root| root.join(name).exists())
}
