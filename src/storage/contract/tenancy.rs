//! Whose is a row? Every table says so (`docs/adr/0010`): by its key, by its columns, or why it is nobody's. So the day
//! on which rows are spread over several database servers by tenant, nothing has to be guessed.

use std::collections::BTreeMap;

use super::super::db::Db;
use super::things::{command, furnished, me, message};
use super::{World, on_both, tables_of_the_schema};
use crate::domain::command::WaitFor;
use crate::domain::job::QueueKey;
use crate::storage::plan::Plan;

/// How the tenant of a row is known.
enum Home {
    /// The tenant is in the primary key.
    Key(&'static str),
    /// It is not yet: this expression over the row `t` tells it, and fills the column of the later migration.
    Told(&'static str),
    /// There is none, for this reason.
    Nobodys(&'static str),
}

/// The portal that was bound first to a line `l`.
macro_rules! of_line {
    ($line:literal) => {
        concat!(
            "(SELECT p.portal_id FROM portal_lines p WHERE p.line_id = ",
            $line,
            " ORDER BY p.bound_ms, p.portal_id LIMIT 1)"
        )
    };
}

/// The same of a channel's line.
macro_rules! of_channel {
    ($channel:expr) => {
        concat!(
            "(SELECT p.portal_id FROM channels c JOIN portal_lines p ON p.line_id = c.line_id WHERE c.id = ",
            $channel,
            " ORDER BY p.bound_ms, p.portal_id LIMIT 1)"
        )
    };
}

/// Of a message: where its channel is at home, and without a channel the portal it is for.
macro_rules! of_message {
    ($id:literal) => {
        concat!(
            "(SELECT COALESCE(",
            of_channel!("m.channel_id"),
            ", m.portal_id) FROM messages m WHERE m.id = ",
            $id,
            ")"
        )
    };
}

/// Of a queue: its portal, or where its channel is at home.
macro_rules! of_queue {
    ($key:literal) => {
        concat!(
            "(CASE WHEN ",
            $key,
            " LIKE 'in:%' THEN substr(",
            $key,
            ", 4) ELSE CASE WHEN ",
            $key,
            " LIKE 'crm:%' THEN substr(",
            $key,
            ", 5) ELSE ",
            of_channel!(concat!("substr(", $key, ", 5)")),
            " END END)"
        )
    };
}

/// Every table of the schema. A new one has to say whose its rows are.
const HOMES: &[(&str, Home)] = &[
    ("portals", Home::Key("id")),
    ("portal_tokens", Home::Key("portal_id")),
    ("registrations", Home::Key("portal_id")),
    ("portal_signs", Home::Key("portal_id")),
    ("portal_lines", Home::Key("portal_id")),
    ("lost_call_rules", Home::Key("portal_id")),
    ("stage_looks", Home::Key("portal_id")),
    ("sms_senders", Home::Key("portal_id")),
    ("stage_robots", Home::Key("portal_id")),
    ("lost_calls", Home::Key("portal_id")),
    ("chat_lines", Home::Key("portal_id")),
    ("commands", Home::Told("t.portal_id")),
    ("lines", Home::Told(of_line!("t.id"))),
    ("channels", Home::Told(of_line!("t.line_id"))),
    ("dialogs", Home::Told(of_channel!("t.channel_id"))),
    ("chats", Home::Told("t.portal_id")),
    ("chat_mirrors", Home::Told("t.portal_id")),
    ("chat_changes", Home::Told("t.portal_id")),
    ("dialog_tags", Home::Told(of_channel!("t.channel_id"))),
    ("chat_phones", Home::Told(of_channel!("t.channel_id"))),
    ("messages", Home::Told(of_message!("t.id"))),
    ("jobs", Home::Told(of_queue!("t.queue"))),
    ("queues", Home::Told(of_queue!("t.key"))),
    ("attempts", Home::Told(of_message!("t.message_id"))),
    ("api_requests", Home::Told(of_message!("t.message_id"))),
    ("sent_texts", Home::Told(of_message!("t.message_id"))),
    ("robot_turns", Home::Told("(SELECT c.portal_id FROM commands c WHERE c.id = t.command_id)")),
    ("authorizations", Home::Nobodys("consents under way: which account will come is not known yet")),
    ("workers", Home::Nobodys("processes work for all tenants; few rows, the same for every server")),
    ("store_notes", Home::Nobodys("what the store remembers of itself; few rows, the same for every server")),
];

#[test]
fn every_table_says_whose_its_rows_are() {
    let told: std::collections::BTreeSet<String> = HOMES.iter().map(|(table, _)| (*table).to_owned()).collect();
    assert_eq!(told, tables_of_the_schema());
    let mut reasons = HOMES.iter().filter_map(|(_, home)| if let Home::Nobodys(why) = home { Some(why) } else { None });
    assert!(reasons.all(|why| !why.is_empty()));
}

on_both! {
    keys_are_as_the_list_says
    the_tenant_of_every_row_can_be_told
}

/// Columns of the primary keys by table, as the database has them.
async fn keys(db: &Db) -> BTreeMap<String, Vec<String>> {
    let text = match db {
        Db::Sqlite { .. } => {
            "WITH k AS (SELECT m.name AS place, i.name AS part FROM sqlite_schema m JOIN pragma_table_info(m.name) i \
             WHERE m.type = 'table' AND i.pk > 0) SELECT place, part FROM k"
        }
        Db::Postgres(_) => {
            "WITH k AS (SELECT c.relname::text AS place, a.attname::text AS part FROM pg_index i \
             JOIN pg_class c ON c.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey) \
             WHERE i.indisprimary AND c.relnamespace = current_schema()::regnamespace) SELECT place, part FROM k"
        }
    };
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in db.rows(text, vec![]).await.unwrap() {
        keys.entry(row.text("place").unwrap()).or_default().push(row.text("part").unwrap());
    }
    keys
}

/// Every row with something to tell of it: a command with a message that was sent, answered and asked for by key.
async fn live(world: &World) {
    let (portal, channel) = furnished(world).await;
    let command = command(&portal, "k1", WaitFor::Delivered);
    let new = message(&command, &channel, "79161234567", None);
    let plan = Plan { command: command.id.clone(), waits: true, messages: vec![new.clone()] };
    world.storage.accept_planned(command.clone(), plan).await.unwrap();
    world.own(&me(), &QueueKey::Channel(channel.clone())).await;
    world.own(&me(), &QueueKey::Crm(portal.clone())).await;
    let (message, channel, command) = (new.record.id, channel, command.id);
    for (into, values) in [
        ("registrations (portal_id, key, fingerprint)", format!("'{portal}', 'robot:a', 'f'")),
        ("portal_signs (portal_id, kind, at_ms)", format!("'{portal}', 'event', 1")),
        ("lost_call_rules (portal_id, mode, changed_ms)", format!("'{portal}', 'ask', 1")),
        ("stage_looks (portal_id, kind, after_id, looked_ms, trouble)", format!("'{portal}', 'deal', 1, 1, ''")),
        (
            "sms_senders (portal_id, messenger, line_id, template, changed_ms)",
            format!("'{portal}', 'whatsapp', (SELECT line_id FROM channels WHERE id = '{channel}'), '', 1"),
        ),
        (
            "stage_robots (portal_id, kind, stage, robot, seen, skipped, command_id, card, print, same, seen_ms)",
            format!("'{portal}', 'deal', 'NEW', 'A1', 1, 0, '{command}', 'deal:134', 'p', 1, 1"),
        ),
        (
            "lost_calls (portal_id, id, card, stage, robot, entered_ms, found_ms, sure, state, changed_ms)",
            format!("'{portal}', 'l', 'deal:134', 'NEW', 'A1', 1, 1, 1, 'open', 1"),
        ),
        ("dialogs (channel_id, peer, name, changed_ms)", format!("'{channel}', '79161234567', '', 1")),
        (
            "chat_lines (portal_id, messenger, place, line_id, changed_ms)",
            format!("'{portal}', 'whatsapp', '1', (SELECT line_id FROM channels WHERE id = '{channel}'), 1"),
        ),
        (
            "chats (channel_id, peer, portal_id, messenger, place, crm_chat, changed_ms)",
            format!("'{channel}', '79161234567', '{portal}', 'whatsapp', '1', '', 1"),
        ),
        (
            "chat_mirrors (message_id, channel_id, peer, portal_id, author, print, calls, heard, echoes, until_ms, asked_ms)",
            format!("'{message}', '{channel}', '79161234567', '{portal}', '', '', 0, 0, ',', 0, 1"),
        ),
        (
            "chat_changes (key, portal_id, command_id, raised_ms, gone, changed_ms)",
            format!("'{portal}:1', '{portal}', '{command}', 1, 0, 1"),
        ),
        ("dialog_tags (channel_id, peer, tag, set_ms)", format!("'{channel}', '79161234567', 'vip', 1")),
        ("chat_phones (channel_id, phone, peer, shared_ms)", format!("'{channel}', '79161234567', 'tg.1', 1")),
        (
            "attempts (id, job_id, message_id, at_ms, duration_ms, outcome)",
            format!("'att_1', 'send:{message}', '{message}', 1, 1, 'ok'"),
        ),
        ("api_requests (key, fingerprint, message_id, created_ms)", format!("'k', 'f', '{message}', 1")),
        ("sent_texts (mark, message_id, sent_ms)", format!("'m', '{message}', 1")),
        ("robot_turns (key, command_id, given_ms)", format!("'r', '{command}', 1")),
        (
            "jobs (id, queue, lane, kind, subject, seq, state, revision, tries, due_ms, changed_ms)",
            format!(
                "'comment:{message}', 'crm:{portal}', 'deal:134', 'comment', '{message}', '1', 'ready', 0, 0, 1, 1"
            ),
        ),
    ] {
        let text: &'static str = Box::leak(format!("insert INTO {into} VALUES ({values})").into_boxed_str());
        assert_eq!(world.db.write(text, vec![]).await.unwrap(), 1, "{text}");
    }
}

mod promises {
    use super::*;

    /// A table that gets the tenant into its key leaves the list of those that have yet to.
    pub(super) async fn keys_are_as_the_list_says(world: &World) {
        let keys = keys(&world.db).await;
        for (table, home) in HOMES {
            let key = &keys[*table];
            match home {
                Home::Key(column) => assert!(key.iter().any(|part| part == column), "{table} has the key {key:?}"),
                Home::Told(_) | Home::Nobodys(_) => {
                    assert!(!key.iter().any(|part| part == "portal_id"), "{table} has the key {key:?}: say so");
                }
            }
        }
    }

    pub(super) async fn the_tenant_of_every_row_can_be_told(world: &World) {
        live(world).await;
        let portal = world.storage.list_portals(None, 1).await.unwrap().remove(0).id;
        for (table, home) in HOMES {
            let of = match home {
                Home::Key(column) => format!("t.{column}"),
                Home::Told(expression) => (*expression).to_owned(),
                Home::Nobodys(_) => continue,
            };
            let text = format!("WITH r AS (SELECT {of} AS home FROM {table} t) SELECT home FROM r");
            let text: &'static str = Box::leak(text.into_boxed_str());
            let rows = world.db.rows(text, vec![]).await.unwrap();
            assert!(!rows.is_empty(), "{table} has no row to look at");
            for row in rows {
                assert_eq!(row.maybe_text("home").unwrap().as_deref(), Some(portal.as_str()), "{table}");
            }
        }
    }
}
