//! Cards in Bitrix24's numbers and words, and the people they concern.
//!
//! Sources: protocol reference, sections "Object types" and "Reading", read 2026-11.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::Bitrix24;
use super::batch::{BATCH_MAX, Batch, Param};
use super::client::{Caller, Entries, Failed};
use super::errors::{Fault, own};
use super::install::Proof;
use crate::domain::effect::{CardPerson, CrmError, PortalTrouble, RecipientQuery};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CardKind, CardRef};
use crate::forms::{integer, items, member, text, text_at};

pub(super) const GET: &str = "crm.item.get";
const CONTACT: u32 = 3;
const COMPANY: u32 = 4;
/// Entries one card takes in the first batch: the item, its main contact, its company.
const PER_CARD: usize = 3;
/// Most contacts of one card that are read.
const CONTACTS_MAX: usize = 100;

/// `ENTITY_TYPE` of the timeline; `None` for cards Bitrix24 does not have.
pub(super) fn entity_type(kind: CardKind) -> Option<String> {
    let fixed = match kind {
        CardKind::Lead => "lead",
        CardKind::Deal => "deal",
        CardKind::Contact => "contact",
        CardKind::Company => "company",
        CardKind::Quote => "quote",
        CardKind::Invoice => "smart_invoice",
        CardKind::Order => "order",
        CardKind::Custom(number) => return Some(format!("dynamic_{number}")),
        CardKind::Customer => return None,
    };
    Some(fixed.to_owned())
}

/// `entityTypeId`; `None` for cards Bitrix24 does not have.
pub(super) fn entity_type_id(kind: CardKind) -> Option<u32> {
    match kind {
        CardKind::Lead => Some(1),
        CardKind::Deal => Some(2),
        CardKind::Contact => Some(CONTACT),
        CardKind::Company => Some(COMPANY),
        CardKind::Quote => Some(7),
        CardKind::Order => Some(14),
        CardKind::Invoice => Some(31),
        CardKind::Custom(number) => Some(number),
        CardKind::Customer => None,
    }
}

/// The card is of a kind that Bitrix24 does not have.
pub(super) fn no_such_card(card: CardRef) -> CrmError {
    own(FailureClass::Rejected, PortalTrouble::None, "no_such_card", format!("Bitrix24 has no card {card}"))
}

/// A card, contact or company as far as people are concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Item {
    id: i64,
    name: String,
    phones: Vec<String>,
    /// Main contact first.
    contacts: Vec<i64>,
    company: Option<i64>,
}

/// What is known of one question so far.
struct Asked {
    card: Item,
    kind: CardKind,
    all: bool,
    /// Contacts and companies read, by kind and id. Missing until it was read; `None` when it is gone.
    others: BTreeMap<Other, Result<Option<Item>, CrmError>>,
}

/// A contact or company: `entityTypeId` and id.
type Other = (u32, i64);

impl Bitrix24 {
    /// The people of a card as somebody sees them who is looking at it: nothing is read that their own token does not
    /// open. A card without anybody to reach has none.
    ///
    /// # Errors
    /// The card is not theirs to see, is gone, or the portal did not answer.
    pub async fn people_seen(
        &self,
        proof: &Proof,
        token: &SecretString,
        card: CardRef,
    ) -> Result<Vec<CardPerson>, CrmError> {
        let token = token.expose_secret();
        let caller = Caller::Person { account: &proof.member_id, endpoint: &proof.client_endpoint, token };
        let answers = self.people_of(caller, &[RecipientQuery { card, all: true }]).await;
        answers.into_iter().next().unwrap_or_else(|| Err(no_such_card(card)))
    }

    /// [`crate::crm::Crm::people`]: one batch for up to sixteen cards, and one more where a card has several contacts or
    /// a reference did not lead to its main one.
    pub(super) async fn people_of(
        &self,
        caller: Caller<'_>,
        queries: &[RecipientQuery],
    ) -> Vec<Result<Vec<CardPerson>, CrmError>> {
        let mut found = Vec::with_capacity(queries.len());
        for chunk in queries.chunks(BATCH_MAX / PER_CARD) {
            let mut asked = self.read_cards(caller, chunk).await;
            self.read_others(caller, &mut asked).await;
            if matches!(caller, Caller::Person { .. }) {
                asked.iter_mut().flatten().for_each(Asked::leave_out_what_is_hidden);
            }
            found.extend(asked.into_iter().map(|asked| asked?.people()));
        }
        found
    }

