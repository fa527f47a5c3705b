//! `/files/PATH`: the page *Files*. A slash at the end is a directory, with forms that work without scripts; without it, it is a file:
//! what is known of it, a look at it, and what can be done with it. Scripts (`assets/browse.js`) add what can't be done by forms:
//! uploads, and rows as they are looked at.
//!
//! Invariant: nothing of a file is shown but as text or as a picture that runs nothing; what changes something carries the page's secret.

use std::os::unix::ffi::OsStrExt;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portreeve_files::address::{segment, segments};
use portreeve_files::{Address, Error, Kind, Over, RelPath, Status};
use portreeve_pages::{Frame, Section};

use super::super::Asked;
use super::changes;
use super::listing::{EntrySaid, Names, Room, Share, Sort, Window, Wish, seconds};
use super::{aside, below, listing, parsed, zip};
use crate::body::Filled;
use crate::limits;
use crate::respond::{self, Answer, Refused};
use crate::visit::may_change;
use crate::workspace::shown;

/// A step of the way down.
struct Step {
    name: String,
    address: String,
}

#[derive(Template)]
#[template(path = "files.html")]
struct ListPage<'p> {
    place: &'p Place,
    window: &'p Window,
    wish: &'p Wish,
    filter: String,
    page: &'p str,
    free: Option<String>,
}

#[derive(Template)]
#[template(path = "file.html")]
struct FilePage<'p> {
    place: &'p Place,
    parent: &'p Place,
    name: String,
    segment: String,
    kind: String,
    size: String,
    modified: i64,
    owner: String,
    group: String,
    mode: String,
    access: String,
    view: View,
    /// What an archive would be called without its ending.
    unpacked: String,
    is_zip: bool,
    is_directory: bool,
    page: &'p str,
}

/// A look at a file.
enum View {
    Text {
        text: String,
        is_all: bool,
    },
    /// As it stands in `src`.
    Picture(String),
    None,
}

#[derive(Template)]
#[template(path = "files_ask.html")]
struct AskPage<'p> {
    place: &'p Place,
    what: What,
    names: &'p [(String, String)],
    page: &'p str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Delete,
    Move,
    Copy,
}

/// A path, as a page needs it.
struct Place {
    /// As people read it.
    shown: String,
    /// As programs and fields of forms take it, to the letter. `None` where it is no plain text: what such a path becomes in a field
    /// may be the name of something else.
    path: Option<String>,
    /// What follows `/files/`; a directory's has a slash at its end.
    address: String,
    steps: Vec<Step>,
}

impl Place {
    fn of(path: Option<&RelPath>, is_directory: bool) -> Self {
        let mut steps = vec![Step { name: "/".to_owned(), address: "/files/".to_owned() }];
        let Some(path) = path else {
            return Self { shown: "/".to_owned(), path: Some("/".to_owned()), address: String::new(), steps };
        };
        for name in path.as_bytes().split(|byte| *byte == b'/') {
            let above = steps.last().map(|step| step.address.clone()).unwrap_or_default();
            let name_shown = shown(&String::from_utf8_lossy(name), 100);
            steps.push(Step { name: name_shown, address: format!("{above}{}/", segment(name)) });
        }
        let slash = if is_directory { "/" } else { "" };
        let exact = std::str::from_utf8(path.as_bytes()).ok().filter(|text| !text.contains(char::is_control));
        Self {
            shown: shown(&format!("/{}", String::from_utf8_lossy(path.as_bytes())), limits::PATH_SHOWN),
            path: exact.map(|text| format!("/{text}")),
            address: format!("{}{slash}", segments(path)),
            steps,
        }
    }
}

