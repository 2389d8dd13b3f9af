//! Deadlines, quiet hours, replaced messages and texts that must not come twice: what an action says, else its line, else
//! the configuration.

use sha2::{Digest as _, Sha256};

use super::Pipeline;
use crate::domain::channel::Line;
use crate::domain::command::{Command, CommandBody};
use crate::domain::guards::{ActionGuards, Duplicates, LineSettings, Quiet, QuietChoice, QuietHours};
use crate::domain::message::{Content, MessageRecord};
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::phone::Phone;
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};
use crate::storage::guards::{MessageGuards, TextGuard};
use crate::storage::messages::NewMessage;
use crate::zones;

/// What holds for the messages of one command.
pub(super) struct Rules<'a> {
    pipeline: &'a Pipeline,
    command: &'a Command,
    action: &'a ActionGuards,
    line: &'a Line,
}

impl<'a> Rules<'a> {
    pub(super) fn new(pipeline: &'a Pipeline, command: &'a Command, action: &'a ActionGuards, line: &'a Line) -> Self {
        Self { pipeline, command, action, line }
    }

    /// Puts the rules on the messages of one person.
    pub(super) fn put_on(&self, messages: &mut Vec<NewMessage>, peer: &str, guards: &MessageGuards, now: Timestamp) {
        let not_after = deadline(self.pipeline, self.command.received, self.action, &self.line.settings);
        let quiet = self.quiet(peer, now);
        let end = quiet.as_ref().and_then(|quiet| zones::quiet_end(quiet.hours, &quiet.zone, now));
        for message in messages.iter_mut() {
            message.not_after = Some(not_after);
            message.due = end;
            message.guards = guards.clone();
            message.record.draft.quiet.clone_from(&quiet);
        }
        if end.is_some_and(|end| end > not_after) {
            // It could only come too late: said at once, and once.
            messages.truncate(1);
            for message in messages {
                message.due = None;
                message.record.state = MessageState::Failed;
                message.record.failure = Some(Failure::new(ErrorCode::Expired));
                message.record.draft.quiet = quiet.clone().map(|quiet| Quiet { too_late: end, ..quiet });
            }
        }
    }

    /// What is asked of earlier messages to the same person. `contents` are what the author wrote, before variants are
    /// picked: two variants of one text are one text.
    pub(super) fn guards(&self, peer: &str, contents: &[Content]) -> MessageGuards {
        let settings = &self.line.settings;
        let replaces = self.action.supersede.unwrap_or(settings.supersede);
        let turn = match (&self.command.robot, self.command.card) {
            (Some(robot), Some(card)) if replaces => {
                Some(hash(&[self.command.portal.as_str(), &card.to_string(), robot, peer]))
            }
            (Some(_) | None, Some(_) | None) => None,
        };
        let hold = match self.action.duplicates.unwrap_or(settings.duplicates) {
            Duplicates::Off => None,
            Duplicates::Refuse => Some(false),
            Duplicates::Hold => Some(true),
        };
        let text = hold.and_then(|hold| {
            let content = serde_json::to_string(contents).ok()?;
            let mark = hash(&[self.line.id.as_str(), peer, &content]);
            Some(TextGuard { mark, window: settings.duplicate_window(), hold })
        });
        MessageGuards { turn, text }
    }

    /// The quiet hours of one person. Whose clock: the one the card names; else that of the phone's country, if it has
    /// only one; else the line's; else the configured one.
    fn quiet(&self, peer: &str, now: Timestamp) -> Option<Quiet> {
        let settings = &self.line.settings;
        let hours: QuietHours = match self.action.quiet_hours {
            Some(QuietChoice::Off) => return None,
            Some(QuietChoice::Hours(hours)) => hours,
            None => settings.quiet_hours?,
        };
        // The number of a chat says nothing of a country.
        let phone = Phone::from_digits(peer);
        let own = self.action.time_zone.clone().or_else(|| zones::of_phone(phone?.digits(), now));
        let of_client = own.is_some();
        let zone = own.or_else(|| settings.time_zone.clone());
        let zone = zone.unwrap_or_else(|| self.pipeline.settings.time_zone.clone());
        Some(Quiet { hours, zone, of_client, too_late: None })
    }
}

/// Until when a message that was asked for at `received` may be sent.
pub(super) fn deadline(
    pipeline: &Pipeline,
    received: Timestamp,
    action: &ActionGuards,
    line: &LineSettings,
) -> Timestamp {
    let minutes = action.not_after_minutes.or(line.not_after_minutes);
    received.plus(minutes.map_or(pipeline.settings.not_after, Millis::minutes))
}

/// What the command's action says for itself.
pub(super) fn of_command(command: &Command) -> ActionGuards {
    match &command.body {
        CommandBody::SendMessage(send) => send.guards.clone(),
        CommandBody::TagDialog(_)
        | CommandBody::CheckPhone(_)
        | CommandBody::RenameChat(_)
        | CommandBody::Answer(_)
        | CommandBody::Invalid { .. } => ActionGuards::default(),
    }
}

/// The end of the quiet hours in which a message would leave now; `None` when it may.
pub(super) fn quiet_until(record: &MessageRecord, now: Timestamp) -> Option<Timestamp> {
    let quiet = record.draft.quiet.as_ref()?;
    zones::quiet_end(quiet.hours, &quiet.zone, now)
}

/// Gives up what has waited beyond its deadline without running: behind a paused channel, or behind an earlier message
/// of its dialog. Queues of other processes are looked after by them.
pub(super) async fn expire_overdue(pipeline: &Pipeline) {
    for queue in pipeline.scheduler.owned_channels() {
        match pipeline.storage.expire_sends(&queue).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(%queue, count, "messages given up: their deadline was over"),
            Err(error) => tracing::warn!(%error, %queue, "overdue messages could not be looked up"),
        }
    }
}

/// Stands for these words and tells nothing of them.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // The length first, so that no two lists read the same.
        hasher.update(part.len().to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
