//! Reads the configuration and turns it into the portal's settings, at start and at every reload.

use std::path::Path;

use anyhow::{Context, bail};
use portreeve_broker::Lifetimes;
use portreeve_broker::account::group_id;
use portreeve_model::config::{self, GroupRef};
use portreeve_model::{Config, GroupRules};
use portreeve_portal::{Settings, certificate, now, server_config};
use std::sync::Arc;

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

/// Where forwards are: as asked, or in the state directory.
pub(crate) fn forwards_dir(asked: Option<&Path>, state: &Path) -> anyhow::Result<std::path::PathBuf> {
    match asked {
        Some(dir) => match std::path::absolute(dir) {
            Ok(dir) => Ok(dir),
            Err(_) => bail!("{}: no such path", dir.display()),
        },
        None => Ok(state.join("forwards")),
    }
}