impl ListPage<'_> {
    fn order(&self, sort: Sort) -> &'static str {
        if self.wish.order.sort == sort && !self.wish.order.down { "down" } else { "up" }
    }

    /// What a screen reader says of a column.
    fn sorted(&self, sort: Sort) -> &'static str {
        match (self.wish.order.sort == sort, self.wish.order.down) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        }
    }

    fn sort(&self) -> &'static str {
        match self.wish.order.sort {
            Sort::Name => "name",
            Sort::Size => "size",
            Sort::Modified => "modified",
        }
    }

    /// Where the window before this one begins.
    fn earlier(&self) -> usize {
        self.window.offset.saturating_sub(self.wish.limit)
    }

    fn size(entry: &EntrySaid) -> String {
        entry.size.map(size).unwrap_or_default()
    }

    fn name(entry: &EntrySaid) -> String {
        shown(&entry.name, 255)
    }
}

/// With three digits, in units of a thousand.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut left = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        left /= 1000.0;
        unit = next;
        if left < 999.5 {
            break;
        }
    }
    if left < 9.95 { format!("{left:.1} {unit}") } else { format!("{left:.0} {unit}") }
}

/// `/files`: where people begin.
pub(in crate::routes) fn home(asked: &Asked<'_>) -> Result<Answer, Refused> {
    let home = asked.desk.jobs.place.person.home.as_os_str().as_bytes().to_vec();
    let home = home.strip_prefix(b"/").and_then(|home| RelPath::parse(home).ok());
    let is_shown = home.as_ref().is_some_and(|home| asked.desk.dav.roots().find(Some(home)).is_ok());
    match home.filter(|_| is_shown) {
        Some(home) => respond::see_other(&format!("/files/{}/", segments(&home))),
        None => respond::see_other("/files/"),
    }
}

/// `GET`.
pub(in crate::routes) async fn show(asked: &Asked<'_>, address: &str) -> Result<Answer, Refused> {
    let Address { path, slash } = parsed(address)?;
    match path {
        Some(path) if !slash || asked.said("about").is_some() => about(asked, path).await,
        path => list(asked, path).await,
    }
}

async fn list(asked: &Asked<'_>, path: Option<RelPath>) -> Result<Answer, Refused> {
    let wish = Wish::of(asked, limits::ROWS)?;
    let window = listing::window(asked, path.clone(), wish.clone()).await?;
    let free = window.space.as_ref().map(room);
    let place = Place::of(path.as_ref(), true);
    let page = asked.page_secret();
    let filter = asked.parameter("filter").unwrap_or_default();
    let body = ListPage { place: &place, window: &window, wish: &wish, filter, page: &page, free }.render();
    framed(asked, &place.shown, body)
}

/// How much can still be written, in words.
fn room(room: &Room) -> String {
    let free = format!("{} free on this file system", size(room.free));
    match room.quota {
        Some(Share { used, limit }) => format!("{} of your {} used, {free}", size(used), size(limit)),
        None => free,
    }
}

fn framed(asked: &Asked<'_>, title: &str, body: Result<String, askama::Error>) -> Result<Answer, Refused> {
    let page = asked.page_secret();
    let title = format!("Files: {}", shown(title, 200));
    let frame = Frame {
        title: &title,
        user: Some(asked.visit.user.as_str()),
        section: Some(Section::Files),
        live: Some(&page),
        browses: true,
        ..Frame::default()
    };
    respond::rendered(body.and_then(|body| frame.around(&body)))
}

async fn about(asked: &Asked<'_>, path: RelPath) -> Result<Answer, Refused> {
    let uid = asked.desk.uid;
    let of = path.clone();
    let looked = aside(asked, move |dav| {
        let (root, below) = dav.roots().named(Some(&of))?;
        let status = root.status(&below)?;
        let view = match status.kind {
            Kind::File => view(&root, &below, &status)?,
            _ => View::None,
        };
        let mut names = Names::new(uid);
        let (owner, group) = (names.user(status.uid), names.group(status.gid));
        let access = names.access(status.mode, status.uid, status.gid, root.has_access_list(&below));
        Ok((status, view, owner, group, access))
    });
    let (status, view, owner, group, access) = looked.await?;
    let is_directory = status.kind == Kind::Directory;
    if is_directory && asked.said("about").is_none() {
        return respond::see_other(&format!("/files/{}/", segments(&path)));
    }
    let (place, parent) = (Place::of(Some(&path), is_directory), Place::of(path.parent().as_ref(), true));
    let (page, name) = (asked.page_secret(), String::from_utf8_lossy(path.name().as_bytes()).into_owned());
    let body = FilePage {
        place: &place,
        parent: &parent,
        segment: segment(path.name().as_bytes()),
        kind: status.kind.to_string(),
        size: size(status.size),
        modified: seconds(status.modified),
        owner,
        group,
        mode: format!("{:03o}", status.mode & 0o777),
        access,
        view,
        unpacked: name.rsplit_once('.').map_or(&*name, |(name, _)| name).to_owned(),
        is_zip: name.to_ascii_lowercase().ends_with(".zip") && !is_directory,
        is_directory,
        name: shown(&name, 255),
        page: &page,
    };
    framed(asked, &place.shown, body.render())
}

