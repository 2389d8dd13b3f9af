//! `crm.item.add` and `crm.item.update`, and the moves that start robots.

use super::{Item, ItemSpec, Multi, kinds, read};
use crate::{
    bitrix24::{
        PortalCell, PortalState, automation,
        automation::Fired,
        events::Raised,
        rest::{Answer, Hit, RestError},
    },
    php::Php,
    world::World,
};

type Result = std::result::Result<Answer, RestError>;

pub(crate) fn item_add(hit: &mut Hit<'_>, params: &Php) -> Result {
    let type_id = read::int_param(params, "entityTypeId")?;
    let fields = params.get("fields").filter(|fields| fields.is_array()).ok_or_else(|| RestError::missing("fields"))?;
    let now = hit.now;
    let offset = hit.portal.switches.read().offset_min;
    let mut state = hit.portal.state.lock();
    check_stage(&state, type_id, fields)?;
    let spec = ItemSpec {
        entity_type_id: type_id,
        category_id: fields.get("categoryId").and_then(Php::as_int).unwrap_or(0),
        stage_id: fields.get("stageId").map(Php::text).unwrap_or_default(),
        ..ItemSpec::default()
    };
    let id = state.crm.add(spec, now).ok_or_else(read::not_found)?;
    state.crm.change(type_id, id, now, |item| apply(item, fields));
    let fired = automation::fire(hit.world, hit.portal, &mut state, type_id, id);
    let shown = state.crm.item(type_id, id).map(|item| read::shown(item, type_id, offset)).unwrap_or_default();
    drop(state);
    hit.fired.extend(fired);
    hit.events.extend(raised(type_id, id, Happened::Added));
    hit.world.change("item", &hit.portal.member_id, kinds::card(type_id, id));
    Ok(Answer::of(Php::map([("item", shown)])))
}

pub(crate) fn item_update(hit: &mut Hit<'_>, params: &Php) -> Result {
    let type_id = read::int_param(params, "entityTypeId")?;
    let id = read::int_param(params, "id")?;
    let fields = params.get("fields").filter(|fields| fields.is_array()).ok_or_else(|| RestError::missing("fields"))?;
    let now = hit.now;
    let offset = hit.portal.switches.read().offset_min;
    let mut state = hit.portal.state.lock();
    let before = state.crm.item(type_id, id).map(|item| item.stage_id.clone()).ok_or_else(read::not_found)?;
    check_stage(&state, type_id, fields)?;
    state.crm.change(type_id, id, now, |item| apply(item, fields));
    let after = state.crm.item(type_id, id).map(|item| item.stage_id.clone()).unwrap_or_default();
    let fired =
        if after == before { Vec::new() } else { automation::fire(hit.world, hit.portal, &mut state, type_id, id) };
    let shown = state.crm.item(type_id, id).map(|item| read::shown(item, type_id, offset)).unwrap_or_default();
    drop(state);
    hit.fired.extend(fired);
    hit.events.extend(raised(type_id, id, Happened::Updated));
    hit.world.change("item", &hit.portal.member_id, kinds::card(type_id, id));
    Ok(Answer::of(Php::map([("item", shown)])))
}

fn check_stage(state: &PortalState, type_id: i64, fields: &Php) -> std::result::Result<(), RestError> {
    match fields.get("stageId").map(Php::text) {
        Some(stage) if !stage.is_empty() && !state.crm.has_stage(type_id, &stage) => {
            Err(RestError::bad("CRM_FIELD_ERROR_VALUE_NOT_VALID", "Неверное значение поля \"Стадия\""))
        }
        _ => Ok(()),
    }
}

/// Takes over the known camelCase fields and every user field; others are ignored.
fn apply(item: &mut Item, fields: &Php) {
    for (key, value) in fields.entries() {
        let name = key.to_string();
        let ids = || value.entries().iter().filter_map(|(_, id)| id.as_int()).collect();
        match name.as_str() {
            "title" => item.title = value.text(),
            "name" => item.name = value.text(),
            "lastName" => item.last_name = value.text(),
            "secondName" => item.second_name = value.text(),
            "stageId" => item.stage_id = value.text(),
            "assignedById" => item.assigned_by_id = value.as_int().unwrap_or(item.assigned_by_id),
            "contactIds" => item.contact_ids = ids(),
            "contactId" => {
                let main = value.as_int().unwrap_or(0);
                item.contact_ids.retain(|id| *id != main);
                if main > 0 {
                    item.contact_ids.insert(0, main);
                }
            }
            "companyId" => item.company_id = value.as_int().unwrap_or(0),
            "opportunity" => item.opportunity = value.text(),
            "currencyId" => item.currency_id = value.text(),
            "fm" => item.fm = value.entries().iter().map(|(_, field)| multi(field)).collect(),
            other if other.starts_with("uf") => item.extra.set(other, value.clone()),
            _ => {}
        }
    }
}

fn multi(field: &Php) -> Multi {
    let text = |name: &str| field.get(name).map(Php::text).unwrap_or_default();
    Multi { id: 0, type_id: text("typeId"), value_type: text("valueType"), value: text("value") }
}

/// What happened to a card.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happened {
    Added,
    Updated,
    Deleted,
}

/// The event of a card.
pub(crate) fn raised(type_id: i64, id: i64, what: Happened) -> Option<Raised> {
    let names = match type_id {
        kinds::LEAD => ["ONCRMLEADADD", "ONCRMLEADUPDATE", "ONCRMLEADDELETE"],
        kinds::DEAL => ["ONCRMDEALADD", "ONCRMDEALUPDATE", "ONCRMDEALDELETE"],
        kinds::CONTACT => ["ONCRMCONTACTADD", "ONCRMCONTACTUPDATE", "ONCRMCONTACTDELETE"],
        kinds::COMPANY => ["ONCRMCOMPANYADD", "ONCRMCOMPANYUPDATE", "ONCRMCOMPANYDELETE"],
        smart if smart >= kinds::SMART_FROM => {
            ["ONCRMDYNAMICITEMADD", "ONCRMDYNAMICITEMUPDATE", "ONCRMDYNAMICITEMDELETE"]
        }
        _ => return None,
    };
    let name = match what {
        Happened::Added => names[0],
        Happened::Updated => names[1],
        Happened::Deleted => names[2],
    };
    let mut fields = vec![("ID", Php::Int(id))];
    if type_id >= kinds::SMART_FROM {
        fields.push(("ENTITY_TYPE_ID", Php::Int(type_id)));
    }
    Some(Raised::new(name, Php::map([("FIELDS", Php::map(fields))])))
}

/// Puts a card on a stage as a person would; `None` if there is no such card.
pub(crate) fn move_to(
    world: &World,
    portal: &PortalCell,
    state: &mut PortalState,
    type_id: i64,
    id: i64,
    stage: &str,
) -> Option<Vec<Fired>> {
    let now = world.now_ms();
    let was = state.crm.change(type_id, id, now, |item| std::mem::replace(&mut item.stage_id, stage.to_owned()))?;
    if was == stage { Some(Vec::new()) } else { Some(automation::fire(world, portal, state, type_id, id)) }
}
