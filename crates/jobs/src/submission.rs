//! Makes a job of a manifest and of what was filled in: arguments for Slurm, an environment for the script, and what the history
//! keeps. Before: `catalog`. After: `slurm` or `here`.
//!
//! Invariant: what was filled in stands in variables of the environment, and in arguments that begin with the option that they
//! are for; nowhere else. The script is the manifest's, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use portreeve_model::manifest::{Answer, Choice, Field, FieldKind, Manifest, Offered, Resource};

/// Whose jobs they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// The uid.
    pub uid: u32,
    /// Absolute.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// Why nothing was started: a field's name, empty for the whole, and a sentence's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which field.
    pub field: String,
    /// Why.
    pub why: String,
}

/// A job that could be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What was filled in, as the form would show it again.
    pub values: BTreeMap<String, String>,
    /// What Slurm is told.
    pub arguments: Vec<String>,
    /// `APP_NAME` and what was filled in, in the order of the fields.
    pub variables: Vec<(String, String)>,
    /// The directory that it runs in; absolute.
    pub directory: PathBuf,
    /// The job's script.
    pub script: String,
}

/// What the site offers for a select; `None`: nobody knows.
pub type Offers<'o> = dyn Fn(&Offered) -> Option<Vec<Choice>> + 'o;

impl Draft {
    /// Judges what was filled in. What a form does not send counts as empty; what it does not have is refused. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn new(
        manifest: &Manifest,
        given: &BTreeMap<String, String>,
        person: &Person,
        offers: &Offers<'_>,
    ) -> Result<Self, Vec<Refusal>> {
        let mut refusals: Vec<Refusal> = given
            .keys()
            .filter(|name| manifest.field(name).is_none())
            .map(|name| Refusal {
                field: name.chars().take(64).collect(),
                why: "there is no such field".to_owned(),
            })
            .collect();
        let (mut values, mut variables) = (BTreeMap::new(), Vec::new());
        let mut wanted: BTreeMap<Resource, String> = manifest.fixed.iter().cloned().collect();
        for field in &manifest.fields {
            let name = field.name.as_str();
            let text = given.get(name).map_or("", String::as_str);
            match judged(field, text, person, offers) {
                Ok((answer, handed_on)) => {
                    values.insert(
                        name.to_owned(),
                        if answer.as_str().is_empty() { String::new() } else { text.to_owned() },
                    );
                    if let Some(resource) = field.resource
                        && !handed_on.is_empty()
                    {
                        wanted.insert(resource, handed_on.clone());
                    }
                    variables.push((field.name.variable(), handed_on));
                }
                Err(why) => refusals.push(Refusal { field: name.to_owned(), why }),
            }
        }
        // Slurm would take fewer nodes, and say so nowhere.
        let number = |resource| wanted.get(&resource).and_then(|text| text.parse::<u64>().ok());
        if let (Some(tasks), Some(nodes)) = (number(Resource::Tasks), number(Resource::Nodes))
            && tasks < nodes
        {
            let field = manifest.fields.iter().find(|field| field.resource == Some(Resource::Tasks));
            refusals.push(Refusal {
                field: field.map(|field| field.name.as_str().to_owned()).unwrap_or_default(),
                why: format!("{tasks} on {nodes} nodes leave some with none"),
            });
        }
        let directory =
            wanted.remove(&Resource::Directory).map_or_else(|| person.home.clone(), PathBuf::from);
        if refusals.is_empty() {
            let arguments = arguments(&wanted, &directory);
            Ok(Self { values, arguments, variables, directory, script: manifest.script.clone() })
        } else {
            Err(refusals)
        }
    }
}

/// The answer, and what is handed on of it: a path is made a whole one.
fn judged(
    field: &Field,
    text: &str,
    person: &Person,
    offers: &Offers<'_>,
) -> Result<(Answer, String), String> {
    let offered = match &field.kind {
        FieldKind::Select(offered) => offers(offered),
        _ => None,
    };
    let answer = field.answer(text, offered.as_deref()).map_err(|bad| bad.to_string())?;
    let handed_on = match &field.kind {
        FieldKind::File { directory, .. } if !answer.as_str().is_empty() => {
            whole(answer.as_str(), *directory, person)?
        }
        _ => answer.as_str().to_owned(),
    };
    Ok((answer, handed_on))
}

/// A path that is there, from the root on.
fn whole(text: &str, wants_directory: bool, person: &Person) -> Result<String, String> {
    let rest = text.strip_prefix("~/").unwrap_or(text);
    let path = if text == "~" { person.home.clone() } else { person.home.join(rest) };
    let found = std::fs::metadata(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no {}", path.display()),
        std::io::ErrorKind::PermissionDenied => format!("you may not look at {}", path.display()),
        _ => format!("{} can't be looked at: {error}", path.display()),
    })?;
    match (wants_directory, found.is_dir(), found.is_file()) {
        (true, false, _) => Err(format!("{} is no directory", path.display())),
        (false, _, false) => Err(format!("{} is no file", path.display())),
        (true, ..) if access(&path, AccessFlags::X_OK).is_err() => {
            Err(format!("you may not enter {}", path.display()))
        }
        (false, ..) if access(&path, AccessFlags::R_OK).is_err() => {
            Err(format!("you may not read {}", path.display()))
        }
        _ => path.to_str().map(str::to_owned).ok_or_else(|| "its name is no text".to_owned()),
    }
}

