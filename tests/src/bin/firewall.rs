//! Plays a node's firewall towards the others, with a node's key: `portreeve-test-firewall [--key FILE] answers UID`, `...
//! asks NODE FROM TO`. The first says of each connection that it is UID's, and prints what it was asked; the second asks
//! whose a TCP connection is, and prints the answer.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portreeve_agent::channel::tls::{client_config_for, server_config_for};
use portreeve_agent::channel::{FrameReader, Identity};
use portreeve_model::firewall::{Connector, ConnectorGroups};
use portreeve_model::wire::encode;
use portreeve_model::wire::firewall::{Answer, Ask, Flow, Groups, PROTOCOL, Transport};
use portreeve_model::{KeyFile, NodeMap, NodeName, Speaker};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 849;
/// Of root's, and not among those that a firewall takes.
const OWN_PORT: u16 = 599;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = match arguments.first().map(String::as_str) {
        Some("--key") => arguments.drain(..2).nth(1).ok_or("a key file")?,
        _ => "/etc/portreeve/agent-key.toml".to_owned(),
    };
    let keys =
        KeyFile::parse(&std::fs::read_to_string(&file)?, &file).map_err(|found| format!("{found:?}"))?;
    let own = Identity::from_pem(&keys.private_key)?;
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["answers", uid] => answers(&own, uid.parse()?).await,
        ["asks", node, from, to] => {
            let flow = Flow { transport: Transport::Tcp, from: from.parse()?, to: to.parse()? };
            asks(&own, &NodeName::parse(node)?, flow).await
        }
        _ => Err("answers UID, or asks NODE FROM TO".into()),
    }
}

async fn answers(own: &Identity, uid: u32) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        let tls = server_config_for(PROTOCOL, own, |_| true)?;
        tokio::spawn(async move {
            let stream = match TlsAcceptor::from(Arc::new(tls)).accept(stream).await {
                Ok(stream) => stream,
                Err(error) => return println!("turned away: {error}"),
            };
            let (read, mut write) = tokio::io::split(stream);
            let mut reader = FrameReader::new(read);
            while let Ok(ask) = reader.next::<Ask>(PATIENCE, PATIENCE).await {
                println!("asked: {} {}", ask.flow.from, ask.flow.to);
                let found = Ok(Connector { uid, groups: ConnectorGroups::Gids(Vec::new()) });
                let Ok(answer) = encode(&Answer { id: ask.id, found }) else { return };
                if write.write_all(&answer).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn asks(own: &Identity, node: &NodeName, flow: Flow) -> Result<(), Box<dyn Error>> {
    let file = "/etc/portreeve/nodes.toml";
    let map = NodeMap::parse(&std::fs::read_to_string(file)?, file).map_err(|found| format!("{found:?}"))?;
    let address: IpAddr = map.addresses(node).and_then(|all| all.first().copied()).ok_or("its address")?;
    let Some(Speaker::Key(key)) = map.at(address).and_then(|node| node.speaker) else {
        return Err("it has no key".into());
    };
    let tls = client_config_for(PROTOCOL, own, vec![key])?;
    // From a port of root's: nobody else is heard.
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, OWN_PORT).into())?;
    let stream = socket.connect(SocketAddr::new(address, PORT)).await?;
    let name = rustls::pki_types::ServerName::from(address);
    let mut stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    stream.write_all(&encode(&Ask { id: 7, flow, groups: Groups::No })?).await?;
    stream.flush().await?;
    let answer: Answer = FrameReader::new(stream).next(PATIENCE, PATIENCE).await?;
    match answer.found {
        Ok(connector) => println!("uid {}", connector.uid),
        Err(why) => println!("{why}"),
    }
    Ok(())
}
