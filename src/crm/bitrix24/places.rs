//! Where our pages appear on cards: bound once per kind of card, and once more for every smart process the portal has
//! (protocol reference, section "Placements", read 2026-11).
//!
//! There is no method to change a place, so one whose address or title is not what it should be is taken back and bound
//! again.

use serde_json::Value;
use url::Url;

use super::Bitrix24;
use super::batch::{BATCH_MAX, Batch, Param};
use super::reconcile::{Report, entry};
use crate::domain::effect::CrmError;
use crate::domain::language::Language;
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::forms::{integer, items, member, text_at};
use crate::manifests::Handlers;
use crate::robots::Texts;

const GET: &str = "placement.get";
const BIND: &str = "placement.bind";
const UNBIND: &str = "placement.unbind";
const TYPES: &str = "crm.type.list";
/// In a place of the manifest: the number of a smart process.
const TYPE: &str = "{type}";
/// Smart processes have numbers from here; lower ones are the portal's own kinds.
const TYPES_FROM: i64 = 128;

/// A place as it should be, or as the portal has it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    code: String,
    handler: String,
    title: String,
}

/// The card on whose tab a page was opened: the place tells its kind, the options its number. `None` for another place.
#[must_use]
pub fn card_of(placement: &str, options: &Value) -> Option<CardRef> {
    let code = placement.trim().to_ascii_uppercase();
    let kind = match code.strip_prefix("CRM_")?.strip_suffix("_DETAIL_TAB")? {
        "LEAD" => CardKind::Lead,
        "DEAL" => CardKind::Deal,
        "CONTACT" => CardKind::Contact,
        "COMPANY" => CardKind::Company,
        other => CardKind::Custom(other.strip_prefix("DYNAMIC_")?.parse().ok()?),
    };
    let id = member(options, "ID").and_then(integer).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0)?;
    Some(CardRef { kind, id })
}

impl Bitrix24 {
    /// Brings the places of our pages in line.
    pub(super) async fn keep_places(&self, portal: &Portal, report: &mut Report) -> Result<(), CrmError> {
        let mut look = Batch::default();
        let at = [look.push(GET, &[]), look.push(TYPES, &[])];
        let answer = self.client.batch(portal, &look).await.map_err(|failed| failed.error(true))?;
        let [known, types] = at.map(|at| entry(&answer, at));
        let known = match known {
            Ok(known) => read_places(known),
            Err(error) => {
                report.problems.push(error);
                return Ok(());
            }
        };
        // Without smart processes in the plan there is no list of them, and the other cards get their tabs all the same.
        let types = types.map(read_types).unwrap_or_default();
        let wanted = self.wanted_places(portal, &types);
        report.places.wanted = wanted.len();
        let missing: Vec<&(Place, &Texts)> = wanted.iter().filter(|(place, _)| !known.contains(place)).collect();
        let path = Handlers::address(&self.manifest.handlers.card, "", &portal.app, "");
        let ours = |place: &&Place| Url::parse(&place.handler).is_ok_and(|url| url.path().ends_with(&path));
        let strange = known.iter().filter(ours).filter(|place| wanted.iter().all(|(known, _)| known != *place));
        let mut batch = Batch::default();
        // Taken back first: the same place and address cannot be bound twice.
        let mut gone = Vec::new();
        for place in strange.take(BATCH_MAX / 2) {
            let params = [("PLACEMENT", place.code.as_str().into()), ("HANDLER", place.handler.as_str().into())];
            gone.push((batch.push(UNBIND, &params), place.code.clone()));
        }
        let mut bound = Vec::new();
        for (place, titles) in missing.iter().take(BATCH_MAX - batch.len()) {
            bound.push((batch.push(BIND, &fields_of(place, titles)), place.code.clone()));
        }
        report.places.stand = wanted.len() - missing.len();
        if batch.is_empty() {
            return Ok(());
        }
        let answer = self.client.batch(portal, &batch).await.map_err(|failed| failed.error(true))?;
        for (at, code) in gone {
            match entry(&answer, at) {
                Ok(_) => report.unplaced.push(code),
                Err(error) => report.problems.push(error),
            }
        }
        for (at, code) in bound {
            match entry(&answer, at) {
                Ok(_) => report.placed.push(code),
                // A portal may do without leads, or another process was quicker ("already binded"): the next comparison
                // sees how it stands, and a missing tab is counted.
                Err(error) if error.code == "ERROR_PLACEMENT_NOT_FOUND" || error.code == "ERROR_CORE" => {
                    tracing::info!(portal.id = %portal.id, place = code, vendor.code = error.code, "not bound");
                }
                Err(error) => report.problems.push(error),
            }
        }
        report.places.stand += report.placed.len();
        Ok(())
    }

