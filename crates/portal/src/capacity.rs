//! How many connections this process can have.

use std::io;

use portreeve_model::Config;

/// Descriptors that the process needs for itself: sockets to listen on and to ask with, files of the moment.
const OUR_OWN: u64 = 64;
/// The same for each serving thread and those beside it that do what may block.
const FOR_A_THREAD: u64 = 16;
/// So many connections are taken in any case.
const FEWEST: usize = 16;

/// Raises the limit of open files, and lowers `limits.connections` to what it allows: no more than half of the descriptors;
/// the other half is for applications. One HTTP/2 connection can have many requests going, each on a connection of its own to
/// an application, so that half may be used up all the same. Then those requests are refused, and new browsers wait: nobody
/// who is connected loses anything.
///
/// # Errors
/// When the kernel does not tell the limit.
pub fn fit_connections(config: &mut Config) -> io::Result<()> {
    let descriptors = portreeve_sys::raise_descriptor_limit()?;
    let threads = config.worker_threads(std::thread::available_parallelism().map_or(1, usize::from));
    let our_own = OUR_OWN + FOR_A_THREAD * threads as u64;
    let most = usize::try_from(descriptors.saturating_sub(our_own) / 2).unwrap_or(usize::MAX).max(FEWEST);
    if config.limits.connections > most {
        tracing::info!(most, descriptors, "connections are limited by the number of open files (ulimit -Hn)");
        config.limits.connections = most;
    }
    Ok(())
}
