//! Simulated Bitrix24, amoCRM, WhatsApp Cloud API and Telegram Bot API: strict, fast, and able to misbehave on purpose.
//!
//! The sandbox is the outside world of the connector: the place where tests, the demo and bug reports run. It is written
//! from the protocol documents alone and shares no type with the service, so that a misspelt field is never wrong on both
//! sides. One [`Sandbox`] listens on loopback ports of its own:
//!
//! | port | plays |
//! |---|---|
//! | OAuth | Bitrix24's authorization server: `/oauth/token/`, `/rest/app.info` |
//! | one per portal | a portal: `/rest/…`, the frame host page `/frame`, `/oauth/authorize/` |
//! | amoCRM | every account (`/{subdomain}/…`): OAuth, REST v4, Salesbot |
//! | Graph | WhatsApp Cloud API: sending, numbers, templates, media, subscriptions, tokens |
//! | Bot API | Telegram: bots, sending, webhooks, files |
//! | control | a page to play with (`/`), and a JSON API for everything that [`Sandbox`] can do, with a change feed |
//!
//! Outgoing calls are made by three *couriers*: Bitrix24's queue server (events, robot callbacks; no retry), Meta's
//! webhook sender (signed, retried) and Telegram's (secret header, one after another per chat, retried). All can delay, shuffle, duplicate, hold and lose; [`Fault`] rules do the same and
//! more to single calls, in both directions, down to cutting an answer at a byte.
//!
//! # What is simulated
//!
//! * Bitrix24: application and token life cycle, rotation and its errors; installation with and without pages, update,
//!   uninstall, payment; page opens and the parent half of the postMessage protocol; REST conventions (JSON, form, query,
//!   three ways to pass a token, `time`, PHP's arrays), `batch` with references, the leaky bucket, the method time
//!   limit, renamed and deleted portals, maintenance pages; `event.*`, `placement.*`, `bizproc.*`, CRM reading and
//!   writing, timeline comments and log messages, users; robots on stages, callbacks, waiting workflows and their
//!   results; CRM events.
//! * amoCRM: codes, one-shot refresh tokens, long-lived tokens, renamed accounts, the signed word of a removal; account,
//!   leads, contacts and notes with their refusals; 7 requests a second, 429, and the page that shuts an address out; bots
//!   that call a handler (HS512, form or JSON), park, and go on once; the chats service with its signatures, chats begun from
//!   either side, statuses, reactions, changes, history, and hooks that come once.
//! * Bitrix24's files: `disk.file.get`, file fields of cards, documents whose PDF comes later, downloads by addresses that end.
//! * WhatsApp: strict validation of every simulated message type, templates with parameters, throughput and pair limits,
//!   the 24-hour window, statuses with pricing and opaque data, phones that are off, blocked, absent or secretive,
//!   inbound messages, reactions, media by id and by link, webhook signature, challenge and retries.
//! * Telegram: tokens and their revocation, `setWebhook` and its rules, updates with the secret header, sending of text and
//!   of files by address, limits per bot, chat and group, people who start, block, share their contact, groups, files.
//!
//! # What is not
//!
//! Files, edits and deletes in open lines, SMS senders, configurable activities, templates of documents, folders of the Drive, offline events and incoming webhooks of Bitrix24;
//! `.xml` answers and multipart bodies of REST; robot conditions, delays and order ("after the previous one"). Groups,
//! calls, catalogues, carousels, products, payment, coexistence, profile, block list, template creation by API, marketing
//! messages, messaging tiers, per-user marketing caps and pacing of WhatsApp; SHA-1 signatures; content of media files;
//! formatting, keyboards, uploads, albums, editing, polling and business accounts of Telegram.
//! Nothing survives a restart. What is not simulated is refused, never silently accepted.
//!
//! # Time
//!
//! There is one clock. [`Sandbox::advance`] moves it: tokens expire, windows close, workflows time out, retries fall due.
//! Tests wait with [`Sandbox::until`] and [`Sandbox::settled`], not by sleeping.

mod amocrm;
mod bitrix24;
mod clock;
mod control;
mod courier;
mod faults;
mod http;
mod ids;
mod journal;
mod php;
mod sandbox;
mod telegram;
mod whatsapp;
mod world;

pub use amocrm::{
    AccountSpec, AmoAccount, AmoInstall, AmoNote, AmoOptions, AmojoChat, AmojoMessage, BotCall, BotRun, BotState,
    ChatChannelSpec, IntegrationSpec, Outgoing, SaidBy, SavedBlock, Trigger,
};
pub use bitrix24::{
    AppSpec, Attachment, Automation, Chat, ChatAuthor, ChatMessage, FileShown, InstallView, ItemSpec, ItemView,
    KanbanCard, KanbanColumn, MethodConfirm, Multi, Note, Notification, OAuthOptions, OperatingLimit, Page,
    PageRequest, Portal, PortalLimits, PortalSpec, RobotKind, RobotRun, RobotState, RobotView, RunBrief, SendEffect,
    SenderView, SentResult, Serving, SmsSpec, SmsView, StageRobot, StageSpec, Standing, Switches, TimelineEntry,
    TokenPair, UserSpec,
};
pub use clock::Millis;
pub use courier::CourierKnobs;
pub use faults::{Action, Fault, FaultStatus};
pub use http::{CutFrom, Shape};
pub use journal::{Call, Change, Direction, Severity, Violation};
pub use sandbox::{Addresses, Options, Sandbox};
pub use telegram::{
    Bot, BotInbound, BotMessage, BotPerson, BotSpec, BotView, GroupState, PersonView, TelegramOptions, WebhookView,
};
pub use whatsapp::{
    Button, Delivery, GraphOptions, Inbound, Ledger, MediaShown, Message, Number, NumberSpec, NumberView, PairLimit,
    Phone, PhoneTraits, PhoneView, Route, Shown, TemplateSpec, TemplateView,
};

/// Card types as REST numbers them (`entityTypeId`).
pub mod entity {
    /// Lead.
    pub const LEAD: i64 = 1;
    /// Deal.
    pub const DEAL: i64 = 2;
    /// Contact.
    pub const CONTACT: i64 = 3;
    /// Company.
    pub const COMPANY: i64 = 4;
}
