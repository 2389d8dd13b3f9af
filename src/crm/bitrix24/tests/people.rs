//! Whom a card concerns: contacts, companies, leads; and never somebody else.

use serde_json::{Value, json};

use crate::crm::Crm;
use crate::crm::bitrix24::testing::{Answered, World, answer_batch};
use crate::domain::effect::{CardPerson, RecipientQuery};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CardKind, CardRef};
use crate::forms::text;

type Found = Result<Value, (&'static str, &'static str)>;

fn query(kind: CardKind, id: u64, all: bool) -> RecipientQuery {
    RecipientQuery { card: CardRef { kind, id }, all }
}

fn person(name: &str, phones: &[&str]) -> CardPerson {
    CardPerson { name: name.to_owned(), phones: phones.iter().map(|phone| (*phone).to_owned()).collect() }
}

fn phone(kind: &str, value: &str) -> Value {
    json!({"id": 1, "typeId": "PHONE", "valueType": kind, "value": value})
}

/// A small portal.
fn crm(method: &str, params: &Value) -> Found {
    assert_eq!(method, "crm.item.get");
    let id = text(&params["id"]).unwrap_or_default();
    let item = match (params["entityTypeId"].as_str().unwrap(), id.as_str()) {
        ("2", "1") => json!({"id": 1, "contactId": "17", "contactIds": ["17", 42, "43"], "companyId": 4, "fm": []}),
        ("2", "2") => json!({"id": "2", "contactId": 0, "contactIds": [], "companyId": "4"}),
        ("2", "3") => json!({"id": 3, "contactId": null, "contactIds": [], "companyId": 0}),
        ("2", "4") => json!({"id": 4, "contactIds": [42], "companyId": null}),
        ("2", "5") => json!({"id": 5, "contactId": 43, "contactIds": [43], "companyId": 4}),
        ("2", "6") => json!({"id": 6, "contactId": 99, "contactIds": [99], "companyId": 4}),
        ("2", "7") => json!({"id": 7, "contactId": 66, "contactIds": [66], "companyId": 4}),
        ("2", "8") => json!({"id": 8, "contactId": 17, "contactIds": [17], "companyId": 66}),
        ("2", "9") => json!({"id": 9, "contactId": 43, "contactIds": [43], "companyId": 66}),
        ("1", "15") => json!({"id": 15, "name": "Leo", "contactId": 17, "fm": [phone("WORK", "+15")]}),
        ("1", "16") => json!({"id": 16, "title": "Lead", "contactId": 17, "fm": []}),
        ("180", "5") => json!({"id": 5, "contactId": 17, "contactIds": [17]}),
        ("3", "17") => json!({"id": 17, "name": "Ada", "lastName": "L",
            "fm": [phone("WORK", "+171"), phone("MOBILE", "+172"), {"typeId": "EMAIL", "value": "a@x.example"}]}),
        ("3", "42") => json!({"id": "42", "name": "Bob", "fm": {"3": phone("MOBILE", "+42")}}),
        ("3", "43") => json!({"id": 43, "name": "No phone", "fm": []}),
        ("3" | "4", "66") => return Err(("ACCESS_DENIED", "x")),
        ("4", "4") => json!({"id": 4, "title": "Acme", "fm": [phone("WORK", "+4")]}),
        _ => return Err(("NOT_FOUND", "x")),
    };
    Ok(json!({"item": item}))
}

async fn people(queries: &[RecipientQuery]) -> (Vec<Result<Vec<CardPerson>, FailureClass>>, usize) {
    let world = World::start(|request, _| answer_batch(request, crm)).await;
    let found = world.crm.people(&world.portal, queries).await;
    let found = found.into_iter().map(|found| found.map_err(|error| error.class)).collect();
    (found, world.stub.received("/rest/batch").len())
}

