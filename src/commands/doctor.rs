//! `mostik doctor`: looks at everything an operator can break, live, and says what to do.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::print;
use crate::app::{AppError, Probe, SystemClock, way_out};
use crate::config::Config;
use crate::domain::channel::{Channel, ChannelState};
use crate::domain::effect::PortalTrouble;
use crate::domain::ids::PortalId;
use crate::domain::job::JobState;
use crate::domain::portal::{CrmKind, Portal, PortalState};
use crate::domain::time::{Clock, Millis, Timestamp};
use crate::outbound::{Call, Outbound};

/// How far our clock may be off before signatures, windows and tokens suffer.
const CLOCK_OFF_MAX: Millis = Millis::seconds(30);

/// Channels or portals read at once.
const PAGE: u32 = 200;

/// Tokens of amoCRM that end sooner, in days, deserve a look.
const TOKENS_END: i64 = 14;

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
    if config.bitrix24.apps.is_empty() && config.amocrm.apps.is_empty() {
        findings.warn("bitrix24.apps, amocrm.apps", "no application is configured: portals cannot install")?;
    }
    if let Err(error) = config.fit_to_serve() {
        findings.bad("configuration", &error.to_string())?;
    }
    let outbound = way_out(config)?;
    public_address(config, &outbound, &mut findings).await?;
    authorization_servers(config, &outbound, &mut findings).await?;
    // Nothing is written and no lock is taken, so that a running service is not disturbed.
    match Probe::open(config, &outbound, true).await {
        Ok(probe) => {
            store(config, &probe, &mut findings).await?;
            probe.storage.close().await;
        }
        // Has been said above.
        Err(AppError::Config(_)) => {}
        Err(error) => findings.bad("database", &error.to_string())?,
    }
    print(&match findings.bad {
        0 => "nothing bad found\n".to_owned(),
        count => format!("{count} to mend\n"),
    })?;
    Ok(findings.bad == 0)
}

/// What stands in the database, and whether it is true outside.
async fn store(config: &Config, probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    match probe.storage.ping().await {
        Ok(()) => findings.good("database", &format!("{} answers, schema up to date", probe.storage.kind()))?,
        Err(error) => findings.bad("database", &error.to_string())?,
    }
    if config.database.url.expose_secret().starts_with("sqlite") {
        findings.good("replicas", "SQLite serves one process; PostgreSQL is needed for more")?;
    }
    channels(probe, findings).await?;
    portals(config, probe, findings).await?;
    queue(probe, findings).await
}

