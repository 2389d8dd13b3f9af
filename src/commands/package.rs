//! `mostik package`: what marketplaces are given, made for this service's own address.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::manifests::amocrm::{self, Address};
use crate::manifests::listing::{self, Screenshot};

#[derive(Args)]
pub(super) struct Package {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// What Bitrix24's partner cabinet asks for: texts, rights, addresses, pictures, a checklist
    Bitrix24 {
        /// Folder that is written; it is made if it does not exist
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Application it is for; may be left out when there is only one
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
        /// Folder with screenshots (PNG, at most 1280 × 720), as the browser tests leave them
        #[arg(long, value_name = "DIR")]
        screenshots: Option<PathBuf>,
    },
    /// The widget of amoCRM and Kommo
    Amocrm {
        /// Where the archive is written; the vendor wants it to be called widget.zip
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Integration it is for; may be left out when there is only one
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
        /// Address of a page with help; the service's own address if absent
        #[arg(long, value_name = "URL")]
        support: Option<String>,
    },
}

impl Package {
    /// Writes the package; gives what is told about it.
    pub(super) fn run(self, config: &Config) -> anyhow::Result<String> {
        match self.kind {
            Kind::Bitrix24 { out, app, screenshots } => {
                let app = choose(app, "bitrix24.apps", config.bitrix24.apps.keys())?;
                bitrix24(config, &app, &out, screenshots.as_deref())
            }
            Kind::Amocrm { out, app, support } => {
                let app = choose(app, "amocrm.apps", config.amocrm.apps.keys())?;
                amocrm(config, app, &out, support)
            }
        }
    }
}

/// The application that is named, or the only one.
fn choose<'a>(
    named: Option<String>,
    section: &str,
    configured: impl Iterator<Item = &'a String>,
) -> anyhow::Result<String> {
    let known: Vec<&String> = configured.collect();
    match (named, known.as_slice()) {
        (Some(app), known) if known.contains(&&app) => Ok(app),
        (Some(app), _) => bail!("{section}.{app} is not configured"),
        (None, [only]) => Ok((*only).clone()),
        (None, []) => bail!("configure the application first: {section}.<name>"),
        (None, _) => bail!("there are several applications: name one with --app"),
    }
}

fn bitrix24(config: &Config, app: &str, out: &Path, screenshots: Option<&Path>) -> anyhow::Result<String> {
    let shots = screenshots.map_or_else(|| Ok(Vec::new()), pictures)?;
    let mut said = String::new();
    for (name, content) in listing::files(app, &config.server.public_url, shots).map_err(anyhow::Error::msg)? {
        let path = out.join(&name);
        let folder = path.parent().unwrap_or(out);
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(&path, &content).with_context(|| path.display().to_string())?;
        said.push_str(&format!("{:>8}  {}\n", content.len(), path.display()));
    }
    Ok(said)
}

fn amocrm(config: &Config, app: String, out: &Path, support: Option<String>) -> anyhow::Result<String> {
    let public_url = config.server.public_url.clone();
    let address = Address { support: support.unwrap_or_else(|| public_url.clone()), public_url, app };
    let archive = amocrm::package(&address).map_err(anyhow::Error::msg)?;
    fs::write(out, &archive).with_context(|| out.display().to_string())?;
    let mut said = String::new();
    for (name, content) in amocrm::files(&address).map_err(anyhow::Error::msg)? {
        said.push_str(&format!("{:>8}  {name}\n", content.len()));
    }
    said.push_str(&format!("{:>8}  {}\n", archive.len(), out.display()));
    Ok(said)
}

/// The pictures of a folder by name.
fn pictures(folder: &Path) -> anyhow::Result<Vec<Screenshot>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_some_and(|ending| ending == "png") {
            found.push((name, fs::read(&path).with_context(|| path.display().to_string())?));
        }
    }
    found.sort();
    Ok(found)
}
