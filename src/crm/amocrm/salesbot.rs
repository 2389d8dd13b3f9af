//! A Salesbot step calls: its token first, then what it asks for.
//!
//! amoCRM posts a form with brackets (measured) or a JSON document (documented); both are taken. Nothing of a body is
//! believed, or even put together, before its token is proved, and the address to continue at is never called as it
//! came: its numbers are put under the account's own address (protocol reference, section "Salesbot", read 2026-11).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Amocrm, proof};
use crate::crm::asked::{CommandOptions, asked};
use crate::domain::command::Command;
use crate::domain::ids::CommandId;
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::domain::time::{Millis, Timestamp};
use crate::forms::{self, FormLimits, at, integer, member, text, text_at};

/// Longest body of a call. A bot holds 64 KB in all, and a form writes a letter with up to six bytes.
pub const BODY_MAX: usize = 512 * 1024;
/// How far the clocks of amoCRM and this machine may disagree.
const LEEWAY: Millis = Millis::minutes(1);
/// Bots of this kind, too, are continued under their own path.
const BOTS: [&str; 2] = ["salesbot", "marketingbot"];

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// `application/x-www-form-urlencoded` with brackets.
    Form,
    /// `application/json`.
    Json,
}

/// Why a call is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StepError {
    /// Not proved; answer 403. Says nothing of what would have been right.
    #[error("the token does not fit: {0}")]
    Unproved(&'static str),
    /// Proved, but not to be understood; answer 400.
    #[error("{0}")]
    Malformed(String),
}

/// A call whose token is proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proved {
    /// Which account's bot.
    pub account_id: String,
    /// The card it runs on; `None` when the token names none.
    card: Option<CardRef>,
}

/// What a proved call asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    card: Option<CardRef>,
    /// `salesbot/7712/continue/990031`.
    path: String,
    bot: String,
    values: BTreeMap<String, Value>,
}

/// The token of a body, and nothing else of it.
fn token_of(kind: BodyKind, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Signed {
        token: String,
    }
    match kind {
        BodyKind::Form => {
            form_urlencoded::parse(body).find(|(key, _)| key == "token").map(|(_, token)| token.into_owned())
        }
        BodyKind::Json => serde_json::from_slice::<Signed>(body).ok().map(|signed| signed.token),
    }
}

impl Amocrm {
    /// Proves a call: signature, time, audience, integration.
    ///
    /// # Errors
    /// [`StepError::Unproved`].
    pub fn prove_step(&self, app: &str, kind: BodyKind, body: &[u8]) -> Result<Proved, StepError> {
        let unproved = StepError::Unproved;
        let keys = self.oauth.keys(app).ok_or(unproved("unknown integration"))?;
        let token = token_of(kind, body).ok_or(unproved("no token"))?;
        let claims = proof::claims(&keys.secrets, &token).ok_or(unproved("signature"))?;
        let now = self.clock.now();
        let moment = |key: &str| member(&claims, key).and_then(integer).map(Timestamp::from_seconds);
        if moment("exp").is_none_or(|end| end.plus(LEEWAY) <= now) {
            return Err(unproved("time"));
        }
        if moment("nbf").is_some_and(|start| start > now.plus(LEEWAY)) {
            return Err(unproved("time"));
        }
        // Compared without the port, as the vendor's own library does.
        if !is_for_us(&text_at(&claims, &["aud"]), &self.settings.public_url) {
            return Err(unproved("audience"));
        }
        let client = ["client_uuid", "client_uid"].map(|key| text_at(&claims, &[key]));
        if !client.contains(&keys.client_id) {
            return Err(unproved("integration"));
        }
        let issuer = Url::parse(&text_at(&claims, &["iss"])).ok();
        let host = issuer.as_ref().filter(|url| url.scheme() == "https").and_then(Url::host_str);
        if host.is_none_or(|host| self.hosts.place(host).is_none()) {
            return Err(unproved("issuer"));
        }
        let account_id = text_at(&claims, &["account_id"]);
        if account_id.is_empty() || !account_id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(unproved("account"));
        }
        Ok(Proved { account_id, card: card_of(&claims) })
    }

    /// Reads a proved call of this account.
    ///
    /// # Errors
    /// [`StepError::Malformed`]: the body cannot be read, or names no place of this account to continue at.
    pub fn read_step(&self, portal: &Portal, proved: &Proved, kind: BodyKind, body: &[u8]) -> Result<Step, StepError> {
        let malformed = |what: String| StepError::Malformed(what);
        let call = match kind {
            BodyKind::Form => forms::decode(body, FormLimits::default()).map_err(|e| malformed(e.to_string()))?,
            BodyKind::Json => serde_json::from_slice(body).map_err(|e| malformed(format!("no JSON: {e}")))?,
        };
        let (path, bot) = self
            .way_back(portal, &text_at(&call, &["return_url"]))
            .ok_or_else(|| malformed("return_url is no place of this account".to_owned()))?;
        let mut values: BTreeMap<String, Value> = BTreeMap::new();
        if let Some(data) = at(&call, &["data"]).and_then(Value::as_object) {
            values.extend(data.iter().map(|(key, value)| (key.to_lowercase(), value.clone())));
        }
        let card = proved.card.or_else(|| card_of_data(&values));
        Ok(Step { card, path, bot, values })
    }

    /// Path and bot of the address to continue at, if it belongs to this account. It is put under the account's own
    /// address, so that nobody chooses what we call.
    fn way_back(&self, portal: &Portal, address: &str) -> Option<(String, String)> {
        let url = Url::parse(address).ok()?;
        let host = url.host_str()?.to_ascii_lowercase();
        // After a rename the token of a bot may name either host; the number of the account is proved.
        let is_own = host == portal.domain || self.hosts.are_siblings(&host, &portal.domain);
        let plain = url.scheme() == "https"
            && url.port().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !(is_own && plain) {
            return None;
        }
        let parts: Vec<&str> = url.path().trim_start_matches('/').split('/').collect();
        let ["api", "v4", kind, bot, "continue", id] = parts.as_slice() else { return None };
        let is_number = |text: &str| {
            (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
        };
        let fits = BOTS.contains(kind) && is_number(bot) && is_number(id);
        fits.then(|| (format!("{kind}/{bot}/continue/{id}"), format!("{kind}:{bot}")))
    }
}

