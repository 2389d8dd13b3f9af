//! Reading cards, comments, log messages (bitrix24.md §8).

use sandbox::{ItemSpec, Multi, entity};
use serde_json::{Value, json};

use crate::support::Stage;

#[tokio::test]
async fn comments_are_checked_written_changed_and_listed() {
    let stage = Stage::installed().await;
    let deal = stage.portal.add_deal("x", 0).unwrap();
    let good = json!({"ENTITY_ID": deal, "ENTITY_TYPE": "deal", "COMMENT": "  sent [b]ok[/b]  "});
    let with = |changes: Value| {
        let mut fields = good.clone();
        for (key, value) in changes.as_object().unwrap() {
            fields[key] = value.clone();
        }
        json!({"fields": fields})
    };
    let method = "crm.timeline.comment.add";
    assert_eq!(
        stage.refused(method, json!({"FIELDS": good})).await,
        (400, "100".into()),
        "`fields` is lower-case only"
    );
    assert_eq!(stage.refused(method, json!({"fields": {"entity_id": deal}})).await.1, "100");
    assert_eq!(stage.refused(method, with(json!({"COMMENT": " \n "}))).await.1, "INVALID_ARG_VALUE");
    assert_eq!(stage.refused(method, with(json!({"ENTITY_ID": 999}))).await.1, "OWNER_NOT_FOUND");
    assert_eq!(stage.refused(method, with(json!({"ENTITY_TYPE": "robot"}))).await.1, "OWNER_NOT_FOUND");
    assert_eq!(stage.refused(method, with(json!({"FILES": ["a.pdf", "QQ=="]}))).await.1, "INVALID_ARG_VALUE");
    let id = stage.ok(method, with(json!({"FILES": [["a.pdf", "QUJD"]], "AUTHOR_ID": 5}))).await.as_i64().unwrap();
    let entry = &stage.portal.timeline(entity::DEAL, deal)[0];
    assert_eq!(
        (entry.text.as_str(), entry.author_id, &entry.files[0]),
        ("sent [b]ok[/b]", 1, &("a.pdf".to_owned(), 3))
    );
    assert!(stage.sandbox.violations().iter().any(|violation| violation.code == "unknown_field"));

    stage.ok("crm.timeline.comment.update", json!({"id": id, "fields": {"COMMENT": "delivered"}})).await;
    assert_eq!(
        stage.refused("crm.timeline.comment.update", json!({"id": 999, "fields": {"COMMENT": "x"}})).await.1,
        "NOT_FOUND"
    );
    assert_eq!(
        stage.refused("crm.timeline.comment.update", json!({"id": id, "fields": {"COMMENT": ""}})).await.1,
        "INVALID_ARG_VALUE"
    );
    assert_eq!(stage.refused("crm.timeline.comment.update", json!({"id": id})).await.1, "100");
    let got = stage.ok("crm.timeline.comment.get", json!({"id": id})).await;
    assert_eq!(
        (&got["COMMENT"], &got["ENTITY_TYPE"], &got["ID"]),
        (&json!("delivered"), &json!("deal"), &json!(id.to_string()))
    );
    let filter = json!({"ENTITY_ID": deal, "ENTITY_TYPE": "deal"});
    let list = stage.ok("crm.timeline.comment.list", json!({"filter": filter, "select": ["ID", "COMMENT"]})).await;
    assert_eq!(list, json!([{"ID": id.to_string(), "COMMENT": "delivered"}]));
    stage.ok("crm.timeline.comment.delete", json!({"id": id})).await;
    assert_eq!(stage.refused("crm.timeline.comment.delete", json!({"id": id})).await.1, "NOT_FOUND");
    let entry = stage.portal.timeline(entity::DEAL, deal);
    assert!(entry.is_empty());
}

#[tokio::test]
async fn log_messages_need_every_field() {
    let stage = Stage::installed().await;
    let deal = stage.portal.add_deal("x", 0).unwrap();
    let fields =
        json!({"entityTypeId": 2, "entityId": deal, "title": "WhatsApp", "text": "Read", "iconCode": "whatsapp"});
    for key in ["entityTypeId", "entityId", "title", "text", "iconCode"] {
        let mut broken = fields.clone();
        broken.as_object_mut().unwrap().remove(key);
        assert_eq!(stage.refused("crm.timeline.logmessage.add", json!({"fields": broken})).await.1, "100", "{key}");
    }
    let result = stage.ok("crm.timeline.logmessage.add", json!({"fields": fields})).await;
    assert_eq!(result["logMessage"]["text"], "Read");
}

