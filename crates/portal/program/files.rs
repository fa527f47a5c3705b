//! What root wrote down for the portal: configuration, node map, keys. Read at the start, and again at each reload from inside
//! the sandbox.
//! Invariant: all of it is good, or nothing of it is taken.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use portreeve_agent::channel::Identity;
use portreeve_broker::account::group_id;
use portreeve_model::config::{self, GroupRef, GroupsConfig, LookupConfig};
use portreeve_model::{Config, GroupRules, NodeMap, Problem, Secret};
use portreeve_portal::agents::Rules;
use portreeve_portal::{Settings, certificate, server_config};

use crate::options::Options;

/// Where the files are.
pub(crate) struct Files {
    config: PathBuf,
    nodes: PathBuf,
    agents_key: PathBuf,
    fresh_keys: PathBuf,
    /// Where systemd put the keys.
    credentials: Option<PathBuf>,
    /// Groups by name, as the user database had them at the start: from inside of the sandbox it can't be asked.
    groups: HashMap<String, Option<u32>>,
    /// What can't be changed by a reload, as it was at the start.
    fixed: Option<Fixed>,
}

/// What can't be changed by a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fixed {
    url: Option<String>,
    names: Vec<String>,
    apps_url: Option<String>,
    apps_domain: Option<String>,
    threads: usize,
    lookup: LookupConfig,
}

/// What they say.
pub(crate) struct Read {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
}

impl Files {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            config: options.config.clone(),
            nodes: options.nodes.clone(),
            agents_key: options.agents_key.clone(),
            fresh_keys: options.fresh_keys.clone(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            groups: HashMap::new(),
            fixed: None,
        }
    }

    /// Reads all of them.
    pub(crate) fn read(&mut self) -> anyhow::Result<Read> {
        let config = self.configuration()?;
        let fixed = Fixed {
            url: config.portal.url.clone(),
            names: config.portal.names.clone(),
            apps_url: config.portal.apps_url.clone(),
            apps_domain: config.portal.apps_domain.clone(),
            threads: config.threads,
            lookup: config.agents.lookup.clone(),
        };
        let is_reload = self.fixed.is_some();
        if let Some(old) = &self.fixed
            && *old != fixed
        {
            tracing::warn!(
                "portal.url, portal.names, portal.apps_url, portal.apps_domain, threads and agents.lookup are taken into use \
                 by a restart only"
            );
        }
        let groups = GroupRules { never: self.groups_never(&config)? };
        let tls = Arc::new(self.certificate(&config, is_reload)?);
        let rules = self.rules(&config, is_reload)?;
        self.fixed.get_or_insert(fixed);
        Ok(Read { settings: Settings { config, tls, groups }, rules })
    }

    fn configuration(&self) -> anyhow::Result<Config> {
        let name = self.config.display().to_string();
        let text = std::fs::read_to_string(&self.config).with_context(|| format!("{name} can't be read"))?;
        config::parse(&text, &name).map_err(|problems| told("the configuration", &problems))
    }

    fn groups_never(&mut self, config: &Config) -> anyhow::Result<Vec<u32>> {
        let mut never = Vec::new();
        for group in &config.groups.never {
            match group {
                GroupRef::Gid(gid) => never.push(*gid),
                GroupRef::Name(name) => match self.groups.get(name) {
                    Some(known) => never.extend(*known),
                    None if self.fixed.is_some() => bail!(
                        "groups.never: {name} can be looked up by a restart only; a gid can be taken into use now"
                    ),
                    None => {
                        let gid = group_id(name);
                        // Passed over, a group of a directory's would open what it is listed to keep closed.
                        if gid.is_none() && !GroupsConfig::default().never.contains(group) {
                            bail!(
                                "groups.never: the portal can't look up {name}: write its gid (getent group {name})"
                            );
                        }
                        self.groups.insert(name.clone(), gid);
                        never.extend(gid);
                    }
                },
            }
        }
        Ok(never)
    }

    /// A key, where it is now.
    fn secret(&self, name: &str, is_reload: bool) -> Option<PathBuf> {
        let fresh = is_reload.then(|| self.fresh_keys.join(name)).filter(|path| path.exists());
        fresh.or_else(|| self.credentials.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists()))
    }

    fn certificate(&self, config: &Config, is_reload: bool) -> anyhow::Result<rustls::ServerConfig> {
        let (chain, key) = match (self.secret("tls.crt", is_reload), self.secret("tls.key", is_reload)) {
            (Some(certificate), Some(key)) => (certificate, key),
            _ => match &config.tls {
                Some(tls) => (tls.certificate.clone(), tls.key.clone()),
                None => bail!(
                    "there is no certificate: neither the credentials tls.crt and tls.key, nor tls.certificate and \
                     tls.key in {}",
                    self.config.display()
                ),
            },
        };
        let (chain, key) = certificate::from_files(&chain, &key)?;
        Ok(server_config(chain, key)?)
    }

    fn rules(&self, config: &Config, is_reload: bool) -> anyhow::Result<Rules> {
        let name = self.nodes.display().to_string();
        let text = std::fs::read_to_string(&self.nodes).with_context(|| {
            format!("{name} can't be read: portreeve keys add and portreeve nodes sync write it")
        })?;
        let nodes = NodeMap::parse(&text, &name).map_err(|problems| told("the map of nodes", &problems))?;
        let key = self.secret("agents-key.pem", is_reload).unwrap_or_else(|| self.agents_key.clone());
        let key = match read_secret(&key)? {
            Some(pem) => {
                Some(Identity::from_pem(&pem).with_context(|| format!("{} can't be used", key.display()))?)
            }
            None if config.agents.lookup.ident2().is_some() => None,
            None => {
                tracing::warn!("no key for agents: only nodes that are plain can have one");
                None
            }
        };
        Ok(Rules { key, nodes, plain_networks: config.agents.plain_networks.clone() })
    }
}

/// `None`: there is none.
fn read_secret(path: &Path) -> anyhow::Result<Option<Secret>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} can't be read", path.display())),
    }
}

fn told(what: &str, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow!("{what} has {} problem(s):\n{}", lines.len(), lines.join("\n"))
}
