//! PROPPATCH (RFC 4918, section 9.2): all of it, or nothing.

use std::time::SystemTime;

use http::{Response, StatusCode};
use portreeve_files::{Kind, RelPath, Root};

use crate::find::stat;
use crate::locks::Reach;
use crate::properties::{APACHE, Dead, WINDOWS, is_live};
use crate::refusal::Refusal;
use crate::xml::{self, Name};
use crate::{Asked, Dav, MULTI_STATUS, address, status_in, xml_answer};

enum Step {
    Keep(Name, String),
    Drop(Name),
    /// Whether it can be run: Apache's live property, which is a file's mode.
    Executable(bool),
    /// What Windows calls its last change.
    Modified(Name, String, SystemTime),
    /// The server's to say.
    Protected(Name),
}

impl Step {
    fn name(&self) -> Name {
        match self {
            Self::Keep(name, _) | Self::Drop(name) | Self::Modified(name, ..) | Self::Protected(name) => {
                name.clone()
            }
            Self::Executable(_) => executable(),
        }
    }
}

fn executable() -> Name {
    Name { space: APACHE.to_owned(), local: "executable".to_owned() }
}

impl Dav {
    pub(crate) fn patch(&self, asked: &Asked, body: &[u8]) -> Result<Response<Vec<u8>>, Refusal> {
        let place = asked.place()?;
        let (root, path) = self.roots.inside(place.path.as_ref())?;
        let status = status_in(&root, path.as_ref())?;
        let shown = self.conditions(asked, &place, Some(&status))?;
        self.unlocked(place.path.as_ref(), Reach::Content, &shown)?;
        let steps = steps(body, status.kind)?;
        let refused = |step: &Step| matches!(step, Step::Protected(_));
        let done = match steps.iter().any(refused) {
            true => Err(None),
            false => apply(&root, path.as_ref(), status.mode, &steps).map_err(Some),
        };
        let names = |wanted: &dyn Fn(&Step) -> bool| -> String {
            steps.iter().filter(|step| wanted(step)).map(|step| step.name().empty_element()).collect()
        };
        let mut said = format!("{MULTI_STATUS}<D:response><D:href>");
        said += &address(place.path.as_ref(), place.slash);
        said += "</D:href>";
        match done {
            Ok(()) => stat(&mut said, &names(&|_| true), "200 OK"),
            Err(Some(refusal)) => {
                stat(&mut said, &names(&|_| true), refusal.status.as_str());
                said += &refusal.element();
            }
            Err(None) => {
                stat(&mut said, &names(&refused), "403 Forbidden");
                let others = names(&|step| !refused(step));
                if !others.is_empty() {
                    stat(&mut said, &others, "424 Failed Dependency");
                }
                said += "<D:error><D:cannot-modify-protected-property/></D:error>";
            }
        }
        said += "</D:response></D:multistatus>\n";
        Ok(xml_answer(StatusCode::MULTI_STATUS, &said))
    }
}

/// In their order: the last one counts.
fn steps(body: &[u8], kind: Kind) -> Result<Vec<Step>, Refusal> {
    let document = xml::read(body)?;
    let malformed = || Refusal::plain(StatusCode::BAD_REQUEST, "The body does not say what is to be set.");
    if !document.root.is("propertyupdate") {
        return Err(malformed());
    }
    let mut steps = Vec::new();
    for change in &document.root.children {
        let sets = change.is("set");
        if !sets && !change.is("remove") {
            continue;
        }
        for property in &change.child("prop").ok_or_else(malformed)?.children {
            let name = property.name.clone();
            let text = property.text.trim();
            steps.push(match (is_live(&name), sets) {
                // Of a directory the same bits say who gets in: it has no such property.
                (true, true) if name == executable() && kind == Kind::File && matches!(text, "T" | "F") => {
                    Step::Executable(text == "T")
                }
                (true, _) => Step::Protected(name),
                (false, false) => Step::Drop(name),
                (false, true) => {
                    let element = document.standalone(property);
                    let time = (name.space == WINDOWS && name.local == "Win32LastModifiedTime")
                        .then(|| httpdate::parse_http_date(text).ok())
                        .flatten();
                    match time {
                        Some(time) => Step::Modified(name, element, time),
                        None => Step::Keep(name, element),
                    }
                }
            });
        }
    }
    if steps.is_empty() { Err(malformed()) } else { Ok(steps) }
}

fn apply(root: &Root, path: Option<&RelPath>, mode: u32, steps: &[Step]) -> Result<(), Refusal> {
    let before = Dead::of(root, path)?;
    let mut dead = before.clone();
    let (mut new_mode, mut modified) = (mode, None);
    for step in steps {
        match step {
            Step::Keep(name, element) => {
                dead.0.insert(name.clone(), element.clone());
            }
            Step::Modified(name, element, time) => {
                dead.0.insert(name.clone(), element.clone());
                modified = Some(*time);
            }
            Step::Drop(name) => {
                dead.0.remove(name);
            }
            // Whoever may read it may run it.
            Step::Executable(true) => new_mode |= (mode & 0o444) >> 2,
            Step::Executable(false) => new_mode &= !0o111,
            Step::Protected(_) => {}
        }
    }
    if dead != before {
        dead.keep(root, path)?;
    }
    let rest = || -> Result<(), Refusal> {
        let Some(path) = path else { return Ok(()) };
        if new_mode != mode {
            root.set_mode(path, new_mode)?;
        }
        if let Some(time) = modified {
            root.set_modified(path, time)?;
        }
        Ok(())
    };
    rest().inspect_err(|_| {
        if dead != before {
            let _ = before.keep(root, path);
        }
    })
}
