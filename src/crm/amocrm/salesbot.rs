//! A Salesbot step calls: its token first, then what it asks for.
//!
//! amoCRM posts a form with brackets (measured) or a JSON document (documented); both are taken. Nothing of a body is
//! believed, or even put together, before its token is proved, and the address to continue at is never called as it
//! came: its numbers are put under the account's own address (protocol reference, section "Salesbot", read 2026-11).

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::Amocrm;
use super::proof::{self, Signer};
use super::values::{self, Values};
use crate::crm::asked::CommandOptions;
use crate::domain::command::Command;
use crate::domain::ids::CommandId;
use crate::domain::portal::{CardRef, Portal};
use crate::domain::time::Timestamp;
use crate::forms::{self, FormLimits, at, member, text_at};

/// Longest body of a call. A bot holds 64 KB in all, and a form writes a letter with up to six bytes.
pub const BODY_MAX: usize = 512 * 1024;
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
    values: Values,
}

/// The whole of a body.
///
/// # Errors
/// [`StepError::Malformed`].
pub(super) fn read_body(kind: BodyKind, body: &[u8]) -> Result<Value, StepError> {
    match kind {
        BodyKind::Form => forms::decode(body, FormLimits::default()).map_err(|e| StepError::Malformed(e.to_string())),
        BodyKind::Json => serde_json::from_slice(body).map_err(|e| StepError::Malformed(format!("no JSON: {e}"))),
    }
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
        let token = token_of(kind, body).ok_or(StepError::Unproved("no token"))?;
        let claims = self.believed(app, Signer::Bot, &token)?;
        let account_id = proof::account_of(&claims)?;
        Ok(Proved { account_id, card: card_of(&claims) })
    }

    /// Reads a proved call of this account.
    ///
    /// # Errors
    /// [`StepError::Malformed`]: the body cannot be read, or names no place of this account to continue at.
    pub fn read_step(&self, portal: &Portal, proved: &Proved, kind: BodyKind, body: &[u8]) -> Result<Step, StepError> {
        let call = read_body(kind, body)?;
        let (path, bot) = self
            .way_back(portal, &text_at(&call, &["return_url"]))
            .ok_or_else(|| StepError::Malformed("return_url is no place of this account".to_owned()))?;
        let values = values::read(at(&call, &["data"]));
        let card = proved.card.or_else(|| values::card_of(&values));
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
    let asked = values::asked_of(&values::code_of(&step.values), &step.values);
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

/// The card a token names: by number or by word, one or many.
fn card_of(claims: &Value) -> Option<CardRef> {
    let kind = values::card_kind(&text_at(claims, &["entity_type"]))?;
    values::number(member(claims, "entity_id")?).map(|id| CardRef { kind, id })
}