/// Whether the world can reach us, and what time it thinks it is.
async fn public_address(config: &Config, outbound: &Outbound, findings: &mut Findings) -> anyhow::Result<()> {
    let url = &config.server.public_url;
    if !url.starts_with("https://") {
        findings.warn("server.public_url", "no https: Bitrix24, WhatsApp and Telegram call https addresses only")?;
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
    let mut page = probe.storage.channels(None, PAGE).await?;
    if page.is_empty() {
        findings.warn("channels", "none yet: POST /api/v1/lines and …/channels")?;
    }
    while let Some(last) = page.last().map(|channel| channel.id.clone()) {
        for channel in page {
            look_at(&channel, probe, findings).await?;
        }
        page = probe.storage.channels(Some(&last), PAGE).await?;
    }
    Ok(())
}

async fn look_at(channel: &Channel, probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    let what = format!("channel {} ({})", channel.name, channel.id);
    if let ChannelState::Paused(reason) = &channel.state {
        findings.warn(&what, &format!("paused: {reason}"))?;
    }
    match probe.providers.get(channel.provider.as_str()) {
        None => findings.bad(&what, &format!("unknown provider {}", channel.provider)),
        Some(provider) => match provider.probe(channel).await {
            Ok(said) => findings.good(&what, &said),
            Err(error) => {
                let detail = format!("{} {} {}", error.class.code(), error.vendor_code, error.failure.detail);
                findings.bad(&what, &detail)
            }
        },
    }
}

async fn portals(config: &Config, probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    let mut working = 0_usize;
    let mut after: Option<PortalId> = None;
    loop {
        let page = probe.storage.list_portals(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for portal in page {
            match portal.state {
                PortalState::Installed => {
                    working += 1;
                    installed(config, probe, &portal, findings).await?;
                }
                PortalState::Uninstalled => {}
                PortalState::NeedsAuth => findings.bad(&portal.domain, advice(PortalTrouble::NeedsAuth))?,
                PortalState::Blocked => {
                    let detail = format!("{}: {}", portal.state_reason, advice(PortalTrouble::Blocked));
                    findings.bad(&portal.domain, &detail)?;
                }
            }
        }
    }
    findings.good("portals", &format!("{working} installed"))
}

/// Calls the portal once, with a method that changes nothing.
async fn installed(config: &Config, probe: &Probe, portal: &Portal, findings: &mut Findings) -> anyhow::Result<()> {
    match portal.crm {
        CrmKind::Bitrix24 => installed_bitrix24(config, probe, portal, findings).await,
        CrmKind::Amocrm => installed_amocrm(probe, portal, findings).await,
    }
}

async fn installed_amocrm(probe: &Probe, portal: &Portal, findings: &mut Findings) -> anyhow::Result<()> {
    if !probe.amocrm.has_app(&portal.app) {
        let what = format!("connected by the integration `{0}`: configure amocrm.apps.{0} again", portal.app);
        return findings.bad(&portal.domain, &what);
    }
    match probe.amocrm.look(portal).await {
        Ok(Some(end)) => {
            let days = end.since(SystemClock.now()).0 / Millis::hours(24).0;
            let what = format!("answers; its tokens are good for {days} days if nobody renews them");
            if days < TOKENS_END { findings.warn(&portal.domain, &what) } else { findings.good(&portal.domain, &what) }
        }
        Ok(None) => findings.warn(
            &portal.domain,
            "not asked: its access token has ended by its time; the service renews it with its next call",
        ),
        Err(error) => findings.bad(&portal.domain, &format!("{error}: {}", advice(error.portal))),
    }
}

async fn installed_bitrix24(
    config: &Config,
    probe: &Probe,
    portal: &Portal,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    if !config.bitrix24.apps.contains_key(&portal.app) {
        let what = format!("installed with the application `{0}`: configure bitrix24.apps.{0} again", portal.app);
        return findings.bad(&portal.domain, &what);
    }
    match probe.bitrix24.look(portal).await {
        Ok(Some(who)) if who.is_admin => findings.good(&portal.domain, "answers, with an administrator's token"),
        Ok(Some(who)) => {
            let what = format!("answers, but user {} is no administrator: one must open the application", who.user_id);
            findings.warn(&portal.domain, &what)
        }
        Ok(None) => findings.warn(
            &portal.domain,
            "not asked: its access token has ended by its time; the service renews it with its next call",
        ),
        Err(error) => findings.bad(&portal.domain, &format!("{error}: {}", advice(error.portal))),
    }
}

/// What to do about a portal that cannot be talked to.
fn advice(trouble: PortalTrouble) -> &'static str {
    match trouble {
        PortalTrouble::None => "open its address in a browser; look again when it answers",
        PortalTrouble::NeedsAuth => "its tokens are dead: an administrator must open the application there once",
        PortalTrouble::Blocked => "look at the portal's plan and at the application's permissions (crm, bizproc)",
        PortalTrouble::Uninstalled => "the application is gone there: install it again",
    }
}

async fn queue(probe: &Probe, findings: &mut Findings) -> anyhow::Result<()> {
    for count in probe.storage.count_jobs().await? {
        let waited = SystemClock.now().since(count.first_due);
        match count.state {
            JobState::Dead => {
                findings.warn("dead letters", &format!("{}: see `mostik redrive --list`", count.jobs))?;
            }
            JobState::Ready if waited > Millis::minutes(5) => {
                findings.warn("queue", &format!("the oldest job has been due for {} min", waited.0 / 60_000))?;
            }
            JobState::Ready | JobState::Started | JobState::Unclear => {}
        }
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
