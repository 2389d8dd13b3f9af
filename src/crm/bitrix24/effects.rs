//! Telling a portal several things in one call: comments and results of robots.
//!
//! A comment that is gone from the card (a person deleted it) is not written again: the effect counts as done, under
//! the id it had. Adding a comment is the only thing here that must not be repeated blindly; when an earlier try may have
//! written it, the card's newest comments are searched for the message's reference first.

use std::collections::HashMap;

use serde_json::Value;

use super::Bitrix24;
use super::batch::{BATCH_MAX, Batch, Param};
use super::cards::{entity_type, no_such_card};
use super::chats;
use super::client::{Entries, Failed};
use super::errors::{Fault, own};
use super::sms;
use crate::crm::comments::refers_to;
use crate::crm::results;
use crate::domain::effect::{
    ActionResult, Applied, CommentEffect, CrmEffect, CrmError, PortalTrouble, Reach, ReplyEffect,
};
use crate::domain::ids::CrmCommentId;
use crate::domain::language::Language;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::domain::time::Timestamp;
use crate::forms::{integer, items, member, text_at};
use crate::i18n;

const ADD: &str = "crm.timeline.comment.add";
const UPDATE: &str = "crm.timeline.comment.update";
const LIST: &str = "crm.timeline.comment.list";
const SEND: &str = "bizproc.event.send";

/// What is to be done about one effect.
enum Plan {
    /// Decided without a call.
    Settled(Result<Applied, CrmError>),
    /// The entry adds a comment.
    Add(usize),
    /// The entry changes the comment.
    Update(usize, CrmCommentId),
    /// The entry continues a robot.
    Reply(usize),
    /// The entry shows a client's message in a chat.
    Post(usize),
    /// The entry tells an operator what became of a message.
    Verdict(usize),
}