    fn wanted_places(&self, portal: &Portal, types: &[i64]) -> Vec<(Place, &Texts)> {
        let of_type = |code: &str, number: &i64| code.replace(TYPE, &number.to_string());
        let mut wanted = Vec::new();
        for place in self.manifest.placements.iter().filter(|place| place.bind) {
            let codes = match place.code.contains(TYPE) {
                true => types.iter().map(|number| of_type(&place.code, number)).collect(),
                false => vec![place.code.clone()],
            };
            let handler = Handlers::address(&place.path, &self.settings.public_url, &portal.app, "");
            let title = place.title.of(portal.language).to_owned();
            let at = |code| (Place { code, handler: handler.clone(), title: title.clone() }, &place.title);
            wanted.extend(codes.into_iter().map(at));
        }
        wanted
    }
}

/// The title in the portal's language, and in each that its people may read.
fn fields_of(place: &Place, titles: &Texts) -> Vec<(&'static str, Param)> {
    let titles = Language::ALL
        .iter()
        .map(|language| (language.code().to_owned(), Param::map([("TITLE", titles.of(*language).into())])));
    vec![
        ("PLACEMENT", place.code.as_str().into()),
        ("HANDLER", place.handler.as_str().into()),
        ("TITLE", place.title.as_str().into()),
        ("LANG_ALL", Param::Map(titles.collect())),
    ]
}

fn read_places(value: &Value) -> Vec<Place> {
    let read = |row: &Value| Place {
        code: text_at(row, &["placement"]).to_ascii_uppercase(),
        handler: text_at(row, &["handler"]),
        title: text_at(row, &["title"]),
    };
    items(value).into_iter().map(read).collect()
}

fn read_types(value: &Value) -> Vec<i64> {
    let types = member(value, "types").map(items).unwrap_or_default();
    let numbers = types.into_iter().filter_map(|row| member(row, "entityTypeId").and_then(integer));
    numbers.filter(|number| *number >= TYPES_FROM).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_place_and_its_options_name_the_card() {
        let card = |code: &str, options: Value| card_of(code, &options).map(|card| card.to_string());
        assert_eq!(card("CRM_DEAL_DETAIL_TAB", json!({"ID": "134"})).as_deref(), Some("deal:134"));
        assert_eq!(card("crm_lead_detail_tab", json!({"ID": 5})).as_deref(), Some("lead:5"));
        assert_eq!(card("CRM_DYNAMIC_180_DETAIL_TAB", json!({"ID": "7"})).as_deref(), Some("custom180:7"));
        for (code, options) in [
            ("CRM_DEAL_DETAIL_TAB", json!({})),
            ("CRM_DEAL_DETAIL_TAB", json!({"ID": "0"})),
            ("CRM_DEAL_DETAIL_TAB", json!({"ID": "-4"})),
            ("CRM_DEAL_DETAIL_TAB", Value::Null),
            ("CRM_DEAL_LIST_MENU", json!({"ID": "1"})),
            ("CRM_DYNAMIC_x_DETAIL_TAB", json!({"ID": "1"})),
            ("DEFAULT", json!({"ID": "1"})),
        ] {
            assert_eq!(card(code, options), None, "{code}");
        }
    }
}
