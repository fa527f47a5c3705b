//! SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads.

use std::sync::Arc;

use portreeve_portal::agents::Agents;
use portreeve_portal::{Portal, fit_connections};
use tokio::signal::unix::{SignalKind, signal};

use crate::files::{Files, Read};

pub(crate) fn heed(
    portal: Arc<Portal>,
    agents: Arc<Agents>,
    mut files: Files,
) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut draining = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    match reload(&portal, &agents, &mut files) {
                        Ok(()) => tracing::info!("configuration, nodes, keys and certificate reloaded"),
                        Err(error) => tracing::error!("not reloaded, all stays as it was: {error:#}"),
                    }
                    continue;
                }
            }
            if draining {
                tracing::warn!("stopped at once");
                std::process::exit(130);
            }
            draining = true;
            tracing::info!("draining: no new connections; those that are open may end");
            portal.drain();
        }
    })
}

fn reload(portal: &Portal, agents: &Agents, files: &mut Files) -> anyhow::Result<()> {
    let Read { mut settings, rules } = files.read()?;
    fit_connections(&mut settings.config)?;
    agents.reload(rules)?;
    portal.reload(settings);
    Ok(())
}
