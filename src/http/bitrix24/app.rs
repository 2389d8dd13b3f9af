//! The application's page: what is still missing, how the installation stands, and buttons that mend it.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use jiff::Timestamp as Moment;

use super::pass::{self, Pass, Scope, Shown};
use super::{Refused, broken, decode, lost, require_app};
use crate::crm::bitrix24::{Report, Tally};
use crate::domain::channel::ChannelState;
use crate::domain::job::QueueKey;
use crate::domain::language::Language;
use crate::domain::portal::Portal;
use crate::domain::time::Timestamp;
use crate::forms::{member, text};
use crate::http::State;
use crate::http::problem::Problem;
use crate::i18n;
use crate::storage::pages::Sign;
use crate::ui::{self, Fact, FrameChannel, FrameNotice, FrameView, Step};

/// Field of a form that carries the page's pass.
const PASS: &str = "pass";
/// How long the portal's own event is waited for: its queue takes a second or two.
const EVENT_WAIT: Duration = Duration::from_secs(15);
/// How often it is looked for meanwhile.
const EVENT_LOOK: Duration = Duration::from_millis(250);

/// What a button does.
#[derive(Clone, Copy)]
enum Action {
    /// Everything is registered anew, whatever we remember of it.
    Repair,
    /// The portal is asked for an event, to see whether events come through.
    Test,
    /// The work of robots whose calls never came is done.
    Replay,
    /// Nothing is done about them.
    Dismiss,
}

impl Action {
    fn find(word: &str) -> Option<Self> {
        match word {
            "repair" => Some(Self::Repair),
            "test" => Some(Self::Test),
            "replay" => Some(Self::Replay),
            "dismiss" => Some(Self::Dismiss),
            _ => None,
        }
    }
}

/// Carries out what a button on the page asks for, and shows the page again.
pub(super) async fn act(
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (app, action) = path.into_inner();
    require_app(&state, &app)?;
    let action = Action::find(&action).ok_or_else(|| Problem::NotFound("no such action".to_owned()))?;
    let sealed = member(&decode(&body)?, PASS).and_then(text).unwrap_or_default();
    let Shown { pass, portal } = pass::open_old(&state, &app, &sealed).await?;
    let notice = |key| {
        let domain = Some(portal.domain.clone());
        ui::frame_notice(&FrameNotice { language: pass.language, key, domain }).map_err(broken)
    };
    // Administrators alone are given a pass for this page; one for a card opens nothing here.
    match pass.scope {
        Scope::App => {}
        Scope::Card { .. } => return Err(Problem::Forbidden("this page is for administrators".to_owned())),
    }
    if pass.until <= state.clock.now() {
        return notice("reopen");
    }
    let said = match action {
        Action::Repair => {
            state.storage.forget_registrations(&portal.id).await?;
            state.pipeline.ask_reconcile(&portal).await?;
            state.pipeline.state_changed(QueueKey::Crm(portal.id.clone()));
            "repaired"
        }
        Action::Test => test_events(&state, &portal).await?,
        Action::Replay => lost::replay(&state, &portal.id).await?,
        Action::Dismiss => lost::dismiss(&state, &portal.id).await?,
    };
    tracing::info!(portal.id = %portal.id, said, "an administrator pressed a button");
    match describe(&state, &portal, &pass).await {
        Ok(view) => ui::frame(&FrameView { said: Some(said), ..view }).map_err(broken),
        Err(Refused::Said(key)) => notice(key),
        Err(Refused::Problem(problem)) => Err(problem),
    }
}

/// Asks the portal for an event and waits until it is here; gives the key of what is said about it.
async fn test_events(state: &State, portal: &Portal) -> Result<&'static str, Problem> {
    let before = state.storage.signs(&portal.id).await?.last(Sign::Test);
    if let Err(error) = state.bitrix24.ask_for_event(portal).await {
        tracing::warn!(%error, portal.id = %portal.id, "the portal sent no event when asked");
        return Ok("event_not_asked");
    }
    let seen = async {
        loop {
            if state.storage.signs(&portal.id).await?.last(Sign::Test) > before {
                return Ok::<_, Problem>("event_came");
            }
            tokio::time::sleep(EVENT_LOOK).await;
        }
    };
    tokio::time::timeout(EVENT_WAIT, seen).await.unwrap_or(Ok("event_lost"))
}

