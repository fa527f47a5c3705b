//! What to do, where that is not the same in `portreeve up` and on a cluster.

use crate::powers::StateDir;

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One user's portal, on the machine that they are on.
    Up(StateDir),
    /// Many users', with a broker, agents and a sysadmin, and a sign-in by name and password.
    Cluster,
}

impl Form {
    pub(super) fn sign_in(self) -> &'static str {
        match self {
            Self::Up(StateDir::Usual) => {
                "Run `portreeve login` on the machine where the portal runs, and open the address that it prints."
            }
            Self::Up(StateDir::Own) => {
                "Run `portreeve login --state DIR` on the machine where the portal runs, with the state directory that it was started with, and open the address that it prints."
            }
            Self::Cluster => {
                "Open the portal's first page and sign in there, or run `portreeve login` on the cluster and open the address that it prints. A program shows an access token: `portreeve token create`."
            }
        }
    }

    pub(super) fn sign_in_later(self) -> &'static str {
        match self {
            Self::Up(StateDir::Usual) => {
                "Wait a minute. Then run `portreeve login`, and open the address that it prints."
            }
            Self::Up(StateDir::Own) => {
                "Wait a minute. Then run `portreeve login --state DIR`, with the state directory that the portal was started with, and open the address that it prints."
            }
            Self::Cluster => {
                "Wait a minute. Then sign in with your name, or run `portreeve login` on the cluster, and open the address that it prints."
            }
        }
    }

    pub(super) fn address(self) -> &'static str {
        match self {
            Self::Up(_) => "Open the address that the portal printed when it started.",
            Self::Cluster => {
                "Open the address that the sysadmin gave you. Other names of the portal are the sysadmin's to add: portal.names."
            }
        }
    }

    /// The processes that hold another user's socket could not be looked at.
    pub(super) fn unseen(self) -> &'static str {
        match self {
            Self::Up(_) => {
                "Without more rights, this portal can't see other users' processes. Ask the owner for a forward file of their own."
            }
            Self::Cluster => {
                "The agent on that node says so. Ask the owner for a forward file of their own, which needs no look at processes."
            }
        }
    }

    pub(super) fn no_address(self) -> &'static str {
        match self {
            Self::Up(_) => "Try again in a moment.",
            Self::Cluster => "Ask the sysadmin, whose the list of nodes is: portreeve nodes.",
        }
    }

    pub(super) fn no_route(self) -> &'static str {
        match self {
            Self::Up(_) => "Try again in a moment. If it is another machine, see whether it runs.",
            Self::Cluster => {
                "If it is your own, see whether its job still runs. If it is somebody else's, a firewall on the node may keep you out, unless it runs with a group of yours: its owner can start it with one."
            }
        }
    }

    /// An end of a session could not be written down.
    pub(super) fn full_disk(self) -> &'static str {
        match self {
            Self::Up(_) => {
                "Make room on the disk that holds the portal's state directory. The portal's log has the reason, and says when it is written."
            }
            Self::Cluster => {
                "Tell the sysadmin: the disk that holds the broker's state needs room. The broker's log has the reason, and says when it is written."
            }
        }
    }

    /// An application is not shown under the portal's own address; `has_origins`: it could have one of its own.
    pub(super) fn own_origin(self, has_origins: bool) -> &'static str {
        match self {
            Self::Up(_) if has_origins => {
                "Open the portal under the name localhost on this machine, where each application has an address of its own."
            }
            Self::Cluster if has_origins => {
                "Open it in a window: the portal leads on to its own address. A forward whose name has a capital or a dot, and a node's address in the place of its name, can have none."
            }
            Self::Up(_) | Self::Cluster => {
                "This portal has one address for everything. A program, such as curl, may use the application; a browser is not shown it."
            }
        }
    }
}