fn arguments(wanted: &BTreeMap<Resource, String>, directory: &Path) -> Vec<String> {
    let of = |resource: Resource| wanted.get(&resource).map(String::as_str).filter(|text| !text.is_empty());
    let mut arguments = Vec::new();
    for (resource, option) in [
        (Resource::Partition, "partition"),
        (Resource::Account, "account"),
        (Resource::Qos, "qos"),
        (Resource::Reservation, "reservation"),
        (Resource::Feature, "constraint"),
        (Resource::Nodes, "nodes"),
        (Resource::Tasks, "ntasks"),
        (Resource::Cores, "cpus-per-task"),
        (Resource::Time, "time"),
    ] {
        if let Some(text) = of(resource) {
            arguments.push(format!("--{option}={text}"));
        }
    }
    if let Some(gib) = of(Resource::Memory) {
        arguments.push(format!("--mem={gib}G"));
    }
    if let Some(count) = of(Resource::Gpus).filter(|count| *count != "0") {
        arguments.push(match of(Resource::GpuType) {
            Some(kind) => format!("--gres=gpu:{kind}:{count}"),
            None => format!("--gres=gpu:{count}"),
        });
    }
    if of(Resource::Exclusive).is_some() {
        arguments.push("--exclusive".to_owned());
    }
    arguments.push(format!("--chdir={}", directory.display()));
    arguments
}

/// The environment that a job begins with: nothing of the process that starts it.
#[must_use]
pub fn environment(person: &Person) -> Vec<(String, String)> {
    let text = |path: &Path| path.display().to_string();
    [
        ("HOME", text(&person.home)),
        ("USER", person.name.clone()),
        ("LOGNAME", person.name.clone()),
        ("SHELL", text(&person.shell)),
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn person(home: &Path) -> Person {
        Person { name: "alice".to_owned(), uid: 1, home: home.to_owned(), shell: "/bin/bash".into() }
    }

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn draft(app: &str, pairs: &[(&str, &str)], home: &Path) -> Result<Draft, Vec<Refusal>> {
        let catalog = Catalog::read(None, None);
        let offers = |offered: &Offered| {
            (*offered == Offered::Partitions)
                .then(|| vec![Choice { value: "gpu".to_owned(), label: String::new() }])
        };
        Draft::new(&catalog.find(app).unwrap().manifest, &given(pairs), &person(home), &offers)
    }

    #[test]
    fn a_job_for_slurm() {
        let home = tempfile::tempdir().unwrap();
        let jupyter =
            [("interface", "lab"), ("cores", "4"), ("memory", "8"), ("gpus", "2"), ("time", "1h 30m")];
        let more = [("gpu_type", "a100"), ("exclusive", "on"), ("partition", "gpu")];
        let draft = draft("jupyter", &[&jupyter[..], &more].concat(), home.path()).unwrap();
        let chdir = format!("--chdir={}", home.path().display());
        assert_eq!(
            draft.arguments,
            [
                "--partition=gpu",
                "--cpus-per-task=4",
                "--time=90",
                "--mem=8G",
                "--gres=gpu:a100:2",
                "--exclusive",
                &chdir
            ]
        );
        let variable =
            |name: &str| draft.variables.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str());
        assert_eq!(
            (variable("APP_TIME"), variable("APP_MODULES"), variable("APP_EXCLUSIVE")),
            (Some("90"), Some(""), Some("1"))
        );
        assert_eq!(draft.values["time"], "1h 30m", "as it was typed, to be shown again");
        assert_eq!(draft.script, Catalog::read(None, None).find("jupyter").unwrap().manifest.script);
    }

    #[test]
    fn hostile_words_stay_words() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("a b;$(id).sh");
        std::fs::write(&program, "").unwrap();
        let evil = "'; rm -rf ~ #$(id)`id`\"\\";
        let draft = draft(
            "run",
            &[("program", "a b;$(id).sh"), ("arguments", evil), ("launcher", "direct"), ("time", "1h")],
            home.path(),
        )
        .unwrap();
        assert!(!draft.script.contains("rm -rf"));
        assert!(
            draft.arguments.iter().all(|argument| argument.starts_with("--") && !argument.contains("rm -rf"))
        );
        assert!(draft.variables.contains(&("APP_ARGUMENTS".to_owned(), evil.to_owned())));
        assert!(draft.variables.contains(&("APP_PROGRAM".to_owned(), program.display().to_string())));
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("d")).unwrap();
        let refused = draft(
            "jupyter",
            &[
                ("interface", "vi"),
                ("cores", "0"),
                ("partition", "--uid=0"),
                ("time", ""),
                ("environment", "none"),
                ("uid", "0"),
            ],
            home.path(),
        )
        .unwrap_err();
        let fields: Vec<&str> = refused.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, ["uid", "interface", "environment", "partition", "cores", "time"], "{refused:?}");
        for (program, why) in [
            ("d", "is no file"),
            ("none", "there is no"),
            ("/etc/shadow/x", "can't be looked at"),
            ("../x", "'..'"),
        ] {
            let refused =
                draft("run", &[("program", program), ("launcher", "direct"), ("time", "1h")], home.path())
                    .unwrap_err();
            assert!(refused[0].why.contains(why), "{refused:?}");
        }
    }
}
