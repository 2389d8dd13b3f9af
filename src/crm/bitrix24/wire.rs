//! What Bitrix24 sends us: robot calls, events and page openings, as typed values.
//!
//! All three are forms ([`crate::forms`]). Sources: protocol reference, sections "Page opening", "Life-cycle events",
//! "Payload" and "Callback to HANDLER", read 2026-11. Senders leave out what is empty, write every number as text and
//! differ between versions, so only what we cannot do without is demanded.
//!
//! Nothing here is trusted yet. A robot call or an event proves itself by [`Auth::proves`] against the token kept for
//! its portal; a page proves itself by [`super::Bitrix24::prove`].

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use subtle::ConstantTimeEq;

use super::chat_events::{self, OperatorEvent};
use crate::crm::TokenPair;
use crate::domain::message::ChangeKind;
use crate::domain::portal::{CardKind, CardRef};
use crate::domain::time::{Millis, Timestamp};
use crate::forms::{at, flag, integer, items, member, text};

/// Why a request is refused before anything is done with it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// It carries nothing that could prove who sends it; answer 403. The text names what is missing.
    #[error("not signed: {0} is missing")]
    Unsigned(&'static str),
    /// It is not what Bitrix24 sends; answer 400. The text says what is wrong.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The `auth` part of a call from Bitrix24's queue server.
#[derive(Clone)]
pub struct Auth {
    /// Stable id of the portal, 32 hex digits.
    pub member_id: String,
    /// Host of the portal as the sender says, lower case, maybe with a port. Not to be called.
    pub domain: String,
    /// Proves the sender: constant per portal and installation.
    pub application_token: SecretString,
    /// Token of the user the call is made for; absent when an automation without user caused it.
    pub access_token: Option<SecretString>,
    /// Comes with robots and with installation and update, never with other events.
    pub refresh_token: Option<SecretString>,
    /// The user the tokens belong to.
    pub user_id: Option<String>,
    /// When the access token ends.
    pub expires: Option<Timestamp>,
    /// Base of the portal's REST as the sender says. Not to be called before it is proved.
    pub client_endpoint: Option<String>,
    /// Base of the authorization server's REST as the sender says.
    pub server_endpoint: Option<String>,
    /// Rights of the application.
    pub scopes: Vec<String>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth {{ member {}, domain {}, user {:?} }}", self.member_id, self.domain, self.user_id)
    }
}

impl Auth {
    pub(super) fn read(form: &Value) -> Result<Self, WireError> {
        let auth = member(form, "auth").ok_or(WireError::Unsigned("auth"))?;
        let some = |key: &str| member(auth, key).and_then(text).filter(|found| !found.is_empty());
        Ok(Self {
            member_id: some("member_id").ok_or(WireError::Unsigned("auth[member_id]")).and_then(member_id)?,
            domain: some("domain").unwrap_or_default().to_ascii_lowercase(),
            application_token: some("application_token")
                .map(SecretString::from)
                .ok_or(WireError::Unsigned("auth[application_token]"))?,
            access_token: some("access_token").map(SecretString::from),
            refresh_token: some("refresh_token").map(SecretString::from),
            user_id: some("user_id").filter(|id| id != "0"),
            expires: member(auth, "expires").and_then(integer).map(Timestamp::from_seconds),
            client_endpoint: some("client_endpoint"),
            server_endpoint: some("server_endpoint"),
            scopes: some("scope").map(|list| split_scopes(&list)).unwrap_or_default(),
        })
    }

    /// True when the call carries the application token kept for its portal. Takes the same time for every answer.
    #[must_use]
    pub fn proves(&self, kept: &str) -> bool {
        let given = self.application_token.expose_secret();
        !kept.is_empty() && bool::from(given.as_bytes().ct_eq(kept.as_bytes()))
    }

