//! What the configuration file says to a cluster's broker, at start and at every reload.
//! Invariant: a file with a problem changes nothing; all its problems are in the log, each with its line and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use portreeve_model::config::{ClusterConfig, Problem, SystemConfig, WorkspaceConfig, parse_cluster};

use crate::authority::Lifetimes;
use crate::service::Policy;

/// What the broker takes from the file.
#[derive(Debug, Clone)]
pub struct Configured {
    /// No user below this uid is served. Only a restart changes it: root's process knows it, and reads the file once.
    pub first_uid: u32,
    /// The directory of forward files, absolute. Only a restart changes it.
    pub forwards: PathBuf,
    /// What people start, and where. Only a restart changes it.
    pub workspace: WorkspaceConfig,
    /// All else.
    pub policy: Policy,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not there, or is no text.
    #[error("{} can't be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// What is in it, or is not.
    #[error("{} has {} problem(s), which the log says", .0.display(), .1.len())]
    Problems(PathBuf, Vec<Problem>),
}

/// Reads the file.
///
/// # Errors
/// See [`ConfigError`].
pub fn read(file: &Path) -> Result<Configured, ConfigError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| ConfigError::Unreadable(file.to_owned(), error))?;
    parse_cluster(&text, &file.display().to_string())
        .map(Configured::from)
        .map_err(|problems| ConfigError::Problems(file.to_owned(), problems))
}

impl ConfigError {
    /// Writes the problems into the log, each in a record of its own.
    pub fn log_problems(&self) {
        match self {
            Self::Unreadable(..) => {}
            Self::Problems(_, problems) => problems.iter().for_each(|problem| tracing::error!("{problem}")),
        }
    }
}

impl From<ClusterConfig> for Configured {
    fn from(cluster: ClusterConfig) -> Self {
        let ClusterConfig { config, url, forwards } = cluster;
        let session = config.session;
        let policy = Policy {
            lifetimes: Lifetimes {
                code: session.code_lifetime.as_secs().cast_signed(),
                session: session.lifetime.as_secs().cast_signed(),
            },
            idle: session.idle.as_secs().cast_signed(),
            groups_refresh: config.groups.refresh,
            relays_logins: config.sign_in.login_nodes,
            ident2: config.agents.lookup.ident2().map(Path::to_owned),
            ..Policy::new(url)
        };
        let mut workspace = config.workspace;
        if workspace.systems.is_empty() {
            workspace.systems.push(SystemConfig {
                name: "cluster".to_owned(),
                commands: None,
                slurm_conf: None,
            });
        }
        Self { first_uid: config.users.first_uid, forwards, workspace, policy }
    }
}

impl Configured {
    /// What to do at SIGHUP: reads the file again, and gives its policy if all of the file is good.
    #[must_use]
    pub fn reload(&self, file: PathBuf) -> Rc<dyn Fn() -> Option<Policy>> {
        let (first_uid, forwards, workspace) =
            (self.first_uid, self.forwards.clone(), self.workspace.clone());
        Rc::new(move || match read(&file) {
            Ok(now) => {
                if now.first_uid != first_uid {
                    tracing::warn!(in_force = first_uid, "users.first_uid: only a restart changes it");
                }
                if now.forwards != forwards {
                    tracing::warn!(in_force = %forwards.display(), "forwards.directory: only a restart changes it");
                }
                if now.workspace != workspace {
                    tracing::warn!("[workspace] and [[cluster]]: only a restart changes them");
                }
                Some(now.policy)
            }
            Err(error) => {
                error.log_problems();
                tracing::error!(error = &error as &dyn std::error::Error, "the configuration can't be used");
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[portal]\nurl = 'https://Portal.example.org/'\n[users]\nfirst_uid = 500\n[sign_in]\nlogin_nodes = true\n\
                        [session]\nidle = '1h'\nlifetime = '2h'\ncode_lifetime = '90s'\n[forwards]\ndirectory = '/home/fw'\n\
                        [groups]\nrefresh = '7s'\n\
                        [agents]\nlookup = 'ident2'\nident2_socket = '/run/i.sock'\n";

    #[test]
    fn what_is_taken_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("portreeve.toml");
        std::fs::write(&file, FILE).unwrap();
        let configured = read(&file).unwrap();
        assert_eq!((configured.first_uid, configured.forwards.as_path()), (500, Path::new("/home/fw")));
        let policy = configured.policy;
        assert_eq!(policy.url, "https://portal.example.org");
        assert_eq!((policy.lifetimes.code, policy.lifetimes.session, policy.idle), (90, 7200, 3600));
        assert!(policy.relays_logins);
        assert_eq!(policy.groups_refresh.as_secs(), 7);
        assert_eq!(policy.ident2.as_deref(), Some(Path::new("/run/i.sock")));
        // The defaults are the file's.
        std::fs::write(&file, "[portal]\nurl = 'https://p'\n[forwards]\ndirectory = '/fw'\n").unwrap();
        let (policy, default) = (read(&file).unwrap().policy, Policy::new("https://p".to_owned()));
        assert_eq!(format!("{policy:?}"), format!("{default:?}"));
    }

    #[test]
    fn a_file_with_a_problem_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("portreeve.toml");
        std::fs::write(&file, FILE).unwrap();
        let reload = read(&file).unwrap().reload(file.clone());
        assert_eq!(reload().map(|policy| policy.idle), Some(3600));
        std::fs::write(&file, FILE.replace("'1h'", "'30m'")).unwrap();
        assert_eq!(reload().map(|policy| policy.idle), Some(1800));
        for broken in [FILE.replace("'1h'", "'3h'"), FILE.replace("directory", "dir"), "[".to_owned()] {
            std::fs::write(&file, &broken).unwrap();
            assert!(reload().is_none(), "{broken}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(reload().is_none());
    }
}