    /// The cards themselves; main contact and company come along by reference.
    async fn read_cards(&self, caller: Caller<'_>, queries: &[RecipientQuery]) -> Vec<Result<Asked, CrmError>> {
        let mut batch = Batch::default();
        let get = |batch: &mut Batch, number: u32, id: Param| {
            batch.push(GET, &[("entityTypeId", u64::from(number).into()), ("id", id)])
        };
        let places: Vec<Option<[usize; PER_CARD]>> = queries
            .iter()
            .map(|query| {
                let number = entity_type_id(query.card.kind)?;
                let card = get(&mut batch, number, query.card.id.into());
                Some(match query.card.kind {
                    CardKind::Contact | CardKind::Company => [card; PER_CARD],
                    CardKind::Lead
                    | CardKind::Deal
                    | CardKind::Quote
                    | CardKind::Invoice
                    | CardKind::Order
                    | CardKind::Customer
                    | CardKind::Custom(_) => {
                        let contact = get(&mut batch, CONTACT, Param::of_answer(card, &["item", "contactId"]));
                        let company = get(&mut batch, COMPANY, Param::of_answer(card, &["item", "companyId"]));
                        [card, contact, company]
                    }
                })
            })
            .collect();
        let answer = match batch.is_empty() {
            true => Ok(Entries::new()),
            false => self.client.batch_of(caller, &batch).await,
        };
        queries
            .iter()
            .zip(places)
            .map(|(query, places)| {
                let [card, contact, company] = places.ok_or_else(|| no_such_card(query.card))?;
                read_card(query, &answer, card, contact, company)
            })
            .collect()
    }

    /// Contacts and companies that did not come along.
    async fn read_others(&self, caller: Caller<'_>, asked: &mut [Result<Asked, CrmError>]) {
        let wanted: Vec<(usize, Other)> = asked
            .iter()
            .enumerate()
            .filter_map(|(at, asked)| Some((at, asked.as_ref().ok()?)))
            .flat_map(|(at, asked)| asked.unread().into_iter().map(move |other| (at, other)))
            .collect();
        for chunk in wanted.chunks(BATCH_MAX) {
            let mut batch = Batch::default();
            for (_, (number, id)) in chunk {
                let params = [("entityTypeId", u64::from(*number).into()), ("id", Param::Text(id.to_string()))];
                batch.push(GET, &params);
            }
            let answer = self.client.batch_of(caller, &batch).await;
            for (entry, (at, other)) in chunk.iter().enumerate() {
                if let Some(Ok(asked)) = asked.get_mut(*at) {
                    asked.others.insert(*other, read_one(&answer, entry, Some(other.1)));
                }
            }
        }
    }
}

fn read_card(
    query: &RecipientQuery,
    answer: &Result<Entries, Failed>,
    card: usize,
    contact: usize,
    company: usize,
) -> Result<Asked, CrmError> {
    let kind = query.card.kind;
    let Some(item) = read_one(answer, card, i64::try_from(query.card.id).ok())? else {
        return Err(own(FailureClass::Rejected, PortalTrouble::None, "NOT_FOUND", format!("no card {}", query.card)));
    };
    let mut asked = Asked { card: item, kind, all: query.all, others: BTreeMap::new() };
    // A reference that led nowhere gives an error or some other item. So only the right id counts; whatever else came
    // says nothing, and the id is asked for plainly.
    let main = asked.card.contacts.first().map(|id| ((CONTACT, *id), contact));
    let firm = asked.card.company.map(|id| ((COMPANY, id), company));
    for (other, entry) in [main, firm].into_iter().flatten() {
        if let Ok(Some(item)) = read_one(answer, entry, Some(other.1)) {
            asked.others.insert(other, Ok(Some(item)));
        }
    }
    Ok(asked)
}

