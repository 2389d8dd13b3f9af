//! `mostik package`: what marketplaces are given, made for this service's own address.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::config::Config;
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
}

impl Package {
    /// Writes the package; gives what is told about it.
    pub(super) fn run(self, config: &Config) -> anyhow::Result<String> {
        let Kind::Bitrix24 { out, app, screenshots } = self.kind;
        let known: Vec<&String> = config.bitrix24.apps.keys().collect();
        let app = match (app, known.as_slice()) {
            (Some(app), known) if known.contains(&&app) => app,
            (Some(app), _) => bail!("bitrix24.apps.{app} is not configured"),
            (None, [only]) => (*only).clone(),
            (None, []) => bail!("configure the application first: bitrix24.apps.<name>"),
            (None, _) => bail!("there are several applications: name one with --app"),
        };
        let shots = screenshots.map_or_else(|| Ok(Vec::new()), |folder| pictures(&folder))?;
        let files = listing::files(&app, &config.server.public_url, shots).map_err(anyhow::Error::msg)?;
        let mut said = String::new();
        for (name, content) in files {
            let path = out.join(&name);
            let folder = path.parent().unwrap_or(&out);
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            fs::write(&path, &content).with_context(|| path.display().to_string())?;
            said.push_str(&format!("{:>8}  {}\n", content.len(), path.display()));
        }
        Ok(said)
    }
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
