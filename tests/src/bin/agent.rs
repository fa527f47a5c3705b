//! Plays the agent of a node towards the portal, with a node's key, and lies: `portreeve-test-agent [--key FILE] [--portal
//! HOST:PORT] [--name NODE] [--uid UID] MODE`. What it is asked is printed, one question a line; so is how it ended.
//!
//! | mode | |
//! | --- | --- |
//! | `owns` | whatever it is asked about is UID's |
//! | `late` | the same, three seconds later |
//! | `others` | answers under numbers of which nothing was asked |
//! | `unfitting` | answers with something else than was asked for |
//! | `login` | asks for a sign-in address for UID |
//! | `mute` | greets, and never answers |
//! | `half` | greets with half of a message, and waits |

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use portreeve_agent::channel::tls::client_config;
use portreeve_agent::channel::{FrameReader, Identity};
use portreeve_model::wire::agent::{Answer, FromAgent, Owned, Question, ToAgent, VERSION};
use portreeve_model::wire::encode;
use portreeve_model::{KeyFile, ListenerId, NodeName, Owner, OwnerGroups};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the portal waits for an answer.
const LATE: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let mode = arguments.last().ok_or("a mode")?.clone();
    let file = after("--key").map_or("/etc/portreeve/agent-key.toml", String::as_str);
    let keys = KeyFile::parse(&std::fs::read_to_string(file)?, file).map_err(|found| format!("{found:?}"))?;
    let uid: u32 = after("--uid").map_or(Ok(0), |uid| uid.parse())?;
    let node = after("--name").map_or(Ok(keys.node.clone()), |name| NodeName::parse(name))?;
    let portal = after("--portal").cloned().unwrap_or_else(|| keys.portals[0].to_string());

    let tls = client_config(&Identity::from_pem(&keys.private_key)?, keys.portal_keys.clone())?;
    let stream = TcpStream::connect(&portal).await?;
    let name = rustls::pki_types::ServerName::try_from("portal")?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    let (reading, mut writer) = tokio::io::split(stream);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let hello = encode(&FromAgent::Hello { version: VERSION, node, boot })?;
    if mode == "half" {
        writer.write_all(&hello[..hello.len() / 2]).await?;
        writer.flush().await?;
    } else {
        writer.write_all(&hello).await?;
        writer.flush().await?;
    }
    println!("greeted");
    if mode == "login" {
        say(&mut writer, &FromAgent::Login { id: 1, uid }).await?;
    }
    let mut reader = FrameReader::new(reading);
    loop {
        let (id, question) = match reader.next::<ToAgent>(PATIENCE, PATIENCE).await {
            Ok(ToAgent::Ask { id, question }) => (id, question),
            Ok(ToAgent::Goodbye { why }) => {
                println!("goodbye: {why}");
                return Ok(());
            }
            Ok(other) => {
                println!("said: {}", serde_json::to_string(&other)?);
                continue;
            }
            Err(error) => {
                println!("ended: {error}");
                return Ok(());
            }
        };
        if question != Question::Ping {
            println!("asked: {}", serde_json::to_string(&question)?);
        }
        let truth = answer(&question, uid);
        let about_a_connection = matches!(question, Question::Owner { .. } | Question::Confirm { .. });
        match mode.as_str() {
            "mute" => {}
            _ if !about_a_connection => say(&mut writer, &FromAgent::Answer { id, answer: truth }).await?,
            "late" => {
                sleep(LATE).await;
                say(&mut writer, &FromAgent::Answer { id, answer: truth }).await?;
            }
            "others" => say(&mut writer, &FromAgent::Answer { id: id + 100, answer: truth }).await?,
            "unfitting" => {
                say(&mut writer, &FromAgent::Answer { id, answer: Answer::ListensStill(true) }).await?
            }
            _ => say(&mut writer, &FromAgent::Answer { id, answer: truth }).await?,
        }
    }
}

/// What it says of itself where it is asked about a connection: it is this user's.
fn answer(question: &Question, uid: u32) -> Answer {
    let owned = |groups| {
        let owner = Owner { uid, groups, listener: ListenerId(1), accepted: true };
        Answer::Owner(Ok(Owned { owner, job: None }))
    };
    match question {
        Question::Ping => Answer::Pong,
        Question::Owner { group: false, .. } => owned(OwnerGroups::NotLooked),
        Question::Owner { group: true, .. } => owned(OwnerGroups::Egid(uid)),
        Question::Confirm { before, .. } => owned(before.groups),
        Question::ListensStill { .. } => Answer::ListensStill(true),
        Question::Listening { .. } => Answer::Listening { rows: Vec::new(), more: false },
    }
}

async fn say<W: AsyncWrite + Unpin>(writer: &mut W, said: &FromAgent) -> Result<(), Box<dyn Error>> {
    writer.write_all(&encode(said)?).await?;
    Ok(writer.flush().await?)
}
