//! `mostik package`: what marketplaces are given, made for this service's own address.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::config::Config;
use crate::manifests::amocrm::{self, Address};

#[derive(Args)]
pub(super) struct Package {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
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
        let Kind::Amocrm { out, app, support } = self.kind;
        let known: Vec<&String> = config.amocrm.apps.keys().collect();
        let app = match (app, known.as_slice()) {
            (Some(app), known) if known.contains(&&app) => app,
            (Some(app), _) => bail!("amocrm.apps.{app} is not configured"),
            (None, [only]) => (*only).clone(),
            (None, []) => bail!("configure the integration first: amocrm.apps.<name>"),
            (None, _) => bail!("there are several integrations: name one with --app"),
        };
        let public_url = config.server.public_url.clone();
        let address = Address { support: support.unwrap_or_else(|| public_url.clone()), public_url, app };
        let archive = amocrm::package(&address).map_err(anyhow::Error::msg)?;
        std::fs::write(&out, &archive).with_context(|| out.display().to_string())?;
        let mut said = String::new();
        for (name, content) in amocrm::files(&address).map_err(anyhow::Error::msg)? {
            said.push_str(&format!("{:>8}  {name}\n", content.len()));
        }
        said.push_str(&format!("{:>8}  {}\n", archive.len(), out.display()));
        Ok(said)
    }
}