    /// The tokens, when the call carries a pair that can be renewed. Only to be kept after the call was proved.
    #[must_use]
    pub fn token_pair(&self, is_admin: bool, now: Timestamp) -> Option<TokenPair> {
        Some(TokenPair {
            user_id: self.user_id.clone()?,
            is_admin,
            access: self.access_token.as_ref()?.expose_secret().to_owned(),
            refresh: self.refresh_token.as_ref()?.expose_secret().to_owned(),
            expires: self.expires.unwrap_or(now),
        })
    }
}

/// The portal's number: 32 hexadecimal digits as far as anybody has seen. It goes into the log before anything is
/// proved, so it must not be long and not break lines.
fn member_id(given: String) -> Result<String, WireError> {
    let plain = given.len() <= 64 && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if plain { Ok(given) } else { Err(WireError::Malformed("member_id".to_owned())) }
}

/// What a robot runs on: module, class and id (`crm`, `CCrmDocumentDeal`, `DEAL_134`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Document {
    /// Module of the portal.
    pub module: String,
    /// PHP class.
    pub entity: String,
    /// Kind and number in one word.
    pub id: String,
}

impl Document {
    /// The card it is; `None` for documents that are no CRM cards (lists, files) and for kinds we do not know.
    ///
    /// The id is read from the right, because kinds have underscores too (`SMART_INVOICE_8`, `DYNAMIC_180_5`).
    #[must_use]
    pub fn card(&self) -> Option<CardRef> {
        if self.module != "crm" {
            return None;
        }
        let (kind, id) = self.id.rsplit_once('_')?;
        let id: u64 = id.parse().ok().filter(|id| *id > 0)?;
        let kind = match kind.to_ascii_uppercase().as_str() {
            "LEAD" => CardKind::Lead,
            "DEAL" => CardKind::Deal,
            "CONTACT" => CardKind::Contact,
            "COMPANY" => CardKind::Company,
            "QUOTE" => CardKind::Quote,
            "SMART_INVOICE" => CardKind::Invoice,
            "ORDER" => CardKind::Order,
            other => CardKind::Custom(other.strip_prefix("DYNAMIC_")?.parse().ok()?),
        };
        Some(CardRef { kind, id })
    }
}

/// One call of a robot or activity. `Debug` shows neither properties nor tokens.
#[derive(Clone)]
pub struct RobotCall {
    /// Code of the robot, as registered.
    pub code: String,
    /// Continues the waiting robot, and tells repeated calls apart; unique per execution.
    pub event_token: Option<String>,
    /// The running workflow; it may call several times.
    pub workflow_id: String,
    /// What it runs on.
    pub document: Document,
    /// Values of the robot's fields by lower-case key; empty ones are missing.
    pub properties: BTreeMap<String, Value>,
    /// False when the workflow goes on at once and nobody waits for our result.
    pub use_subscription: bool,
    /// How long the workflow waits; `None` means for ever.
    pub timeout_duration: Option<Millis>,
    /// When the portal sent it, by its clock.
    pub ts: Option<Timestamp>,
    /// Who sends.
    pub auth: Auth,
}

impl fmt::Debug for RobotCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RobotCall {{ code {:?}, document {:?}, {:?} }}", self.code, self.document.id, self.auth)
    }
}

/// Reads a robot call from its decoded form.
///
/// # Errors
/// `Unsigned` without `auth[member_id]` or `auth[application_token]`. `Malformed` without a code, and without an event
/// token while the workflow waits (`use_subscription` is not `N`): such a robot could never be continued, so it is
/// refused aloud instead of being accepted and left hanging.
pub fn robot_call(form: &Value) -> Result<RobotCall, WireError> {
    let auth = Auth::read(form)?;
    let some = |key: &str| member(form, key).and_then(text).filter(|found| !found.trim().is_empty());
    let code = some("code").ok_or_else(|| WireError::Malformed("code is missing".to_owned()))?;
    let event_token = some("event_token");
    let use_subscription = member(form, "use_subscription").and_then(flag).unwrap_or(true);
    if use_subscription && event_token.is_none() {
        return Err(WireError::Malformed("event_token is missing though the workflow waits".to_owned()));
    }
    let part = |index: &str| at(form, &["document_id", index]).and_then(text).unwrap_or_default();
    let properties = member(form, "properties").and_then(Value::as_object);
    let timeout = member(form, "timeout_duration").and_then(integer).filter(|seconds| *seconds > 0);
    Ok(RobotCall {
        code: code.trim().to_owned(),
        event_token,
        workflow_id: some("workflow_id").unwrap_or_default(),
        document: Document { module: part("0"), entity: part("1"), id: part("2") },
        properties: properties
            .map(|map| map.iter().map(|(key, value)| (key.to_ascii_lowercase(), value.clone())).collect())
            .unwrap_or_default(),
        use_subscription,
        timeout_duration: timeout.map(|seconds| Millis(seconds.saturating_mul(1000))),
        ts: member(form, "ts").and_then(integer).map(Timestamp::from_seconds),
        auth,
    })
}

