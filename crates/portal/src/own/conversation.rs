//! Signing in with a name, and whatever PAM asks for: one page for each of its steps.
//!
//! Invariant: what PAM says is text, shown as such; what is typed goes to PAM alone, and is kept nowhere.

use std::rc::Rc;

use askama::Template;
use http::Response;
use http::request::Parts;
use portreeve_model::wire::pam::{PamRefusal, Prompt, PromptKind};
use portreeve_model::{Secret, SignIn, UserName};
use portreeve_pages::Frame;
use zeroize::Zeroizing;

use super::enter::{MARK_COOKIE, let_in, read_form, wanted_in};
use super::{next, origins, sign_in};
use crate::answer::Answer;
use crate::authenticate::cookie;
use crate::chain::chain;
use crate::front::Connection;
use crate::front_body::FrontBody;
use crate::powers::{PowerError, Talk};
use crate::reject::Reject;
use crate::respond;
use crate::site::Site;

/// What was posted. Its texts are overwritten when it is dropped.
#[derive(Default)]
struct Form {
    user: String,
    password: Option<Secret>,
    conversation: Option<Secret>,
    answers: Vec<Secret>,
    next: Option<String>,
}

impl Form {
    fn parse(text: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(text) {
            let value = value.into_owned();
            match &*name {
                "user" => form.user = value,
                "password" => form.password = Some(Secret::new(value)),
                "conversation" => form.conversation = Some(Secret::new(value)),
                "answer" => form.answers.push(Secret::new(value)),
                "next" => form.next = Some(value),
                _ => {}
            }
        }
        form
    }
}

/// `POST /-/sign-in`: begins with a name and perhaps a password, or goes on with answers.
pub(super) async fn post(
    connection: &Rc<Connection>,
    site: &Site,
    parts: &Parts,
    body: FrontBody,
) -> Result<Response<Answer>, Reject> {
    origins::require_own_origin(site, parts)?;
    let body = Zeroizing::new(read_form(body).await?.to_vec());
    let Form { user, password, conversation, answers, next } = Form::parse(&body);
    let wanted = wanted_in(parts, next);
    let powers = &connection.room.powers;
    let step = match conversation {
        Some(conversation) => powers.reply(conversation, answers).await,
        None => match UserName::parse(user.trim()) {
            Ok(name) => {
                let mark = cookie(&parts.headers, MARK_COOKIE).map(|mark| Secret::new(mark.to_owned()));
                let begun = powers.begin(name, connection.peer.ip(), mark).await;
                with_password(connection, begun, password).await
            }
            // No account has such a name; that is nobody's business.
            Err(_) => Ok(Talk::Refused { why: PamRefusal::Credentials, said: Vec::new() }),
        },
    };
    match step {
        Ok(Talk::Asks { conversation, prompts }) => asking(&conversation, &prompts, &wanted),
        Ok(Talk::Granted { signed_in, said }) => {
            let wanted = next::checked(&wanted).unwrap_or("/");
            let mut response =
                if said.is_empty() { respond::see_other(wanted) } else { told(&said, wanted)? };
            let_in(connection, &signed_in, response.headers_mut())?;
            Ok(response)
        }
        Ok(Talk::Refused { why, said }) => {
            connection.room.tally.sign_in_refused(SignIn::Pam);
            let mut trouble: Vec<String> = said.into_iter().map(|prompt| prompt.text).collect();
            trouble.push(format!("{}.", capital(&why.to_string())));
            sign_in::page_again(connection, &wanted, user.trim(), &trouble)
        }
        // It was answered already, or took too long.
        Err(PowerError::Failed(why)) => {
            tracing::info!(error = %chain(&*why), "a conversation can't go on");
            let trouble = ["This sign-in was over. Begin again.".to_owned()];
            sign_in::page_again(connection, &wanted, user.trim(), &trouble)
        }
        Err(other) => Err(other.into()),
    }
}

/// Most often PAM asks for one password first, and it was typed already.
async fn with_password(
    connection: &Connection,
    begun: Result<Talk, PowerError>,
    password: Option<Secret>,
) -> Result<Talk, PowerError> {
    let password = password.filter(|password| !password.reveal().is_empty());
    match (begun, password) {
        (Ok(Talk::Asks { conversation, prompts }), Some(password)) if asks_for_one_secret(&prompts) => {
            connection.room.powers.reply(conversation, vec![password]).await
        }
        (other, _) => other,
    }
}

fn asks_for_one_secret(prompts: &[Prompt]) -> bool {
    let mut asking = prompts.iter().filter(|prompt| prompt.kind.asks());
    asking.next().is_some_and(|first| first.kind == PromptKind::Hidden) && asking.next().is_none()
}

#[derive(Template)]
#[template(path = "prompts.html")]
struct PromptsTemplate<'a> {
    conversation: &'a str,
    prompts: &'a [Prompt],
    /// The first of them that asks: what is typed goes there.
    first: usize,
    next: &'a str,
}

fn asking(conversation: &Secret, prompts: &[Prompt], wanted: &str) -> Result<Response<Answer>, Reject> {
    let next = next::checked(wanted).unwrap_or("/");
    let first = prompts.iter().position(|prompt| prompt.kind.asks()).unwrap_or_default();
    page(&PromptsTemplate { conversation: conversation.reveal(), prompts, first, next })
}

#[derive(Template)]
#[template(path = "told.html")]
struct ToldTemplate<'a> {
    said: &'a [Prompt],
    next: &'a str,
}

/// Signed in, and there is something to read first: that the password soon expires, perhaps.
fn told(said: &[Prompt], next: &str) -> Result<Response<Answer>, Reject> {
    page(&ToldTemplate { said, next })
}

fn page(template: &impl Template) -> Result<Response<Answer>, Reject> {
    let body = template.render().map_err(|error| Reject::Internal(error.into()))?;
    let frame = Frame { title: "Sign in", ..Frame::default() };
    Ok(respond::page(frame.around(&body).map_err(|error| Reject::Internal(error.into()))?))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_their_order_and_what_is_unknown_is_passed_over() {
        let form = Form::parse(b"conversation=c&answer=a%26b&next=%2Ffw2%2F&answer=&answer=z&more=1");
        let answers: Vec<&str> = form.answers.iter().map(Secret::reveal).collect();
        assert_eq!(answers, ["a&b", "", "z"]);
        assert_eq!(form.conversation.unwrap().reveal(), "c");
        assert_eq!(form.next.as_deref(), Some("/fw2/"));
    }

    #[test]
    fn a_password_is_given_to_a_single_hidden_question_only() {
        let prompt = |kind| Prompt { kind, text: String::new() };
        use PromptKind::{Error, Hidden, Info, Visible};
        for (kinds, expected) in [
            (&[Hidden][..], true),
            (&[Info, Hidden, Error], true),
            (&[Visible], false),
            (&[Hidden, Hidden], false),
            (&[Visible, Hidden], false),
            (&[Info], false),
        ] {
            let prompts: Vec<Prompt> = kinds.iter().map(|kind| prompt(*kind)).collect();
            assert_eq!(asks_for_one_secret(&prompts), expected, "{kinds:?}");
        }
    }
}
