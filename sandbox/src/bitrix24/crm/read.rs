//! `crm.item.get` and `crm.item.list`: camelCase, typed values. Source: §8.2, §3.5.

use super::{Item, kinds};
use crate::{
    bitrix24::{
        disk,
        rest::{Answer, Hit, RestError},
    },
    clock::iso,
    php::Php,
};

type Result = std::result::Result<Answer, RestError>;

const PAGE: usize = 50;

/// A card as the universal methods show it.
pub(super) fn shown(item: &Item, type_id: i64, offset_min: i64) -> Php {
    let mut fields = vec![
        ("id", Php::Int(item.id)),
        ("createdTime", iso(item.created_ms, offset_min).into()),
        ("updatedTime", iso(item.updated_ms, offset_min).into()),
        ("createdBy", Php::Int(1)),
        ("assignedById", Php::Int(item.assigned_by_id)),
    ];
    if type_id != kinds::CONTACT {
        fields.push(("title", item.title.as_str().into()));
        fields.push(("opportunity", item.opportunity.parse().map_or_else(|_| Php::Int(0), Php::Float)));
        fields.push(("currencyId", item.currency_id.as_str().into()));
    }
    if matches!(type_id, kinds::LEAD | kinds::CONTACT) {
        fields.push(("name", item.name.as_str().into()));
        fields.push(("lastName", item.last_name.as_str().into()));
        fields.push(("secondName", item.second_name.as_str().into()));
    }
    if !matches!(type_id, kinds::CONTACT | kinds::COMPANY) {
        fields.push(("stageId", item.stage_id.as_str().into()));
        fields.push(("categoryId", Php::Int(item.category_id)));
        fields.push(("contactId", item.contact_ids.first().map_or(Php::Int(0), |id| Php::Int(*id))));
    }
    if type_id != kinds::CONTACT {
        fields.push(("contactIds", Php::list(item.contact_ids.iter().map(|id| Php::Int(*id)))));
    }
    if type_id != kinds::COMPANY {
        fields.push(("companyId", Php::Int(item.company_id)));
    }
    if matches!(type_id, kinds::LEAD | kinds::CONTACT | kinds::COMPANY) {
        let multi = item.fm.iter().map(|field| {
            Php::map([
                ("id", Php::Int(field.id)),
                ("typeId", field.type_id.as_str().into()),
                ("valueType", field.value_type.as_str().into()),
                ("value", field.value.as_str().into()),
            ])
        });
        fields.push(("fm", Php::list(multi)));
    }
    let mut shown = Php::map(fields);
    for (key, value) in item.extra.entries() {
        *shown.entry(key.clone()) = value.clone();
    }
    shown
}

/// A required integer of a controller: the exact name, or error `100`.
pub(super) fn int_param(params: &Php, name: &str) -> std::result::Result<i64, RestError> {
    params.get(name).and_then(Php::as_int).ok_or_else(|| RestError::missing(name))
}

pub(crate) fn item_get(hit: &mut Hit<'_>, params: &Php) -> Result {
    let type_id = int_param(params, "entityTypeId")?;
    let id = int_param(params, "id")?;
    let offset = hit.portal.switches.read().offset_min;
    let mut state = hit.portal.state.lock();
    let item = state.crm.item(type_id, id).ok_or_else(not_found)?;
    if state.crm.hidden.contains(&(type_id, id, hit.caller.user_id)) {
        return Err(RestError::bad("ACCESS_DENIED", "Access denied"));
    }
    let mut item = shown(item, type_id, offset);
    disk::fill(hit, &mut state.disk, type_id, id, &mut item);
    Ok(Answer::of(Php::map([("item", item)])))
}

pub(super) fn not_found() -> RestError {
    RestError::bad("NOT_FOUND", "Элемент не найден")
}

