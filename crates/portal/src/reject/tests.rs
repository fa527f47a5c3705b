use portreeve_model::UnknownGroup;

use super::*;
use crate::resolve::Withdrawn;

fn rejects() -> Vec<Reject> {
    vec![
        SiteError::Ambiguous.into(),
        SiteError::Misdirected("elsewhere.example".to_owned()).into(),
        Unauthenticated::NoTicket.into(),
        Unauthenticated::Over.into(),
        Unauthenticated::Full.into(),
        Unauthenticated::Unavailable.into(),
        RouteError::NotFound.into(),
        ResolveError::Ourselves.into(),
        ResolveError::Over.into(),
        ResolveError::Unavailable.into(),
        ResolveError::TooMany.into(),
        ResolveError::PrivilegedPort.into(),
        ConnectError::NoAddress.into(),
        ConnectError::Over.into(),
        Refusal::NotYours { owner: 1 }.into(),
        Refusal::RootSocket.into(),
        Refusal::GroupUnknown(UnknownGroup::NotPermitted).into(),
        Refusal::GroupNotLooked.into(),
        Refusal::NotExecutable.into(),
        Refusal::PrivilegedPort.into(),
        ForwardError::Withdrawn(Withdrawn::Moved).into(),
        ForwardError::SessionOver.into(),
        CodeError::Used.into(),
        Reject::Token(BadToken::Unknown),
        Reject::ForPeople,
        Reject::Account(PamRefusal::Account),
        Reject::Wait(7),
        Reject::Worker(WorkerError::Over),
        Reject::Worker(WorkerError::TooMany),
        Reject::Worker(WorkerError::BodyLate),
        Reject::ForeignHere { has_origins: false },
        Reject::CrossSite,
        Reject::TooMany,
        Reject::TooManyCodes,
        Reject::BadRequest("its address is malformed"),
        Reject::Late,
        Reject::NoWebSocket,
        Reject::UnknownProtocol,
        Reject::Method("GET"),
        Reject::SignOutNotKept(PowerError::Failed("no room".into())),
        Reject::Internal("no reason".into()),
    ]
}

#[test]
fn each_says_what_to_do_in_either_form() {
    for reject in rejects() {
        for form in [Form::Up(StateDir::Usual), Form::Up(StateDir::Own), Form::Cluster] {
            let said = reject.text(form);
            assert!(said.todo.ends_with(['.', '`']), "{form:?} {}: {:?}", said.code, said.todo);
            assert_eq!(said.code, reject.code());
        }
    }
}

#[test]
fn neither_form_sends_people_to_what_the_other_has() {
    for reject in rejects() {
        let of_up = reject.text(Form::Up(StateDir::Usual)).todo;
        assert!(!of_up.contains("sysadmin") && !of_up.contains("agent"), "{of_up}");
        let of_a_cluster = reject.text(Form::Cluster).todo;
        for words in
            ["printed when it started", "where the portal runs", "state directory", "this portal can't see"]
        {
            assert!(!of_a_cluster.contains(words), "{of_a_cluster}");
        }
    }
}

/// A command that looks elsewhere finds no portal.
#[test]
fn whose_state_is_elsewhere_is_said_to_be_asked_there() {
    let mut told = 0;
    for reject in rejects() {
        let (usual, own) = (Form::Up(StateDir::Usual), Form::Up(StateDir::Own));
        let (usual, own) = (reject.text(usual).todo, reject.text(own).todo);
        assert!(!usual.contains("--state"), "{usual}");
        assert_eq!(own.contains("portreeve login"), own.contains("portreeve login --state DIR"), "{own}");
        told += usize::from(own.contains("--state"));
    }
    assert!(told >= 4, "{told}");
}
