//! One question of an application's form.

use super::{Pattern, is_word};

/// A field's name: 1 to 32 of a-z 0-9 _, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(String);

impl FieldName {
    /// Of a name as written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_word(text, 32, b'_').then(|| Self(text.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The environment variable that carries the answer: `APP_` and the name in capitals.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("APP_{}", self.0.to_ascii_uppercase())
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Names the answer.
    pub name: FieldName,
    /// Stands before it.
    pub label: String,
    /// Stands below it.
    pub help: String,
    /// What answers there are.
    pub kind: FieldKind,
    /// Whether it must be answered.
    pub required: bool,
    /// The answer that stands there at first; empty: none.
    pub default: String,
    /// What of the job the answer decides, besides being told to the script.
    pub resource: Option<Resource>,
}

/// Which answers a field takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldKind {
    /// Text.
    Text {
        /// What the whole of it must match.
        pattern: Option<Pattern>,
        /// Characters at most.
        most: usize,
        /// Whether it may have several lines.
        lines: bool,
    },
    /// A whole number within bounds.
    Number {
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// One of several.
    Select(Offered),
    /// Yes or no.
    Checkbox,
    /// A duration in hours and minutes, which becomes minutes.
    Duration,
    /// A path in the person's home, or an absolute one.
    File {
        /// It is a directory.
        directory: bool,
        /// The form can send a file of the browser's machine to home first.
        upload: bool,
    },
}

/// What a select offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// These.
    Listed(Vec<Choice>),
    /// Slurm's partitions that the person may use.
    Partitions,
    /// The types of GPU that there are.
    GpuTypes,
    /// The nodes' features.
    Features,
    /// The person's accounts.
    Accounts,
    /// Qualities of service.
    Qos,
}

impl Offered {
    /// Those that Slurm knows, as they are written in a manifest.
    pub const FROM_SITE: [(&'static str, Self); 5] = [
        ("partitions", Self::Partitions),
        ("gpu-types", Self::GpuTypes),
        ("features", Self::Features),
        ("accounts", Self::Accounts),
        ("qos", Self::Qos),
    ];
}

/// One of a select's answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Choice {
    /// The answer.
    pub value: String,
    /// What is shown for it.
    pub label: String,
}

/// What of a job an answer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Slurm's partition.
    Partition,
    /// The account that is charged.
    Account,
    /// The quality of service.
    Qos,
    /// A reservation's name.
    Reservation,
    /// A feature that the nodes must have.
    Feature,
    /// Nodes.
    Nodes,
    /// Tasks in all.
    Tasks,
    /// Cores of each task.
    Cores,
    /// Memory of each node, in GiB.
    Memory,
    /// GPUs of each node.
    Gpus,
    /// Their type.
    GpuType,
    /// Nobody else on the nodes.
    Exclusive,
    /// Wall-clock time.
    Time,
    /// The directory that the job runs in.
    Directory,
}

impl Resource {
    /// All, as they are written in a manifest.
    pub const ALL: [(&'static str, Self); 14] = [
        ("partition", Self::Partition),
        ("account", Self::Account),
        ("qos", Self::Qos),
        ("reservation", Self::Reservation),
        ("feature", Self::Feature),
        ("nodes", Self::Nodes),
        ("tasks", Self::Tasks),
        ("cores", Self::Cores),
        ("memory", Self::Memory),
        ("gpus", Self::Gpus),
        ("gpu-type", Self::GpuType),
        ("exclusive", Self::Exclusive),
        ("time", Self::Time),
        ("directory", Self::Directory),
    ];

    /// As it is written in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }

    /// Whether a field of this kind can decide it; else which kinds can.
    pub(super) fn fits(self, kind: &FieldKind) -> Result<(), &'static str> {
        let (fits, needed) = match self {
            Self::Partition
            | Self::Account
            | Self::Qos
            | Self::Reservation
            | Self::Feature
            | Self::GpuType => (
                matches!(kind, FieldKind::Text { lines: false, .. } | FieldKind::Select(_)),
                "text or select",
            ),
            Self::Nodes | Self::Tasks | Self::Cores | Self::Memory | Self::Gpus => {
                (matches!(kind, FieldKind::Number { .. } | FieldKind::Select(_)), "number or select")
            }
            Self::Exclusive => (matches!(kind, FieldKind::Checkbox), "checkbox"),
            Self::Time => (matches!(kind, FieldKind::Duration), "duration"),
            Self::Directory => (matches!(kind, FieldKind::File { directory: true, .. }), "directory"),
        };
        if fits { Ok(()) } else { Err(needed) }
    }
}
