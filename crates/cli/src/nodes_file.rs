//! `nodes.toml` as it is edited: what the sysadmin wrote in it stays, comments included.
//! Invariant: a file that would not be accepted is not written, and a reader sees the old or the new one, never a part.
//! Two edits at once wait for each other.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use portreeve_model::{NodeMap, NodeName, NodePort, Problem};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

/// The file's name in the directory.
pub(crate) const NAME: &str = "nodes.toml";

/// What a new one begins with.
const HEADER: &str = "\
# The nodes of the cluster: whose each address is, and which key speaks for it. Only what stands here can be reached.
# Kept by `portreeve keys` and `portreeve nodes sync`; may be edited. After a change: systemctl reload portreeve-portal
#
# [[node]]
# name = \"c1\"
# addresses = [\"10.0.0.11\"]   # by which the portal reaches this node and no other, the first one first
# slurm = [\"10.0.0.11\"]       # more of them, kept by `portreeve nodes sync`
# also = [\"c1-ib\"]            # other names
# key = \"ed25519:...\"         # of its agent, kept by `portreeve keys`
# roles = [\"login\"]           # its agent says whose process asks for a sign-in address
# plain = true                # instead of a key, the weaker way: see agents.plain_networks in portreeve.toml
# on_portal = true            # the portal runs on this node: loopback addresses may be listed
#
# domains = [\"cluster.example\"]: c1.cluster.example is c1, too
";

/// The file, for as long as it is edited.
pub(crate) struct NodesFile {
    path: PathBuf,
    document: DocumentMut,
    _lock: Flock<File>,
}

/// What stands in that file, for whoever only looks.
///
/// # Errors
/// When it is not there, or not as it should be.
pub(crate) fn read(path: &Path) -> anyhow::Result<NodeMap> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    checked(&text, path)
}

impl NodesFile {
    /// Opens it for a change, and waits for whoever else is changing it.
    ///
    /// # Errors
    /// When it is not there (`keys init` makes it), or not as it should be.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let lock = lock(dir)?;
        let path = dir.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{} is not there: make it with portreeve keys init", path.display())
            }
            Err(error) => return Err(error).with_context(|| format!("{} can't be read", path.display())),
        };
        checked(&text, &path)?;
        let document = text.parse().with_context(|| format!("{} can't be edited", path.display()))?;
        Ok(Self { path, document, _lock: lock })
    }

    /// Makes a new one without nodes, if there is none.
    pub(crate) fn make(dir: &Path, portals: &[NodePort]) -> anyhow::Result<()> {
        let lock = lock(dir)?;
        let path = dir.join(NAME);
        if path.exists() {
            return Ok(());
        }
        let mut document: DocumentMut = HEADER.parse().context("the header is TOML")?;
        let portals: Array = portals.iter().map(ToString::to_string).collect();
        document.insert("portals", value(portals));
        Self { path, document, _lock: lock }.save()
    }

    /// What stands in it now.
    ///
    /// # Errors
    /// Every problem of what it has become.
    pub(crate) fn map(&self) -> anyhow::Result<NodeMap> {
        checked(&self.document.to_string(), &self.path)
    }

    /// The node's entry.
    pub(crate) fn node(&mut self, name: &NodeName) -> anyhow::Result<Option<&mut Table>> {
        let is_it = |table: &&mut Table| {
            let written = table.get("name").and_then(Item::as_str);
            written.is_some_and(|written| NodeName::parse(written).is_ok_and(|parsed| parsed == *name))
        };
        Ok(self.nodes()?.iter_mut().find(is_it))
    }

    /// The node's entry, a new one if there is none.
    pub(crate) fn node_or_new(&mut self, name: &NodeName) -> anyhow::Result<&mut Table> {
        if self.node(name)?.is_none() {
            let mut table = Table::new();
            table.insert("name", value(name.as_str()));
            self.nodes()?.push(table);
        }
        self.node(name)?.ok_or_else(|| anyhow!("{name} is there twice"))
    }

    fn nodes(&mut self) -> anyhow::Result<&mut ArrayOfTables> {
        let nodes = self.document.entry("node").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        let path = &self.path;
        nodes.as_array_of_tables_mut().with_context(|| {
            format!("{}: node is one list; write [[node]] on a line of its own for each", path.display())
        })
    }

    /// Writes it, readable by everybody.
    ///
    /// # Errors
    /// When it would have problems, or can't be written; the old one is untouched then.
    pub(crate) fn save(self) -> anyhow::Result<()> {
        self.map()?;
        let temporary = self.path.with_extension(format!("toml.new-{}", std::process::id()));
        let written = write_whole(&temporary, self.document.to_string().as_bytes())
            .and_then(|()| std::fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written.with_context(|| format!("{} can't be written", self.path.display()))
    }
}

/// Writes addresses into an entry.
pub(crate) fn set_addresses(entry: &mut Table, key: &str, addresses: &[IpAddr]) {
    let addresses: Array = addresses.iter().map(ToString::to_string).collect();
    entry.insert(key, value(addresses));
}

fn lock(dir: &Path) -> anyhow::Result<Flock<File>> {
    let opened = File::open(dir)
        .with_context(|| format!("{} can't be opened: name another with --dir DIR", dir.display()))?;
    Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))
        .with_context(|| format!("{} can't be locked", dir.display()))
}

fn checked(text: &str, path: &Path) -> anyhow::Result<NodeMap> {
    NodeMap::parse(text, &path.display().to_string()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        anyhow!("the node map has {} problem(s):\n{}", lines.len(), lines.join("\n"))
    })
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
