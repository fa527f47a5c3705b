//! A temporary directory, and requests about what is in it.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use portreeve_dav::{Answer, Asked, Dav, Refusal};
use portreeve_files::Roots;

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) dav: Dav,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Said {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn has(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "{text}: {self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn has_not(&self, text: &str) -> &Self {
        assert!(!self.text.contains(text), "{text}: {self:?}");
        self
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), dav: Dav::new(Roots::default()) }
    }

    /// One that shows only these directories of it.
    pub(crate) fn limited(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = names.iter().map(|name| {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            dir.path().join(name)
        });
        let dav = Dav::new(Roots::new(roots.collect()));
        Self { dir, dav }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The address of a name in the directory, which is in plain characters or encoded already.
    pub(crate) fn address(&self, name: &str) -> String {
        format!("/dav{}/{name}", self.dir.path().display())
    }

    pub(crate) fn asked(&self, method: &str, name: &str, fields: &[(&str, &str)]) -> Asked {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Asked {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            path: self.address(name),
            headers,
            origin: "https://portal.example.org".to_owned(),
        }
    }

    /// Any method.
    pub(crate) fn ask(&self, method: &str, name: &str, fields: &[(&str, &str)], body: &str) -> Said {
        self.send(&self.asked(method, name, fields), body)
    }

    pub(crate) fn send(&self, asked: &Asked, body: &str) -> Said {
        match asked.method.as_str() {
            "GET" | "HEAD" => self.read(asked),
            "PUT" => match self.write(asked, body) {
                Ok(said) => said,
                Err(refusal) => refused(refusal),
            },
            _ => match self.dav.answer(asked, body.as_bytes()) {
                Answer::Whole(answer) => whole(answer),
                Answer::Listing(head, mut listing) => {
                    let mut bytes = Vec::new();
                    while let Some(piece) = listing.next(&self.dav).unwrap() {
                        bytes.extend(piece);
                    }
                    whole(head.map(|()| bytes))
                }
            },
        }
    }

    fn read(&self, asked: &Asked) -> Said {
        match self.dav.read(asked) {
            Ok(reading) => {
                let length = usize::try_from(reading.length).unwrap();
                let bytes = reading.file.piece(reading.begin, length).unwrap().bytes;
                whole(reading.head.map(|()| bytes))
            }
            Err(refusal) => refused(refusal),
        }
    }

    fn write(&self, asked: &Asked, body: &str) -> Result<Said, Refusal> {
        let (mut put, writing) = self.dav.write(asked)?;
        put.write(body.as_bytes()).unwrap();
        writing.finish(put).map(whole)
    }

    pub(crate) fn put(&self, name: &str, body: &str) {
        let said = self.ask("PUT", name, &[], body);
        assert!(said.status.is_success(), "{name}: {said:?}");
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.at(name)).is_ok()
    }

    pub(crate) fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }
}

fn whole(answer: http::Response<Vec<u8>>) -> Said {
    let (parts, body) = answer.into_parts();
    Said { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&body).into_owned() }
}

fn refused(refusal: Refusal) -> Said {
    whole(refusal.answer())
}
