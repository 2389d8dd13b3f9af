//! `mostik doctor`: looks at everything an operator can break, live, and says what to do.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::print;
use crate::app::{Probe, SystemClock};
use crate::config::Config;
use crate::domain::channel::ChannelState;
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::outbound::{Call, Outbound};

/// How far our clock may be off before signatures, windows and tokens suffer.
const CLOCK_OFF_MAX: Millis = Millis::seconds(30);

/// Collects findings and prints each at once.
#[derive(Default)]
struct Findings {
    bad: usize,
}

impl Findings {
    fn good(&mut self, what: &str, detail: &str) -> anyhow::Result<()> {
        print(&format!("  ok    {what}: {detail}\n"))
    }

    fn warn(&mut self, what: &str, detail: &str) -> anyhow::Result<()> {
        print(&format!("  note  {what}: {detail}\n"))
    }

    fn bad(&mut self, what: &str, detail: &str) -> anyhow::Result<()> {
        self.bad += 1;
        print(&format!("  BAD   {what}: {detail}\n"))
    }
}

/// Checks everything; true when nothing is bad.
pub(super) async fn run(config: &Config) -> anyhow::Result<bool> {
    let mut findings = Findings::default();
    print("Mostik looks at itself\n")?;
    if config.security.admin_token.is_none() {
        findings.warn("security.admin_token", "not set: the management API is off")?;
    }
    if config.bitrix24.apps.is_empty() {
        findings.warn("bitrix24.apps", "no application is configured: portals cannot install")?;
    }
    let probe = match Probe::open(config).await {
        Ok(probe) => probe,
        Err(error) => {
            findings.bad("start", &error.to_string())?;
            return Ok(false);
        }
    };
    match probe.storage.ping().await {
        Ok(()) => findings.good("database", &format!("{} answers, schema up to date", probe.storage.kind()))?,
        Err(error) => findings.bad("database", &error.to_string())?,
    }
    if config.database.url.expose_secret().starts_with("sqlite") {
        findings.good("replicas", "SQLite serves one process; PostgreSQL is needed for more")?;
    }
    public_address(config, &probe.outbound, &mut findings).await?;
    authorization_servers(config, &probe.outbound, &mut findings).await?;
    channels(&probe, &mut findings).await?;
    portals(&probe, &mut findings).await?;
    queue(&probe, &mut findings).await?;
    probe.storage.close().await;
    print(&match findings.bad {
        0 => "nothing bad found\n".to_owned(),
        count => format!("{count} to mend\n"),
    })?;
    Ok(findings.bad == 0)
}

/// Whether the world can reach us, and what time it thinks it is.
async fn public_address(config: &Config, outbound: &Outbound, findings: &mut Findings) -> anyhow::Result<()> {
    let url = &config.server.public_url;
    if !url.starts_with("https://") {
        findings.warn("server.public_url", "no https: Bitrix24 and WhatsApp call https addresses only")?;
    }
    let call = Call::get(format!("{url}/healthz")).timeout(Duration::from_secs(5));
    match outbound.call(call).await {
        Ok(answer) if answer.status == 200 => findings.good("public address", &format!("{url} answers")),
        Ok(answer) => {
            findings.bad("public address", &format!("{url}/healthz answers {}: is it this service?", answer.status))
        }
        Err(error) => findings.warn(
            "public address",
            &format!("{url} was not reached from here ({error}); start the service and its proxy, then look again"),
        ),
    }
}

/// Whether the authorization servers answer, and whether their clock agrees with ours.
async fn authorization_servers(config: &Config, outbound: &Outbound, findings: &mut Findings) -> anyhow::Result<()> {
    for host in &config.bitrix24.oauth_hosts {
        match outbound.call(Call::get(format!("{host}/oauth/token/")).timeout(Duration::from_secs(10))).await {
            Ok(answer) => {
                findings.good("Bitrix24 authorization", &format!("{host} answers"))?;
                match answer.header("date").and_then(read_http_date) {
                    Some(theirs) => clock(theirs, findings)?,
                    None => findings.warn("clock", &format!("{host} does not tell the time"))?,
                }
            }
            Err(error) => findings.bad("Bitrix24 authorization", &format!("{host}: {error}"))?,
        }
    }
    Ok(())
}

fn clock(theirs: Timestamp, findings: &mut Findings) -> anyhow::Result<()> {
    let off = SystemClock.now().since(theirs);
    if off.0.abs() <= CLOCK_OFF_MAX.0 {
        findings.good("clock", "agrees with the authorization server")
    } else {
        findings.bad("clock", &format!("off by {} s: switch time synchronisation on", off.0 / 1000))
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn read_http_date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(text.replace("GMT", "+0000")).ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

async fn channels(probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    let channels = probe.storage.channels().await?;
    if channels.is_empty() {
        findings.warn("channels", "none yet: POST /api/v1/lines and …/channels")?;
    }
    for channel in channels {
        let what = format!("channel {} ({})", channel.name, channel.id);
        if let ChannelState::Paused(reason) = &channel.state {
            findings.warn(&what, &format!("paused: {reason}"))?;
        }
        match probe.providers.get(channel.provider.as_str()) {
            None => findings.bad(&what, &format!("unknown provider {}", channel.provider))?,
            Some(provider) => match provider.probe(&channel).await {
                Ok(said) => findings.good(&what, &said)?,
                Err(error) => {
                    let detail = format!("{} {} {}", error.class.code(), error.vendor_code, error.failure.detail);
                    findings.bad(&what, &detail)?;
                }
            },
        }
    }
    Ok(())
}

async fn portals(probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    use crate::domain::portal::PortalState;
    let portals = probe.storage.list_portals(None, 200).await?;
    let working = portals.iter().filter(|portal| portal.state == PortalState::Installed).count();
    findings.good("portals", &format!("{working} installed"))?;
    for portal in portals {
        match portal.state {
            PortalState::Installed | PortalState::Uninstalled => {}
            PortalState::NeedsAuth => {
                findings.bad(
                    &portal.domain,
                    "its tokens are dead: an administrator must open the application there once",
                )?;
            }
            PortalState::Blocked => findings.bad(&portal.domain, &portal.state_reason)?,
        }
    }
    Ok(())
}

async fn queue(probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    for (state, count) in probe.storage.count_jobs().await? {
        if state == "dead" {
            findings.warn("dead letters", &format!("{count}: see `mostik redrive --list`"))?;
        }
    }
    let waited = probe.storage.oldest_due().await?.map_or(Millis(0), |due| SystemClock.now().since(due));
    if waited > Millis::minutes(5) {
        findings.warn("queue", &format!("the oldest job has been due for {} min", waited.0 / 60_000))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_read() {
        assert_eq!(read_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp(784_111_777_000)));
        assert_eq!(read_http_date("yesterday"), None);
    }
}