/// An event we act upon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// ONAPPINSTALL: the installation is finished. Carries tokens.
    Install {
        /// Two letters, the portal's language; may be empty.
        language: String,
        /// False while the installer page has not finished.
        installed: bool,
    },
    /// ONAPPUPDATE: a new version; robots are gone and handlers may be.
    Update {
        /// Two letters, the portal's language; may be empty.
        language: String,
    },
    /// ONAPPUNINSTALL. Carries no tokens.
    Uninstall {
        /// The administrator asked to delete the data too.
        clean: bool,
    },
    /// ONIMCONNECTORMESSAGEADD, …UPDATE and …DELETE: operators wrote in chats of a connector, or changed what they wrote.
    Operator(OperatorEvent),
    /// ONIMCONNECTORSTATUSDELETE: a connector was taken off an open line; our own doing is told too.
    ConnectorOff {
        /// The connector, lower case.
        connector: String,
        /// The open line.
        place: String,
    },
    /// ONIMCONNECTORLINEDELETE: an open line is gone; told of lines that are none of ours too.
    LineGone {
        /// The open line.
        place: String,
    },
    /// Any other event, by its name in upper case.
    Other(String),
}

/// One event with its sender.
#[derive(Clone, Debug)]
pub struct EventCall {
    /// What happened.
    pub event: Event,
    /// When the portal sent it, by its clock.
    pub ts: Option<Timestamp>,
    /// Who sends.
    pub auth: Auth,
}

/// Reads an event from its decoded form.
///
/// # Errors
/// As [`robot_call`]; `Malformed` without a name.
pub fn event_call(form: &Value) -> Result<EventCall, WireError> {
    let auth = Auth::read(form)?;
    let name = member(form, "event").and_then(text).unwrap_or_default().trim().to_ascii_uppercase();
    let data = member(form, "data").unwrap_or(&Value::Null);
    let language = || member(data, "LANGUAGE_ID").and_then(text).unwrap_or_default();
    let is_set = |key: &str| member(data, key).and_then(flag);
    let ts = member(form, "ts").and_then(integer).map(Timestamp::from_seconds);
    // Without its time an event counts as older than any that tells.
    let raised = ts.unwrap_or_default();
    let event = match name.as_str() {
        "" => return Err(WireError::Malformed("event is missing".to_owned())),
        "ONAPPINSTALL" => Event::Install { language: language(), installed: is_set("INSTALLED").unwrap_or(true) },
        "ONAPPUPDATE" => Event::Update { language: language() },
        "ONAPPUNINSTALL" => Event::Uninstall { clean: is_set("CLEAN").unwrap_or(false) },
        "ONIMCONNECTORMESSAGEADD" => Event::Operator(chat_events::operator_event(data)?),
        "ONIMCONNECTORMESSAGEUPDATE" => Event::Operator(chat_events::change_event(data, ChangeKind::Edit, raised)?),
        "ONIMCONNECTORMESSAGEDELETE" => Event::Operator(chat_events::change_event(data, ChangeKind::Withdraw, raised)?),
        "ONIMCONNECTORSTATUSDELETE" => {
            let (connector, place) = chat_events::status_deleted(data);
            Event::ConnectorOff { connector, place }
        }
        "ONIMCONNECTORLINEDELETE" => Event::LineGone { place: chat_events::line_deleted(data) },
        other => Event::Other(other.to_owned()),
    };
    Ok(EventCall { event, ts, auth })
}

