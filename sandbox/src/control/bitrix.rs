//! Portals, applications and the OAuth server.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, Outcome, Refusal, done, good, lines, not_allowed};
use crate::{
    bitrix24::{AppSpec, Automation, ItemSpec, PageRequest, Portal, PortalLimits, PortalSpec, StageSpec, UserSpec},
    world::World,
};

pub(super) fn all(world: &Arc<World>) -> Vec<Portal> {
    world.bitrix.portals().into_iter().map(|cell| Portal { world: world.clone(), cell }).collect()
}

pub(super) fn apps(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    let bitrix = &ask.world.bitrix;
    match (ask.method, rest) {
        ("GET", []) => good(&bitrix.apps()),
        ("POST", []) => good(&*bitrix.add_app(ask.world, ask.body::<AppSpec>()?)),
        ("DELETE", [client_id]) if bitrix.remove_app(client_id) => done(),
        ("DELETE", [_]) => Err(Refusal::missing("application")),
        _ => not_allowed(ask),
    }
}

pub(super) fn oauth(ask: &Ask<'_>) -> Outcome {
    let current = ask.world.bitrix.oauth.read().clone();
    match ask.method {
        "GET" => good(&current),
        "PATCH" => {
            let changed = ask.patched(&current)?;
            *ask.world.bitrix.oauth.write() = changed;
            good(&*ask.world.bitrix.oauth.read())
        }
        _ => not_allowed(ask),
    }
}

pub(super) async fn portals(ask: &Ask<'_>, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => good(&all(ask.world).iter().map(summary).collect::<Vec<_>>()),
        ("POST", []) => {
            let portal = Portal::create(ask.world, ask.body::<PortalSpec>()?).await?;
            good(&summary(&portal))
        }
        (_, [member_id, rest @ ..]) => {
            let cell = ask.world.bitrix.portal(member_id).ok_or_else(|| Refusal::missing("portal"))?;
            one(ask, &Portal { world: ask.world.clone(), cell }, rest).await
        }
        _ => not_allowed(ask),
    }
}

fn summary(portal: &Portal) -> Value {
    json!({
        "member_id": portal.member_id(),
        "name": portal.name(),
        "domain": portal.domain(),
        "client_endpoint": portal.client_endpoint(),
        "installs": portal.installs(),
        "deals": portal.item_count(crate::entity::DEAL),
    })
}