impl Bitrix24 {
    /// [`crate::crm::Crm::apply`]. More effects than fit into one batch go out in several.
    pub(super) async fn apply_all(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Result<Applied, CrmError>> {
        let mut applied = Vec::with_capacity(effects.len());
        for chunk in effects.chunks(BATCH_MAX) {
            applied.extend(self.apply_batch(portal, chunk).await);
        }
        applied
    }

    async fn apply_batch(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Result<Applied, CrmError>> {
        let now = self.clock.now();
        let mut written = self.look_for_written(portal, effects, now).await;
        let mut shown = self.look_for_shown(portal, effects, now).await;
        let mut batch = Batch::default();
        let plans: Vec<Plan> = effects
            .iter()
            .enumerate()
            .map(|(at, effect)| match effect {
                CrmEffect::Comment(effect) => {
                    let existing = match written.remove(&at) {
                        Some(Err(error)) => return Plan::Settled(Err(error)),
                        Some(Ok(found)) => found,
                        None => effect.existing.clone(),
                    };
                    self.plan_comment(portal, effect, existing, now, &mut batch)
                }
                CrmEffect::Reply(effect) => self.plan_reply(portal, effect, now, &mut batch),
                CrmEffect::Post(post) => match shown.remove(&at) {
                    Some(settled) => Plan::Settled(settled),
                    None => {
                        let (method, _) = chats::post_method(post);
                        self.or_rest(portal, method, now, || Plan::Post(self.push_post(portal, post, &mut batch)))
                    }
                },
                CrmEffect::Verdict(verdict) if verdict.is_silent() => Plan::Settled(Ok(Applied::Done)),
                CrmEffect::Verdict(verdict) => {
                    let method = chats::verdict_method(verdict);
                    self.or_rest(portal, method, now, || Plan::Verdict(self.push_verdict(portal, verdict, &mut batch)))
                }
            })
            .collect();
        let answer = match batch.is_empty() {
            true => Ok(Entries::new()),
            false => self.client.batch(portal, &batch).await,
        };
        let entry = |at: usize, repeatable: bool| match &answer {
            Ok(entries) => match entries.get(at) {
                Some(Ok(value)) => Ok(value),
                Some(Err(failed)) => Err(failed.error(repeatable)),
                None => Err(Fault::Unanswered.error(repeatable, None)),
            },
            Err(failed) => Err(CrmError { reach: Reach::Call, ..failed.error(repeatable) }),
        };
        self.note_lost_files(portal, effects, &plans, &answer).await;
        let told = self.notify_where_barred(portal, effects, &plans_of_notes(&plans), &answer).await;
        plans
            .into_iter()
            .enumerate()
            .map(|(at, plan)| match plan {
                Plan::Settled(result) => result,
                Plan::Post(entry_at) => {
                    let with_file = matches!(effects.get(at), Some(CrmEffect::Post(post)) if post.is_with_file());
                    chats::read_shown(with_file, entry(entry_at, false))
                }
                Plan::Verdict(_) if told.contains(&at) => Ok(Applied::Done),
                Plan::Verdict(entry_at) => entry(entry_at, true).map(|_| Applied::Done),
                Plan::Add(at) => entry(at, false).and_then(|id| read_id(id).map(Applied::Comment)),
                Plan::Update(at, id) => match entry(at, true) {
                    Ok(_) => Ok(Applied::Comment(id)),
                    Err(error) if error.code.eq_ignore_ascii_case("NOT_FOUND") => {
                        tracing::info!(portal.id = %portal.id, crm = "bitrix24", "comment is gone; left so");
                        Ok(Applied::Comment(id))
                    }
                    Err(error) => Err(error),
                },
                Plan::Reply(at) => entry(at, true).map(|_| Applied::Done),
            })
            .collect()
    }

    /// Says in the chats which files the portal has dropped. Nothing hangs on it: the messages stand there.
    async fn note_lost_files(
        &self,
        portal: &Portal,
        effects: &[CrmEffect],
        plans: &[Plan],
        answer: &Result<Entries, Failed>,
    ) {
        let Ok(entries) = answer else { return };
        let posts = effects.iter().zip(plans).filter_map(|(effect, plan)| match (effect, plan) {
            (CrmEffect::Post(post), Plan::Post(at)) => Some((&**post, entries.get(*at)?.as_ref().ok()?)),
            _ => None,
        });
        let notes = chats::lost_files(portal.language, &posts.collect::<Vec<_>>());
        let mut batch = Batch::default();
        for (chat, note) in &notes {
            let chat = format!("chat{chat}");
            batch.push(
                chats::NOTE,
                &[("DIALOG_ID", chat.into()), ("MESSAGE", note.as_str().into()), ("SYSTEM", "Y".into())],
            );
        }
        if batch.is_empty() {
            return;
        }
        tracing::warn!(portal.id = %portal.id, count = notes.len(), "the portal did not fetch files");
        if self.client.batch(portal, &batch).await.is_err() {
            tracing::warn!(portal.id = %portal.id, "operators are not told of files that are missing");
        }
    }

    fn plan_comment(
        &self,
        portal: &Portal,
        effect: &CommentEffect,
        existing: Option<CrmCommentId>,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Plan {
        let Some(entity) = entity_type(effect.card.kind) else { return Plan::Settled(Err(no_such_card(effect.card))) };
        let method = if existing.is_some() { UPDATE } else { ADD };
        if let Some(error) = self.method_is_hot(portal, method, now) {
            return Plan::Settled(Err(error));
        }
        let text = self.style.text(portal.language, &effect.view);
        match existing {
            Some(id) => {
                let fields = Param::map([("COMMENT", text.into())]);
                let entry = batch.push(UPDATE, &[("id", id.as_str().into()), ("fields", fields)]);
                Plan::Update(entry, id)
            }
            None => {
                let fields = Param::map([
                    ("ENTITY_ID", effect.card.id.into()),
                    ("ENTITY_TYPE", entity.into()),
                    ("COMMENT", text.into()),
                ]);
                Plan::Add(batch.push(ADD, &[("fields", fields)]))
            }
        }
    }

    fn plan_reply(&self, portal: &Portal, effect: &ReplyEffect, now: Timestamp, batch: &mut Batch) -> Plan {
        if let Some((code, message)) = sms::of_token(effect.token.as_str()) {
            let Some(status) = sms::status_of(&effect.result) else { return Plan::Settled(Ok(Applied::Done)) };
            let params = [("CODE", code.into()), ("MESSAGE_ID", message.into()), ("STATUS", status.into())];
            return self.or_rest(portal, sms::STATUS, now, || Plan::Reply(batch.push(sms::STATUS, &params)));
        }
        if let Some(error) = self.method_is_hot(portal, SEND, now) {
            return Plan::Settled(Err(error));
        }
        let values = self.return_values(portal.language, &effect.result);
        let log = log_message(portal.language, &effect.result);
        let params =
            [("EVENT_TOKEN", effect.token.as_str().into()), ("RETURN_VALUES", values), ("LOG_MESSAGE", log.into())];
        Plan::Reply(batch.push(SEND, &params))
    }

    /// Results in the words of `product.md` §2. Every key is always there, because a value of an earlier run would
    /// otherwise stay; only an empty list cannot be written in a query.
    fn return_values(&self, language: Language, result: &ActionResult) -> Param {
        let yes_no = |yes: bool, words: (&str, &str)| Param::from(if yes { words.0 } else { words.1 });
        let delivered = result.delivered_at.map(|at| self.style.moment(at, "%Y-%m-%dT%H:%M:%S%:z")).unwrap_or_default();
        let list = |values: Vec<&str>| match values.is_empty() {
            true => Param::from(""),
            false => Param::List(values.into_iter().map(Param::from).collect()),
        };
        let mut values = vec![
            ("status", yes_no(result.success(), ("Y", "N"))),
            ("detail", results::detail(language, result).into()),
            ("timeout", yes_no(result.in_time, ("1", "0"))),
            ("error_code", result.error.map_or("", |code| code.code()).into()),
        ];
        if !result.sends_nothing {
            values.push(("message_ids", list(result.message_ids.iter().map(|id| id.as_str()).collect())));
            values.push(("delivered_at", delivered.into()));
        }
        values.extend(result.own.iter().map(|(key, own)| (*key, list(own.iter().map(String::as_str).collect()))));
        Param::Map(values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// For comments that an earlier try may have written: their ids, by the effect's place; `None` where there is none.
    async fn look_for_written(
        &self,
        portal: &Portal,
        effects: &[CrmEffect],
        now: Timestamp,
    ) -> HashMap<usize, Result<Option<CrmCommentId>, CrmError>> {
        let mut batch = Batch::default();
        let mut asked = Vec::new();
        let mut found = HashMap::new();
        for (at, effect) in effects.iter().enumerate() {
            let CrmEffect::Comment(effect) = effect else { continue };
            if effect.existing.is_some() || !effect.maybe_written {
                continue;
            }
            let Some(entity) = entity_type(effect.card.kind) else { continue };
            if let Some(error) = self.method_is_hot(portal, LIST, now) {
                found.insert(at, Err(error));
                continue;
            }
            let filter = Param::map([("ENTITY_ID", effect.card.id.into()), ("ENTITY_TYPE", entity.into())]);
            let params = [
                ("filter", filter),
                ("order", Param::map([("ID", "DESC".into())])),
                ("select", Param::List(vec!["ID".into(), "COMMENT".into()])),
            ];
            asked.push((at, batch.push(LIST, &params), effect.view.message.short()));
        }
        if batch.is_empty() {
            return found;
        }
        let answer = self.client.batch(portal, &batch).await;
        for (at, entry, short) in asked {
            let result = match &answer {
                Ok(entries) => match entries.get(entry) {
                    Some(Ok(list)) => Ok(find_comment(list, short)),
                    Some(Err(failed)) => Err(failed.error(true)),
                    None => Err(Fault::Unanswered.error(true, None)),
                },
                Err(failed) => Err(failed.error(true)),
            };
            found.insert(at, result);
        }
        found
    }

    /// The plan, unless its method has used up its running time.
    fn or_rest(&self, portal: &Portal, method: &str, now: Timestamp, plan: impl FnOnce() -> Plan) -> Plan {
        self.method_is_hot(portal, method, now).map_or_else(plan, |error| Plan::Settled(Err(error)))
    }

    /// The method has used up its running time: the effect waits, others go on.
    pub(super) fn method_is_hot(&self, portal: &Portal, method: &str, now: Timestamp) -> Option<CrmError> {
        let wait = self.client.limits.method_wait(&portal.member_id, method, now)?;
        let text = format!("{method} rests until its running time is counted anew");
        let error = own(FailureClass::Throttled, PortalTrouble::None, "operation_time_limit", text);
        Some(CrmError { retry_after: Some(wait), ..error })
    }
}

/// Effects that are told by an entry of the call: their places, and the entries.
fn plans_of_notes(plans: &[Plan]) -> Vec<(usize, usize)> {
    let note = |(at, plan): (usize, &Plan)| match plan {
        Plan::Verdict(entry) => Some((at, *entry)),
        Plan::Settled(_) | Plan::Add(_) | Plan::Update(..) | Plan::Reply(_) | Plan::Post(_) => None,
    };
    plans.iter().enumerate().filter_map(note).collect()
}

fn find_comment(list: &Value, short: &str) -> Option<CrmCommentId> {
    let comment = items(list).into_iter().find(|comment| refers_to(&text_at(comment, &["COMMENT"]), short))?;
    read_id(member(comment, "ID")?).ok()
}

/// The id of a comment, a number in one spelling or another.
fn read_id(value: &Value) -> Result<CrmCommentId, CrmError> {
    let id = integer(value).or_else(|| integer(member(value, "id")?)).filter(|id| *id > 0);
    id.map(|id| CrmCommentId(id.to_string())).ok_or_else(|| {
        own(FailureClass::Indeterminate, PortalTrouble::None, "no_id", "the answer carries no id of the comment")
    })
}

/// One line for the workflow's log.
fn log_message(language: Language, result: &ActionResult) -> String {
    let all = result.recipients.len().to_string();
    let done = result.recipients.iter().filter(|recipient| recipient.outcome.is_ok()).count().to_string();
    let count = [("done", done.as_str()), ("all", all.as_str())];
    let failed = result.recipients.iter().find_map(|recipient| recipient.outcome.as_ref().err());
    let reason = match (failed, result.error) {
        (Some(failure), _) => i18n::error(language, failure.code, &failure.detail),
        (None, Some(code)) => i18n::error(language, code, ""),
        (None, None) if !result.in_time => i18n::text(language, "robot.log_late", &[]),
        (None, None) => return i18n::text(language, "robot.log_done", &count),
    };
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    i18n::text(language, "robot.log_failed", &[count[0], count[1], ("reason", &reason)])
}
