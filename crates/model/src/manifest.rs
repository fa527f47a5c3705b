//! An application's manifest: what its form asks, the script that its job runs, and how it is opened. Before: a TOML file's text.
//! After: whoever shows the form, and whoever makes a job of it.
//!
//! Invariants: every problem of a file is reported at once, with its line, and an unknown key is one of them. What a person fills
//! in is never part of the script: it reaches the script as environment variables, and Slurm as arguments that were checked.
//!
//! `read` takes the keys and judges them; `field` is one question of the form, `pattern` what its answer must look like; `value` judges an answer.

mod field;
mod pattern;
mod read;
mod value;

pub use field::{Choice, Field, FieldKind, FieldName, Offered, Resource};
pub use pattern::Pattern;
pub use value::{Answer, BadAnswer, MEMORY_GIB, Minutes};

use crate::config::Problem;

/// An application's name: its manifest's file name without `.toml`. 1 to 32 of a-z 0-9 -, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(String);

impl AppName {
    /// Of a name as written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_word(text, 32, b'-').then(|| Self(text.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for AppName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// 1 to `most` small letters, digits and `joint`, beginning with a letter.
fn is_word(text: &str, most: usize, joint: u8) -> bool {
    text.len() <= most
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == joint)
}

/// An application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What people call it.
    pub title: String,
    /// One sentence about it.
    pub description: String,
    /// Two letters or a sign that stand for it.
    pub icon: String,
    /// How it is opened in a browser. `None`: it has no address, it is a job like any other.
    pub open: Option<Open>,
    /// Whether it may run on the portal's own node, where the sysadmin allows that.
    pub on_portal_node: bool,
    /// What the form asks, in this order.
    pub fields: Vec<Field>,
    /// What every job of it gets, as far as no field says otherwise.
    pub fixed: Vec<(Resource, String)>,
    /// The job's script. Begins with `#!`.
    pub script: String,
}

/// How an application is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What follows its address, with `{token}` where its token belongs; no slash before it.
    pub path: String,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestFile {
    /// An application.
    Application(Box<Manifest>),
    /// `disabled = true`: the application of this name that is shipped is not offered.
    Disabled,
}

impl ManifestFile {
    /// Reads and checks a manifest. `file` only names it in the problems.
    ///
    /// # Errors
    /// Every problem of the text, in the order of its lines.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        read::read(text, file)
    }
}

impl Manifest {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name.as_str() == name)
    }
}

#[cfg(test)]
mod tests;