/// Puts a step into the product's words. Never fails: what cannot be carried out says why, and the bot goes on.
#[must_use]
pub fn command(portal: &Portal, step: &Step, id: CommandId, now: Timestamp) -> Command {
    let code = ["action", "handler"].iter().find_map(|key| step.values.get(*key).and_then(text)).unwrap_or_default();
    let mut values = step.values.clone();
    // Whoever names nobody means the card's main contact: that is what a step without a number shows.
    let given = ["recipients", "phones", "chat_ids", "messenger_field"];
    if !given.iter().any(|key| values.get(*key).is_some_and(|value| !forms::texts(value).iter().all(String::is_empty)))
    {
        values.insert("recipients".to_owned(), Value::String("main".to_owned()));
    }
    let asked = asked(&code, &values);
    // amoCRM has no time limit of its own: the bot waits until it is continued.
    let reply = asked.reply(step.path.clone(), None, now, &CommandOptions::default());
    Command {
        id,
        portal: portal.id.clone(),
        dedupe_key: step.path.clone(),
        card: step.card,
        reply: Some(reply),
        comment: asked.comment,
        responsible: asked.responsible,
        received: now,
        robot: Some(step.bot.clone()),
        body: asked.body,
    }
}

/// Scheme and host agree; the port does not count.
fn is_for_us(audience: &str, public_url: &str) -> bool {
    let (Ok(theirs), Ok(ours)) = (Url::parse(audience), Url::parse(public_url)) else { return false };
    theirs.scheme() == ours.scheme() && theirs.host_str().is_some() && theirs.host_str() == ours.host_str()
}

/// The card a token names: by number or by word, one or many.
fn card_of(claims: &Value) -> Option<CardRef> {
    let kind = match text_at(claims, &["entity_type"]).to_ascii_lowercase().as_str() {
        "1" | "contact" | "contacts" => CardKind::Contact,
        "2" | "lead" | "leads" => CardKind::Deal,
        "3" | "company" | "companies" => CardKind::Company,
        "12" | "customer" | "customers" => CardKind::Customer,
        _ => return None,
    };
    number(member(claims, "entity_id")?).map(|id| CardRef { kind, id })
}

/// The card that the step's own values name, for tokens that name none.
fn card_of_data(values: &BTreeMap<String, Value>) -> Option<CardRef> {
    let kinds = [("lead", CardKind::Deal), ("customer", CardKind::Customer), ("contact", CardKind::Contact)];
    kinds.into_iter().find_map(|(key, kind)| values.get(key).and_then(number).map(|id| CardRef { kind, id }))
}

fn number(value: &Value) -> Option<u64> {
    integer(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0)
}