#[tokio::test]
async fn cards_are_read_in_both_dialects() {
    let stage = Stage::installed().await;
    let contact = stage
        .portal
        .add_item(ItemSpec {
            entity_type_id: entity::CONTACT,
            name: "Ada".into(),
            last_name: "Byron".into(),
            fm: vec![
                Multi { value_type: "MOBILE".into(), value: "+49 151 12345678".into(), ..Multi::default() },
                Multi { type_id: "IM".into(), value_type: "TELEGRAM".into(), value: "@ada".into(), ..Multi::default() },
            ],
            ..ItemSpec::default()
        })
        .unwrap();
    let bare = stage
        .portal
        .add_item(ItemSpec { entity_type_id: entity::COMPANY, title: "Acme".into(), ..ItemSpec::default() })
        .unwrap();
    let deal = stage
        .portal
        .add_item(ItemSpec {
            title: "D".into(),
            contact_ids: vec![contact, 77],
            company_id: bare,
            ..ItemSpec::default()
        })
        .unwrap();

    let item = stage.ok("crm.item.get", json!({"entityTypeId": 3, "id": contact})).await["item"].clone();
    assert_eq!(item["fm"][0]["valueType"], "MOBILE");
    let item = stage.ok("crm.item.get", json!({"entityTypeId": 2, "id": deal})).await["item"].clone();
    assert_eq!(
        (&item["contactId"], &item["contactIds"], &item["stageId"]),
        (&json!(contact), &json!([contact, 77]), &json!("NEW"))
    );
    assert_eq!(stage.refused("crm.item.get", json!({"entityTypeId": 2, "id": 999})).await, (400, "NOT_FOUND".into()));
    assert_eq!(stage.refused("crm.item.get", json!({"ENTITYTYPEID": 2, "id": 1})).await, (400, "100".into()));

    let legacy = stage.ok("crm.contact.get", json!({"ID": contact})).await;
    assert_eq!(
        (&legacy["ID"], &legacy["PHONE"][0]["VALUE"], &legacy["HAS_EMAIL"]),
        (&json!(contact.to_string()), &json!("+49 151 12345678"), &json!("N"))
    );
    assert!(legacy.get("EMAIL").is_none());
    let company = stage.ok("crm.company.get", json!({"id": bare})).await;
    assert!(company.get("PHONE").is_none());
    assert_eq!(company["HAS_PHONE"], "N");
    assert_eq!(stage.refused("crm.deal.get", json!({"id": 999})).await, (400, String::new()));
    let contacts = stage.ok("crm.deal.contact.items.get", json!({"id": deal})).await;
    assert_eq!(contacts[0], json!({"CONTACT_ID": contact, "SORT": 10, "ROLE_ID": 0, "IS_PRIMARY": "Y"}));

    let find = |values: Value| stage.ok("crm.duplicate.findbycomm", json!({"type": "PHONE", "values": values}));
    assert_eq!(find(json!(["+4915112345678"])).await, json!({"CONTACT": [contact]}));
    assert_eq!(find(json!(["000"])).await, json!([]));
    let many: Vec<String> = (0..21).map(|nth| nth.to_string()).collect();
    assert_eq!(stage.refused("crm.duplicate.findbycomm", json!({"type": "PHONE", "values": many})).await.0, 400);
}

#[tokio::test]
async fn lists_page_by_fifty_and_count_unless_told_not_to() {
    let stage = Stage::installed().await;
    for nth in 0..120 {
        stage.portal.add_deal(&format!("d{nth}"), 0).unwrap();
    }
    let (_, first) = stage.rest("crm.item.list", json!({"entityTypeId": 2, "select": ["id", "title"]})).await;
    assert_eq!(
        (first["result"]["items"].as_array().unwrap().len(), &first["total"], &first["next"]),
        (50, &json!(120), &json!(50))
    );
    assert_eq!(first["result"]["items"][0], json!({"id": 1, "title": "d0"}));
    let (_, last) = stage.rest("crm.item.list", json!({"entityTypeId": 2, "start": 100})).await;
    assert_eq!(last["result"]["items"].as_array().unwrap().len(), 20);
    assert!(last.get("next").is_none());
    let (_, fast) = stage
        .rest("crm.item.list", json!({"entityTypeId": 2, "start": -1, "filter": {">id": 100}, "order": {"id": "ASC"}}))
        .await;
    assert_eq!(fast["result"]["items"][0]["id"], 101);
    assert!(fast.get("total").is_none() && fast.get("next").is_none());
    let by_ids = stage.ok("crm.item.list", json!({"entityTypeId": 2, "filter": {"@id": [7, 3, 999]}})).await;
    let ids: Vec<i64> = by_ids["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [3, 7]);
    let (_, none) = stage.rest("crm.item.list", json!({"entityTypeId": 2, "filter": {"=stageId": "WON"}})).await;
    assert_eq!((&none["total"], &none["result"]["items"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn cards_are_written_and_dictionaries_read() {
    let stage = Stage::installed().await;
    let added = stage
        .ok(
            "crm.item.add",
            json!({"entityTypeId": 2, "fields": {"title": "New", "ufCrm_1": "a", "stageId": "PREPARATION"}}),
        )
        .await;
    let id = added["item"]["id"].as_i64().unwrap();
    assert_eq!(added["item"]["ufCrm_1"], "a");
    assert_eq!(
        stage
            .refused("crm.item.update", json!({"entityTypeId": 2, "id": id, "fields": {"stageId": "NOWHERE"}}))
            .await
            .0,
        400
    );
    stage
        .ok("crm.item.update", json!({"entityTypeId": 2, "id": id, "fields": {"stageId": "WON", "opportunity": 15.5}}))
        .await;
    assert_eq!(stage.portal.item(2, id).unwrap().stage_id, "WON");
    let category = stage.portal.add_category(2, "Retail");
    let categories = stage.ok("crm.category.list", json!({"entityTypeId": 2})).await;
    assert_eq!(categories["categories"][1]["id"], json!(category));
    let stages = stage.ok("crm.status.list", json!({"filter": {"ENTITY_ID": format!("DEAL_STAGE_{category}")}})).await;
    assert_eq!(stages[0]["STATUS_ID"], json!(format!("C{category}:NEW")));
    stage.portal.add_smart_process(180, "Заявки");
    let types = stage.ok("crm.type.list", json!({})).await;
    assert_eq!(types["types"][0]["entityTypeId"], 180);
}
