//! The portal's CRM: cards of all types, stages, timelines. Source: §8.

pub(crate) mod history;
pub(crate) mod kinds;
pub(crate) mod legacy;
pub(crate) mod read;
pub(crate) mod timeline;
pub(crate) mod write;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use timeline::Timeline;
pub use timeline::TimelineEntry;

use crate::{clock::Millis, php::Php};
use kinds::{COMPANY, CONTACT, DEAL, LEAD, SMART_FROM};

/// A phone, e-mail or messenger of a card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Multi {
    /// Row id; given by the portal.
    pub id: i64,
    /// `PHONE`, `EMAIL`, `WEB`, `IM`, `LINK`.
    pub type_id: String,
    /// `WORK`, `MOBILE`, …
    pub value_type: String,
    /// Value as typed.
    pub value: String,
}

impl Default for Multi {
    fn default() -> Self {
        Self { id: 0, type_id: "PHONE".into(), value_type: "WORK".into(), value: String::new() }
    }
}

/// A card to be created.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemSpec {
    /// 1 lead, 2 deal, 3 contact, 4 company, N smart process.
    pub entity_type_id: i64,
    /// 0 = next free id.
    pub id: i64,
    /// Title (of all but contacts).
    pub title: String,
    /// Given name (leads, contacts).
    pub name: String,
    /// Family name.
    pub last_name: String,
    /// Patronymic.
    pub second_name: String,
    /// Stage; empty = the first one.
    pub stage_id: String,
    /// Pipeline.
    pub category_id: i64,
    /// Responsible user.
    pub assigned_by_id: i64,
    /// Contacts, the main one first.
    pub contact_ids: Vec<i64>,
    /// Company; 0 = none.
    pub company_id: i64,
    /// Amount as text, `15000.00`.
    pub opportunity: String,
    /// Currency.
    pub currency_id: String,
    /// Phones (kind WORK unless given in `fm`).
    pub phones: Vec<String>,
    /// E-mails.
    pub emails: Vec<String>,
    /// Multi-fields with their kinds.
    pub fm: Vec<Multi>,
    /// User fields by their camelCase names (`ufCrm…`).
    pub fields: BTreeMap<String, Value>,
}

impl Default for ItemSpec {
    fn default() -> Self {
        Self {
            entity_type_id: DEAL,
            id: 0,
            title: String::new(),
            name: String::new(),
            last_name: String::new(),
            second_name: String::new(),
            stage_id: String::new(),
            category_id: 0,
            assigned_by_id: 1,
            contact_ids: Vec::new(),
            company_id: 0,
            opportunity: "0.00".into(),
            currency_id: "RUB".into(),
            phones: Vec::new(),
            emails: Vec::new(),
            fm: Vec::new(),
            fields: BTreeMap::new(),
        }
    }
}

/// A card, as shown.
#[derive(Clone, Debug, Serialize)]
pub struct ItemView {
    /// 1 lead, 2 deal, 3 contact, 4 company, N smart process.
    pub entity_type_id: i64,
    /// Id.
    pub id: i64,
    /// Title or name.
    pub title: String,
    /// Stage.
    pub stage_id: String,
    /// Pipeline.
    pub category_id: i64,
    /// Responsible user.
    pub assigned_by_id: i64,
    /// Contacts, the main one first.
    pub contact_ids: Vec<i64>,
    /// Company; 0 = none.
    pub company_id: i64,
    /// Amount.
    pub opportunity: String,
    /// Currency.
    pub currency_id: String,
    /// Multi-fields.
    pub fm: Vec<Multi>,
}

/// A stage (or lead status).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// Card type.
    pub entity_type_id: i64,
    /// Pipeline.
    #[serde(default)]
    pub category_id: i64,
    /// `NEW`, `C1:NEW`, `DT180_1:NEW` …
    pub stage_id: String,
    /// Caption.
    pub name: String,
    /// Empty = in work, `S` = won, `F` = lost.
    #[serde(default)]
    pub semantics: String,
}

pub(crate) struct Item {
    pub(crate) id: i64,
    pub(crate) title: String,
    pub(crate) name: String,
    pub(crate) last_name: String,
    pub(crate) second_name: String,
    pub(crate) stage_id: String,
    pub(crate) category_id: i64,
    pub(crate) assigned_by_id: i64,
    pub(crate) contact_ids: Vec<i64>,
    pub(crate) company_id: i64,
    pub(crate) opportunity: String,
    pub(crate) currency_id: String,
    pub(crate) fm: Vec<Multi>,
    pub(crate) extra: Php,
    pub(crate) created_ms: Millis,
    pub(crate) updated_ms: Millis,
}