/// What it looks like: the beginning of a text, or a small picture.
fn view(root: &portreeve_files::Root, path: &RelPath, status: &Status) -> Result<View, Error> {
    let Ok(file) = root.read(path) else { return Ok(View::None) };
    let name = path.name().to_string_lossy().to_ascii_lowercase();
    let kind = name.rsplit_once('.').and_then(|(_, ending)| match ending {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "gif" => Some("image/gif"),
        "webp" => Some("image/webp"),
        _ => None,
    });
    if let Some(kind) = kind
        && status.size <= limits::PICTURE
    {
        let most = usize::try_from(status.size).unwrap_or(usize::MAX);
        let bytes = file.piece(0, most)?.bytes;
        return Ok(View::Picture(format!("data:{kind};base64,{}", STANDARD.encode(bytes))));
    }
    let mut bytes = file.piece(0, limits::PREVIEW)?.bytes;
    let is_all = bytes.len() as u64 >= status.size;
    // A character that is cut in two is left out.
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(View::Text { text, is_all }),
        _ => Ok(View::None),
    }
}

/// `POST` to a directory: something is done in it, or with names of it.
pub(in crate::routes) async fn act(
    asked: &Asked<'_>,
    address: &str,
    filled: Filled,
) -> Result<Answer, Refused> {
    may_change(&asked.visit, filled.value("page"))?;
    let directory = parsed(address)?.path;
    let place = Place::of(directory.as_ref(), true);
    let back = || respond::see_other(&format!("/files/{}", place.address));
    let join = |name: &RelPath| below(directory.as_ref(), name);
    let mut chosen = Vec::new();
    for text in filled.values("n") {
        match parsed(text)?.path {
            Some(name) if name.parent().is_none() => chosen.push(name),
            _ => return Err(Refused::Malformed),
        }
    }
    let done = filled.value("do").unwrap_or_default();
    if done == "folder" {
        super::make(asked, join(&new_name(&filled, "name")?)?).await?;
        return back();
    }
    let Some(first) = chosen.first() else {
        return Err(Refused::Conflict("Nothing was chosen.".to_owned()));
    };
    let is_sure = filled.value("sure").is_some();
    let ask = |what| ask(asked, &place, what, &chosen);
    match done {
        "zip" => return zip(asked, directory.clone(), chosen).await,
        "delete" if !is_sure => return ask(What::Delete),
        "delete" => {
            for name in &chosen {
                changes::remove(asked, join(name)?).await.map_err(|why| of(name, why))?;
            }
        }
        "move" if !is_sure => return ask(What::Move),
        "copy" if !is_sure => return ask(What::Copy),
        "move" | "copy" => {
            let into = match filled.value("to").unwrap_or_default() {
                "/" => None,
                typed => Some(changes::whole("to", typed)?),
            };
            for name in &chosen {
                let (from, to) = (join(name)?, below(into.as_ref(), name)?);
                let done = match done {
                    "move" => changes::relocate(asked, from, to, Over::Refuse).await,
                    _ => changes::copy(asked, from, to, Over::Refuse).await,
                };
                done.map_err(|why| of(name, why))?;
            }
        }
        "rename" => {
            let to = join(&new_name(&filled, "to")?)?;
            changes::relocate(asked, join(first)?, to, Over::Refuse).await?;
        }
        "mode" => {
            changes::set_mode(asked, join(first)?, filled.value("mode").unwrap_or_default()).await?;
            return respond::see_other(&format!(
                "/files/{}{}?about",
                place.address,
                segment(first.as_bytes())
            ));
        }
        "unpack" => {
            let to = join(&new_name(&filled, "to")?)?;
            changes::unpack(asked, join(first)?, to).await?;
        }
        _ => return Err(Refused::Malformed),
    }
    back()
}

