//! `portreeve check`: every problem of a configuration file at once.

use crate::arguments::Check;
use crate::config;

pub(crate) fn check(check: &Check) -> anyhow::Result<()> {
    config::read(Some(&check.config))?;
    println!("{}: no problems", check.config.display());
    Ok(())
}
