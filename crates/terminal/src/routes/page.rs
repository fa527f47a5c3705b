//! `GET /`: the page.

use askama::Template;

use super::assets::{self, address};
use crate::access::Admitted;
use crate::respond::{self, Answer, Refused};
use crate::settings::Settings;

#[derive(Template)]
#[template(path = "terminal.html")]
struct Page<'a> {
    title: &'a str,
    styles: Vec<String>,
    scripts: Vec<String>,
}

pub(super) fn page(_: &Admitted, settings: &Settings) -> Result<Answer, Refused> {
    let all = |end: &str| assets::ALL.iter().filter(|file| file.name.ends_with(end)).map(address).collect();
    let page = Page { title: &settings.title, styles: all(".css"), scripts: all(".js") };
    match page.render() {
        Ok(html) => Ok(respond::page(html)),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no page");
            Err(Refused::Failed)
        }
    }
}