/// A portal as a kanban page draws it.
pub(super) fn board(portal: &Portal, deals: usize) -> Value {
    let deal = crate::entity::DEAL;
    let cards: Vec<Value> = portal
        .items(deal, deals)
        .into_iter()
        .map(|item| {
            let run = portal.deal_run(item.id);
            json!({
                "timeline": portal.timeline_len(deal, item.id),
                "robot": run.as_ref().map(|run| run.state),
                "result": run.as_ref().map(|run| &run.results),
                "item": item,
            })
        })
        .collect();
    let mut board = summary(portal);
    board["stages"] = json!(portal.stages());
    board["cards"] = json!(cards);
    board["users"] = json!(portal.users());
    board["automations"] = json!(portal.automations());
    board["robots"] = json!(portal.robots().iter().map(|robot| robot.code.clone()).collect::<Vec<_>>());
    board
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    client_id: String,
    #[serde(default)]
    user_id: Option<i64>,
    /// `headless` (default): begin, installer page, finish; `begin`: only begin; a UI-less application is installed by
    /// `begin` alone.
    #[serde(default)]
    mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfApp {
    client_id: String,
    #[serde(default)]
    user_id: Option<i64>,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    clean: bool,
    #[serde(default)]
    expired: bool,
    #[serde(default)]
    users: Option<Vec<i64>>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

async fn one(ask: &Ask<'_>, portal: &Portal, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => good(&board(portal, ask.query("deals").unwrap_or(200_usize).min(2_000))),
        ("DELETE", []) => {
            portal.set_switches(|switches| switches.deleted = true);
            done()
        }
        ("GET", ["switches"]) => good(&portal.switches()),
        ("PATCH", ["switches"]) => {
            let changed = ask.patched(&portal.switches())?;
            portal.set_switches(|switches| *switches = changed);
            good(&portal.switches())
        }
        ("GET", ["limits"]) => good(&portal.limits()),
        ("PUT", ["limits"]) => {
            portal.set_limits(ask.body::<PortalLimits>()?);
            good(&portal.limits())
        }
        ("POST", ["rename"]) => good(&json!({"domain": portal.rename().await?})),
        ("POST", ["install"]) => install(portal, ask.body()?).await,
        ("POST", ["pages"]) => good(&portal.open_page(&ask.body::<PageRequest>()?).await?),
        (
            "POST",
            [
                action @ ("install_finish" | "update_app" | "uninstall" | "payment" | "tokens" | "code" | "access"
                | "scopes"),
            ],
        ) => of_app(portal, action, ask.body()?),
        ("POST", ["expire_tokens"]) => good(&json!({"expired": portal.expire_access_tokens()})),
        ("POST", ["kill_refresh_tokens"]) => good(&json!({"killed": portal.kill_refresh_tokens()})),
        (_, ["users", rest @ ..]) => users(ask, portal, rest),
        (_, ["items", rest @ ..]) => items(ask, portal, rest),
        (_, ["open-lines" | "chats", ..]) => lines::of_portal(ask, portal, rest),
        ("POST", ["move"]) => moves(ask, portal),
        ("POST", ["bulk"]) => bulk(ask, portal),
        _ => structure(ask, portal, rest),
    }
}

async fn install(portal: &Portal, asked: Install) -> Outcome {
    portal.begin_install_as(&asked.client_id, asked.user_id.unwrap_or(1))?;
    let mut page = None;
    match asked.mode.as_deref().unwrap_or("headless") {
        "begin" | "event" => {}
        "headless" => {
            if portal.app(&asked.client_id).is_some_and(|app| !app.installed) {
                let opened = portal.open_installer(&asked.client_id).await?;
                if (200..300).contains(&opened.status) {
                    portal.finish_install(&asked.client_id)?;
                }
                page = Some(opened);
            }
        }
        other => {
            return Err(Refusal { status: 400, message: format!("mode {other} is unknown: headless, begin, event") });
        }
    }
    let frame = portal.frame_url(&asked.client_id, "DEFAULT");
    good(&json!({"install": portal.app(&asked.client_id), "page": page, "frame_url": frame}))
}

fn of_app(portal: &Portal, action: &str, asked: OfApp) -> Outcome {
    let id = asked.client_id.as_str();
    match action {
        "install_finish" => return good(&json!({"finished": portal.finish_install(id)?})),
        "update_app" => portal.update_app(id, asked.version.unwrap_or(2))?,
        "uninstall" => portal.uninstall(id, asked.clean)?,
        "payment" => portal.set_payment_expired(id, asked.expired)?,
        "tokens" => return good(&portal.issue_tokens(id, asked.user_id.unwrap_or(1))?),
        "code" => return good(&json!({"code": portal.issue_code(id, asked.user_id.unwrap_or(1))?})),
        "access" => portal.set_app_access(id, asked.users)?,
        _ => {
            let scopes = asked.scopes.unwrap_or_default();
            portal.set_scopes(id, &scopes.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
    }
    good(&json!({"install": portal.app(id)}))
}

fn users(ask: &Ask<'_>, portal: &Portal, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => good(&portal.users()),
        ("POST", []) => good(&json!({"id": portal.add_user(ask.body::<UserSpec>()?)})),
        ("POST", [id, action @ ("fire" | "rehire")]) => {
            let id = id.parse().map_err(|_broken: std::num::ParseIntError| Refusal::missing("user"))?;
            portal.set_fired(id, *action == "fire")?;
            done()
        }
        _ => not_allowed(ask),
    }
}

fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|error: std::num::ParseIntError| Refusal { status: 400, message: format!("{text}: {error}") })
}

fn items(ask: &Ask<'_>, portal: &Portal, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", []) => {
            let type_id = ask.query("type").unwrap_or(crate::entity::DEAL);
            good(&portal.items(type_id, ask.query("limit").unwrap_or(200_usize).min(10_000)))
        }
        ("POST", []) => {
            let specs: Vec<ItemSpec> = match ask.body::<Value>()? {
                Value::Array(list) => list.into_iter().map(serde_json::from_value).collect::<Result<_, _>>(),
                one => serde_json::from_value(one).map(|spec| vec![spec]),
            }
            .map_err(|error| Refusal { status: 400, message: format!("body: {error}") })?;
            let ids = specs.into_iter().map(|spec| portal.add_item(spec)).collect::<anyhow::Result<Vec<i64>>>()?;
            good(&json!({"ids": ids}))
        }
        ("GET", [type_id, id]) => {
            let (type_id, id) = (number(type_id)?, number(id)?);
            let item = portal.item(type_id, id).ok_or_else(|| Refusal::missing("card"))?;
            let contacts: Vec<_> =
                item.contact_ids.iter().filter_map(|id| portal.item(crate::entity::CONTACT, *id)).collect();
            good(&json!({
                "company": portal.item(crate::entity::COMPANY, item.company_id),
                "contacts": contacts,
                "timeline": portal.timeline(type_id, id),
                "runs": portal.robot_runs(type_id, id),
                "item": item,
            }))
        }
        ("DELETE", [type_id, id]) => {
            if portal.delete_item(number(type_id)?, number(id)?) {
                done()
            } else {
                Err(Refusal::missing("card"))
            }
        }
        _ => not_allowed(ask),
    }
}

