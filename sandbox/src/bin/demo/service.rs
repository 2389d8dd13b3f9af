//! The service as a child process: its folder, configuration, start and end.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use sandbox::Addresses;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::scene::AppKeys;

/// First line of our configuration; by it an earlier demo's folder is recognised.
const MARK: &str = "# Written by `cargo demo`; made anew at every start.";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The service promises to end within ten seconds.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// Ctrl-C, a closed terminal, or a polite `kill`.
pub(crate) struct StopSignal([Signal; 3]);

/// Listens from now on.
pub(crate) fn stop_signal() -> anyhow::Result<StopSignal> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    Ok(StopSignal([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
}

impl StopSignal {
    pub(crate) async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Where configuration, database and log are.
pub(crate) struct Folder {
    path: PathBuf,
    temporary: AtomicBool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary.load(Ordering::Relaxed) {
            // What is left behind in the temporary folder does no harm.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Folder {
    /// A temporary folder, or the given one. What an earlier demo left there belongs to a world that is gone.
    pub(crate) fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = given else {
            let name = format!("mostik-demo-{}-{:08x}", std::process::id(), rand::random::<u32>());
            let path = std::env::temp_dir().join(name);
            private_folder(&path)?;
            return Ok(Self { path, temporary: AtomicBool::new(true) });
        };
        let path = std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))?;
        private_folder(&path)?;
        let config = fs::read_to_string(path.join("mostik.toml")).unwrap_or_default();
        let database = path.join("mostik.db");
        if (database.exists() || !config.is_empty()) && !config.starts_with(MARK) {
            bail!("{} holds a Mostik that is not a demo's: choose another folder with --data", path.display());
        }
        if fs::File::open(path.join("mostik.db.lock")).is_ok_and(|lock| lock.try_lock().is_err()) {
            bail!("another demo is running in {}: stop it, or choose another folder with --data", path.display());
        }
        for name in ["mostik.db", "mostik.db-wal", "mostik.db-shm", "service.log"] {
            match fs::remove_file(path.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {name} of the last demo"));
                }
                _ => {}
            }
        }
        Ok(Self { path, temporary: AtomicBool::new(false) })
    }

    /// Leaves it behind, for whoever looks for the cause.
    pub(crate) fn keep(&self) {
        self.temporary.store(false, Ordering::Relaxed);
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("service.log")
    }

    /// The last lines of the log.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the folder {}: choose another with --data", path.display()))
}

/// The running service.
pub(crate) struct Service {
    child: Child,
    http: reqwest::Client,
    /// `http://127.0.0.1:PORT`.
    pub(crate) base: String,
    /// Bearer token of the management API.
    pub(crate) token: String,
}