/// Of several, it says which one.
fn of(name: &RelPath, mut why: Refused) -> Refused {
    if let Some(text) = why.sentence() {
        let name = shown(&String::from_utf8_lossy(name.as_bytes()), 255);
        *text = format!("{name}: {text} Whatever was to come after it was not done.");
    }
    why
}

/// A name that somebody typed.
fn new_name(filled: &Filled, field: &str) -> Result<RelPath, Refused> {
    let typed = filled.value(field).unwrap_or_default();
    let unfit = |why: &str| Refused::Conflict(format!("This is no name: {why}."));
    match RelPath::parse(typed.as_bytes()) {
        Ok(name) if name.parent().is_none() => Ok(name),
        Ok(_) => Err(unfit("it has a slash in it")),
        Err(error) => Err(unfit(&error.to_string())),
    }
}

/// Before something is done with many, or for good: what, and where to.
fn ask(asked: &Asked<'_>, place: &Place, what: What, chosen: &[RelPath]) -> Result<Answer, Refused> {
    let names: Vec<(String, String)> = chosen
        .iter()
        .map(|name| (segment(name.as_bytes()), shown(&String::from_utf8_lossy(name.as_bytes()), 255)))
        .collect();
    let page = asked.page_secret();
    framed(asked, &place.shown, AskPage { place, what, names: &names, page: &page }.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_in_words() {
        let of = |quota| room(&Room { free: 43_000_000_000, quota });
        assert_eq!(of(None), "43 GB free on this file system");
        let share = Share { used: 1_500_000, limit: 2_000_000_000 };
        assert_eq!(of(Some(share)), "1.5 MB of your 2.0 GB used, 43 GB free on this file system");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_951, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (43_000_000_000, "43 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), said, "{bytes}");
        }
    }

    #[test]
    fn the_way_down() {
        let place = Place::of(RelPath::parse(b"home/a b/\xff").ok().as_ref(), true);
        assert_eq!(place.address, "home/a%20b/%FF/");
        let steps: Vec<_> =
            place.steps.iter().map(|step| (step.name.as_str(), step.address.as_str())).collect();
        assert_eq!(
            steps,
            [
                ("/", "/files/"),
                ("home", "/files/home/"),
                ("a b", "/files/home/a%20b/"),
                ("\u{fffd}", "/files/home/a%20b/%FF/")
            ]
        );
        let root = Place::of(None, true);
        assert_eq!((root.address.as_str(), root.path.as_deref()), ("", Some("/")));
    }

    #[test]
    fn a_path_is_handed_on_to_the_letter_or_not_at_all() {
        for (path, exact, shown) in [
            ("a/é b".as_bytes(), Some("/a/é b"), "/a/é b"),
            (b"a/\xff", None, "/a/\u{fffd}"),
            (b"\xff/a", None, "/\u{fffd}/a"),
            (b"a\n/b", None, "/a\u{fffd}/b"),
            (b"a\r", None, "/a\u{fffd}"),
            ("a\u{fffd}".as_bytes(), Some("/a\u{fffd}"), "/a\u{fffd}"),
            ("a\u{202e}b".as_bytes(), Some("/a\u{202e}b"), "/a\u{fffd}b"),
        ] {
            let place = Place::of(RelPath::parse(path).ok().as_ref(), true);
            assert_eq!((place.path.as_deref(), place.shown.as_str()), (exact, shown));
        }
    }
}
