//! The files in `deploy/` fit the program: settings are known, the unit and the image are closed, copied paths exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(name)).unwrap_or_else(|e| panic!("deploy/{name}: {e}"))
}

/// Lines without comments and blank ones.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn check_config(file: Option<&Path>, variables: &BTreeMap<String, String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mostik"));
    command.arg("check-config").env_clear().envs(variables);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.output().unwrap()
}

/// What the program says to these settings, which it must accept.
fn accepted(file: Option<&Path>, variables: &BTreeMap<String, String>) -> String {
    let done = check_config(file, variables);
    assert!(done.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// `MOSTIK__…` names of a file with their values: `NAME: value`, `NAME=value`, in quotes or not.
fn variables(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in lines(text) {
        let Some(at) = line.find("MOSTIK__") else { continue };
        let (name, value) = line[at..].split_once([':', '=']).unwrap_or_else(|| panic!("no value: {line}"));
        let value = value.trim().trim_end_matches('\\').trim().trim_matches('"');
        found.insert(name.to_owned(), value.to_owned());
    }
    assert!(!found.is_empty(), "no settings found");
    found
}

/// Files instead of the secrets that only exist on a server, and a value for what people fill in.
fn filled(mut variables: BTreeMap<String, String>, folder: &Path) -> BTreeMap<String, String> {
    for (name, value) in &mut variables {
        if name.ends_with("_FILE") {
            let file = folder.join(name);
            std::fs::write(&file, MASTER_KEY).unwrap();
            *value = file.to_string_lossy().into_owned();
        }
        while let Some(from) = value.find("${") {
            let to = from + value[from..].find('}').expect("an open ${");
            value.replace_range(from..=to, "connector.example");
        }
    }
    variables
}

#[test]
fn the_example_is_a_valid_configuration_and_changes_what_it_says() {
    let file = root().join("deploy/mostik.example.toml");
    let secrets = BTreeMap::from([
        ("MOSTIK__SECURITY__MASTER_KEY".to_owned(), MASTER_KEY.to_owned()),
        ("MOSTIK__BITRIX24__APPS__MAIN__CLIENT_SECRET".to_owned(), "secret-of-the-example".to_owned()),
    ]);
    let said = accepted(Some(&file), &secrets);
    for value in ["https://connector.example", "127.0.0.1/32", "local.0123456789abcd.01234567", "Europe/Moscow"] {
        assert!(said.contains(value), "{value} is not in force:\n{said}");
    }
    assert!(!said.contains(MASTER_KEY), "a secret is shown:\n{said}");
    for line in lines(&read("mostik.example.toml")) {
        let key = line.split('=').next().unwrap_or_default();
        assert!(!["secret", "token", "master_key"].iter().any(|word| key.contains(word)), "a secret: {line}");
    }
}

#[test]
fn variables_of_the_image_compose_and_unit_are_settings() {
    let folder = tempfile::tempdir().unwrap();
    let image = variables(&read("Dockerfile"));
    let mut compose = variables(&read("compose.yaml"));
    compose.extend(image);
    let said = accepted(None, &filled(compose.clone(), folder.path()));
    assert!(said.contains("0.0.0.0:8080") && said.contains("https://connector.example"), "{said}");

    let unit = variables(&read("mostik.service"));
    assert!(unit.keys().any(|name| name == "MOSTIK__SECURITY__MASTER_KEY_FILE"));
    accepted(Some(&root().join("deploy/mostik.example.toml")), &filled(unit.clone(), folder.path()));

    // That an unknown name would be noticed.
    let mut wrong = filled(compose.clone(), folder.path());
    wrong.insert("MOSTIK__SERVER__NO_SUCH".into(), "1".into());
    assert!(!check_config(None, &wrong).status.success());

    for (name, value) in compose.iter().chain(&unit) {
        let is_secret = ["MASTER_KEY", "ADMIN_TOKEN", "CLIENT_SECRET"].iter().any(|word| name.ends_with(word));
        assert!(!is_secret, "{name}={value}: a secret in the environment; give the _FILE");
    }
}

#[test]
fn every_secret_that_is_named_is_handed_over() {
    let unit = read("mostik.service");
    for value in variables(&unit).into_values().filter_map(|value| value.strip_prefix("%d/").map(str::to_owned)) {
        assert!(unit.contains(&format!("\nLoadCredential={value}:/etc/mostik/{value}\n")), "{value}");
    }
    let compose = read("compose.yaml");
    for value in variables(&compose).into_values() {
        let Some(name) = value.strip_prefix("/run/secrets/") else { continue };
        assert!(compose.contains(&format!("\n  {name}:\n    file: ./secrets/{name}\n")), "{name}");
        let given = lines(&compose).into_iter().find(|line| line.starts_with("secrets: [")).unwrap();
        assert!(given.contains(name), "{name} is not given to the service");
    }
}

#[test]
fn the_unit_is_closed_and_systemd_understands_it() {
    let unit = read("mostik.service");
    let lines = lines(&unit);
    for wanted in [
        "DynamicUser=yes",
        "StateDirectory=mostik",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "MemoryDenyWriteExecute=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "RestrictNamespaces=yes",
        "SystemCallFilter=@system-service",
        "SystemCallArchitectures=native",
        "Restart=always",
        "TimeoutStopSec=15",
    ] {
        assert!(lines.contains(&wanted), "{wanted} is missing");
    }
    let program = "/usr/local/bin/mostik";
    assert!(lines.iter().any(|line| line.starts_with(&format!("ExecStart={program} serve "))));

    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return; // The lines above are checked everywhere.
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("mostik.service");
    std::fs::write(&copy, unit.replace(program, env!("CARGO_BIN_EXE_mostik"))).unwrap();
    let done = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("mostik.service")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    assert!(done.status.success(), "{said}");
}

#[test]
fn the_image_copies_what_exists_and_runs_as_nobody() {
    let text = read("Dockerfile");
    let let_in: Vec<PathBuf> = std::fs::read_to_string(root().join(".dockerignore"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix('!').map(PathBuf::from))
        .collect();
    for path in &let_in {
        assert!(root().join(path).exists(), ".dockerignore: {} does not exist", path.display());
    }
    let lines = lines(&text);
    let mut copied: Vec<PathBuf> = Vec::new();
    for line in lines.iter().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        copied.extend(words[..words.len() - 1].iter().map(PathBuf::from));
    }
    assert!(!copied.is_empty());
    for path in &copied {
        assert!(root().join(path).exists(), "{} does not exist", path.display());
        assert!(let_in.iter().any(|open| open.starts_with(path)), "{} is kept out by .dockerignore", path.display());
    }
    // What the sources take in at build time must be in the image.
    for included in ["migrations", "robots", "connector-manifests", "src", "askama.toml", "Cargo.lock"] {
        assert!(copied.iter().any(|path| path == Path::new(included)), "{included} is not copied");
    }
    let last_stage = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let user = lines[last_stage..].iter().rev().find_map(|line| line.strip_prefix("USER ")).expect("no USER: root");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(text.contains("--profile dist") && manifest.contains("[profile.dist]"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(text.contains(&format!("FROM rust:{version}-")), "built with another Rust than {version}");
}

#[test]
fn compose_is_closed_and_is_yaml() {
    let text = read("compose.yaml");
    let lines = lines(&text);
    for (wanted, times) in [
        ("read_only: true", 2),
        ("cap_drop: [ALL]", 2),
        ("security_opt: [\"no-new-privileges:true\"]", 2),
        ("restart: unless-stopped", 2),
        ("stop_grace_period: 15s", 1),
        ("profiles: [tls]", 1),
    ] {
        assert_eq!(lines.iter().filter(|line| **line == wanted).count(), times, "{wanted}");
    }
    assert!(!text.contains('\t') && !text.contains("privileged"));
    if !has_yaml() {
        return; // The lines above are checked everywhere.
    }
    let script = "import sys, yaml; c = yaml.safe_load(open(sys.argv[1])); s = c['services']; m = s['mostik']; \
                  assert set(m['secrets']) == set(c['secrets']); assert m['volumes'] == ['data:/data']; \
                  assert 'data' in c['volumes'] and s['proxy']['profiles'] == ['tls']; \
                  assert m['ports'] == ['127.0.0.1:8080:8080'] and '/healthz' in m['healthcheck']['test'][-1]";
    let file = root().join("deploy/compose.yaml");
    let done = Command::new("python3").args(["-c", script]).arg(file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn has_yaml() -> bool {
    Command::new("python3").args(["-c", "import yaml"]).output().is_ok_and(|done| done.status.success())
}

/// Words of a text that are names of metrics.
fn metric_names(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_'));
    words.filter(|word| word.starts_with("mostik_")).map(str::to_owned).collect()
}

#[test]
fn alerts_are_about_metrics_that_exist_and_say_what_to_do() {
    use mostik::telemetry::{Kind, METRICS};
    let text = read("alerts.yaml");
    let known: std::collections::BTreeSet<String> = METRICS
        .iter()
        .flat_map(|(name, kind, _)| match kind {
            Kind::Counter | Kind::Gauge => vec![(*name).to_owned()],
            Kind::Seconds => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        })
        .collect();
    let named = metric_names(&text);
    assert!(named.is_subset(&known), "unknown: {:?}", named.difference(&known).collect::<Vec<_>>());
    for (name, _, _) in METRICS.iter().filter(|(name, _, _)| *name != mostik::telemetry::RETENTION_ROWS) {
        assert!(named.iter().any(|alerted| alerted.starts_with(name)), "no alert looks at {name}");
    }
    let (alerts, lines) = (text.matches("- alert: ").count(), lines(&text));
    for part in ["expr:", "for:", "severity:", "summary:", "action:"] {
        let parts = lines.iter().filter(|line| line.trim_start().starts_with(part)).count();
        assert_eq!(parts, alerts, "{part} is missing somewhere");
    }
    for gauge in
        ["mostik_outbox_depth", "mostik_dead_letters", "mostik_lane_oldest_due_seconds", "mostik_channel_paused"]
    {
        assert!(!text.contains(&format!("sum({gauge}")), "{gauge} is of the whole store: take the largest");
    }
    if !has_yaml() {
        return; // The lines above are checked everywhere.
    }
    let yaml = "import sys, yaml; yaml.safe_load(open(sys.argv[1]))";
    let parsed = Command::new("python3").args(["-c", yaml]).arg(root().join("deploy/alerts.yaml")).output().unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}