impl Item {
    pub(crate) fn view(&self, type_id: i64) -> ItemView {
        ItemView {
            entity_type_id: type_id,
            id: self.id,
            title: self.caption(),
            stage_id: self.stage_id.clone(),
            category_id: self.category_id,
            assigned_by_id: self.assigned_by_id,
            contact_ids: self.contact_ids.clone(),
            company_id: self.company_id,
            opportunity: self.opportunity.clone(),
            currency_id: self.currency_id.clone(),
            fm: self.fm.clone(),
        }
    }

    fn caption(&self) -> String {
        if self.title.is_empty() {
            format!("{} {}", self.name, self.last_name).trim().to_owned()
        } else {
            self.title.clone()
        }
    }

    pub(crate) fn multi<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Multi> {
        self.fm.iter().filter(move |field| field.type_id == kind)
    }
}

pub(crate) struct Entity {
    pub(crate) title: String,
    pub(crate) items: BTreeMap<i64, Item>,
    next_id: i64,
}

/// Pipeline of a card type.
pub(crate) struct Category {
    pub(crate) entity_type_id: i64,
    pub(crate) id: i64,
    pub(crate) name: String,
}

pub(crate) struct Crm {
    entities: BTreeMap<i64, Entity>,
    pub(crate) stages: Vec<StageSpec>,
    pub(crate) categories: Vec<Category>,
    pub(crate) timeline: Timeline,
    pub(crate) history: history::History,
    /// Cards by `PHONE:digits` or `EMAIL:address`.
    by_comm: HashMap<String, Vec<(i64, i64)>>,
    multi_rows: i64,
    /// Cards that a user may not see: type, id, user.
    pub(crate) hidden: HashSet<(i64, i64, i64)>,
}

impl Crm {
    pub(crate) fn new() -> Self {
        let titles = [(LEAD, "Лид"), (DEAL, "Сделка"), (CONTACT, "Контакт"), (COMPANY, "Компания")];
        let entities =
            titles.map(|(id, title)| (id, Entity { title: title.into(), items: BTreeMap::new(), next_id: 1 }));
        let mut crm = Self {
            entities: entities.into(),
            stages: Vec::new(),
            categories: vec![Category { entity_type_id: DEAL, id: 0, name: "Общая".into() }],
            timeline: Timeline::default(),
            history: history::History::default(),
            by_comm: HashMap::new(),
            multi_rows: 30,
            hidden: HashSet::new(),
        };
        crm.add_default_stages(LEAD, 0, "", LEAD_STAGES);
        crm.add_default_stages(DEAL, 0, "", DEAL_STAGES);
        crm
    }

    fn add_default_stages(&mut self, type_id: i64, category_id: i64, prefix: &str, stages: &[(&str, &str, &str)]) {
        self.stages.extend(stages.iter().map(|(code, name, semantics)| StageSpec {
            entity_type_id: type_id,
            category_id,
            stage_id: format!("{prefix}{code}"),
            name: (*name).to_owned(),
            semantics: (*semantics).to_owned(),
        }));
    }

    pub(crate) fn smart_types(&self) -> Vec<i64> {
        self.entities.range(SMART_FROM..).map(|(id, _)| *id).collect()
    }

    pub(crate) fn entity(&self, type_id: i64) -> Option<&Entity> {
        self.entities.get(&type_id)
    }

    pub(crate) fn entities(&self) -> impl Iterator<Item = (i64, &Entity)> {
        self.entities.iter().map(|(id, entity)| (*id, entity))
    }

    /// Adds a smart process with one pipeline and the usual stages.
    pub(crate) fn add_smart_type(&mut self, type_id: i64, title: &str) -> i64 {
        let next = self.entities.keys().last().copied().unwrap_or(0).max(SMART_FROM - 2) + 2;
        let type_id = if type_id >= SMART_FROM { type_id } else { next };
        let entity = Entity { title: title.to_owned(), items: BTreeMap::new(), next_id: 1 };
        if self.entities.insert(type_id, entity).is_none() {
            self.categories.push(Category { entity_type_id: type_id, id: 1, name: "Общая".into() });
            self.add_default_stages(type_id, 1, &format!("DT{type_id}_1:"), SMART_STAGES);
        }
        type_id
    }