fn moves(ask: &Ask<'_>, portal: &Portal) -> Outcome {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Move {
        #[serde(default = "deal")]
        entity_type_id: i64,
        /// Cards; or all of a stage with `from`.
        #[serde(default)]
        ids: Vec<i64>,
        #[serde(default)]
        from: Option<String>,
        stage_id: String,
    }
    let mut asked: Move = ask.body()?;
    if let Some(from) = asked.from {
        let all = portal.items(asked.entity_type_id, usize::MAX);
        asked.ids.extend(all.iter().rev().filter(|item| item.stage_id == from).map(|item| item.id));
    }
    good(&json!({"moved": portal.move_items(asked.entity_type_id, &asked.ids, &asked.stage_id)?}))
}

fn deal() -> i64 {
    crate::entity::DEAL
}

/// Many deals at once, each with a contact and a phone of its own: `{"count":10000,"phone_from":79160000000}`.
fn bulk(ask: &Ask<'_>, portal: &Portal) -> Outcome {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bulk {
        count: u32,
        phone_from: u64,
        #[serde(default)]
        title: Option<String>,
        #[serde(default)]
        stage_id: Option<String>,
    }
    let asked: Bulk = ask.body()?;
    let title = asked.title.unwrap_or_else(|| "Сделка".to_owned());
    let mut ids = Vec::new();
    for nth in 0..asked.count {
        let phone = format!("+{}", asked.phone_from + u64::from(nth));
        let contact = portal.add_contact("Клиент", &nth.to_string(), &phone)?;
        ids.push(portal.add_item(ItemSpec {
            title: format!("{title} {nth}"),
            contact_ids: vec![contact],
            stage_id: asked.stage_id.clone().unwrap_or_default(),
            ..ItemSpec::default()
        })?);
    }
    good(&json!({"first": ids.first(), "last": ids.last(), "count": ids.len()}))
}

fn structure(ask: &Ask<'_>, portal: &Portal, rest: &[&str]) -> Outcome {
    match (ask.method, rest) {
        ("GET", ["stages"]) => good(&portal.stages()),
        ("POST", ["stages"]) => {
            portal.add_stage(ask.body::<StageSpec>()?);
            done()
        }
        ("PUT", ["stages"]) => {
            let stages: Vec<StageSpec> = ask.body()?;
            let of = stages.first().map_or((deal(), 0), |stage| (stage.entity_type_id, stage.category_id));
            portal.set_stages(of.0, of.1, stages)?;
            good(&portal.stages())
        }
        ("GET", ["kanban"]) => {
            let (type_id, category) = (ask.query("type").unwrap_or_else(deal), ask.query("category").unwrap_or(0));
            good(&portal.kanban(type_id, category, ask.query("per_stage").unwrap_or(12_usize).min(500)))
        }
        ("POST", ["categories"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Category {
                #[serde(default = "deal")]
                entity_type_id: i64,
                name: String,
            }
            let asked: Category = ask.body()?;
            good(&json!({"id": portal.add_category(asked.entity_type_id, &asked.name)}))
        }
        ("POST", ["smart_processes"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Smart {
                #[serde(default)]
                entity_type_id: i64,
                title: String,
            }
            let asked: Smart = ask.body()?;
            good(&json!({"entity_type_id": portal.add_smart_process(asked.entity_type_id, &asked.title)}))
        }
        ("GET", ["robots"]) => good(&portal.robots()),
        ("GET", ["automations"]) => good(&portal.automations()),
        ("POST", ["automations"]) => good(&json!({"id": portal.add_automation(ask.body::<Automation>()?)})),
        ("DELETE", ["automations", id]) => {
            let was = id.parse().is_ok_and(|id| portal.remove_automation(id));
            if was { done() } else { Err(Refusal::missing("automation")) }
        }
        ("GET", ["runs"]) => {
            let token = ask.request.query_param("event_token").unwrap_or_default();
            good(&portal.robot_run(&token).ok_or_else(|| Refusal::missing("run"))?)
        }
        ("GET", ["runs", type_id, id]) => good(&portal.robot_runs(number(type_id)?, number(id)?)),
        ("POST", ["terminate"]) => {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Terminate {
                event_token: String,
            }
            let asked: Terminate = ask.body()?;
            if portal.terminate_workflow(&asked.event_token) { done() } else { Err(Refusal::missing("run")) }
        }
        _ => Err(Refusal::missing("route")),
    }
}