/// Tokens of the person looking at a page.
#[derive(Clone)]
pub struct PageTokens {
    /// Calls REST as that person.
    pub access: SecretString,
    /// Gets the next pair; older portals and some frames leave it out.
    pub refresh: Option<SecretString>,
    /// How long the access token lives.
    pub expires_in: Millis,
}

/// The browser opens a page of ours inside the portal. Unverified: the browser can send anything.
#[derive(Clone)]
pub struct PageOpen {
    /// Host of the portal as the browser says, lower case. For texts only.
    pub domain: String,
    /// Whether the portal is reached by https.
    pub https: bool,
    /// Language of the person's interface, two letters; may be empty.
    pub language: String,
    /// Tokens; `None` when the person has no access to the application.
    pub tokens: Option<PageTokens>,
    /// Stable id of the portal as the browser says.
    pub member_id: String,
    /// `DEFAULT` for the installer and the main page, otherwise the place.
    pub placement: String,
    /// What the place tells; `null` when nothing.
    pub options: Value,
    /// Base of the authorization server's REST; older portals leave it out.
    pub server_endpoint: Option<String>,
    /// Proves later calls of this portal; older portals leave it out. Never the `APP_SID` of the address.
    pub application_token: Option<SecretString>,
    /// Rights of the application; older portals leave them out.
    pub scopes: Vec<String>,
}

impl fmt::Debug for PageOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageOpen {{ member {}, domain {}, placement {} }}", self.member_id, self.domain, self.placement)
    }
}

impl PageOpen {
    /// The person's tokens as they are kept, once `user_id` and `is_admin` are known from a proof.
    #[must_use]
    pub fn token_pair(&self, user_id: &str, is_admin: bool, now: Timestamp) -> Option<TokenPair> {
        let tokens = self.tokens.as_ref()?;
        Some(TokenPair {
            user_id: user_id.to_owned(),
            is_admin,
            access: tokens.access.expose_secret().to_owned(),
            refresh: tokens.refresh.as_ref()?.expose_secret().to_owned(),
            expires: now.plus(tokens.expires_in),
        })
    }
}

/// Reads a page opening from its decoded query and body.
///
/// # Errors
/// `Unsigned` without `member_id`, which is also what a bookmark or a curious visitor sends: answer a friendly page.
pub fn page_open(query: &Value, body: &Value) -> Result<PageOpen, WireError> {
    let some = |key: &str| {
        [body, query].iter().find_map(|part| member(part, key).and_then(text)).filter(|found| !found.is_empty())
    };
    let seconds = [body, query].iter().find_map(|part| member(part, "AUTH_EXPIRES").and_then(integer));
    let tokens = some("AUTH_ID").map(|access| PageTokens {
        access: SecretString::from(access),
        refresh: some("REFRESH_ID").map(SecretString::from),
        expires_in: Millis(seconds.unwrap_or(3600).clamp(0, 86_400) * 1000),
    });
    let options = some("PLACEMENT_OPTIONS").and_then(|json| serde_json::from_str(&json).ok());
    Ok(PageOpen {
        domain: some("DOMAIN").unwrap_or_default().to_ascii_lowercase(),
        https: some("PROTOCOL").is_none_or(|protocol| protocol != "0"),
        language: some("LANG").unwrap_or_default(),
        tokens,
        member_id: some("member_id").ok_or(WireError::Unsigned("member_id")).and_then(member_id)?,
        placement: some("PLACEMENT").unwrap_or_else(|| "DEFAULT".to_owned()),
        options: options.unwrap_or(Value::Null),
        server_endpoint: some("SERVER_ENDPOINT"),
        application_token: some("APPLICATION_TOKEN").map(SecretString::from),
        scopes: some("APPLICATION_SCOPE").map(|list| split_scopes(&list)).unwrap_or_default(),
    })
}

