//! How cards move through stages: `crm.stagehistory.list` tells who entered one, `crm.item.get` where a card stands
//! (official documents of the methods, read 2026-11).

use async_trait::async_trait;
use serde_json::Value;

use super::Bitrix24;
use super::batch::{BATCH_MAX, Batch, Param};
use super::cards::{entity_type_id, no_such_card};
use super::reconcile::entry;
use crate::crm::{Stages, own};
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::domain::stage::{StageEntry, StagePage};
use crate::domain::time::Timestamp;
use crate::forms::{integer, items, member, text, text_at};

const HISTORY: &str = "crm.stagehistory.list";
const GET: &str = "crm.item.get";
/// Entries of one answer; the portal gives no more.
const PAGE: usize = 50;

#[async_trait]
impl Stages for Bitrix24 {
    async fn entries(&self, portal: &Portal, kind: CardKind, after: i64) -> Result<StagePage, CrmError> {
        let select = ["ID", "OWNER_ID", "CREATED_TIME", stage_key(kind)];
        let params = [
            ("entityTypeId", u64::from(number_of(kind)?).into()),
            ("order", Param::map([("ID", "ASC".into())])),
            ("filter", Param::map([(">ID", Param::Text(after.to_string()))])),
            ("select", Param::List(select.iter().map(|key| (*key).into()).collect())),
        ];
        let mut batch = Batch::default();
        let at = batch.push(HISTORY, &params);
        let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
        let rows = rows_of(entry(&answer, at)?);
        let more = rows.len() >= PAGE;
        let mut entries: Vec<StageEntry> = rows.into_iter().filter_map(|row| read_entry(row, kind)).collect();
        entries.sort_by_key(|entry| entry.id);
        Ok(StagePage { entries, more })
    }

    async fn newest_entry(&self, portal: &Portal, kind: CardKind) -> Result<i64, CrmError> {
        let params = [
            ("entityTypeId", u64::from(number_of(kind)?).into()),
            ("order", Param::map([("ID", "DESC".into())])),
            ("select", Param::List(vec!["ID".into()])),
        ];
        let mut batch = Batch::default();
        let at = batch.push(HISTORY, &params);
        let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
        let rows = rows_of(entry(&answer, at)?);
        Ok(rows.first().and_then(|row| member(row, "ID")).and_then(integer).unwrap_or(0))
    }

    async fn stages_of(&self, portal: &Portal, cards: &[CardRef]) -> Vec<Result<Option<String>, CrmError>> {
        let mut stages = Vec::with_capacity(cards.len());
        for cards in cards.chunks(BATCH_MAX) {
            let mut batch = Batch::default();
            let places: Vec<Option<usize>> = cards
                .iter()
                .map(|card| {
                    let number = entity_type_id(card.kind)?;
                    Some(batch.push(GET, &[("entityTypeId", u64::from(number).into()), ("id", card.id.into())]))
                })
                .collect();
            let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true));
            stages.extend(cards.iter().zip(places).map(|(card, place)| {
                let place = place.ok_or_else(|| no_such_card(*card))?;
                match entry(answer.as_ref().map_err(Clone::clone)?, place) {
                    Ok(value) => Ok(Some(text_at(value, &["item", "stageId"]))),
                    Err(error) if error.code == "NOT_FOUND" => Ok(None),
                    Err(error) => Err(error),
                }
            }));
        }
        stages
    }
}

fn number_of(kind: CardKind) -> Result<u32, CrmError> {
    let unknown =
        || own(FailureClass::NotPermitted, PortalTrouble::None, "no_history", format!("{kind} has no stages"));
    entity_type_id(kind).ok_or_else(unknown)
}

/// Under which name the stage stands in a record.
fn stage_key(kind: CardKind) -> &'static str {
    if kind == CardKind::Lead { "STATUS_ID" } else { "STAGE_ID" }
}

fn rows_of(answer: &Value) -> Vec<&Value> {
    member(answer, "items").map(items).unwrap_or_default()
}

/// One record; `None` for one that tells no card, stage or moment.
fn read_entry(row: &Value, kind: CardKind) -> Option<StageEntry> {
    let number = |key: &str| member(row, key).and_then(integer);
    let stage = member(row, stage_key(kind)).and_then(text).filter(|stage| !stage.is_empty())?;
    let moment = member(row, "CREATED_TIME").and_then(text)?;
    let entered = Timestamp(moment.trim().parse::<jiff::Timestamp>().ok()?.as_millisecond());
    let card = CardRef { kind, id: u64::try_from(number("OWNER_ID")?).ok()? };
    Some(StageEntry { id: number("ID")?, card, stage, entered })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_read_by_kind_and_in_any_zone() {
        let deal =
            json!({"ID": "35", "OWNER_ID": 21, "CREATED_TIME": "2024-04-25T17:59:11+03:00", "STAGE_ID": "C1:NEW"});
        let entry = read_entry(&deal, CardKind::Deal).unwrap();
        assert_eq!((entry.id, entry.card.to_string().as_str(), entry.stage.as_str()), (35, "deal:21", "C1:NEW"));
        assert_eq!(entry.entered, Timestamp(1_714_057_151_000));
        assert_eq!(read_entry(&deal, CardKind::Lead), None, "leads have another key");
        let lead = json!({"ID": 1, "OWNER_ID": "2", "CREATED_TIME": "2024-04-25T14:59:11+00:00", "STATUS_ID": "NEW"});
        assert_eq!(read_entry(&lead, CardKind::Lead).unwrap().entered, Timestamp(1_714_057_151_000));
        for (key, value) in [("OWNER_ID", json!(-1)), ("CREATED_TIME", json!("soon")), ("STATUS_ID", json!(""))] {
            let mut odd = lead.clone();
            odd[key] = value;
            assert_eq!(read_entry(&odd, CardKind::Lead), None, "{key}");
        }
    }
}
