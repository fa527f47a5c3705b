//! Connections that are made and ended, again and again, with nothing said on them; and what takes them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};

use crate::effort::Effort;
use crate::figures::Figures;

#[derive(clap::Args)]
pub(crate) struct Connects {
    /// Where to connect
    #[arg(long)]
    to: SocketAddr,
    #[command(flatten)]
    effort: Effort,
}

#[derive(clap::Args)]
pub(crate) struct Taker {
    /// Where to listen; says so in a line once it does
    #[arg(long)]
    listen: SocketAddr,
}

impl Connects {
    pub(crate) async fn run(self) -> anyhow::Result<Figures> {
        let to = self.to;
        let spent = self.effort.spend(async |seen, until| {
            while Instant::now() < until {
                let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                // No TIME_WAIT: there are not enough ports for that.
                socket.set_zero_linger()?;
                let began = Instant::now();
                let connected = socket.connect(to).await?;
                seen.borrow_mut().took(began.elapsed());
                drop(connected);
            }
            Ok(())
        });
        Ok(spent.await)
    }
}

impl Taker {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        println!("listening");
        loop {
            match listener.accept().await {
                Ok((taken, _)) => drop(taken),
                // Out of descriptors for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}
