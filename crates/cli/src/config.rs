//! Reads the configuration and turns it into the portal's settings, at start and at every reload.

use std::path::{Path, PathBuf};

use anyhow::Context;
use portreeve_broker::Lifetimes;
use portreeve_broker::account::group_id;
use portreeve_model::config::{self, GroupRef};
use portreeve_model::{Config, GroupRules};
use portreeve_portal::{Settings, certificate, now, server_config};
use std::sync::Arc;

/// Where a cluster's configuration is.
pub(crate) const SYSTEM_FILE: &str = "/etc/portreeve/portreeve.toml";

/// The checked configuration; the defaults without a file.
pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Config> {
    let Some(file) = file else { return Ok(Config::default()) };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("{name} can't be read"))?;
    config::parse(&text, &name).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the configuration has {} problem(s):\n{}", lines.len(), lines.join("\n"))
    })
}

/// What follows from it: certificate and groups are looked up now.
pub(crate) fn settings(config: Config, state: &Path, names: &[String]) -> anyhow::Result<Settings> {
    let (chain, key) = match &config.tls {
        Some(tls) => certificate::from_files(&tls.certificate, &tls.key)?,
        None => certificate::self_signed(state, names, now())?,
    };
    let tls = Arc::new(server_config(chain, key)?);
    let never = config
        .groups
        .never
        .iter()
        .filter_map(|group| match group {
            GroupRef::Gid(gid) => Some(*gid),
            GroupRef::Name(name) => group_id(name),
        })
        .collect();
    Ok(Settings { config, tls, groups: GroupRules { never } })
}

/// How long codes and sessions last.
pub(crate) fn lifetimes(config: &Config) -> Lifetimes {
    Lifetimes {
        code: config.session.code_lifetime.as_secs().cast_signed(),
        session: config.session.lifetime.as_secs().cast_signed(),
    }
}

/// The absolute path of a directory that somebody named.
pub(crate) fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(dir).with_context(|| format!("{}: no such path", dir.display()))
}

/// What this cluster's configuration says; `None` on a machine of none.
fn cluster() -> anyhow::Result<Option<Config>> {
    let file = Path::new(SYSTEM_FILE);
    match file.try_exists() {
        Ok(true) => read(Some(file)).map(Some),
        // What nobody may look into is not for people on this machine.
        Ok(false) | Err(_) => Ok(None),
    }
}

/// Where forwards are on this cluster; `None` on a machine of none.
pub(crate) fn cluster_forwards() -> anyhow::Result<Option<PathBuf>> {
    Ok(cluster()?.and_then(|config| config.forwards.directory))
}

/// The address of this cluster's portal, with a slash at its end; `None` where that is not known.
pub(crate) fn cluster_url() -> Option<String> {
    let url = cluster().ok().flatten()?.portal.url?;
    Some(format!("{url}/"))
}