pub(crate) fn item_list(hit: &mut Hit<'_>, params: &Php) -> Result {
    let type_id = int_param(params, "entityTypeId")?;
    let start = params.get("start").and_then(Php::as_int).unwrap_or(0);
    let filter = params.get("filter").cloned().unwrap_or(Php::empty());
    let select: Vec<String> = params
        .get("select")
        .map(|select| select.entries().iter().map(|(_, name)| name.text()).collect())
        .unwrap_or_default();
    let offset = hit.portal.switches.read().offset_min;
    let state = hit.portal.state.lock();
    let entity = state.crm.entity(type_id).ok_or_else(not_found)?;

    let conditions: Vec<Condition<'_>> =
        filter.entries().iter().map(|(key, value)| Condition::new(&key.to_string(), value)).collect();
    let candidates: Box<dyn Iterator<Item = &Item>> = match ids_of(&conditions) {
        Some(ids) => Box::new(ids.into_iter().filter_map(|id| entity.items.get(&id))),
        None => Box::new(entity.items.range(lowest(&conditions)..).map(|(_, item)| item)),
    };
    let wanted = |item: &&Item| {
        let fields = shown(item, type_id, offset);
        conditions.iter().all(|condition| condition.holds(&fields))
    };
    let (order, descending) = order_of(params);
    let is_plain = order == "id" && !descending;
    let found: Vec<&Item> = if start < 0 && is_plain {
        candidates.filter(wanted).take(PAGE).collect()
    } else {
        let mut all: Vec<&Item> = candidates.filter(wanted).collect();
        if order == "id" {
            all.sort_by_key(|item| item.id);
        } else {
            all.sort_by_cached_key(|item| shown(item, type_id, offset).get(&order).map(Php::text).unwrap_or_default());
        }
        if descending {
            all.reverse();
        }
        all
    };
    let total = i64::try_from(found.len()).unwrap_or(0);
    let skip = usize::try_from(start.max(0)).unwrap_or(0);
    let page = found.iter().skip(skip).take(PAGE).map(|item| selected(shown(item, type_id, offset), &select));
    let items = Php::list(page);
    let (total, next) =
        if start < 0 { (None, None) } else { (Some(total), (start + 50 < total).then_some(start + 50)) };
    Ok(Answer { result: Php::map([("items", items)]), total, next })
}

fn order_of(params: &Php) -> (String, bool) {
    let order = params.get("order").and_then(|order| order.entries().first());
    order.map_or_else(
        || ("id".to_owned(), false),
        |(field, way)| (field.to_string(), way.text().eq_ignore_ascii_case("DESC")),
    )
}

fn selected(fields: Php, select: &[String]) -> Php {
    if select.is_empty() || select.iter().any(|name| name == "*") {
        return fields;
    }
    let keep = |name: &str| name == "id" || select.iter().any(|wanted| wanted == name);
    Php::Array(fields.entries().iter().filter(|(key, _)| keep(&key.to_string())).cloned().collect())
}

/// One `filter` entry: an operator in front of a field.
pub(super) struct Condition<'a> {
    operator: &'static str,
    pub(super) field: String,
    value: &'a Php,
}

impl<'a> Condition<'a> {
    pub(super) fn new(key: &str, value: &'a Php) -> Self {
        const OPERATORS: [&str; 10] = [">=", "<=", "!@", "!=", ">", "<", "@", "=", "!", "%"];
        let operator = OPERATORS.iter().find(|operator| key.starts_with(**operator)).copied().unwrap_or("");
        Self { operator, field: key[operator.len()..].to_owned(), value }
    }

    pub(super) fn holds(&self, fields: &Php) -> bool {
        let own = fields.get(&self.field).cloned().unwrap_or_default();
        let among = || match self.value {
            Php::Array(values) => values.iter().any(|(_, value)| equal(&own, value)),
            single => equal(&own, single),
        };
        match self.operator {
            ">" => compare(&own, self.value).is_some_and(|order| order.is_gt()),
            ">=" => compare(&own, self.value).is_some_and(|order| order.is_ge()),
            "<" => compare(&own, self.value).is_some_and(|order| order.is_lt()),
            "<=" => compare(&own, self.value).is_some_and(|order| order.is_le()),
            "!" | "!=" | "!@" => !among(),
            "%" => own.text().to_lowercase().contains(&self.value.text().to_lowercase()),
            _ => among(),
        }
    }
}

fn equal(own: &Php, wanted: &Php) -> bool {
    match own {
        Php::Array(values) => values.iter().any(|(_, value)| equal(value, wanted)),
        single => single.text() == wanted.text(),
    }
}

fn compare(own: &Php, wanted: &Php) -> Option<std::cmp::Ordering> {
    match (own.text().parse::<f64>(), wanted.text().parse::<f64>()) {
        (Ok(own), Ok(wanted)) => own.partial_cmp(&wanted),
        _ => Some(own.text().cmp(&wanted.text())),
    }
}

/// Ids if the filter names them: no scan is needed then.
fn ids_of(conditions: &[Condition<'_>]) -> Option<Vec<i64>> {
    let named =
        conditions.iter().find(|condition| condition.field == "id" && matches!(condition.operator, "" | "=" | "@"))?;
    let mut ids: Vec<i64> = match named.value {
        Php::Array(values) => values.iter().filter_map(|(_, value)| value.as_int()).collect(),
        single => single.as_int().into_iter().collect(),
    };
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

/// First id that `>id` or `>=id` lets through.
fn lowest(conditions: &[Condition<'_>]) -> i64 {
    conditions
        .iter()
        .filter(|condition| condition.field == "id")
        .filter_map(|condition| match condition.operator {
            ">" => condition.value.as_int().map(|id| id + 1),
            ">=" => condition.value.as_int(),
            _ => None,
        })
        .max()
        .unwrap_or(0)
}