#[tokio::test]
async fn one_call_reads_the_main_people_of_many_cards() {
    let ada = person("Ada L", &["+172", "+171"]);
    let acme = person("Acme", &["+4"]);
    let (found, calls) = people(&[
        query(CardKind::Deal, 1, false),
        query(CardKind::Deal, 2, false),
        query(CardKind::Deal, 3, false),
        query(CardKind::Deal, 5, false),
        query(CardKind::Lead, 15, false),
        query(CardKind::Lead, 16, false),
        query(CardKind::Custom(180), 5, false),
        query(CardKind::Contact, 17, false),
        query(CardKind::Company, 4, true),
        query(CardKind::Contact, 43, false),
    ])
    .await;
    assert_eq!(
        found,
        [
            Ok(vec![ada.clone()]),
            Ok(vec![acme.clone()]),
            Ok(vec![]),
            Ok(vec![acme.clone()]),
            Ok(vec![person("Leo", &["+15"])]),
            Ok(vec![ada.clone()]),
            Ok(vec![ada.clone()]),
            Ok(vec![ada]),
            Ok(vec![acme]),
            Ok(vec![]),
        ]
    );
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn all_contacts_take_one_call_more() {
    let (found, calls) = people(&[query(CardKind::Deal, 1, true), query(CardKind::Deal, 2, true)]).await;
    assert_eq!(found[0], Ok(vec![person("Ada L", &["+172", "+171"]), person("Bob", &["+42"])]));
    assert_eq!(found[1], Ok(vec![person("Acme", &["+4"])]));
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_brings_nobody() {
    // The deal has no main contact, only a list: the reference stops at the item itself.
    let (found, calls) = people(&[query(CardKind::Deal, 4, false)]).await;
    assert_eq!((found, calls), (vec![Ok(vec![person("Bob", &["+42"])])], 2));
    // A portal that answers such a reference with some other contact.
    let world = World::start(|request, _| {
        answer_batch(request, |method, params| match (params["entityTypeId"].as_str(), text(&params["id"])) {
            (Some("3"), None) => Ok(json!({"item": {"id": 777, "name": "Stranger", "fm": [phone("MOBILE", "+777")]}})),
            _ => crm(method, params),
        })
    })
    .await;
    let found = world.crm.people(&world.portal, &[query(CardKind::Deal, 3, false)]).await;
    assert_eq!(found, [Ok(vec![])]);
    let found = world.crm.people(&world.portal, &[query(CardKind::Deal, 4, false)]).await;
    assert_eq!(found, [Ok(vec![person("Bob", &["+42"])])]);
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_of_that_card() {
    let (found, _) = people(&[
        query(CardKind::Deal, 404, false),
        query(CardKind::Deal, 6, false),
        query(CardKind::Deal, 7, false),
        query(CardKind::Customer, 1, false),
        query(CardKind::Deal, 8, true),
        query(CardKind::Deal, 9, true),
    ])
    .await;
    assert_eq!(found[0], Err(FailureClass::Rejected));
    // The contact was deleted: the company is the next best. No right to read it: a person must know.
    assert_eq!(found[1], Ok(vec![person("Acme", &["+4"])]));
    assert_eq!(found[2], Err(FailureClass::NotPermitted));
    assert_eq!(found[3], Err(FailureClass::Rejected));
    // A company that may not be read matters only when it is needed.
    assert_eq!(found[4], Ok(vec![person("Ada L", &["+172", "+171"])]));
    assert_eq!(found[5], Err(FailureClass::NotPermitted));
}

#[tokio::test]
async fn a_broken_call_fails_every_card_of_it() {
    let world = World::start(|_, _| Answered::Page(502, "<html>")).await;
    let queries = [query(CardKind::Deal, 1, false), query(CardKind::Deal, 2, true)];
    for found in world.crm.people(&world.portal, &queries).await {
        assert_eq!(found.unwrap_err().class, FailureClass::Unavailable);
    }
    assert!(world.crm.people(&world.portal, &[]).await.is_empty());
}

#[tokio::test]
async fn many_cards_are_read_sixteen_at_a_time() {
    let queries: Vec<RecipientQuery> = (0..17).map(|_| query(CardKind::Deal, 1, false)).collect();
    let (found, calls) = people(&queries).await;
    assert_eq!(calls, 2);
    assert!(found.iter().all(Result::is_ok) && found.len() == 17);
}
