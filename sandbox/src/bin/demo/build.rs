//! Builds the service with the cargo that runs us, in the same profile and target folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

const PROGRAM: &str = if cfg!(windows) { "mostik.exe" } else { "mostik" };

/// The service's program beside this one, as an earlier build left it.
pub(crate) fn beside() -> anyhow::Result<PathBuf> {
    let path = own_folder()?.join(PROGRAM);
    if path.is_file() {
        return Ok(path);
    }
    bail!("there is no {}: run once without --no-build, or name a program with --service", path.display())
}

fn own_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own folder")?;
    Ok(own.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// Runs `cargo build`; its progress and complaints go to the terminal.
pub(crate) async fn build() -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."));
    if !workspace.join("Cargo.toml").is_file() {
        bail!(
            "the sources are no longer in {}: start with `cargo demo` in the sources, or name a program with --service",
            workspace.display()
        );
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.current_dir(workspace);
    // No package is named: features are then united as for this program, and no dependency is built a second time.
    command.args(["build", "--bin", "mostik", "--message-format", "json-render-diagnostics"]);
    command.args(same_place(&own_folder()?));
    // What the cargo that runs us says about our package; build scripts would see a change and run again.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_about_us(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| {
        format!("cannot run {}: install Rust from https://rustup.rs, or name a program with --service", cargo.display())
    })?;
    let mut told = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut told).await.context("cannot read what cargo says")?;
    }
    let status = child.wait().await.context("cargo")?;
    if !status.success() {
        bail!("the service could not be built ({status}): what cargo says stands above");
    }
    executable(&told).context("cargo did not say where the service's program is: name it with --service")
}

fn is_about_us(name: &str) -> bool {
    let families = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    matches!(name, "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE") || families.iter().any(|own| name.starts_with(own))
}

/// Profile and target folder of this program, so that both builds share what they can.
fn same_place(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut arguments = Vec::new();
    match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => {}
        Some("release") => arguments.push("--release".into()),
        Some(profile) => arguments.extend(["--profile".into(), profile.into()]),
    }
    if let Some(target) = folder.parent().filter(|target| target.join("CACHEDIR.TAG").is_file()) {
        arguments.extend(["--target-dir".into(), target.into()]);
    }
    arguments
}

/// The program's path among cargo's messages, one JSON object a line.
fn executable(told: &str) -> Option<PathBuf> {
    told.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == "mostik";
        message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_the_messages() {
        let told = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"mostik","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"mostik","kind":["bin"]},"executable":"/t/debug/mostik"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(told), Some(PathBuf::from("/t/debug/mostik")));
        assert_eq!(executable("{}\nnonsense"), None);
    }

    #[test]
    fn the_profile_is_that_of_this_program() {
        let of = |folder: &str| same_place(Path::new(folder));
        assert!(of("/no/target/debug").is_empty());
        assert_eq!(of("/no/target/release"), ["--release"]);
        assert_eq!(of("/no/target/perf"), ["--profile", "perf"]);
    }
}
