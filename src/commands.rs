//! The commands of the program: serve, migrate, backup, restore, check-config, doctor, redrive, package, openapi.

mod doctor;
mod package;
mod recover;
mod redrive;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::app::App;
use crate::config::{Config, LogFormat};

#[derive(Parser)]
#[command(
    name = "mostik",
    version,
    about = "Connects Bitrix24 with official messaging APIs",
    arg_required_else_help = true
)]
struct Arguments {
    /// Configuration file (TOML); see `mostik check-config --manual` for every setting
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests and do the work
    Serve,
    /// Bring the database's schema up to date, or move everything from SQLite to PostgreSQL
    Migrate(recover::Migrate),
    /// Copy the database (SQLite) while the service runs
    Backup(recover::Backup),
    /// Make a restored database fit to be served: nothing that was open in it is sent twice
    Restore(recover::Restore),
    /// Print the settings in force, secrets masked
    CheckConfig {
        /// Print the manual of every setting instead
        #[arg(long)]
        manual: bool,
    },
    /// Check database, clock, public address and every channel, live
    Doctor,
    /// Make what marketplaces are given, for this service's own address
    Package(package::Package),
    /// Let dead letters live again
    Redrive(redrive::Redrive),
    /// Print the description of the API
    Openapi,
}

/// Runs the command the arguments name. Exit code 0 only on success; errors go to stderr and say what to do.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "mostik: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: Arguments) -> anyhow::Result<bool> {
    if let Command::CheckConfig { manual: true } = arguments.command {
        print(crate::config::DEFAULTS)?;
        return Ok(true);
    }
    if let Command::Openapi = arguments.command {
        print(&crate::http::api::openapi())?;
        return Ok(true);
    }
    let config = Config::load(arguments.config.as_deref()).context("configuration")?;
    match arguments.command {
        Command::CheckConfig { .. } => {
            print(&config.describe())?;
            config.fit_to_serve().context("configuration")?;
            Ok(true)
        }
        Command::Serve => {
            start_log(&config)?;
            let system = actix_web::rt::System::new();
            let served = system.block_on(serve(config));
            // Dropping the runtime would wait, without any bound, for blocking calls that are under way (a name that is
            // being looked up); the process ends anyway.
            std::mem::forget(system);
            served.map(|()| true)
        }
        Command::Migrate(migrate) => runtime()?.block_on(migrate.run(&config)).map(|()| true),
        Command::Backup(backup) => runtime()?.block_on(backup.run(&config)).map(|()| true),
        Command::Restore(restore) => runtime()?.block_on(restore.run(&config)).map(|()| true),
        Command::Doctor => runtime()?.block_on(doctor::run(&config)),
        Command::Package(package) => package.run(&config).and_then(|said| print(&said)).map(|()| true),
        Command::Redrive(redrive) => runtime()?.block_on(redrive.run(&config)).map(|()| true),
        Command::Openapi => Ok(true),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let public_url = config.server.public_url.clone();
    let app = App::build(config).await?;
    tracing::info!(address = %app.address(), public_url, version = env!("CARGO_PKG_VERSION"), "ready");
    // The port may have been chosen by the system; whoever started us reads it here.
    print(&format!("listening on http://{}\n", app.address()))?;
    app.run_until_stopped().await?;
    Ok(())
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter =
        crate::telemetry::filter_with_spans(&config.log.level, config.log.spans).map_err(anyhow::Error::msg)?;
    let ends = if config.log.spans { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(ends)
        .with_writer(std::io::stderr)
        // A line that finds no room (the log stands on the disk that is full) is lost. Complaining of it on the same
        // standard error would panic, and with it whatever was about to be logged.
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first log.
    let _ = match config.log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}