    /// Adds a pipeline of deals with stages `C{id}:NEW` ….
    pub(crate) fn add_category(&mut self, type_id: i64, name: &str) -> i64 {
        let own = self.categories.iter().filter(|category| category.entity_type_id == type_id);
        let id = own.map(|category| category.id).max().unwrap_or(0) + 1;
        self.categories.push(Category { entity_type_id: type_id, id, name: name.to_owned() });
        let prefix = if type_id == DEAL { format!("C{id}:") } else { format!("DT{type_id}_{id}:") };
        self.add_default_stages(type_id, id, &prefix, if type_id == DEAL { DEAL_STAGES } else { SMART_STAGES });
        id
    }

    pub(crate) fn has_stage(&self, type_id: i64, stage_id: &str) -> bool {
        self.stages.iter().any(|stage| stage.entity_type_id == type_id && stage.stage_id == stage_id)
    }

    pub(crate) fn item(&self, type_id: i64, id: i64) -> Option<&Item> {
        self.entities.get(&type_id)?.items.get(&id)
    }

    fn item_mut(&mut self, type_id: i64, id: i64) -> Option<&mut Item> {
        self.entities.get_mut(&type_id)?.items.get_mut(&id)
    }

    /// Adds a card; `None` if the type does not exist.
    pub(crate) fn add(&mut self, spec: ItemSpec, now: Millis) -> Option<i64> {
        let type_id = spec.entity_type_id;
        let first =
            self.stages.iter().find(|stage| stage.entity_type_id == type_id && stage.category_id == spec.category_id);
        let stage_id = if spec.stage_id.is_empty() {
            first.map(|stage| stage.stage_id.clone()).unwrap_or_default()
        } else {
            spec.stage_id
        };
        let plain = |kind: &str, values: Vec<String>| {
            let kind = kind.to_owned();
            values.into_iter().map(move |value| Multi { type_id: kind.clone(), value, ..Multi::default() })
        };
        let mut fm: Vec<Multi> =
            plain("PHONE", spec.phones).chain(plain("EMAIL", spec.emails)).chain(spec.fm).collect();
        for field in &mut fm {
            self.multi_rows += 1;
            field.id = self.multi_rows;
        }
        let entity = self.entities.get_mut(&type_id)?;
        let id = if spec.id > 0 { spec.id } else { entity.next_id };
        entity.next_id = entity.next_id.max(id + 1);
        let extra = Php::map(spec.fields.iter().map(|(key, value)| (key.as_str(), Php::from_json(value))));
        let item = Item {
            id,
            title: if spec.title.is_empty() && type_id != CONTACT {
                format!("{} #{id}", entity.title)
            } else {
                spec.title
            },
            name: spec.name,
            last_name: spec.last_name,
            second_name: spec.second_name,
            stage_id,
            category_id: spec.category_id,
            assigned_by_id: spec.assigned_by_id,
            contact_ids: spec.contact_ids,
            company_id: spec.company_id,
            opportunity: spec.opportunity,
            currency_id: spec.currency_id,
            fm,
            extra,
            created_ms: now,
            updated_ms: now,
        };
        entity.items.insert(id, item);
        self.index(type_id, id, true);
        self.remember_stage(type_id, id, None, now);
        Some(id)
    }

    pub(crate) fn remove(&mut self, type_id: i64, id: i64) -> bool {
        self.index(type_id, id, false);
        self.entities.get_mut(&type_id).is_some_and(|entity| entity.items.remove(&id).is_some())
    }

    /// Changes a card and keeps the phone index true; `None` if there is no such card.
    pub(crate) fn change<T>(
        &mut self,
        type_id: i64,
        id: i64,
        now: Millis,
        edit: impl FnOnce(&mut Item) -> T,
    ) -> Option<T> {
        self.index(type_id, id, false);
        let mut rows = self.multi_rows;
        let item = self.item_mut(type_id, id)?;
        let before = (item.stage_id.clone(), item.category_id);
        let outcome = edit(item);
        item.updated_ms = now;
        for field in item.fm.iter_mut().filter(|field| field.id == 0) {
            rows += 1;
            field.id = rows;
        }
        self.multi_rows = rows;
        self.index(type_id, id, true);
        self.remember_stage(type_id, id, Some(before), now);
        Some(outcome)
    }

    fn index(&mut self, type_id: i64, id: i64, add: bool) {
        let Some(item) = self.item(type_id, id) else { return };
        let keys: Vec<String> = item.fm.iter().filter_map(|field| comm_key(&field.type_id, &field.value)).collect();
        for key in keys {
            let cards = self.by_comm.entry(key).or_default();
            cards.retain(|card| *card != (type_id, id));
            if add {
                cards.push((type_id, id));
            }
        }
    }

    /// Cards with this phone or e-mail.
    pub(crate) fn find_comm(&self, kind: &str, value: &str) -> &[(i64, i64)] {
        comm_key(kind, value).and_then(|key| self.by_comm.get(&key)).map_or(&[], Vec::as_slice)
    }

