//! Keeps a connection with the site's ident2 service, where that is asked about connections. The portal can't make one: the
//! broker does, and hands it over. While there is none, nobody owns anything.

use std::os::fd::OwnedFd;

use portreeve_model::wire::broker::{Answer, Ident2Line, Question};
use tokio::time::{sleep, timeout};

use super::channel::{Channel, ChannelError};
use super::line::{Line, LineError};
use crate::chain::chain;
use crate::limits;
use crate::lookup::Lookup;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum NoLine {
    /// The broker did not make one.
    #[error(transparent)]
    Broker(#[from] LineError),
    /// It did not hand it over as it said.
    #[error("the broker handed over no connection with ident2")]
    Handed(#[source] ChannelError),
    /// It said that it did, and nothing came.
    #[error("the broker handed over no connection with ident2 in time")]
    Late,
    /// The system refused.
    #[error("a connection with ident2 can't be used")]
    Io(#[from] std::io::Error),
}

/// For as long as the portal runs.
pub(super) async fn keep(lookup: &Lookup, line: &Line) {
    let Lookup::Ident2(ident2) = lookup else { return };
    let mut told = String::new();
    loop {
        let asked = async {
            let socket = connection(line).await?;
            tracing::info!("connected with ident2");
            told.clear();
            Ok::<_, NoLine>(ident2.client().serve(socket).await?)
        };
        let why = asked.await.unwrap_or_else(|error| chain(&error).to_string());
        // A service that is away for hours is one record.
        if why != told {
            tracing::warn!(%why, "no connection with ident2: nobody is let in anywhere until there is one");
            told = why;
        }
        sleep(limits::IDENT2_AGAIN).await;
    }
}

async fn connection(line: &Line) -> Result<OwnedFd, NoLine> {
    let (channel, theirs) = Channel::pair()?;
    match line.ask(Question::Ident2, Some(theirs)).await? {
        Answer::Done => {}
        _ => return Err(LineError::OtherAnswer.into()),
    }
    let mut buffer = [0; 64];
    match timeout(limits::IDENT2_HANDED, channel.receive::<Ident2Line>(&mut buffer)).await {
        Ok(Ok((Ident2Line {}, Some(socket)))) => Ok(socket),
        Ok(Ok((_, None))) => Err(NoLine::Handed(ChannelError::Descriptor)),
        Ok(Err(error)) => Err(NoLine::Handed(error)),
        Err(_) => Err(NoLine::Late),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use portreeve_model::config::LookupConfig;
    use portreeve_model::wire::encode_bare;
    use portreeve_model::{NodeMap, Tuple, Unowned};
    use portreeve_sys::message;
    use tokio::time::Instant;

    use super::*;
    use crate::agents::{Agents, Rules};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_until_it_has_one_and_again_when_that_has_ended() {
        let map = "[[node]]\nname = 'c1'\naddresses = ['10.0.0.2']\n";
        let rules = Rules {
            key: None,
            nodes: NodeMap::parse(map, "nodes.toml").unwrap(),
            plain_networks: Vec::new(),
        };
        let agents = Arc::new(Agents::new(rules, tokio::sync::mpsc::channel(1).0).unwrap());
        let lookup = Lookup::new(&LookupConfig::Ident2("/unused".into()), agents);
        let (line, mut questions) = Line::new();
        line.ended.note_heard();
        let tuple =
            Tuple { client: "10.0.0.1:40000".parse().unwrap(), server: "10.0.0.2:8888".parse().unwrap() };
        let mut ask = async || {
            let (question, channel, reply) = questions.played().await;
            assert_eq!(question, Question::Ident2);
            line.ended.note_heard();
            (channel.unwrap(), reply)
        };
        let frame = encode_bare(&Ident2Line {}).unwrap();
        let hand = |channel: &OwnedFd, what: &[&OwnedFd]| {
            let what: Vec<_> = what.iter().map(AsFd::as_fd).collect();
            message::send(channel, &frame, &what).unwrap();
        };
        let test = async {
            // The broker can't, hands over nothing, or two.
            let (_channel, reply) = ask().await;
            reply.send(Answer::Failed { why: "it is not there".to_owned() }).unwrap();
            let (_channel, reply) = ask().await;
            reply.send(Answer::NoTicket).unwrap();
            let (_channel, reply) = ask().await;
            reply.send(Answer::Done).unwrap();
            let (channel, reply) = ask().await;
            hand(&channel, &[]);
            reply.send(Answer::Done).unwrap();
            let (channel, reply) = ask().await;
            let (one, two) = pair();
            hand(&channel, &[&one, &two]);
            reply.send(Answer::Done).unwrap();
            // While there is none, nobody owns anything.
            let (channel, reply) = ask().await;
            let owner = lookup.owner(&tuple).await;
            assert!(matches!(owner, Err(Unowned::Lookup(_))), "{owner:?}");
            drop((channel, reply));
            let mut ended = Instant::now();
            for _ in 0..3 {
                let (channel, reply) = ask().await;
                assert!(ended.elapsed() >= limits::IDENT2_AGAIN);
                let (ours, theirs) = pair();
                hand(&channel, &[&theirs]);
                reply.send(Answer::Done).unwrap();
                drop(theirs);
                // It is in use: a question comes.
                let asked = lookup.owner(&tuple);
                let comes = async {
                    let mut buffer = [0; 128];
                    while message::receive(&ours, &mut buffer, 0).is_err() {
                        sleep(std::time::Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    biased;
                    owner = asked => panic!("{owner:?}"),
                    () = comes => {}
                }
                ended = Instant::now();
            }
        };
        tokio::select! {
            biased;
            () = test => {}
            () = keep(&lookup, &line) => panic!("it ended"),
        }
    }
}