/// Splits a list of rights, which comes as `crm,bizproc` or `crm, bizproc`.
#[must_use]
pub fn split_scopes(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

/// Reads rights that come as a text or as a list.
pub(super) fn read_scopes(value: &Value) -> Vec<String> {
    items(value).into_iter().filter_map(text).flat_map(|part| split_scopes(&part)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::forms::{FormLimits, decode};

    fn fixture(text: &str) -> Value {
        let joined: String = text.lines().collect();
        decode(joined.as_bytes(), FormLimits::default()).unwrap()
    }

    #[test]
    fn a_robot_call_is_read() {
        let form = fixture(include_str!("../../../tests/fixtures/bitrix24/robot_call.txt"));
        let call = robot_call(&form).unwrap();
        assert_eq!(call.code, "send_message");
        assert!(call.event_token.as_ref().unwrap().starts_with("6b4d1c0f2b7e93.51842077|A70120_33921"));
        assert_eq!(call.document.card().unwrap().to_string(), "deal:134");
        assert_eq!(call.properties["phones"], json!(["+7 900 123-45-67", "8 (900) 765-43-21"]));
        assert_eq!(call.properties["text"], json!("Your order is ready\nSee you soon"));
        assert!(call.use_subscription);
        assert_eq!(call.timeout_duration, Some(Millis::hours(24)));
        assert_eq!(call.ts, Some(Timestamp(1_795_200_111_000)));
        assert_eq!(call.auth.domain, "acme-demo.bitrix24.com");
        assert_eq!(call.auth.scopes, ["crm", "bizproc"]);
        let pair = call.auth.token_pair(true, Timestamp(0)).unwrap();
        assert_eq!((pair.user_id.as_str(), pair.expires), ("1", Timestamp(1_795_203_711_000)));
    }

    #[test]
    fn a_bare_robot_call_is_read() {
        let form = fixture(include_str!("../../../tests/fixtures/bitrix24/robot_call_bare.txt"));
        let call = robot_call(&form).unwrap();
        assert!(!call.use_subscription);
        assert_eq!(call.timeout_duration, None);
        assert!(call.properties.is_empty());
        assert_eq!(call.auth.token_pair(true, Timestamp(0)), None);
    }

    #[test]
    fn a_waiting_robot_without_token_is_refused() {
        let auth = json!({"member_id": "m", "application_token": "t"});
        let waiting = json!({"code": "send_message", "use_subscription": "Y", "auth": auth});
        assert!(matches!(robot_call(&waiting), Err(WireError::Malformed(_))));
        let silent = json!({"code": "send_message", "auth": auth});
        assert!(matches!(robot_call(&silent), Err(WireError::Malformed(_))));
        let running = json!({"code": "send_message", "use_subscription": "N", "auth": auth});
        assert!(robot_call(&running).is_ok());
    }

    #[test]
    fn what_carries_no_proof_is_unsigned() {
        for form in [
            json!({"code": "x", "event_token": "t"}),
            json!({"code": "x", "event_token": "t", "auth": {"member_id": "m"}}),
            json!({"code": "x", "event_token": "t", "auth": {"application_token": "t", "member_id": ""}}),
        ] {
            assert!(matches!(robot_call(&form), Err(WireError::Unsigned(_))), "{form}");
            assert!(matches!(event_call(&form), Err(WireError::Unsigned(_))), "{form}");
        }
    }

    #[test]
    fn only_the_right_application_token_proves() {
        let form = json!({"event": "x", "auth": {"member_id": "m", "application_token": "abc"}});
        let auth = event_call(&form).unwrap().auth;
        assert!(auth.proves("abc"));
        for wrong in ["", "abcd", "abd", "ABC"] {
            assert!(!auth.proves(wrong), "{wrong}");
        }
    }

    #[test]
    fn cards_are_read_from_the_right() {
        let card = |module: &str, id: &str| {
            let document = Document { module: module.to_owned(), entity: String::new(), id: id.to_owned() };
            document.card().map(|card| card.to_string())
        };
        for (id, expected) in [
            ("LEAD_15", "lead:15"),
            ("DEAL_134", "deal:134"),
            ("CONTACT_17", "contact:17"),
            ("COMPANY_4", "company:4"),
            ("QUOTE_3", "quote:3"),
            ("SMART_INVOICE_8", "invoice:8"),
            ("DYNAMIC_180_5", "custom180:5"),
            ("ORDER_9", "order:9"),
        ] {
            assert_eq!(card("crm", id).as_deref(), Some(expected), "{id}");
        }
        for id in ["", "DEAL", "DEAL_", "DEAL_0", "DEAL_x", "DYNAMIC_5", "DYNAMIC_x_5", "TASK_5", "_5"] {
            assert_eq!(card("crm", id), None, "{id}");
        }
        assert_eq!(card("lists", "DEAL_134"), None);
    }

    #[test]
    fn events_are_read() {
        let install = fixture(include_str!("../../../tests/fixtures/bitrix24/event_install.txt"));
        let call = event_call(&install).unwrap();
        assert_eq!(call.event, Event::Install { language: "ru".to_owned(), installed: true });
        assert!(call.auth.token_pair(true, Timestamp(0)).is_some());

        let update = fixture(include_str!("../../../tests/fixtures/bitrix24/event_update.txt"));
        assert_eq!(event_call(&update).unwrap().event, Event::Update { language: "en".to_owned() });

        let uninstall = fixture(include_str!("../../../tests/fixtures/bitrix24/event_uninstall.txt"));
        let call = event_call(&uninstall).unwrap();
        assert_eq!(call.event, Event::Uninstall { clean: true });
        assert!(call.auth.access_token.is_none());

        let scalar = json!({"event": "onImConnectorLineDelete", "data": "107",
            "auth": {"member_id": "m", "application_token": "t"}});
        assert_eq!(event_call(&scalar).unwrap().event, Event::LineGone { place: "107".to_owned() });
    }

    #[test]
    fn pages_are_read_from_old_and_new_portals() {
        let query = decode(b"DOMAIN=Acme-Demo.bitrix24.com&PROTOCOL=1&LANG=ru&APP_SID=3c1f0a9b", FormLimits::default());
        let query = query.unwrap();
        let body = fixture(include_str!("../../../tests/fixtures/bitrix24/page_install.txt"));
        let page = page_open(&query, &body).unwrap();
        assert_eq!(page.domain, "acme-demo.bitrix24.com");
        assert!(page.https);
        assert_eq!(page.options, json!({"URI": "/devops/"}));
        assert_eq!(page.scopes, ["crm", "bizproc"]);
        assert_eq!(page.server_endpoint.as_deref(), Some("https://oauth.bitrix.info/rest/"));
        let pair = page.token_pair("7", true, Timestamp(1000)).unwrap();
        assert_eq!(pair.expires, Timestamp(3_601_000));

        let old = json!({"AUTH_ID": "a", "REFRESH_ID": "r", "member_id": "m", "status": "L", "PLACEMENT": "DEFAULT"});
        let page = page_open(&query, &old).unwrap();
        assert!(page.application_token.is_none());
        assert!(page.options.is_null());
        assert!(matches!(page_open(&query, &json!({})), Err(WireError::Unsigned(_))));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let form = fixture(include_str!("../../../tests/fixtures/bitrix24/robot_call.txt"));
        let call = robot_call(&form).unwrap();
        let body = fixture(include_str!("../../../tests/fixtures/bitrix24/page_install.txt"));
        let page = page_open(&json!({}), &body).unwrap();
        let printed = format!("{call:?} {page:?} {:?}", event_call(&json!({"event": "x", "auth": form["auth"]})));
        for secret in ["900", "order", "falsetoken", "5f1d7a84"] {
            assert!(!printed.contains(secret), "{secret} in {printed}");
        }
    }
}
