//! Accounts of amoCRM, integrations, bots.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, Outcome, Refusal, done, good, not_allowed};
use crate::amocrm::{AccountSpec, AmoAccount, BotCall, IntegrationSpec};

pub(super) async fn route(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    let amo = &ask.world.amo;
    match (ask.method, rest) {
        ("POST", ["integrations"]) => good(&*amo.add_integration(ask.world, ask.body::<IntegrationSpec>()?)),
        ("GET", ["options"]) => good(&amo.options.read().clone()),
        ("PATCH", ["options"]) => {
            let changed = ask.patched(&amo.options.read().clone())?;
            *amo.options.write() = changed;
            done()
        }
        ("GET", ["accounts"]) => {
            let accounts = amo.accounts();
            good(&accounts.into_iter().map(|cell| summary(&handle(ask, cell))).collect::<Vec<_>>())
        }
        ("POST", ["accounts"]) => {
            let cell = amo.add_account(ask.world, ask.body::<AccountSpec>()?)?;
            good(&summary(&handle(ask, cell)))
        }
        (_, ["accounts", id, rest @ ..]) => {
            let cell = amo.accounts().into_iter().find(|cell| cell.scope() == **id);
            one(ask, &handle(ask, cell.ok_or_else(|| Refusal::missing("account"))?), rest).await
        }
        _ => not_allowed(ask),
    }
}

fn handle(ask: &Ask<'_>, cell: std::sync::Arc<crate::amocrm::AccountCell>) -> AmoAccount {
    AmoAccount { world: ask.world.clone(), cell }
}

fn summary(account: &AmoAccount) -> Value {
    json!({"id": account.id(), "host": account.host(), "bots": account.bots()})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    client_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    client_id: String,
    /// Base64.
    archive: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contact {
    name: String,
    phone: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lead {
    name: String,
    contacts: Vec<i64>,
}

async fn one(ask: &Ask<'_>, account: &AmoAccount, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("POST", ["install"]) => good(&account.install_from_market(&ask.body::<Of>()?.client_id).await?),
        ("POST", ["uninstall"]) => good(&account.uninstall(&ask.body::<Of>()?.client_id).await?),
        ("POST", ["tokens"]) => {
            good(&json!({"long_lived_token": account.long_lived_token(&ask.body::<Of>()?.client_id, 365)}))
        }
        ("POST", ["widget"]) => {
            let upload: Upload = ask.body()?;
            let archive = base64::engine::general_purpose::STANDARD.decode(upload.archive.trim());
            let archive = archive.map_err(|error| anyhow::anyhow!("archive: {error}"))?;
            account.upload_widget(&upload.client_id, &archive)?;
            good(&json!({"page": account.page_url()}))
        }
        ("POST", ["contacts"]) => {
            let contact: Contact = ask.body()?;
            good(&json!({"id": account.add_contact(&contact.name, &[(&contact.phone, "MOB")])}))
        }
        ("POST", ["leads"]) => {
            let lead: Lead = ask.body()?;
            good(&json!({"id": account.add_lead(&lead.name, &lead.contacts)}))
        }
        ("GET", ["leads", id, "notes"]) => good(&account.notes(id.parse().unwrap_or(0))),
        ("POST", ["bots"]) => good(&json!({"continue_id": account.run_bot(&ask.body::<BotCall>()?)?})),
        ("GET", ["bots"]) => good(&account.bots()),
        _ => not_allowed(ask),
    }
}
