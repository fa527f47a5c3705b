use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use portreeve_broker::Forwards;
use portreeve_jobs::Person;
use portreeve_model::config::WorkspaceConfig;
use portreeve_model::wire::agent::Row;
use portreeve_model::wire::worker::{NodeView, OwnOrigins, Reader, Rows};
use portreeve_model::{NodeName, PathMode, UserName};

use super::*;
use crate::jobs::Workplace;

fn visit() -> Visit {
    Visit {
        user: UserName::parse("alice").unwrap(),
        origin: "https://portal".to_owned(),
        own_origins: None,
        shared_origin: None,
        modes: std::collections::BTreeMap::new(),
        page_secret: None,
        reader: Reader::Window,
    }
}

fn view(nodes: Vec<NodeView>) -> Nodes {
    Nodes { own_port: Some(8443), not_understood: None, nodes: Some(nodes) }
}

fn row(address: &str, port: u16, command: &str) -> Row {
    let address: IpAddr = address.parse().unwrap();
    Row { address, port, command: Some(command.to_owned()), job: Some(4711) }
}

fn node(name: &str, listening: Result<Vec<Row>, &str>) -> NodeView {
    NodeView {
        node: NodeName::parse(name).unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        listening: listening.map(|rows| Rows { rows, more: false }).map_err(str::to_owned),
    }
}

fn page_in(forwards: &std::path::Path, visit: &Visit, nodes: &Nodes) -> String {
    let state = tempfile::tempdir().unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let place = Workplace {
        person: Person {
            name: "alice".to_owned(),
            uid,
            home: "/nonexistent".into(),
            shell: "/bin/sh".into(),
        },
        state: state.path().to_owned(),
        own_apps: None,
        site: WorkspaceConfig::default(),
        here: None,
        is_up: false,
        forwards: Forwards::in_dir(forwards.to_owned()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let desk = Rc::new(Desk::new(place, None, || 0, own_forwards));
        super::page(&desk, visit, nodes).await.unwrap()
    })
}

fn page(visit: &Visit, nodes: &Nodes) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alice-tb");
    std::fs::write(&path, "http://c1:8888/\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    page_in(dir.path(), visit, nodes)
}

#[test]
fn forwards_and_what_listens_on_the_nodes() {
    let html = page(
        &visit(),
        &view(vec![
            node("c1", Ok(vec![row("0.0.0.0", 8888, "jupyter-lab"), row("127.0.0.1", 9999, "python")])),
            node("c2", Err("no agent is connected")),
        ]),
    );
    for part in [
        "<a href=\"/fw/alice-tb/\">alice-tb</a>",
        "http://c1:8888/",
        "<a href=\"/fw2/c1:8888/\">c1:8888</a>",
        "<bdi>jupyter-lab</bdi>",
        "job 4711",
        "port 9999 of 127.0.0.1 on c1",
        "c2 can't be asked: no agent is connected.",
        "<h1>Workspace</h1>",
    ] {
        let part = part.replace('\'', "&#39;");
        assert!(html.contains(&part), "{part} is not in {html}");
    }
    assert!(!html.contains("/fw2/127.0.0.1:9999/") && !html.contains("/fw2/c1:9999/"));
}

#[test]
fn hostile_text_is_escaped_and_short() {
    let evil = "<script>alert(1)</script>";
    let long = "x".repeat(100_000);
    let mut view = view(vec![
        node("c1", Ok(vec![row("0.0.0.0", 8888, evil), row("0.0.0.0", 8889, &long)])),
        node("c2", Err(evil)),
        node("c3", Err(&long)),
    ]);
    let mut visit = visit();
    view.not_understood = Some(format!("\"><img src=x onerror=alert(1)>{long}"));
    visit.own_origins = Some(OwnOrigins { domain: "\"><b>".to_owned(), port: None, tagged: true });
    visit.shared_origin = Some("https://\"><b>".to_owned());
    let html = page(&visit, &view);
    let body = html.split("<main").nth(1).unwrap().split("</main>").next().unwrap();
    let shown = body.split("<section aria-labelledby=\"start\">").next().unwrap().to_owned()
        + body.split("<section aria-labelledby=\"open\">").nth(1).unwrap();
    for part in ["<script", "<img", "<b>"] {
        assert!(!shown.contains(part), "{part} is in {shown}");
    }
    assert!(body.len() < 25_000, "{} bytes", body.len());
}

#[test]
fn how_an_application_gets_its_paths_is_said_once_it_was_opened() {
    let view = view(vec![node("c1", Ok(vec![row("0.0.0.0", 8888, "a"), row("0.0.0.0", 8889, "b")]))]);
    let mut visit = visit();
    visit.modes = [("/fw2/c1:8888", PathMode::Strip), ("/fw/alice-tb", PathMode::Keep)]
        .map(|(prefix, mode)| (prefix.to_owned(), mode))
        .into();
    let html = page(&visit, &view);
    assert_eq!(html.matches("links are rewritten").count(), 1, "{html}");
    assert_eq!(html.matches("gets its paths whole").count(), 1, "{html}");
}

#[test]
fn what_can_not_be_listed_is_said() {
    let html = page_in(std::path::Path::new("/nonexistent"), &visit(), &view(Vec::new()));
    assert!(html.contains("Your forwards can&#39;t be listed: No such file"), "{html}");
}
