//! A card type as a kanban page draws it: bounded, however many cards there are.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::{
    PortalState, RobotState, StageSpec,
    crm::{Item, kinds},
};
use crate::clock::Millis;

/// Longest piece of a comment that a card carries, characters.
const NOTE_SHOWN: usize = 400;

/// One stage with its newest cards.
#[derive(Clone, Debug, Serialize)]
pub struct KanbanColumn {
    /// The stage.
    #[serde(flatten)]
    pub stage: StageSpec,
    /// Cards on the stage, shown or not.
    pub count: usize,
    /// Robots that start when a card enters.
    pub robots: Vec<StageRobot>,
    /// The cards that were changed last, newest first.
    pub cards: Vec<KanbanCard>,
}

/// A robot on a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageRobot {
    /// Number of the automation.
    pub id: u64,
    /// Code of the robot.
    pub code: String,
    /// Name as registered: a text, or texts by language; `null` while no application has such a robot.
    pub name: Value,
    /// Values of its properties.
    pub properties: BTreeMap<String, Value>,
}

/// A card on the board.
#[derive(Clone, Debug, Serialize)]
pub struct KanbanCard {
    /// Id.
    pub id: i64,
    /// Title.
    pub title: String,
    /// Stage.
    pub stage_id: String,
    /// Amount.
    pub opportunity: String,
    /// Currency.
    pub currency_id: String,
    /// Main contact's name, or the company's.
    pub client: String,
    /// First phone of the card, its contact or its company.
    pub phone: String,
    /// Comments and log messages.
    pub entries: usize,
    /// The newest comment.
    pub note: Option<Note>,
    /// The newest run of a robot.
    pub run: Option<RunBrief>,
}

/// The newest comment of a card.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// Id.
    pub id: i64,
    /// Text as it stands, its first 400 characters.
    pub text: String,
    /// How often it was changed.
    pub edits: u32,
    /// When it was last changed, milliseconds.
    pub updated_ms: Millis,
}

/// Where the newest run of a robot stands.
#[derive(Clone, Debug, Serialize)]
pub struct RunBrief {
    /// State.
    pub state: RobotState,
    /// Start, milliseconds.
    pub started_ms: Millis,
    /// When it went on, milliseconds.
    pub finished_ms: Option<Millis>,
}

/// Columns of a pipeline, each with at most `per_stage` cards.
pub(crate) fn columns(state: &PortalState, type_id: i64, category_id: i64, per_stage: usize) -> Vec<KanbanColumn> {
    let mut standing: HashMap<&str, Vec<&Item>> = HashMap::new();
    if let Some(entity) = state.crm.entity(type_id) {
        for item in entity.items.values().filter(|item| item.category_id == category_id) {
            standing.entry(item.stage_id.as_str()).or_default().push(item);
        }
    }
    let own = |stage: &&StageSpec| stage.entity_type_id == type_id && stage.category_id == category_id;
    let mut columns = Vec::new();
    for stage in state.crm.stages.iter().filter(own) {
        let mut items = standing.remove(stage.stage_id.as_str()).unwrap_or_default();
        let count = items.len();
        let newest = |item: &&Item| std::cmp::Reverse((item.updated_ms, item.id));
        if per_stage > 0 && items.len() > per_stage {
            items.select_nth_unstable_by_key(per_stage - 1, newest);
        }
        items.truncate(per_stage);
        items.sort_unstable_by_key(newest);
        let cards = items.into_iter().map(|item| card(state, type_id, item)).collect();
        columns.push(KanbanColumn { robots: robots(state, stage), stage: stage.clone(), count, cards });
    }
    columns
}

fn robots(state: &PortalState, stage: &StageSpec) -> Vec<StageRobot> {
    let here = state
        .automations
        .iter()
        .filter(|own| own.entity_type_id == stage.entity_type_id && own.stage_id == stage.stage_id);
    here.map(|automation| {
        let name = state
            .installs
            .iter()
            .filter(|(client_id, _)| automation.client_id.as_ref().is_none_or(|wanted| wanted == *client_id))
            .find_map(|(_, install)| install.robots.get(&automation.robot))
            .and_then(|robot| robot.definition.get("NAME").map(crate::php::Php::to_json));
        StageRobot {
            id: automation.id,
            code: automation.robot.clone(),
            name: name.unwrap_or(Value::Null),
            properties: automation.properties.clone(),
        }
    })
    .collect()
}

fn card(state: &PortalState, type_id: i64, item: &Item) -> KanbanCard {
    let contact = item.contact_ids.first().and_then(|id| state.crm.item(kinds::CONTACT, *id));
    let company = state.crm.item(kinds::COMPANY, item.company_id);
    let client = contact.or(company).map(|card| card.view(kinds::CONTACT).title).unwrap_or_default();
    let phone = state.crm.document_field(type_id, item.id, "PHONE").into_iter().next().unwrap_or_default();
    let timeline = &state.crm.timeline;
    let note = timeline.newest_comment(type_id, item.id).map(|entry| Note {
        id: entry.id,
        text: entry.text.chars().take(NOTE_SHOWN).collect(),
        edits: entry.edits,
        updated_ms: entry.updated_ms,
    });
    let token = state.workflows_of.get(&(type_id, item.id)).and_then(|tokens| tokens.last());
    let run = token.and_then(|token| state.workflows.get(token)).map(|workflow| {
        let run = workflow.run();
        RunBrief { state: run.state, started_ms: run.started_ms, finished_ms: run.finished_ms }
    });
    let view = item.view(type_id);
    KanbanCard {
        id: item.id,
        title: view.title,
        stage_id: view.stage_id,
        opportunity: view.opportunity,
        currency_id: view.currency_id,
        client,
        phone,
        entries: timeline.count(type_id, item.id),
        note,
        run,
    }
}
