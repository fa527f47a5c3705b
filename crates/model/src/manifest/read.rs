//! Takes a manifest's keys and judges them. Before: the text. After: the [`ManifestFile`].

use std::ops::Range;

use toml::Spanned;

use super::field::{Choice, Field, FieldKind, FieldName, Offered, Resource};
use super::value::{BYTES, Minutes};
use super::{Manifest, ManifestFile, Open, Pattern};
use crate::config::{Notes, Problem, Section, number};

/// Fields of a form at most.
const FIELDS: usize = 64;
/// Bytes of a script at most: Slurm's own bound is 4 MiB (`max_script_size`, slurm.conf(5)).
const SCRIPT: usize = 256 * 1024;
const KINDS: &str = "text, number, select, checkbox, duration, file or directory";

pub(super) fn read(text: &str, file: &str) -> Result<ManifestFile, Vec<Problem>> {
    let mut notes = Notes::default();
    let mut top = Section::whole(text, &mut notes);
    let disabled = top.boolean("disabled", &mut notes).is_some_and(Spanned::into_inner);
    let found = if disabled { None } else { application(&mut top, &mut notes) };
    top.refuse_rest(&mut notes);
    match (disabled, found) {
        (true, _) if notes.is_empty() => Ok(ManifestFile::Disabled),
        (_, Some(manifest)) if notes.is_empty() => Ok(ManifestFile::Application(Box::new(manifest))),
        _ => Err(notes.into_problems(text, file)),
    }
}

/// `None`, and a note, if it is none.
fn application(top: &mut Section<'_>, notes: &mut Notes) -> Option<Manifest> {
    let title = required(top.string("title", notes), "title", "write title = \"what people call it\"", notes);
    let description = plain(top.string("description", notes), "description", 400, notes);
    let icon = plain(top.string("icon", notes), "icon", 2, notes);
    let on_portal_node = top.boolean("on_portal_node", notes).is_some_and(Spanned::into_inner);
    let script =
        required(top.string("script", notes), "script", "write script = '''#!/bin/bash -l' and so on", notes);
    if let Some(written) = &script {
        check_script(written, notes);
    }
    let mut open = top.section("open", notes);
    let has_open = open.is_there();
    let path = plain(open.string("path", notes), "open.path", 2000, notes);
    let is_relative = !path.starts_with('/') && !path.contains("//");
    if !is_relative {
        let remedy = "write what follows the application's address, without a slash before it".to_owned();
        notes.note(open.span(), "open.path", "this is a whole path or address".to_owned(), remedy);
    }
    open.refuse_rest(notes);
    let fixed = fixed(top, notes);
    let sections = top.sections("field", notes);
    if let Some((span, _)) = sections.get(FIELDS) {
        let what = format!("a form has {FIELDS} fields at most");
        notes.note(span.clone(), "field", what, "remove some".to_owned());
    }
    let mut fields: Vec<Field> = Vec::new();
    for (span, section) in sections {
        let Some(field) = field(span.clone(), section, notes) else { continue };
        let same = fields.iter().find_map(|one| {
            let by_name =
                (one.name == field.name).then(|| format!("there is another field {}", one.name.as_str()));
            by_name.or_else(|| {
                let resource = field.resource.filter(|_| one.resource == field.resource)?;
                Some(format!("{} decides the {} already", one.name.as_str(), resource.as_str()))
            })
        });
        if let Some(what) = same {
            notes.note(span, "field", what, "remove one of them".to_owned());
        }
        fields.push(field);
    }
    let (title, script) = (title?, script?);
    Some(Manifest {
        icon: if icon.is_empty() { title.get_ref().chars().take(1).collect() } else { icon },
        title: plain(Some(title), "title", 60, notes),
        description,
        open: has_open.then_some(Open { path }),
        on_portal_node,
        fields,
        fixed,
        script: script.into_inner(),
    })
}

fn check_script(written: &Spanned<String>, notes: &mut Notes) {
    let script = written.get_ref();
    let (what, remedy) = if !script.starts_with("#!/") {
        ("it does not say which program runs it", "begin it with #!/bin/bash -l, directly behind the quotes")
    } else if script.len() > SCRIPT {
        ("it has more than 256 KiB", "put most of it into a program that the script calls")
    } else if script.contains('\0') {
        ("it has a NUL", "remove it")
    } else {
        return;
    };
    notes.note(written.span(), "script", what.to_owned(), remedy.to_owned());
}

