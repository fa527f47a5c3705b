//! A scraper: asks the metrics socket, and reads Prometheus's text format (version 0.0.4) as strictly as it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::{Request, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::PATIENCE;
use super::client::{Answer, whole};
use super::link::SendBody;

/// What the metrics socket at this path says.
///
/// # Panics
/// When it says nothing in time.
pub async fn ask(socket: &Path, method: &str, path: &str) -> Answer {
    let shown = format!("{method} {path} at {}", socket.display());
    let stream = UnixStream::connect(socket).await.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP begins");
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(HOST, "metrics");
    let body: SendBody = Full::default().boxed();
    let answer = sender.send_request(request.body(body).expect("a request"));
    let answer =
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("{shown}: no answer"));
    whole(answer.unwrap_or_else(|error| panic!("{shown}: {error:?}"))).await
}

/// Metrics at one moment.
#[derive(Debug)]
pub struct Scrape {
    /// Each family with its type.
    pub families: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// A sample by its name and labels as they are written: `name{label="value"}`.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn get(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples.keys()))
    }

    /// All samples.
    pub fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        self.samples.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// The values that a label has in a family.
    pub fn values(&self, family: &str, label: &str) -> BTreeSet<String> {
        let start = format!("{family}{{");
        let labels = self.samples.keys().filter_map(|sample| sample.strip_prefix(&start));
        let value = |labels: &str| {
            let (_, rest) = labels.split_once(&format!("{label}=\""))?;
            Some(rest.split('"').next()?.to_owned())
        };
        labels.filter_map(value).collect()
    }

    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scrape = Self { families: BTreeMap::new(), samples: BTreeMap::new() };
        let (mut helped, mut family) = (None, None);
        if !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        for (number, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("line {}: {what}: {line}", number + 1);
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
                if !is_name(name) || help.trim().is_empty() {
                    return Err(wrong("a name and a sentence are wanted"));
                }
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                if helped.as_deref() != Some(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                    return Err(wrong("a type, after the help of the same family, is wanted"));
                }
                if scrape.families.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(wrong("twice"));
                }
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (family, kind) = family.as_ref().ok_or_else(|| wrong("of no family"))?;
                let (sample, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
                let value = value.parse::<f64>().map_err(|_| wrong("no number"))?;
                let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
                let of_family = match kind.as_str() {
                    "histogram" => {
                        ["_bucket", "_sum", "_count"].contains(&name.trim_start_matches(&**family))
                    }
                    _ => name == family,
                };
                let counts_up = kind != "counter" || name.ends_with("_total");
                if !of_family || !counts_up || !value.is_finite() || value < 0.0 {
                    return Err(wrong("this does not fit its family"));
                }
                are_labels(labels).ok_or_else(|| wrong("malformed labels"))?;
                if scrape.samples.insert(sample.to_owned(), value).is_some() {
                    return Err(wrong("twice"));
                }
            }
        }
        scrape.families.iter().filter(|(_, kind)| *kind == "histogram").try_for_each(|(name, _)| {
            scrape.check_histogram(name, text).ok_or_else(|| format!("{name} is no histogram"))
        })?;
        Ok(scrape)
    }

    /// Buckets only grow, and the last one has all.
    fn check_histogram(&self, name: &str, text: &str) -> Option<()> {
        let start = format!("{name}_bucket{{le=\"");
        let (mut bound_before, mut count_before) = (f64::NEG_INFINITY, 0.0);
        for line in text.lines().filter_map(|line| line.strip_prefix(&start)) {
            let (bound, count) = line.split_once("\"} ")?;
            let (bound, count): (f64, f64) = (bound.parse().ok()?, count.parse().ok()?);
            if bound <= bound_before || count < count_before {
                return None;
            }
            (bound_before, count_before) = (bound, count);
        }
        let all = self.samples.get(&format!("{name}_count"))?;
        self.samples.get(&format!("{name}_sum"))?;
        (bound_before == f64::INFINITY && (count_before - all).abs() < 0.5).then_some(())
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// `label="value",label="value"}`; no value of ours needs an escape.
fn are_labels(text: &str) -> Option<()> {
    let inner = text.strip_suffix('}')?;
    if inner.is_empty() {
        return Some(());
    }
    for pair in inner.split(',') {
        let (name, value) = pair.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        if !is_name(name) || name.contains(':') || value.contains(['"', '\\', '\n']) {
            return None;
        }
    }
    Some(())
}
