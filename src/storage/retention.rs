//! How long what is kept: a rule for every table that grows, carried out a page at a time.
//!
//! Rows are looked through in the order of their primary key with plain reads; only what is due is written, a bounded
//! number of rows per transaction, and whoever calls rests in between. What still has a job, waiting or given up, is
//! never touched: it is not over. Statuses and counters outlive texts and phones.

use super::db::{Batch, args};
use super::{Storage, StorageError, sql};
use crate::domain::time::{Millis, Timestamp};

/// Rows looked at in one step; the most that one transaction changes.
pub const PAGE: i64 = 256;

/// How long what is kept; `None` is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// Texts, phones and names in messages and commands.
    pub bodies: Option<Millis>,
    /// Rows of messages and commands: states, times, duplicate shield.
    pub messages: Option<Millis>,
    /// The journal with the vendors' raw words.
    pub attempts: Option<Millis>,
    /// What is known of people who have been silent.
    pub dialogs: Option<Millis>,
    /// Jobs given up that nobody redrove.
    pub dead_letters: Option<Millis>,
    /// Idempotency keys of the messaging API.
    pub api_requests: Option<Millis>,
}

/// What a rule does with rows that are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// What people wrote and who they are is blanked; the row stays.
    Blank,
    /// The row goes.
    Delete,
}

impl Act {
    /// The word in metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Blank => "blanked",
            Self::Delete => "deleted",
        }
    }
}

/// What becomes of old rows of one table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The table.
    pub table: &'static str,
    /// What is done.
    pub act: Act,
    /// After how long; `None` is never.
    pub age: fn(&Retention) -> Option<Millis>,
    /// A page of rows behind the key `$1`: `key`, `at_ms`, and whether they are `due` at `$2`; at most `$3`.
    find: &'static str,
    /// Treats rows by key, if they are still due then.
    apply: Batch,
    /// Keys grow with time, so that a page of nothing but young rows is the last one worth looking at.
    by_time: bool,
}