fn required(
    written: Option<Spanned<String>>,
    key: &str,
    remedy: &str,
    notes: &mut Notes,
) -> Option<Spanned<String>> {
    let found = written.filter(|text| !text.get_ref().trim().is_empty());
    // A wrong type has a note of its own.
    if found.is_none() && !notes.has(key) {
        notes.note(0..0, key, "it is missing".to_owned(), remedy.to_owned());
    }
    found
}

/// One line of text, or nothing.
fn plain(written: Option<Spanned<String>>, key: &str, most: usize, notes: &mut Notes) -> String {
    let Some(written) = written else { return String::new() };
    let span = written.span();
    let text = written.into_inner();
    let what = if text.chars().any(char::is_control) {
        "it has a line's end, or another character that can't be printed".to_owned()
    } else if text.chars().count() > most {
        format!("it has more than {most} characters")
    } else {
        return text;
    };
    notes.note(span, key, what, "shorten it to one plain line".to_owned());
    String::new()
}

/// `[resources]`
fn fixed(top: &mut Section<'_>, notes: &mut Notes) -> Vec<(Resource, String)> {
    let mut section = top.section("resources", notes);
    let mut fixed = Vec::new();
    for (name, resource) in Resource::ALL {
        let Some(written) = section.scalar(name, notes) else { continue };
        let text = written.get_ref();
        let text = match resource {
            Resource::Time => {
                Minutes::parse(text).map_or_else(|| text.clone(), |Minutes(minutes)| minutes.to_string())
            }
            Resource::Exclusive if text == "true" => "1".to_owned(),
            Resource::Exclusive if text == "false" => String::new(),
            _ => text.clone(),
        };
        match resource.admits(&text) {
            Ok(()) => fixed.push((resource, text)),
            Err(why) => {
                let key = format!("resources.{name}");
                notes.note(written.span(), &key, why.to_string(), remedy(resource).to_owned());
            }
        }
    }
    section.refuse_rest(notes);
    fixed
}

fn remedy(resource: Resource) -> &'static str {
    match resource {
        Resource::Time => "write it as \"2h\", \"1h 30m\" or \"1-12:00\"",
        Resource::Memory => "write GiB, a whole number",
        Resource::Exclusive => "write true or false",
        Resource::Nodes | Resource::Tasks | Resource::Cores | Resource::Gpus => "write a whole number",
        _ => "write its name as Slurm has it",
    }
}

fn field(span: Range<usize>, mut section: Section<'_>, notes: &mut Notes) -> Option<Field> {
    let name = name(&span, section.string("name", notes), notes);
    let label = plain(section.string("label", notes), "field.label", 80, notes);
    let help = plain(section.string("help", notes), "field.help", 400, notes);
    let required = section.boolean("required", notes).is_some_and(Spanned::into_inner);
    let default = section.scalar("default", notes);
    let resource = resource(section.string("resource", notes), notes);
    let kind = kind(&span, &mut section, notes);
    section.refuse_rest(notes);
    let (name, kind) = (name?, kind?);
    if let Some((resource, at)) = &resource
        && let Err(needed) = resource.fits(&kind)
    {
        let what = format!("a field of this kind can't decide the {}", resource.as_str());
        notes.note(at.clone(), "field.resource", what, format!("make it kind = {needed}"));
        return None;
    }
    let label = if label.is_empty() { name.as_str().replace('_', " ") } else { label };
    let resource = resource.map(|(resource, _)| resource);
    let mut field = Field { name, label, help, kind, required: false, default: String::new(), resource };
    if let Some(default) = default {
        match field.answer(default.get_ref(), None) {
            // As it is shown, not as it is handed on.
            Ok(_) => field.default = default.get_ref().clone(),
            Err(why) => {
                let remedy = "write one that the field itself would take";
                notes.note(default.span(), "field.default", why.to_string(), remedy.to_owned());
            }
        }
    }
    field.required = required;
    Some(field)
}

fn name(span: &Range<usize>, written: Option<Spanned<String>>, notes: &mut Notes) -> Option<FieldName> {
    let remedy = "write 1 to 32 of a-z 0-9 _, beginning with a letter".to_owned();
    let Some(written) = written else {
        notes.note(span.clone(), "field.name", "the field has no name".to_owned(), remedy);
        return None;
    };
    let name = FieldName::parse(written.get_ref());
    if name.is_none() {
        notes.note(
            written.span(),
            "field.name",
            format!("{:?} is no field's name", written.get_ref()),
            remedy,
        );
    }
    name
}

