//! The classic methods: UPPER_CASE keys, all values text. Source: §8.2.

use super::{Item, Multi, kinds};
use crate::{
    bitrix24::rest::{Answer, Hit, RestError},
    clock::iso,
    php::Php,
};

type Result = std::result::Result<Answer, RestError>;

/// At most so many values in one search, and ids of one type in its answer.
const FIND_MAX: usize = 20;

pub(crate) fn deal_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    get(hit, params, kinds::DEAL)
}
pub(crate) fn lead_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    get(hit, params, kinds::LEAD)
}
pub(crate) fn contact_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    get(hit, params, kinds::CONTACT)
}
pub(crate) fn company_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    get(hit, params, kinds::COMPANY)
}

fn id_of(params: &Php) -> std::result::Result<i64, RestError> {
    let id = params.get_ci("id").and_then(Php::as_int).filter(|id| *id > 0);
    id.ok_or_else(|| RestError::bad("", "ID is not defined or invalid."))
}

fn not_found() -> RestError {
    RestError::bad("", "Not found")
}

fn get(hit: &mut Hit<'_>, params: &Php, type_id: i64) -> Result {
    let id = id_of(params)?;
    let offset = hit.portal.switches.read().offset_min;
    let state = hit.portal.state.lock();
    let item = state.crm.item(type_id, id).ok_or_else(not_found)?;
    Ok(Answer::of(shown(item, type_id, offset)))
}

fn shown(item: &Item, type_id: i64, offset_min: i64) -> Php {
    let text = |value: &str| Php::from(value);
    let mut fields = vec![("ID", text(&item.id.to_string()))];
    if type_id != kinds::CONTACT {
        fields.push(("TITLE", text(&item.title)));
    }
    if matches!(type_id, kinds::LEAD | kinds::CONTACT) {
        fields.push(("NAME", text(&item.name)));
        fields.push(("SECOND_NAME", text(&item.second_name)));
        fields.push(("LAST_NAME", text(&item.last_name)));
    }
    match type_id {
        kinds::LEAD => fields.push(("STATUS_ID", text(&item.stage_id))),
        kinds::DEAL => {
            fields.push(("STAGE_ID", text(&item.stage_id)));
            fields.push(("CATEGORY_ID", text(&item.category_id.to_string())));
        }
        _ => {}
    }
    if matches!(type_id, kinds::LEAD | kinds::DEAL) {
        fields.push(("OPPORTUNITY", text(&item.opportunity)));
        fields.push(("CURRENCY_ID", text(&item.currency_id)));
        fields.push(("CONTACT_ID", item.contact_ids.first().map_or(Php::Null, |id| id.to_string().into())));
    }
    if type_id != kinds::COMPANY {
        let company = if item.company_id > 0 { Php::from(item.company_id.to_string()) } else { text("0") };
        fields.push(("COMPANY_ID", company));
    }
    fields.push(("ASSIGNED_BY_ID", text(&item.assigned_by_id.to_string())));
    fields.push(("CREATED_BY_ID", text("1")));
    fields.push(("DATE_CREATE", iso(item.created_ms, offset_min).into()));
    fields.push(("DATE_MODIFY", iso(item.updated_ms, offset_min).into()));
    if type_id != kinds::DEAL {
        for kind in ["PHONE", "EMAIL", "WEB", "IM"] {
            let rows: Vec<Php> = item.multi(kind).map(multi).collect();
            let flag = match kind {
                "PHONE" => Some("HAS_PHONE"),
                "EMAIL" => Some("HAS_EMAIL"),
                "IM" => Some("HAS_IMOL"),
                _ => None,
            };
            let has =
                if kind == "IM" { item.multi(kind).any(|field| field.value_type == "IMOL") } else { !rows.is_empty() };
            fields.extend(flag.map(|flag| (flag, Php::yes_no(has))));
            // The key is absent, not empty, when there is none.
            if !rows.is_empty() {
                fields.push((kind, Php::list(rows)));
            }
        }
    }
    let mut shown = Php::map(fields);
    for (key, value) in item.extra.entries() {
        shown.set(&upper(&key.to_string()), value.clone());
    }
    shown
}

fn multi(field: &Multi) -> Php {
    Php::map([
        ("ID", field.id.to_string().into()),
        ("VALUE_TYPE", field.value_type.as_str().into()),
        ("VALUE", field.value.as_str().into()),
        ("TYPE_ID", field.type_id.as_str().into()),
    ])
}

/// `ufCrm1Name` → `UF_CRM_1_NAME`.
fn upper(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    let mut previous = ' ';
    for symbol in camel.chars() {
        let is_border = symbol.is_ascii_uppercase() || (symbol.is_ascii_digit() && !previous.is_ascii_digit());
        if is_border && !out.is_empty() {
            out.push('_');
        }
        out.push(symbol.to_ascii_uppercase());
        previous = symbol;
    }
    out
}

pub(crate) fn deal_contacts(hit: &mut Hit<'_>, params: &Php) -> Result {
    contacts(hit, params, kinds::DEAL)
}
pub(crate) fn lead_contacts(hit: &mut Hit<'_>, params: &Php) -> Result {
    contacts(hit, params, kinds::LEAD)
}
pub(crate) fn company_contacts(hit: &mut Hit<'_>, params: &Php) -> Result {
    contacts(hit, params, kinds::COMPANY)
}

fn contacts(hit: &mut Hit<'_>, params: &Php, type_id: i64) -> Result {
    let id = id_of(params)?;
    let state = hit.portal.state.lock();
    let item = state.crm.item(type_id, id).ok_or_else(not_found)?;
    let rows = item.contact_ids.iter().zip(1..).map(|(contact, at)| {
        Php::map([
            ("CONTACT_ID", Php::Int(*contact)),
            ("SORT", Php::Int(at * 10)),
            ("ROLE_ID", Php::Int(0)),
            ("IS_PRIMARY", Php::yes_no(at == 1)),
        ])
    });
    Ok(Answer::of(Php::list(rows)))
}

