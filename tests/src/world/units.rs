//! The directives of the units, each of which somebody has thought about.

use std::collections::BTreeMap;

/// Where it shows that a directive of the portal's unit holds.
#[derive(Debug, Clone, Copy)]
pub enum Shown {
    /// By these attacks of `site_hostile.rs`, which the unit alone denies.
    By(&'static [&'static str]),
    /// In another way.
    Otherwise(&'static str),
}

use Shown::{By, Otherwise};

/// Every directive of the portal's section `[Service]`. A new one is thought about here: what it does to a process that
/// has its sockets from somebody else, and where that shows.
pub const OF_THE_PORTAL: &[(&str, Shown)] = &[
    ("AmbientCapabilities", By(&["ambient"])),
    ("BindPaths", By(&["mounts", "written nowhere"])),
    ("BindReadOnlyPaths", By(&["mounts", "written nowhere"])),
    ("CapabilityBoundingSet", By(&["capset", "keep-capabilities", "real-time"])),
    ("DevicePolicy", By(&["mknod", "devices"])),
    ("ExecPaths", By(&["mounts"])),
    ("ExecReload", Otherwise("packages.rs reloads")),
    ("ExecStart", Otherwise("it is what runs")),
    ("ExecStopPost", Otherwise("packages.rs reloads and restarts")),
    ("Group", By(&["identity"])),
    ("IPAddressDeny", Otherwise("no socket is left that it could be about: RestrictAddressFamilies")),
    ("InaccessiblePaths", By(&["marks", "code-shm"])),
    ("KeyringMode", By(&["keyctl", "add_key"])),
    ("LimitCORE", By(&["core-limit"])),
    ("LimitNOFILE", By(&["descriptor-limit"])),
    ("LoadCredential", By(&["credentials"])),
    ("LockPersonality", By(&["personality"])),
    (
        "LogRateLimitIntervalSec",
        Otherwise("portal and broker limit themselves what anybody can cause: limits.rs, refusals.rs"),
    ),
    ("MemoryDenyWriteExecute", By(&["code-writable", "code-mprotect", "code-pkey"])),
    ("MemoryMax", Otherwise("a bound, no denial")),
    ("MountAPIVFS", By(&["mounts"])),
    ("NoExecPaths", By(&["mounts", "code-keys"])),
    ("NoNewPrivileges", By(&["identity", "no-new-privileges-off"])),
    ("OOMScoreAdjust", By(&["written nowhere"])),
    ("PrivateDevices", By(&["devices"])),
    ("PrivateIPC", By(&["shared-memory", "message-queue"])),
    ("PrivateNetwork", By(&["network"])),
    ("PrivateTmp", By(&["marks", "code-tmp", "code-var-tmp"])),
    ("ProcSubset", By(&["kernel's files"])),
    ("ProtectClock", By(&["clock"])),
    ("ProtectControlGroups", By(&["kernel's files"])),
    ("ProtectHome", By(&["marks", "places"])),
    ("ProtectHostname", By(&["host-name"])),
    ("ProtectKernelLogs", By(&["kernel-log", "devices"])),
    ("ProtectKernelModules", By(&["module", "delete-module"])),
    ("ProtectKernelTunables", By(&["kernel's files"])),
    ("ProtectProc", By(&["others' /proc"])),
    ("ProtectSystem", By(&["written nowhere", "remount"])),
    ("ReadOnlyPaths", By(&["written nowhere", "mounts", "code-own-memory-dumpable"])),
    ("RemoveIPC", Otherwise("it can make nothing that would stay: PrivateIPC, SystemCallFilter")),
    ("Restart", Otherwise("units.rs: nothing is given up")),
    ("RestartSec", Otherwise("units.rs: nothing is given up")),
    ("RestrictAddressFamilies", By(&["socket inet", "socket netlink", "socket packet", "socket vsock"])),
    (
        "RestrictNamespaces",
        By(&["unshare-user", "unshare-net", "unshare-mount", "clone-user", "clone-net", "setns"]),
    ),
    ("RestrictRealtime", By(&["real-time"])),
    ("RestrictSUIDSGID", By(&["set-user-id"])),
    ("RootDirectory", By(&["marks", "places"])),
    ("RootDirectoryStartOnly", Otherwise("packages.rs reloads")),
    ("SyslogLevelPrefix", By(&["log"])),
    ("SystemCallArchitectures", By(&["x32", "i386"])),
    ("SystemCallErrorNumber", By(&["mount"])),
    (
        "SystemCallFilter",
        By(&["mount", "chroot", "io_uring", "aio", "bpf", "perf", "trace", "code-memfd", "setuid"]),
    ),
    ("TasksMax", Otherwise("a bound, no denial")),
    ("TimeoutStopSec", Otherwise("units.rs: there is time to drain")),
    ("Type", Otherwise("units.rs: nothing is given up")),
    ("UMask", By(&["written nowhere"])),
    ("User", By(&["identity"])),
];

/// Every directive of the broker's. Users' sessions inherit them; why others are not there is written in the unit.
pub const OF_THE_BROKER: &[&str] = &[
    "CapabilityBoundingSet",
    "ExecReload",
    "ExecStart",
    "IgnoreSIGPIPE",
    "KillMode",
    "LogRateLimitIntervalSec",
    "OOMPolicy",
    "Restart",
    "RestartSec",
    "StateDirectory",
    "StateDirectoryMode",
    "SyslogLevelPrefix",
    "TasksMax",
    "TimeoutStopSec",
    "Type",
    "UMask",
];

/// The directives of a unit's section, with all their values.
///
/// # Panics
/// When a line is none.
#[must_use]
pub fn section(unit: &str, section: &str) -> BTreeMap<String, Vec<String>> {
    let mut directives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut inside = false;
    for line in unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            directives.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    directives
}

/// The directives that are not in the list, and those of the list that are not there.
#[must_use]
pub fn strangers<'d>(there: impl IntoIterator<Item = &'d String>, known: &[&str]) -> Vec<String> {
    let mut there: Vec<&str> = there.into_iter().map(String::as_str).collect();
    let missing =
        known.iter().filter(|name| !there.contains(*name)).map(|name| format!("{name} is missing")).collect();
    there.retain(|name| !known.contains(name));
    let mut all: Vec<String> = missing;
    all.extend(there.into_iter().map(|name| format!("nobody knows {name}")));
    all
}