fn resource(written: Option<Spanned<String>>, notes: &mut Notes) -> Option<(Resource, Range<usize>)> {
    let written = written?;
    let found = Resource::ALL.iter().find(|(name, _)| name == written.get_ref());
    if found.is_none() {
        let all: Vec<&str> = Resource::ALL.iter().map(|(name, _)| *name).collect();
        let what = format!("{:?} is nothing that a job could ask for", written.get_ref());
        notes.note(written.span(), "field.resource", what, format!("write one of {}", all.join(", ")));
    }
    found.map(|(_, resource)| (*resource, written.span()))
}

fn kind(span: &Range<usize>, section: &mut Section<'_>, notes: &mut Notes) -> Option<FieldKind> {
    let written = section.string("kind", notes);
    let (at, kind) =
        written.map_or_else(|| (span.clone(), "text".to_owned()), |text| (text.span(), text.into_inner()));
    Some(match kind.as_str() {
        "text" => {
            let lines = section.boolean("lines", notes).is_some_and(Spanned::into_inner);
            let most = number(section.integer("max_length", notes), "field.max_length", 1..=BYTES, notes);
            let pattern = section.string("pattern", notes).and_then(|written| {
                let parsed = Pattern::parse(written.get_ref());
                if let Err(error) = &parsed {
                    let what = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                    notes.note(
                        written.span(),
                        "field.pattern",
                        what,
                        "correct the regular expression".to_owned(),
                    );
                }
                parsed.ok()
            });
            let most = most.unwrap_or(if lines { 16 * 1024 } else { 1024 });
            FieldKind::Text { pattern, most, lines }
        }
        "number" => {
            let min = section.integer("min", notes).map_or(0, Spanned::into_inner);
            let max = section.integer("max", notes).map_or(1_000_000, Spanned::into_inner);
            if min > max {
                let what = format!("there is no number from {min} to {max}");
                notes.note(span.clone(), "field.max", what, "write a max that is not below min".to_owned());
            }
            FieldKind::Number { min, max }
        }
        "select" => FieldKind::Select(offered(span, section, notes)?),
        "checkbox" => FieldKind::Checkbox,
        "duration" => FieldKind::Duration,
        "file" | "directory" => {
            let upload = section.boolean("upload", notes).is_some_and(Spanned::into_inner);
            FieldKind::File { directory: kind == "directory", upload }
        }
        other => {
            let what = format!("there is no kind {other:?}");
            notes.note(at, "field.kind", what, format!("write {KINDS}"));
            return None;
        }
    })
}

/// `options = ["a", "b"]`, `options = [["value", "label"]]`, or `options_from = "partitions"`.
fn offered(span: &Range<usize>, section: &mut Section<'_>, notes: &mut Notes) -> Option<Offered> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bare(String),
        Labelled([String; 2]),
    }
    let listed = section.array::<Written>("options", "a string, or two in brackets,", notes);
    let from = section.string("options_from", notes);
    let mut refuse = |span: Range<usize>, what: &str, remedy: String| {
        notes.note(span, "field.options", what.to_owned(), remedy);
        None
    };
    match (listed, from) {
        (Some(listed), None) => {
            let mut choices: Vec<Choice> = Vec::new();
            for written in listed {
                let span = written.span();
                let (value, label) = match written.into_inner() {
                    Written::Bare(value) => (value.clone(), value),
                    Written::Labelled([value, label]) => (value, label),
                };
                if [&value, &label].iter().any(|text| text.len() > 200 || text.contains(char::is_control)) {
                    return refuse(span, "an option is too long, or no plain line", "shorten it".to_owned());
                }
                if choices.iter().any(|choice| choice.value == value) {
                    return refuse(span, "an option is there twice", "remove one".to_owned());
                }
                choices.push(Choice { value, label });
            }
            if choices.is_empty() {
                return refuse(
                    span.clone(),
                    "there is no option",
                    "write options = [\"a\", \"b\"]".to_owned(),
                );
            }
            Some(Offered::Listed(choices))
        }
        (None, Some(from)) => {
            let found = Offered::FROM_SITE.iter().find(|(name, _)| name == from.get_ref());
            let Some((_, offered)) = found else {
                let all: Vec<&str> = Offered::FROM_SITE.iter().map(|(name, _)| *name).collect();
                return refuse(
                    from.span(),
                    "nobody has such a list",
                    format!("write one of {}", all.join(", ")),
                );
            };
            Some(offered.clone())
        }
        (None, None) => {
            refuse(span.clone(), "a select needs options", "write options or options_from".to_owned())
        }
        (Some(_), Some(from)) => {
            refuse(from.span(), "there are options already", "write one of the two".to_owned())
        }
    }
}
