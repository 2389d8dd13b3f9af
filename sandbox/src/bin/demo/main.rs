//! Everything on this machine with one command: simulated Bitrix24 and WhatsApp, the service beside them, a small shop to
//! play with, and a page to open. `cargo demo -- --help` tells the options.
//!
//! The service is not linked: it is built by the same cargo and runs as a child process, as customers run it.

mod build;
mod options;
mod scene;
mod service;
mod words;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use sandbox::Sandbox;

use options::{Options, Source};
use service::{Folder, Service};
use words::Words;

fn main() -> ExitCode {
    let options = match Options::from_environment() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return complain(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("cannot start").and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn complain(error: &anyhow::Error) -> ExitCode {
    tell(&format!("demo: {error:#}"));
    ExitCode::FAILURE
}

/// A line for people, beside the output that programs may read.
fn tell(line: &str) {
    // Nobody may be listening any more; there is nothing better to do then.
    let _ = writeln!(std::io::stderr(), "{line}");
}

async fn run(options: Options) -> anyhow::Result<()> {
    let words = Words { russian: options.russian };
    let mut stop = service::stop_signal()?;
    let program = match &options.service {
        Source::Given(path) => path.clone(),
        Source::Beside => build::beside()?,
        Source::Build => {
            tell(words.building());
            tokio::select! {
                program = build::build() => program?,
                () = stop.wait() => return Ok(()),
            }
        }
    };
    let began = Instant::now();
    tell(words.starting());
    let folder = Folder::open(options.data.as_deref())?;
    let sandbox = start_sandbox(&options).await?;
    let told = tokio::select! {
        told = set_up(&sandbox, &options, &folder, &program) => told,
        () = stop.wait() => return Ok(()),
    };
    let (mut service, shop) = match told {
        Ok(ready) => ready,
        Err(error) => {
            folder.keep();
            return Err(error);
        }
    };
    let page = format!("{}/", sandbox.addresses().control);
    let text = words.ready(&words::Ready {
        page: &page,
        took: began.elapsed(),
        api: &service.base,
        token: &service.token,
        frame: &shop.frame_url,
        log: &folder.log().display().to_string(),
        stages: &shop.stages,
    });
    std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()).context("standard output")?;
    let died = if options.once {
        None
    } else {
        tokio::select! {
            died = service.ended() => Some(died),
            () = stop.wait() => None,
        }
    };
    if let Some(status) = died {
        folder.keep();
        anyhow::bail!("{}", words.died(&status, &folder.log().display().to_string(), &folder.tail(20)));
    }
    tell(words.stopping());
    service.stop().await;
    sandbox.stop().await;
    Ok(())
}

async fn start_sandbox(options: &Options) -> anyhow::Result<Sandbox> {
    let mut own = sandbox::Options { control_port: options.port, ..sandbox::Options::default() };
    // Slow enough to watch a message on its way.
    own.graph.sent_ms = 500;
    own.graph.delivered_ms = 900;
    own.graph.read_ms = 1_800;
    own.graph.jitter_ms = 250;
    let started = Sandbox::start_with(own).await;
    if options.port == 0 {
        return started.context("cannot start the simulated Bitrix24 and WhatsApp");
    }
    started
        .with_context(|| format!("port {} cannot be used: choose another with --port, or leave it out", options.port))
}

async fn set_up(
    sandbox: &Sandbox,
    options: &Options,
    folder: &Folder,
    program: &std::path::Path,
) -> anyhow::Result<(Service, scene::Shop)> {
    let keys = scene::AppKeys::new();
    let service = Service::start(program, folder, &sandbox.addresses(), &keys, options.portal_russian).await?;
    let shop = scene::build(sandbox, &service, &keys, options.portal_russian)
        .await
        .with_context(|| format!("the service runs, but could not be set up; its log: {}", folder.log().display()))?;
    Ok((service, shop))
}
