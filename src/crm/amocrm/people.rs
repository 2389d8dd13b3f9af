//! Whom a card concerns: contacts of a lead, and their phones.
//!
//! A lead names its contacts by id only, so they are read in a second request for all leads together. Phones are found
//! by `field_code`, never by name or id: both differ from account to account (protocol reference, sections "Contacts,
//! phone and e-mail fields" and "Leads", read 2026-11).

use std::collections::BTreeMap;

use serde_json::Value;

use super::Amocrm;
use super::client::Ask;
use super::notes::no_such_card;
use crate::crm::own;
use crate::domain::command::split_list;
use crate::domain::effect::{CardPerson, CrmError, PortalTrouble, RecipientQuery};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CardKind, CardRef, Portal};
use crate::forms::{at, flag, integer, items, member, text, text_at};

/// Most contacts of one card that are read.
const CONTACTS_MAX: usize = 100;
/// Contacts in one request.
const PAGE: usize = 250;

impl Amocrm {
    /// [`crate::crm::Crm::people`].
    pub(super) async fn people_of(
        &self,
        portal: &Portal,
        queries: &[RecipientQuery],
    ) -> Vec<Result<Vec<CardPerson>, CrmError>> {
        let mut wanted = Vec::with_capacity(queries.len());
        for query in queries {
            wanted.push(self.contacts_of(portal, query).await);
        }
        let mut ids: Vec<i64> = wanted.iter().flatten().flatten().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let known = self.read_contacts(portal, &ids).await;
        wanted
            .into_iter()
            .map(|ids| {
                let ids = ids?;
                let known = known.as_ref().map_err(Clone::clone)?;
                Ok(ids.iter().filter_map(|id| known.get(id)).filter(|who| !who.phones.is_empty()).cloned().collect())
            })
            .collect()
    }

    /// Ids of the contacts that are meant, the main one first.
    async fn contacts_of(&self, portal: &Portal, query: &RecipientQuery) -> Result<Vec<i64>, CrmError> {
        match query.card.kind {
            CardKind::Contact => Ok(i64::try_from(query.card.id).into_iter().collect()),
            CardKind::Deal => {
                let path = format!("api/v4/leads/{}?with=contacts", query.card.id);
                let lead = self.client.call(portal, Ask::get("leads", &path)).await.map_err(|f| f.error(true))?;
                if lead.is_null() {
                    return Err(missing(query.card));
                }
                let mut contacts = linked_contacts(&lead);
                contacts.truncate(if query.all { CONTACTS_MAX } else { 1 });
                Ok(contacts)
            }
            CardKind::Company
            | CardKind::Customer
            | CardKind::Lead
            | CardKind::Quote
            | CardKind::Invoice
            | CardKind::Order
            | CardKind::Custom(_) => Err(no_such_card(query.card)),
        }
    }

    async fn read_contacts(&self, portal: &Portal, ids: &[i64]) -> Result<BTreeMap<i64, CardPerson>, CrmError> {
        let mut known = BTreeMap::new();
        for page in ids.chunks(PAGE) {
            let filter: String = page.iter().map(|id| format!("filter[id][]={id}&")).collect();
            let path = format!("api/v4/contacts?{filter}limit={PAGE}");
            let answer = self.client.call(portal, Ask::get("contacts", &path)).await.map_err(|f| f.error(true))?;
            let contacts = at(&answer, &["_embedded", "contacts"]).map(items).unwrap_or_default();
            known.extend(
                contacts
                    .into_iter()
                    .filter_map(|contact| Some((member(contact, "id").and_then(integer)?, read_person(contact)))),
            );
        }
        Ok(known)
    }
}

fn missing(card: CardRef) -> CrmError {
    own(FailureClass::Rejected, PortalTrouble::None, "NOT_FOUND", format!("no card {card}"))
}

fn linked_contacts(lead: &Value) -> Vec<i64> {
    let linked = at(lead, &["_embedded", "contacts"]).map(items).unwrap_or_default();
    let mut contacts: Vec<(bool, i64)> = linked
        .into_iter()
        .filter_map(|contact| {
            let is_main = member(contact, "is_main").and_then(flag).unwrap_or(false);
            Some((!is_main, member(contact, "id").and_then(integer)?))
        })
        .collect();
    // Stable: the others stay in the card's order.
    contacts.sort_by_key(|(other, _)| *other);
    contacts.into_iter().map(|(_, id)| id).collect()
}

fn read_person(contact: &Value) -> CardPerson {
    let fields = member(contact, "custom_fields_values").map(items).unwrap_or_default();
    let is_phone = |field: &&Value| text_at(field, &["field_code"]).eq_ignore_ascii_case("PHONE");
    let values = fields.into_iter().filter(is_phone).filter_map(|field| member(field, "values")).flat_map(items);
    let mut ranked: Vec<(u8, String)> = Vec::new();
    for value in values {
        let kind = ["enum_code", "enum"].iter().find_map(|key| member(value, key).and_then(text)).unwrap_or_default();
        let rank = match kind.to_ascii_uppercase().as_str() {
            "MOB" => 0,
            "WORK" => 1,
            "FAX" => 9,
            _ => 2,
        };
        // Two numbers in one value are common.
        for number in split_list(&text_at(value, &["value"])) {
            if !ranked.iter().any(|(_, known)| *known == number) {
                ranked.push((rank, number));
            }
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let phones = ranked.into_iter().map(|(_, number)| number).collect();
    CardPerson { name: text_at(contact, &["name"]), phones }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn phones_are_found_by_code_and_ranked() {
        let contact = json!({"id": 1, "name": "Анна Ким", "custom_fields_values": [
            {"field_code": "EMAIL", "values": [{"value": "a@x.example", "enum_code": "WORK"}]},
            {"field_code": "PHONE", "values": [
                {"value": "1", "enum_code": "FAX"}, {"value": "2; 3", "enum": "WORK"},
                {"value": " 4 ", "enum_code": "MOB"}, {"value": "2", "enum_code": "HOME"}, {"value": ""}
            ]},
        ]});
        let person = read_person(&contact);
        assert_eq!(
            (person.name.as_str(), person.phones),
            ("Анна Ким", ["4", "2", "3", "1"].map(str::to_owned).to_vec())
        );
        for empty in [json!(null), json!([]), json!({})] {
            assert!(read_person(&json!({"custom_fields_values": empty})).phones.is_empty());
        }
    }

    #[test]
    fn the_main_contact_comes_first() {
        let lead = json!({"_embedded": {"contacts": [
            {"id": 5, "is_main": false}, {"id": "6", "is_main": true}, {"id": 7}, {"is_main": true}
        ]}});
        assert_eq!(linked_contacts(&lead), [6, 5, 7]);
        assert!(linked_contacts(&json!({"_embedded": []})).is_empty());
    }
}