    /// Values of a field as a workflow reads it; a deal without own phones shows those of its contacts, then company.
    pub(crate) fn document_field(&self, type_id: i64, id: i64, field: &str) -> Vec<String> {
        let Some(item) = self.item(type_id, id) else { return Vec::new() };
        let one = |text: String| vec![text];
        let kind = field.rsplit(['.', '_']).next().unwrap_or(field);
        if matches!(kind, "PHONE" | "EMAIL") {
            return self.comms(item, kind);
        }
        let contact = item.contact_ids.first().and_then(|contact| self.item(CONTACT, *contact));
        let person = if item.name.is_empty() && item.last_name.is_empty() { contact.unwrap_or(item) } else { item };
        match field {
            "ID" => one(id.to_string()),
            "TITLE" => one(item.caption()),
            "NAME" | "CONTACT.NAME" => one(person.name.clone()),
            "LAST_NAME" | "CONTACT.LAST_NAME" => one(person.last_name.clone()),
            "SECOND_NAME" => one(person.second_name.clone()),
            "STAGE_ID" | "STATUS_ID" => one(item.stage_id.clone()),
            "CATEGORY_ID" => one(item.category_id.to_string()),
            "OPPORTUNITY" => one(item.opportunity.clone()),
            "CURRENCY_ID" => one(item.currency_id.clone()),
            "ASSIGNED_BY_ID" => one(format!("user_{}", item.assigned_by_id)),
            "CONTACT_ID" => item.contact_ids.first().map(i64::to_string).into_iter().collect(),
            "COMPANY_ID" if item.company_id > 0 => one(item.company_id.to_string()),
            other => match item.extra.get_ci(&camel(other)) {
                Some(Php::Array(values)) => values.iter().map(|(_, value)| value.text()).collect(),
                Some(value) => one(value.text()),
                None => Vec::new(),
            },
        }
    }

    fn comms(&self, item: &Item, kind: &str) -> Vec<String> {
        let own: Vec<String> = item.multi(kind).map(|field| field.value.clone()).collect();
        if !own.is_empty() {
            return own;
        }
        let main = item.contact_ids.first().and_then(|id| self.item(CONTACT, *id));
        let company = self.item(COMPANY, item.company_id);
        let of = |card: Option<&Item>| -> Vec<String> {
            card.map(|card| card.multi(kind).map(|field| field.value.clone()).collect()).unwrap_or_default()
        };
        let contact = of(main);
        if contact.is_empty() { of(company) } else { contact }
    }
}

/// `UF_CRM_1_NAME` → `ufCrm1Name`.
pub(crate) fn camel(upper: &str) -> String {
    let mut out = String::with_capacity(upper.len());
    for (at, part) in upper.split('_').filter(|part| !part.is_empty()).enumerate() {
        let lower = part.to_ascii_lowercase();
        if at == 0 {
            out.push_str(&lower);
        } else {
            let mut letters = lower.chars();
            out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            out.push_str(letters.as_str());
        }
    }
    out
}

fn comm_key(kind: &str, value: &str) -> Option<String> {
    let normal: String = match kind {
        "PHONE" => value.chars().filter(char::is_ascii_digit).collect(),
        "EMAIL" => value.trim().to_lowercase(),
        _ => return None,
    };
    (!normal.is_empty()).then(|| format!("{kind}:{normal}"))
}

const LEAD_STAGES: &[(&str, &str, &str)] = &[
    ("NEW", "Не обработан", ""),
    ("IN_PROCESS", "В работе", ""),
    ("PROCESSED", "Обработан", ""),
    ("CONVERTED", "Качественный лид", "S"),
    ("JUNK", "Некачественный лид", "F"),
];
const DEAL_STAGES: &[(&str, &str, &str)] = &[
    ("NEW", "Новая", ""),
    ("PREPARATION", "Подготовка документов", ""),
    ("PREPAYMENT_INVOICE", "Счёт на предоплату", ""),
    ("EXECUTING", "В работе", ""),
    ("FINAL_INVOICE", "Финальный счёт", ""),
    ("WON", "Сделка успешна", "S"),
    ("LOSE", "Сделка провалена", "F"),
];
const SMART_STAGES: &[(&str, &str, &str)] = &[
    ("NEW", "Начало", ""),
    ("PREPARATION", "Подготовка", ""),
    ("CLIENT", "Согласование", ""),
    ("SUCCESS", "Успех", "S"),
    ("FAIL", "Провал", "F"),
];