/// One item of an answer; `None` when there is none, or another than was meant.
fn read_one(answer: &Result<Entries, Failed>, entry: usize, id: Option<i64>) -> Result<Option<Item>, CrmError> {
    let entries = answer.as_ref().map_err(|failed| failed.error(true))?;
    match entries.get(entry) {
        Some(Ok(value)) => Ok(read_item(value).filter(|item| id.is_none_or(|id| item.id == id))),
        Some(Err(failed)) if failed.fault.is("NOT_FOUND") => Ok(None),
        Some(Err(failed)) => Err(failed.error(true)),
        None => Err(Fault::Unanswered.error(true, None)),
    }
}

fn read_item(value: &Value) -> Option<Item> {
    let item = member(value, "item").unwrap_or(value);
    let id = member(item, "id").and_then(integer)?;
    let number = |key: &str| member(item, key).and_then(integer).filter(|id| *id > 0);
    let mut contacts: Vec<i64> = number("contactId").into_iter().collect();
    for contact in member(item, "contactIds").map(items).unwrap_or_default() {
        let id = integer(contact).or_else(|| integer(member(contact, "contactId")?)).filter(|id| *id > 0);
        contacts.extend(id.filter(|id| !contacts.contains(id)));
    }
    contacts.truncate(CONTACTS_MAX);
    let name = ["name", "lastName"].map(|key| text_at(item, &[key]).trim().to_owned());
    let name = name.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ");
    let name = if name.is_empty() { text_at(item, &["title"]) } else { name };
    Some(Item { id, name, phones: read_phones(item), contacts, company: number("companyId") })
}

/// Phones of an item, mobile ones first, then those for work, then the rest; fax and pager numbers last.
///
/// They come as `fm` (all multi-fields in one list) or, from older methods, as `PHONE`.
fn read_phones(item: &Value) -> Vec<String> {
    let fields = member(item, "fm").map(items).unwrap_or_default();
    let of_type = |field: &&Value| {
        let kind = ["typeId", "TYPE_ID", "type_id"].iter().find_map(|key| member(field, key).and_then(text));
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("PHONE"))
    };
    let own = member(item, "phone").map(items).unwrap_or_default();
    let mut ranked: Vec<(u8, String)> = Vec::new();
    for field in fields.into_iter().filter(of_type).chain(own) {
        let Some(number) = member(field, "value").and_then(text).map(|number| number.trim().to_owned()) else {
            continue;
        };
        let kind = ["valueType", "VALUE_TYPE", "value_type"].iter().find_map(|key| member(field, key).and_then(text));
        let rank = match kind.unwrap_or_default().to_ascii_uppercase().as_str() {
            "MOBILE" => 0,
            "WORK" => 1,
            "FAX" | "PAGER" => 9,
            _ => 2,
        };
        if !number.is_empty() && !ranked.iter().any(|(_, known)| *known == number) {
            ranked.push((rank, number));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, number)| number).collect()
}

impl Asked {
    /// True when the card is itself the person.
    fn is_person(&self) -> bool {
        match self.kind {
            CardKind::Contact | CardKind::Company => true,
            // A lead that was not turned into a contact carries its own phones.
            CardKind::Lead => !self.card.phones.is_empty(),
            CardKind::Deal
            | CardKind::Quote
            | CardKind::Invoice
            | CardKind::Order
            | CardKind::Customer
            | CardKind::Custom(_) => false,
        }
    }

    fn contacts(&self) -> &[i64] {
        let count = if self.all { self.card.contacts.len() } else { self.card.contacts.len().min(1) };
        self.card.contacts.get(..count).unwrap_or_default()
    }

    fn unread(&self) -> Vec<Other> {
        if self.is_person() {
            return Vec::new();
        }
        let contacts = self.contacts().iter().map(|id| (CONTACT, *id));
        let company = self.card.company.map(|id| (COMPANY, id));
        contacts.chain(company).filter(|other| !self.others.contains_key(other)).collect()
    }