impl Service {
    /// Starts the program on a free port and waits until it is ready.
    pub(crate) async fn start(
        program: &Path,
        folder: &Folder,
        addresses: &Addresses,
        keys: &AppKeys,
        russian: bool,
    ) -> anyhow::Result<Self> {
        let token = crate::scene::hex(24);
        // A port that was free a moment ago may be taken by somebody else.
        for last in [false, false, true] {
            let port = free_port()?;
            let text = config(folder, addresses, keys, &token, port, russian);
            let path = folder.path.join("mostik.toml");
            write_private(&path, &text)?;
            let child = spawn(program, &path, &folder.log())?;
            let mut service =
                Self { child, http: client()?, base: format!("http://127.0.0.1:{port}"), token: token.clone() };
            match service.until_ready().await {
                Ok(()) => return Ok(service),
                Err(_) if !last && folder.tail(5).contains("cannot listen on") => {}
                Err(error) => {
                    let log = folder.log();
                    return Err(error.context(format!(
                        "the service did not start. Last lines of {}:\n{}\n",
                        log.display(),
                        folder.tail(20)
                    )));
                }
            }
        }
        bail!("no free port was found for the service")
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().context("the service's process")? {
                bail!("it ended at once ({status})");
            }
            let answer = self.http.get(format!("{}/readyz", self.base)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("it was not ready within {} seconds", READY_WITHIN.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Calls the management API.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self.http.post(url).bearer_auth(&self.token).json(body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("POST {path} was answered with {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("POST {path}: {text}"))
    }

    /// Completes when the process ends by itself.
    pub(crate) async fn ended(&mut self) -> String {
        self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// Asks it to stop; one that does not is ended.
    pub(crate) async fn stop(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        // It may have ended by itself in the meantime.
        let asked = pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok());
        if asked && tokio::time::timeout(STOP_WITHIN, self.child.wait()).await.is_ok() {
            return;
        }
        let _ = self.child.kill().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo calls the service from outside")]
fn client() -> anyhow::Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build();
    client.context("cannot make an HTTP client")
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}: choose another folder with --data", path.display()))
}

fn spawn(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(config);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Settings of another Mostik on this machine must not reach this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MOSTIK__")) {
        command.env_remove(name);
    }
    // A group of its own: Ctrl-C is ours, and the service is asked to stop by us.
    command.process_group(0).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot run {}: name another program with --service", program.display()))
}

/// TOML's basic strings escape as JSON does.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn config(folder: &Folder, addresses: &Addresses, keys: &AppKeys, token: &str, port: u16, russian: bool) -> String {
    let master = STANDARD.encode(rand::random::<[u8; 32]>());
    let database = quoted(&format!("sqlite://{}", folder.path.join("mostik.db").display()));
    let zone = local_zone().unwrap_or_else(|| if russian { "Europe/Moscow" } else { "UTC" }.to_owned());
    format!(
        r#"{MARK}
[server]
bind = "127.0.0.1:{port}"
public_url = "http://127.0.0.1:{port}"
[database]
url = {database}
[security]
master_key = "{master}"
admin_token = "{token}"
[network]
allow_private = ["127.0.0.0/8"]
[bitrix24]
oauth_hosts = [{oauth}]
insecure_http = true
[bitrix24.apps.main]
client_id = {id}
client_secret = {secret}
[comments]
time_zone = {zone}
[phones]
country = "{country}"
[providers.whatsapp_cloud]
base_url = {graph}
[providers.telegram_bot]
base_url = {telegram}
"#,
        oauth = quoted(&addresses.oauth),
        graph = quoted(&addresses.graph),
        telegram = quoted(&addresses.telegram),
        id = quoted(&keys.id),
        secret = quoted(&keys.secret),
        zone = quoted(&zone),
        country = if russian { "RU" } else { "US" },
    )
}

/// This machine's time zone, so that comments and the page tell the same time.
fn local_zone() -> Option<String> {
    let link = fs::read_link("/etc/localtime").ok()?;
    let path = link.to_str()?;
    let name = &path[path.rfind("/zoneinfo/")? + "/zoneinfo/".len()..];
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
    (is_plain(name) && !name.starts_with("posix/") && !name.starts_with("right/")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let one = "http://127.0.0.1:1".to_owned();
        Addresses {
            control: one.clone(),
            oauth: one.clone(),
            server_endpoint: one.clone(),
            amocrm: one.clone(),
            graph: one.clone(),
            telegram: one,
        }
    }

    #[test]
    fn a_foreign_folder_is_left_alone_and_an_own_one_is_used_again() {
        let temporary = Folder::open(None).unwrap();
        let path = temporary.path.join("a \"quoted\" folder");
        let folder = Folder::open(Some(&path)).unwrap();
        fs::write(path.join("mostik.db"), "precious").unwrap();
        assert!(Folder::open(Some(&path)).is_err_and(|error| error.to_string().contains("not a demo's")));
        let text = config(&folder, &addresses(), &AppKeys::new(), "t", 1, true);
        assert!(text.contains("\\\"quoted\\\""), "{text}");
        fs::write(path.join("mostik.toml"), text).unwrap();
        Folder::open(Some(&path)).unwrap();
        assert!(!path.join("mostik.db").exists());
        let root = temporary.path.clone();
        drop(folder);
        assert!(path.exists());
        drop(temporary);
        assert!(!root.exists());
    }
}
