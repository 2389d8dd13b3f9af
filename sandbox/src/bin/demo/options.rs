//! The command line.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

const HELP: &str = "\
Starts simulated Bitrix24 and WhatsApp, the service, and a page to play with.

Usage: cargo demo [-- OPTIONS]

  --port N          port of the page (default: any free one)
  --lang ru|en      language of the portal and of what is printed (default: portal ru, the rest by LANG)
  --data DIR        keep configuration, database and log there (default: a temporary folder)
  --service PATH    run this program instead of building the service
  --no-build        run the service that was built before
  --once            set everything up, print, stop
  --help            this text
";

/// Where the service's program comes from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    /// Built now.
    Build,
    /// Built before, beside this program.
    Beside,
    /// Given by hand.
    Given(PathBuf),
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) port: u16,
    pub(crate) russian: bool,
    pub(crate) portal_russian: bool,
    pub(crate) data: Option<PathBuf>,
    pub(crate) service: Source,
    pub(crate) once: bool,
}

impl Options {
    /// Reads the arguments; `None` if only the help was wanted.
    pub(crate) fn from_environment() -> anyhow::Result<Option<Self>> {
        let names = ["LC_ALL", "LC_MESSAGES", "LANG"];
        let set = names.iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
        let russian = set.is_some_and(|value| value.to_string_lossy().starts_with("ru"));
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
            std::io::stdout().write_all(HELP.as_bytes()).context("standard output")?;
            return Ok(None);
        }
        Self::parse(arguments, russian).map(Some)
    }

    fn parse(arguments: Vec<OsString>, russian: bool) -> anyhow::Result<Self> {
        let mut options =
            Self { port: 0, russian, portal_russian: true, data: None, service: Source::Build, once: false };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let name = argument.to_string_lossy().into_owned();
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value: see --help"));
            match name.as_str() {
                "--port" => {
                    let text = value()?;
                    let port = text.to_str().and_then(|text| text.parse().ok()).filter(|port| *port > 0);
                    options.port = port.with_context(|| format!("{} is not a port", text.display()))?;
                }
                "--lang" => {
                    let language = value()?;
                    options.russian = match language.to_str() {
                        Some("ru") => true,
                        Some("en") => false,
                        _ => bail!("--lang is ru or en, not {}", language.display()),
                    };
                    options.portal_russian = options.russian;
                }
                "--data" => options.data = Some(value()?.into()),
                "--service" => options.service = Source::Given(value()?.into()),
                "--no-build" => options.service = Source::Beside,
                "--once" => options.once = true,
                other => bail!("{other} is not an option: see --help"),
            }
        }
        if let Source::Given(path) = &options.service
            && !path.is_file()
        {
            bail!("--service: there is no file {}", path.display());
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> anyhow::Result<Options> {
        Options::parse(arguments.iter().map(OsString::from).collect(), false)
    }

    #[test]
    fn options_are_read_and_mistakes_named() {
        let plain = parse(&[]).unwrap();
        assert_eq!((plain.port, plain.portal_russian, plain.service), (0, true, Source::Build));
        let all = parse(&["--port", "4100", "--lang", "en", "--data", "/tmp/d", "--no-build", "--once"]).unwrap();
        assert_eq!((all.port, all.portal_russian, all.once), (4100, false, true));
        assert_eq!((all.service, all.data), (Source::Beside, Some(PathBuf::from("/tmp/d"))));
        for (wrong, word) in [
            (&["--port"][..], "needs a value"),
            (&["--port", "x"], "not a port"),
            (&["--port", "0"], "not a port"),
            (&["--lang", "de"], "ru or en"),
            (&["--fast"], "not an option"),
            (&["--service", "/no/such/file"], "no file"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{wrong:?}: {error}");
        }
    }
}