    /// A contact or company that this person may not see is nobody to them; the rest of the card is theirs.
    fn leave_out_what_is_hidden(&mut self) {
        for other in self.others.values_mut() {
            if other.as_ref().is_err_and(|error| error.class == FailureClass::NotPermitted) {
                *other = Ok(None);
            }
        }
    }

    /// The card's own phones, or its contacts', or the company's if no contact has any.
    ///
    /// What could not be read is an error only if it would have been used.
    fn people(&self) -> Result<Vec<CardPerson>, CrmError> {
        if self.is_person() {
            return Ok(self.card.person().into_iter().collect());
        }
        let mut people = Vec::new();
        for id in self.contacts() {
            people.extend(self.other((CONTACT, *id))?);
        }
        if let (true, Some(id)) = (people.is_empty(), self.card.company) {
            people.extend(self.other((COMPANY, id))?);
        }
        Ok(people)
    }

    fn other(&self, other: Other) -> Result<Option<CardPerson>, CrmError> {
        match self.others.get(&other) {
            Some(Ok(item)) => Ok(item.as_ref().and_then(Item::person)),
            Some(Err(error)) => Err(error.clone()),
            None => Ok(None),
        }
    }
}

impl Item {
    /// Somebody who can be reached; `None` without any phone.
    fn person(&self) -> Option<CardPerson> {
        let phones = self.phones.clone();
        (!phones.is_empty()).then(|| CardPerson { name: self.name.clone(), phones })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_have_bitrix_words_and_numbers() {
        for (kind, word, number) in [
            (CardKind::Lead, "lead", 1),
            (CardKind::Deal, "deal", 2),
            (CardKind::Contact, "contact", 3),
            (CardKind::Company, "company", 4),
            (CardKind::Quote, "quote", 7),
            (CardKind::Order, "order", 14),
            (CardKind::Invoice, "smart_invoice", 31),
            (CardKind::Custom(180), "dynamic_180", 180),
        ] {
            assert_eq!((entity_type(kind).as_deref(), entity_type_id(kind)), (Some(word), Some(number)));
        }
        assert_eq!((entity_type(CardKind::Customer), entity_type_id(CardKind::Customer)), (None, None));
    }

    #[test]
    fn items_are_read_leniently() {
        let item = read_item(&json!({"item": {
            "id": "134", "contactId": "17", "contactIds": ["17", 42, 0], "companyId": 0, "fm": [], "title": "Deal"
        }}));
        let item = item.unwrap();
        assert_eq!((item.id, item.contacts, item.company), (134, vec![17, 42], None));
        assert_eq!(item.name, "Deal");
        let sparse = read_item(&json!({"item": {"id": 1, "contactIds": {"3": 9}, "companyId": "4"}})).unwrap();
        assert_eq!((sparse.contacts, sparse.company), (vec![9], Some(4)));
        assert_eq!(read_item(&json!([])), None);
        assert_eq!(read_item(&Value::Null), None);
    }

    #[test]
    fn mobile_numbers_come_first() {
        let person = json!({"id": 17, "name": "Ada", "lastName": "L", "fm": {
            "5": {"typeId": "PHONE", "valueType": "FAX", "value": "1"},
            "6": {"typeId": "EMAIL", "valueType": "WORK", "value": "a@x.example"},
            "7": {"typeId": "PHONE", "valueType": "WORK", "value": " 2 "},
            "8": {"typeId": "PHONE", "valueType": "HOME", "value": "3"},
            "9": {"typeId": "PHONE", "valueType": "MOBILE", "value": "4"},
            "10": {"typeId": "PHONE", "valueType": "WORK", "value": "2"},
        }});
        let item = read_item(&person).unwrap();
        assert_eq!(item.phones, ["4", "2", "3", "1"]);
        assert_eq!(item.name, "Ada L");
        let old =
            json!({"ID": "17", "PHONE": [{"ID": "33", "VALUE_TYPE": "WORK", "VALUE": "+49", "TYPE_ID": "PHONE"}]});
        assert_eq!(read_item(&old).unwrap().phones, ["+49"]);
    }
}