pub(crate) fn find_by_comm(hit: &mut Hit<'_>, params: &Php) -> Result {
    let kind = params.get_ci("type").map(Php::text).unwrap_or_default().to_ascii_uppercase();
    if kind != "PHONE" && kind != "EMAIL" {
        return Err(RestError::bad("", "Communication type is not defined or invalid."));
    }
    let values = params.get_ci("values").map(Php::entries).unwrap_or_default();
    if values.is_empty() {
        return Err(RestError::bad("", "Values is not defined or invalid."));
    }
    if values.len() > FIND_MAX {
        return Err(RestError::bad("", "Values is not defined or invalid: at most 20."));
    }
    let wanted = params.get_ci("entity_type").map(Php::text).unwrap_or_default().to_ascii_uppercase();
    let state = hit.portal.state.lock();
    let mut found = Php::empty();
    for (type_id, name) in [(kinds::LEAD, "LEAD"), (kinds::CONTACT, "CONTACT"), (kinds::COMPANY, "COMPANY")] {
        if !wanted.is_empty() && wanted != name {
            continue;
        }
        let mut ids: Vec<i64> = values
            .iter()
            .flat_map(|(_, value)| state.crm.find_comm(&kind, &value.text()))
            .filter(|(own, _)| *own == type_id)
            .map(|(_, id)| *id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(FIND_MAX);
        if !ids.is_empty() {
            found.set(name, Php::list(ids.into_iter().map(Php::Int)));
        }
    }
    Ok(Answer::of(found))
}

pub(crate) fn type_list(hit: &mut Hit<'_>, _params: &Php) -> Result {
    let state = hit.portal.state.lock();
    let types = state.crm.entities().filter(|(id, _)| *id >= kinds::SMART_FROM).map(|(id, entity)| {
        Php::map([
            ("id", Php::Int(id - kinds::SMART_FROM + 1)),
            ("entityTypeId", Php::Int(id)),
            ("title", entity.title.as_str().into()),
            ("isAutomationEnabled", "Y".into()),
            ("isStagesEnabled", "Y".into()),
            ("isClientEnabled", "Y".into()),
        ])
    });
    let types: Vec<Php> = types.collect();
    let total = i64::try_from(types.len()).ok();
    Ok(Answer { result: Php::map([("types", Php::list(types))]), total, next: None })
}

/// Stages as dictionary rows: `ENTITY_ID` is `STATUS` for leads, `DEAL_STAGE…` for deals, `DYNAMIC_…_STAGE_…` else.
pub(crate) fn status_list(hit: &mut Hit<'_>, params: &Php) -> Result {
    let filter = params.get_ci("filter").or_else(|| params.get_ci("FILTER"));
    let wanted = filter.and_then(|filter| filter.get_ci("ENTITY_ID")).map(Php::text);
    let state = hit.portal.state.lock();
    let rows = state.crm.stages.iter().zip(1..).map(|(stage, at)| {
        let entity = match (stage.entity_type_id, stage.category_id) {
            (kinds::LEAD, _) => "STATUS".to_owned(),
            (kinds::DEAL, 0) => "DEAL_STAGE".to_owned(),
            (kinds::DEAL, category) => format!("DEAL_STAGE_{category}"),
            (other, category) => format!("DYNAMIC_{other}_STAGE_{category}"),
        };
        Php::map([
            ("ID", i64::to_string(&at).into()),
            ("ENTITY_ID", entity.into()),
            ("STATUS_ID", stage.stage_id.as_str().into()),
            ("NAME", stage.name.as_str().into()),
            ("SORT", (at * 10).to_string().into()),
            ("SEMANTICS", if stage.semantics.is_empty() { Php::Null } else { stage.semantics.as_str().into() }),
            ("CATEGORY_ID", stage.category_id.to_string().into()),
        ])
    });
    let is_wanted =
        |row: &Php| wanted.as_deref().is_none_or(|wanted| row.get("ENTITY_ID").and_then(Php::as_str) == Some(wanted));
    let rows: Vec<Php> = rows.filter(is_wanted).collect();
    let total = i64::try_from(rows.len()).ok();
    Ok(Answer { result: Php::list(rows), total, next: None })
}

pub(crate) fn category_list(hit: &mut Hit<'_>, params: &Php) -> Result {
    let type_id = super::read::int_param(params, "entityTypeId")?;
    let state = hit.portal.state.lock();
    if state.crm.entity(type_id).is_none() {
        return Err(super::read::not_found());
    }
    let rows = state.crm.categories.iter().filter(|category| category.entity_type_id == type_id).map(|category| {
        Php::map([
            ("id", Php::Int(category.id)),
            ("name", category.name.as_str().into()),
            ("sort", Php::Int(category.id * 100)),
            ("entityTypeId", Php::Int(type_id)),
            ("isDefault", Php::yes_no(category.id == 0 || type_id != kinds::DEAL)),
        ])
    });
    let rows: Vec<Php> = rows.collect();
    let total = i64::try_from(rows.len()).ok();
    Ok(Answer { result: Php::map([("categories", Php::list(rows))]), total, next: None })
}

#[cfg(test)]
mod tests {
    #[test]
    fn user_field_names_convert_both_ways() {
        assert_eq!(super::upper("ufCrm1Name"), "UF_CRM_1_NAME");
        assert_eq!(super::super::camel("UF_CRM_1_NAME"), "ufCrm1Name");
    }
}