/// How a table behaves over the years.
#[derive(Clone, Copy, Debug)]
pub enum Growth {
    /// It grows with the work and has these rules.
    Grows(&'static [Rule]),
    /// It is as large as what was set up; says why.
    Bounded(&'static str),
}

/// Every table of the schema. A test compares the list with the migrations.
pub const TABLES: &[(&str, Growth)] = &[
    // Those that refer to others come before them.
    (
        "attempts",
        Growth::Grows(&[Rule {
            table: "attempts",
            act: Act::Delete,
            age: |keep| keep.attempts,
            find: sql::OLD_ATTEMPTS,
            apply: sql::ATTEMPTS_DELETE,
            by_time: true,
        }]),
    ),
    (
        "jobs",
        Growth::Grows(&[Rule {
            table: "jobs",
            act: Act::Delete,
            age: |keep| keep.dead_letters,
            find: sql::OLD_DEAD_LETTERS,
            apply: sql::DEAD_LETTERS_DELETE,
            by_time: false,
        }]),
    ),
    (
        "messages",
        Growth::Grows(&[
            Rule {
                table: "messages",
                act: Act::Delete,
                age: |keep| keep.messages,
                find: sql::OLD_MESSAGES,
                apply: sql::MESSAGES_DELETE,
                by_time: true,
            },
            Rule {
                table: "messages",
                act: Act::Blank,
                age: |keep| keep.bodies,
                find: sql::OLD_MESSAGE_BODIES,
                apply: sql::MESSAGES_BLANK,
                by_time: true,
            },
        ]),
    ),
    (
        "commands",
        Growth::Grows(&[
            Rule {
                table: "commands",
                act: Act::Delete,
                age: |keep| keep.messages,
                find: sql::OLD_COMMANDS,
                apply: sql::COMMANDS_DELETE,
                by_time: true,
            },
            Rule {
                table: "commands",
                act: Act::Blank,
                age: |keep| keep.bodies,
                find: sql::OLD_COMMAND_BODIES,
                apply: sql::COMMANDS_BLANK,
                by_time: true,
            },
        ]),
    ),
    (
        "dialogs",
        Growth::Grows(&[Rule {
            table: "dialogs",
            act: Act::Delete,
            age: |keep| keep.dialogs,
            find: sql::OLD_DIALOGS,
            apply: sql::DIALOGS_DELETE,
            by_time: false,
        }]),
    ),
    (
        "chat_phones",
        Growth::Grows(&[Rule {
            table: "chat_phones",
            act: Act::Delete,
            age: |keep| keep.dialogs,
            find: sql::OLD_CHAT_PHONES,
            apply: sql::CHAT_PHONES_DELETE,
            by_time: false,
        }]),
    ),
    (
        "dialog_tags",
        Growth::Grows(&[Rule {
            table: "dialog_tags",
            act: Act::Delete,
            age: |keep| keep.dialogs,
            find: sql::OLD_DIALOG_TAGS,
            apply: sql::DIALOG_TAGS_DELETE,
            by_time: false,
        }]),
    ),
    (
        "chats",
        Growth::Grows(&[Rule {
            table: "chats",
            act: Act::Delete,
            age: |keep| keep.dialogs,
            find: sql::OLD_CHATS,
            apply: sql::CHATS_DELETE,
            by_time: false,
        }]),
    ),
    (
        "chat_mirrors",
        Growth::Grows(&[Rule {
            table: "chat_mirrors",
            act: Act::Delete,
            age: |keep| keep.bodies,
            find: sql::OLD_CHAT_MIRRORS,
            apply: sql::CHAT_MIRRORS_DELETE,
            by_time: true,
        }]),
    ),
    (
        "chat_changes",
        Growth::Grows(&[Rule {
            table: "chat_changes",
            act: Act::Delete,
            age: |keep| keep.messages,
            find: sql::OLD_CHAT_CHANGES,
            apply: sql::CHAT_CHANGES_DELETE,
            by_time: false,
        }]),
    ),
    (
        "api_requests",
        Growth::Grows(&[Rule {
            table: "api_requests",
            act: Act::Delete,
            age: |keep| keep.api_requests,
            find: sql::OLD_API_REQUESTS,
            apply: sql::API_REQUESTS_DELETE,
            by_time: false,
        }]),
    ),
    (
        "lost_calls",
        Growth::Grows(&[Rule {
            table: "lost_calls",
            act: Act::Delete,
            age: |keep| keep.bodies,
            find: sql::OLD_LOST_CALLS,
            apply: sql::LOST_CALLS_DELETE,
            by_time: false,
        }]),
    ),
    ("sent_texts", Growth::Bounded("forgotten when the longest guard no longer asks for them")),
    ("robot_turns", Growth::Bounded("forgotten when no message can wait any more")),
    ("workers", Growth::Bounded("forgotten by the next worker that starts, an hour after its lease")),
    ("queues", Growth::Bounded("three per portal and one per channel")),
    ("portals", Growth::Bounded("one per installation")),
    ("portal_tokens", Growth::Bounded("one per user of a portal who opened the application")),
    ("portal_signs", Growth::Bounded("three per portal")),
    ("lost_call_rules", Growth::Bounded("one per portal, made by an administrator")),
    ("sms_senders", Growth::Bounded("made by an administrator")),
    ("stage_looks", Growth::Bounded("one per kind of card of a portal")),
    ("stage_robots", Growth::Bounded("one per robot on a stage of a portal")),
    ("registrations", Growth::Bounded("one per robot and handler of a portal")),
    ("lines", Growth::Bounded("made by an administrator")),
    ("channels", Growth::Bounded("made by an administrator")),
    ("chat_lines", Growth::Bounded("made by an administrator")),
    ("portal_lines", Growth::Bounded("made by an administrator")),
    ("authorizations", Growth::Bounded("used up, or forgotten by the next one after an hour")),
    ("store_notes", Growth::Bounded("a handful of fixed keys")),
];

/// What one step did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purged {
    /// Rows changed.
    pub rows: u64,
    /// Where the next step begins; `None` at the end.
    pub next: Option<String>,
}

impl Storage {
    /// Looks at one page of a rule's table behind the key `after` (empty: from the start) and treats what is older than
    /// `before`.
    ///
    /// # Errors
    /// [`StorageError`]; nothing of this page was changed.
    #[tracing::instrument(name = "storage.purge", target = "mostik::span", skip_all)]
    pub async fn purge(&self, rule: &Rule, after: &str, before: Timestamp) -> Result<Purged, StorageError> {
        let page = self.db.rows(rule.find, args![after, before.0, PAGE]).await?;
        let mut due = Vec::new();
        let mut any_old = false;
        for row in &page {
            any_old |= row.int("at_ms")? < before.0;
            if row.flag("due")? {
                due.push(args![row.text("key")?, before.0]);
            }
        }
        let mut rows = 0;
        if !due.is_empty() {
            let mut tx = self.db.begin().await?;
            rows = tx.batch(rule.apply, due).await?;
            tx.commit().await?;
        }
        let over = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) || (rule.by_time && !any_old);
        let last = page.last().filter(|_| !over);
        Ok(Purged { rows, next: last.map(|row| row.text("key")).transpose()? })
    }

    /// True when a pass over all rules is this process's to make: no other one began one within `every`.
    ///
    /// # Errors
    /// [`StorageError`]; somebody else may make it.
    pub async fn claim_purge(&self, by: &str, every: Millis) -> Result<bool, StorageError> {
        let now = self.clock.now();
        let before = now.plus(Millis(-every.0));
        Ok(self.db.write(sql::NOTE_CLAIM, args!["retention", by, now.0, before.0]).await? == 1)
    }
}
