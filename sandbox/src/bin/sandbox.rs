//! Runs a sandbox until it is interrupted: `sandbox [options.json]`.
//!
//! Prints its addresses as one line of JSON. The optional file holds [`sandbox::Options`] (ports, seed, limits); without it
//! every port is a free one. Everything else is done through the control API, see `sandbox/README.md`.

use std::io::Write;

use anyhow::Context;
use sandbox::{Options, Sandbox};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let options = match std::env::args().nth(1) {
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            serde_json::from_str(&text).with_context(|| format!("{path} is not an options file"))?
        }
        None => Options::default(),
    };
    let sandbox = Sandbox::start_with(options).await?;
    let mut line = serde_json::to_vec(&sandbox.addresses())?;
    line.push(b'\n');
    std::io::stdout().write_all(&line)?;
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    sandbox.stop().await;
    Ok(())
}
