//! The typed handle on one account, for tests and for the control API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{AccountCell, AmoNote, BotCall, BotRun, IntegrationSpec, oauth, salesbot};
use crate::world::{World, fetch};

/// Longest wait for an answer to a redirect; the server's own is three seconds (§1.4).
const REDIRECT_WAIT: Duration = Duration::from_secs(30);
const MARKET_WAIT: Duration = Duration::from_secs(3);

/// How a redirect or hook was answered.
#[derive(Clone, Debug, Serialize)]
pub struct AmoInstall {
    /// HTTP status.
    pub status: u16,
    /// The page.
    pub body: String,
}

/// One simulated account. Cheap to clone.
#[derive(Clone)]
pub struct AmoAccount {
    pub(crate) world: Arc<World>,
    pub(crate) cell: Arc<AccountCell>,
}

impl AmoAccount {
    /// Number, for ever.
    pub fn id(&self) -> i64 {
        self.cell.id
    }

    /// `acme.amocrm.ru`.
    pub fn host(&self) -> String {
        self.cell.host()
    }

    fn integration(&self, client_id: &str) -> anyhow::Result<Arc<IntegrationSpec>> {
        self.world.amo.integration(client_id).context("no such integration")
    }

    async fn get(&self, url: &str, wait: Duration) -> anyhow::Result<AmoInstall> {
        let (status, _, body) = fetch(self.world.client.get(url).timeout(wait)).await?;
        Ok(AmoInstall { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    // Installation -------------------------------------------------------------------------------------------------

    /// An administrator agrees on the consent screen of this address (§1.2, §1.3) and is sent back.
    pub async fn consent(&self, url: &str) -> anyhow::Result<AmoInstall> {
        let query = url.split_once('?').context("no query")?.1;
        let client_id = oauth::from_query(query, "client_id").context("no client_id")?;
        self.redirect(&client_id, oauth::from_query(query, "state").as_deref()).await
    }

    /// The redirect with a fresh code; without `state` nobody opened a consent screen.
    pub async fn redirect(&self, client_id: &str, state: Option<&str>) -> anyhow::Result<AmoInstall> {
        let integration = self.integration(client_id)?;
        let (code, host) = (oauth::code(&self.world, &self.cell, client_id), self.host());
        let mut pairs = vec![("code", code.as_str()), ("referer", &host), ("platform", "1"), ("client_id", client_id)];
        pairs.extend(state.map(|state| ("state", state)));
        self.get(&format!("{}?{}", integration.redirect_uri, oauth::query(&pairs)), REDIRECT_WAIT).await
    }

    /// A fresh code, for callers who exchange it themselves.
    pub fn code(&self, client_id: &str) -> String {
        oauth::code(&self.world, &self.cell, client_id)
    }

    /// "Install" in the market: amoCRM's own server calls, once (§1.4).
    pub async fn install_from_market(&self, client_id: &str) -> anyhow::Result<AmoInstall> {
        let integration = self.integration(client_id)?;
        let (code, host) = (oauth::code(&self.world, &self.cell, client_id), self.host());
        let pairs = [("code", code.as_str()), ("referer", &host), ("from_widget", "1"), ("client_id", client_id)];
        self.get(&format!("{}?{}", integration.redirect_uri, oauth::query(&pairs)), MARKET_WAIT).await
    }

    /// A token made by hand on the "Keys" tab (§1.8).
    pub fn long_lived_token(&self, client_id: &str, days: i64) -> String {
        let mut state = self.cell.state.lock();
        state.installs.insert(client_id.to_owned(), true);
        oauth::mint(&self.world, &self.cell, &mut state, client_id, days * 86_400)
    }

    /// The administrator disables the integration; the hook is called (§1.10).
    pub async fn uninstall(&self, client_id: &str) -> anyhow::Result<AmoInstall> {
        self.cell.state.lock().installs.insert(client_id.to_owned(), false);
        self.world.amo.amojo.lock().cut(client_id, self.cell.id);
        self.say_uninstalled(client_id).await
    }

    /// Only the hook: also a replay of an old one, which looks the same.
    pub async fn say_uninstalled(&self, client_id: &str) -> anyhow::Result<AmoInstall> {
        let integration = self.integration(client_id)?;
        let account = self.cell.id.to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(integration.client_secret.as_bytes())?;
        mac.update(format!("{client_id}|{account}").as_bytes());
        let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let pairs = [("account_id", account.as_str()), ("client_uuid", client_id), ("signature", &signature)];
        let hook = integration.uninstall_url.as_deref().context("no hook")?;
        self.get(&format!("{hook}?{}", oauth::query(&pairs)), REDIRECT_WAIT).await
    }

    // Switches -----------------------------------------------------------------------------------------------------

    /// The administrator renames the account: its old host is nobody's (§1.6).
    pub fn rename(&self, subdomain: &str) {
        self.cell.state.lock().subdomain = subdomain.to_owned();
        self.world.change("amo.account", &self.cell.scope(), "renamed");
    }

    /// The account is paid or not (§6.3, 402).
    pub fn set_paid(&self, paid: bool) {
        self.cell.state.lock().paid = paid;
    }

    /// Every access token ends now.
    pub fn expire_access_tokens(&self) {
        self.cell.state.lock().expire_access();
    }

    /// Every refresh token is dead, as when its answer was lost (§1.5).
    pub fn revoke_refresh_tokens(&self) {
        self.cell.state.lock().revoke_refresh();
    }

    // Cards --------------------------------------------------------------------------------------------------------

    /// A contact with these phones: number and `enum_code` (§6.5).
    pub fn add_contact(&self, name: &str, phones: &[(&str, &str)]) -> i64 {
        let mut state = self.cell.state.lock();
        let id = state.next();
        let values: Vec<Value> = phones
            .iter()
            .map(|(number, kind)| json!({"value": number, "enum_id": 911_001, "enum_code": kind}))
            .collect();
        let fields = match values.is_empty() {
            true => Value::Null,
            false => json!([{"field_id": 811_001, "field_name": "Телефон", "field_code": "PHONE",
                "field_type": "multitext", "values": values}]),
        };
        let contact = json!({"id": id, "name": name, "first_name": name, "last_name": "", "is_deleted": false,
            "custom_fields_values": fields, "account_id": self.cell.id, "_embedded": {"tags": [], "companies": []}});
        state.contacts.insert(id, contact);
        id
    }

    /// A lead with these contacts, the first is the main one (§6.6).
    pub fn add_lead(&self, name: &str, contacts: &[i64]) -> i64 {
        let mut state = self.cell.state.lock();
        let id = state.next();
        let linked = contacts.iter().enumerate().map(|(at, id)| json!({"id": id, "is_main": at == 0}));
        let linked: Vec<Value> = linked.collect();
        let lead = json!({"id": id, "name": name, "price": 0, "status_id": 60_010_203, "pipeline_id": 7_001_200,
            "custom_fields_values": null, "account_id": self.cell.id,
            "_embedded": {"tags": [], "companies": [], "contacts": linked}});
        state.leads.insert(id, lead);
        id
    }

    /// Notes of a lead, oldest first.
    pub fn notes(&self, lead: i64) -> Vec<AmoNote> {
        let state = self.cell.state.lock();
        state.notes.iter().filter(|note| note.collection == "leads" && note.entity_id == lead).cloned().collect()
    }

    /// A person removes a note.
    pub fn delete_note(&self, id: i64) {
        self.cell.state.lock().notes.retain(|note| note.id != id);
    }

    // Bots ---------------------------------------------------------------------------------------------------------

    /// Runs a step of a bot; gives its `continue_id`.
    pub fn run_bot(&self, call: &BotCall) -> anyhow::Result<i64> {
        let integration = self.integration(&call.client_id)?;
        Ok(salesbot::run(&self.world, &self.cell, &integration, call))
    }

    /// A run of a bot.
    pub fn bot(&self, continue_id: i64) -> Option<BotRun> {
        self.cell.state.lock().bots.iter().find(|run| run.continue_id == continue_id).cloned()
    }

    /// All runs, oldest first.
    pub fn bots(&self) -> Vec<BotRun> {
        self.cell.state.lock().bots.clone()
    }

    /// A token as a step of this integration would carry it, with some claims changed; for callers who forge.
    pub fn step_token(&self, call: &BotCall, secret: &str, changes: &Value) -> String {
        let mut claims = salesbot::claims(&self.world, &self.cell, &call.client_id, call);
        if let (Some(claims), Some(changes)) = (claims.as_object_mut(), changes.as_object()) {
            claims.extend(changes.clone());
        }
        salesbot::token(secret, &claims)
    }

    /// A body as a step sends it.
    pub fn step_body(&self, token: &str, data: &Value, return_url: &str) -> String {
        let (body, _) = salesbot::body(false, token, data, return_url);
        String::from_utf8_lossy(&body).into_owned()
    }
}