/// Compares what is registered with the portal, mends it, and says how everything stands.
pub(super) async fn describe(state: &State, portal: &Portal, pass: &Pass) -> Result<FrameView, Refused> {
    let language = pass.language;
    let lines = state.storage.lines_of_portal(&portal.id).await?;
    let named: Vec<(String, String)> = lines.iter().map(|line| (line.id.to_string(), line.name.clone())).collect();
    let (report, mut notes) = match state.bitrix24.reconcile_report(portal, &named).await {
        Ok(report) => {
            let notes = report.notes(language);
            (Some(report), notes)
        }
        Err(error) => {
            tracing::warn!(%error, portal.id = %portal.id, "registration failed");
            (None, vec![i18n::text(language, "install.problem", &[("error", &error.code)])])
        }
    };
    let mut channels = Vec::new();
    let mut works = false;
    for line in lines.iter() {
        for channel in state.storage.channels_of_line(&line.id).await?.iter() {
            works |= channel.state == ChannelState::Active;
            channels.push(FrameChannel::new(line, channel, language));
        }
    }
    let lost = lost::known(state, &portal.id).await?;
    let ready = report.as_ref().is_some_and(|report| report.problems.is_empty());
    let report = report.unwrap_or_default();
    if ready {
        // The steps say it all.
        notes.clear();
    }
    notes.extend(lost.trouble.as_ref().map(|code| i18n::text(language, "page.lost_trouble", &[("code", code)])));
    let mut facts = facts(state, portal, language, &report).await?;
    facts.push(lost.fact(language));
    Ok(FrameView {
        language,
        domain: portal.domain.clone(),
        installing: false,
        ready,
        steps: steps(language, &report, works, channels.is_empty()),
        facts,
        notes,
        channels,
        lost: lost.rows(language),
        said: None,
        pass: pass.sealed(state).map_err(Refused::Problem)?,
        base: format!("/bitrix24/{}", portal.app),
        portal: portal.id.to_string(),
    })
}

/// What has to be there before everything works, in the order in which it is done.
fn steps(language: Language, report: &Report, works: bool, no_channels: bool) -> Vec<Step> {
    let say = |key: &str, values: &[(&str, &str)]| i18n::text(language, &format!("page.{key}"), values);
    let step = |key: &str, done: bool, advice: String| {
        let advice = if done { Vec::new() } else { advice.lines().map(str::to_owned).collect() };
        Step { title: say(key, &[]), done, advice }
    };
    let rights: Vec<String> = report
        .missing_scopes
        .iter()
        .map(|scope| {
            let values = [("scope", scope.code.as_str()), ("reason", scope.reason.of(language))];
            i18n::text(language, "install.scope_missing", &values)
        })
        .collect();
    let plan = report.robots_unavailable.as_deref();
    let plan_says = plan.map(|code| i18n::text(language, "install.robots_unavailable", &[("code", code)]));
    let tab_advice = if report.places.wanted == 0 { "tab_needs_right" } else { "press_repair" };
    let all = |tally: Tally| tally.wanted > 0 && tally.stand >= tally.wanted;
    vec![
        step("step_rights", rights.is_empty() && report.events.wanted > 0, rights.join("\n")),
        step("step_plan", plan.is_none(), plan_says.unwrap_or_default()),
        step("step_channel", works, say(if no_channels { "no_channels" } else { "all_paused" }, &[])),
        step("step_robots", all(report.robots), say("press_repair", &[])),
        step("step_tab", all(report.places), say(tab_advice, &[])),
    ]
}

async fn facts(state: &State, portal: &Portal, language: Language, report: &Report) -> Result<Vec<Fact>, Refused> {
    let say = |key: &str| i18n::text(language, &format!("page.{key}"), &[]);
    let tally = |key: &str, tally: Tally| {
        let values = [("stand", tally.stand.to_string()), ("wanted", tally.wanted.to_string())];
        let values: Vec<(&str, &str)> = values.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let value = i18n::text(language, "page.of", &values);
        Fact { label: say(key), value, at: None, good: Some(tally.wanted > 0 && tally.stand >= tally.wanted) }
    };
    let signs = state.storage.signs(&portal.id).await?;
    let time = |key: &str, at: Option<Timestamp>, good: Option<bool>| Fact {
        label: say(key),
        value: at.map_or_else(|| say("never"), |at| shown(at, SHOWN)),
        at: at.map(|at| shown(at, EXACT)),
        good,
    };
    let open_lines = state.storage.chat_lines(&portal.id).await?.len();
    let event = signs.last(Sign::Event).max(signs.last(Sign::Test));
    Ok(vec![
        tally("fact_robots", report.robots),
        tally("fact_events", report.events),
        tally("fact_places", report.places),
        Fact { label: say("fact_open_lines"), value: open_lines.to_string(), at: None, good: None },
        time("fact_event", event, Some(event.is_some())),
        time("fact_robot", signs.last(Sign::Robot), None),
        time("fact_tokens", signs.tokens, Some(signs.tokens.is_some())),
    ])
}

/// A moment in UTC for people; the page's script shows it in the reader's own time.
pub(super) const SHOWN: &str = "%Y-%m-%d %H:%M UTC";
/// The same for machines.
pub(super) const EXACT: &str = "%Y-%m-%dT%H:%M:%SZ";

/// A moment in UTC.
pub(super) fn shown(at: Timestamp, format: &str) -> String {
    Moment::from_millisecond(at.0).map(|at| at.strftime(format).to_string()).unwrap_or_default()
}
