//! How cards moved through their stages: `crm.stagehistory.list`, as the official documents of the method describe it
//! (read 2026-11). Every card that is made or changes its stage leaves a record.

use super::{Crm, kinds, read};
use crate::{
    bitrix24::rest::{Answer, Hit, RestError},
    clock::{Millis, iso},
    php::Php,
};

const PAGE: usize = 50;
/// Records beyond this are forgotten, oldest first.
const KEPT: usize = 500_000;

/// One entry into a stage.
pub(crate) struct Record {
    id: i64,
    type_id: i64,
    /// 1 made, 2 an ordinary stage, 3 a final one, 5 another pipeline.
    what: i64,
    owner: i64,
    created_ms: Millis,
    category: i64,
    stage: String,
    semantics: String,
}

/// Every record of a portal, oldest first.
#[derive(Default)]
pub(crate) struct History {
    records: std::collections::VecDeque<Record>,
    last: i64,
}

impl Crm {
    /// Leaves a record if a card was made (`before` is absent) or stands elsewhere than before.
    pub(super) fn remember_stage(&mut self, type_id: i64, id: i64, before: Option<(String, i64)>, now: Millis) {
        let Some(item) = self.item(type_id, id) else { return };
        let (stage, category) = (item.stage_id.clone(), item.category_id);
        if stage.is_empty() || before.as_ref().is_some_and(|(was, _)| *was == stage) {
            return;
        }
        let own = self.stages.iter().find(|known| known.entity_type_id == type_id && known.stage_id == stage);
        let semantics = own.map(|known| known.semantics.clone()).filter(|word| !word.is_empty());
        let semantics = semantics.unwrap_or_else(|| "P".to_owned());
        let what = match before {
            None => 1,
            Some((_, was)) if was != category => 5,
            Some(_) if semantics == "P" => 2,
            Some(_) => 3,
        };
        self.history.last += 1;
        let id_of_record = self.history.last;
        let record = Record { id: id_of_record, type_id, what, owner: id, created_ms: now, category, stage, semantics };
        self.history.records.push_back(record);
        if self.history.records.len() > KEPT {
            self.history.records.pop_front();
        }
    }
}

impl Record {
    fn shown(&self, offset_min: i64) -> Php {
        let mut fields = vec![
            ("ID", Php::Int(self.id)),
            ("TYPE_ID", Php::Int(self.what)),
            ("OWNER_ID", Php::Int(self.owner)),
            ("CREATED_TIME", iso(self.created_ms, offset_min).into()),
        ];
        if self.type_id == kinds::LEAD {
            fields.push(("STATUS_SEMANTIC_ID", self.semantics.as_str().into()));
            fields.push(("STATUS_ID", self.stage.as_str().into()));
        } else {
            fields.push(("CATEGORY_ID", Php::Int(self.category)));
            fields.push(("STAGE_SEMANTIC_ID", self.semantics.as_str().into()));
            fields.push(("STAGE_ID", self.stage.as_str().into()));
        }
        Php::map(fields)
    }
}

/// `crm.stagehistory.list`: pages of fifty; what the caller may not see is left out.
pub(crate) fn list(hit: &mut Hit<'_>, params: &Php) -> Result<Answer, RestError> {
    let type_id = read::int_param(params, "entityTypeId")?;
    if matches!(type_id, kinds::CONTACT | kinds::COMPANY) {
        return Err(RestError::bad("ENTITY_TYPE_NOT_SUPPORTED", "Entity type is not supported"));
    }
    let start = params.get("start").and_then(Php::as_int).unwrap_or(0);
    let filter = params.get("filter").cloned().unwrap_or(Php::empty());
    let conditions: Vec<read::Condition<'_>> =
        filter.entries().iter().map(|(key, value)| read::Condition::new(&key.to_string(), value)).collect();
    let offset = hit.portal.switches.read().offset_min;
    let state = hit.portal.state.lock();
    if state.crm.entity(type_id).is_none() {
        return Err(RestError::bad("ENTITY_TYPE_NOT_SUPPORTED", "Entity type is not supported"));
    }
    let user = hit.caller.user_id;
    let mut rows: Vec<Php> = Vec::new();
    for record in state.crm.history.records.iter().filter(|record| record.type_id == type_id) {
        let fields = record.shown(offset);
        if let Some(unknown) = conditions.iter().find(|condition| fields.get(&condition.field).is_none()) {
            return Err(RestError::bad("INVALID_ARG_VALUE", format!("Unknown filter field {}", unknown.field)));
        }
        let hidden = state.crm.hidden.contains(&(type_id, record.owner, user));
        if !hidden && conditions.iter().all(|condition| condition.holds(&fields)) {
            rows.push(fields);
        }
    }
    drop(state);
    let order = params.get("order").and_then(|order| order.entries().first().cloned());
    if order.is_some_and(|(field, way)| field.to_string() == "ID" && way.text().eq_ignore_ascii_case("DESC")) {
        rows.reverse();
    }
    let total = i64::try_from(rows.len()).unwrap_or(0);
    let skip = usize::try_from(start.max(0)).unwrap_or(0);
    let items = Php::list(rows.into_iter().skip(skip).take(PAGE));
    let (total, next) =
        if start < 0 { (None, None) } else { (Some(total), (start + 50 < total).then_some(start + 50)) };
    Ok(Answer { result: Php::map([("items", items)]), total, next })
}
