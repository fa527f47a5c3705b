//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};

const USAGE: &str = "portreeve-portal [--config FILE] [--nodes FILE] [--agents-key FILE] [--fresh-keys DIR]";

/// What it says.
pub(crate) struct Options {
    /// The configuration.
    pub(crate) config: PathBuf,
    /// The map of nodes.
    pub(crate) nodes: PathBuf,
    /// The key that agents know the portal by, where there are no credentials.
    pub(crate) agents_key: PathBuf,
    /// At a reload, keys are looked for here first: credentials stay as they were at the start.
    pub(crate) fresh_keys: PathBuf,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut options = Self {
            config: "/etc/portreeve/portreeve.toml".into(),
            nodes: "/etc/portreeve/nodes.toml".into(),
            agents_key: "/etc/portreeve/agents-key.pem".into(),
            fresh_keys: "/run/portreeve/keys".into(),
        };
        while let Some(option) = arguments.next() {
            let place = match option.to_str() {
                Some("--config") => &mut options.config,
                Some("--nodes") => &mut options.nodes,
                Some("--agents-key") => &mut options.agents_key,
                Some("--fresh-keys") => &mut options.fresh_keys,
                _ => bail!("there is no option {}\n{USAGE}", option.display()),
            };
            *place = arguments
                .next()
                .with_context(|| format!("{} lacks a value\n{USAGE}", option.display()))?
                .into();
        }
        Ok(options)
    }
}
