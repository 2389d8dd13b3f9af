//! The door to the CRMs: they ask ([`crate::domain::command::Command`]), and we tell them
//! ([`crate::domain::effect::CrmEffect`]). The pipeline knows no more of a CRM than this.
//!
//! Invariant: nothing below `crm/` sees the storage or a provider.

pub mod amocrm;
pub mod asked;
pub mod bitrix24;
mod chat_words;
mod comments;
mod results;
mod tokens;

use std::fmt;

use async_trait::async_trait;

use crate::domain::channel::Messenger;
use crate::domain::chat::{ChatLine, ChatName, ChatPlace, ChatPost};
use crate::domain::crm_file::{CrmFile, FileInfo};
use crate::domain::effect::{Applied, CardPerson, CrmEffect, CrmError, PortalTrouble, Reach, RecipientQuery};
use crate::domain::ids::PortalId;
use crate::domain::outcome::FailureClass;
use crate::domain::portal::{CardKind, CardRef, CrmKind, Portal};
use crate::domain::sms::SmsPlace;
use crate::domain::stage::StagePage;
use crate::domain::text::excerpt;
use crate::domain::time::{Millis, Timestamp};
use crate::outbound::download::Download;

/// What is fixed about a CRM.
#[derive(Clone, Copy, Debug)]
pub struct CrmSpec {
    /// Which one.
    pub kind: CrmKind,
    /// Most effects in one [`Crm::apply`].
    pub batch_max: usize,
    /// A reply given sooner after the command than this may find nobody waiting.
    pub reply_not_before: Millis,
    /// A reply that came too early is lost without a word, so it is given once more. Where the CRM says that nobody
    /// waited, there is nothing to repeat.
    pub loses_replies: bool,
}

/// What a CRM's limits say about the next call; asked by the scheduler before it starts one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budget {
    /// Calls that may be made right now.
    pub calls: f64,
    /// Calls the portal's bucket holds when it is empty of ours.
    pub burst: f64,
    /// Calls that come free per second.
    pub per_second: f64,
    /// Nothing may be called before this moment, whatever the bucket says.
    pub blocked_until: Option<Timestamp>,
}

/// One CRM.
#[async_trait]
pub trait Crm: Send + Sync {
    /// What is fixed about it.
    fn spec(&self) -> &'static CrmSpec;

    /// Tells the portal several things in one call. Answers stand in the order of `effects`; each settles for itself.
    ///
    /// Errors: never fails as a whole; a call that broke gives each effect its own error.
    async fn apply(&self, portal: &Portal, effects: &[CrmEffect]) -> Vec<Result<Applied, CrmError>>;

    /// Reads whom cards concern, several cards in one call. Answers stand in the order of `queries`; an empty list
    /// means the card has nobody.
    async fn people(&self, portal: &Portal, queries: &[RecipientQuery]) -> Vec<Result<Vec<CardPerson>, CrmError>>;

    /// Brings what is registered in the portal (robots, event handlers) in line with what should be.
    ///
    /// # Errors
    /// The first error that forbids to go on; a step the portal's plan does not offer is no error.
    async fn reconcile(&self, portal: &Portal, lines: &[(String, String)]) -> Result<(), CrmError>;

    /// What the portal's limits allow at `now`, by our own count and its last answers. Where several portals share a
    /// limit (one account with several of our applications, an address of ours), each is told the tightest one.
    fn budget(&self, portal: &Portal, now: Timestamp) -> Budget;

    /// The ability to hold chats in which operators answer clients, where the CRM has it.
    fn chats(&self) -> Option<&dyn Chats> {
        None
    }

    /// The ability to give chats other names, where the CRM has it.
    fn chat_names(&self) -> Option<&dyn ChatNames> {
        None
    }

    /// The ability to hand out files it keeps, where the CRM has it.
    fn files(&self) -> Option<&dyn Files> {
        None
    }

    /// The ability to send its short messages through our lines, where the CRM has it.
    fn sms_senders(&self) -> Option<&dyn SmsSenders> {
        None
    }

    /// The ability to tell how cards move through stages, where the CRM has it.
    fn stages(&self) -> Option<&dyn Stages> {
        None
    }
}

/// The ability to send its short messages through our lines. Their statuses travel as results ([`CrmEffect::Reply`]).
#[async_trait]
pub trait SmsSenders: Send + Sync {
    /// Brings the senders of a portal in line: `wanted` are all there should be.
    ///
    /// # Errors
    /// The first error; `NotPermitted` where plan or rights offer no senders.
    async fn reconcile_senders(&self, portal: &Portal, wanted: &[SmsPlace]) -> Result<(), CrmError>;
}

/// The ability to tell how cards move through stages.
#[async_trait]
pub trait Stages: Send + Sync {
    /// A page of entries of one kind of card into stages behind the number `after`.
    ///
    /// # Errors
    /// `NotPermitted` where plan, rights or the kind of card do not allow to ask.
    async fn entries(&self, portal: &Portal, kind: CardKind, after: i64) -> Result<StagePage, CrmError>;

    /// The number of the newest entry; 0 without any.
    ///
    /// # Errors
    /// As [`Stages::entries`].
    async fn newest_entry(&self, portal: &Portal, kind: CardKind) -> Result<i64, CrmError>;

    /// Where cards stand now, in the order of `cards`; `None` for a card that is gone.
    async fn stages_of(&self, portal: &Portal, cards: &[CardRef]) -> Vec<Result<Option<String>, CrmError>>;
}

/// The ability to give chats other names.
#[async_trait]
pub trait ChatNames: Send + Sync {
    /// Names chats, in the order of `names`. May be repeated.
    async fn rename(&self, portal: &Portal, names: &[ChatName]) -> Vec<Result<(), CrmError>>;
}

/// The ability to hand out files it keeps.
#[async_trait]
pub trait Files: Send + Sync {
    /// What is known of files, in the order of `asked`; a field may hold several. No answer carries an address.
    async fn find_files(&self, portal: &Portal, asked: &[FileQuery]) -> Vec<Result<Vec<FileInfo>, CrmError>>;

    /// Opens one file.
    ///
    /// # Errors
    /// `Rejected` when there is no such file (any more); reading may always be repeated.
    async fn open_file(&self, portal: &Portal, query: &FileQuery) -> Result<Download, CrmError>;
}

/// A question for a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileQuery {
    /// The card in whose fields it may be.
    pub card: Option<CardRef>,
    /// Which one.
    pub file: CrmFile,
}

/// The ability to hold chats. What is said in them travels as effects ([`CrmEffect::Post`], [`CrmEffect::Verdict`]).
#[async_trait]
pub trait Chats: Send + Sync {
    /// Brings connectors and the places of chats in line: `messengers` are those this version can connect, `places` all
    /// that are wanted in the portal. Gives the places that somebody has disconnected in the CRM.
    ///
    /// # Errors
    /// The first error that forbids to go on; a portal whose plan or rights offer no chats is no error.
    async fn reconcile_chats(
        &self,
        portal: &Portal,
        messengers: &[Messenger],
        places: &[ChatPlace],
    ) -> Result<Vec<ChatLine>, CrmError>;

    /// The words of a post as the CRM tells them back, when it is one of an employee: without marks of formatting.
    fn heard(&self, portal: &Portal, post: &ChatPost) -> String;

    /// Opens a file that an operator attached, by the link of its message; nothing but the portal itself is called.
    ///
    /// # Errors
    /// `Rejected` for what is no file of the portal; `Unavailable` when it may be there later.
    async fn open(&self, portal: &Portal, link: &str) -> Result<Download, CrmError>;
}

/// One pair of tokens, bound to a user of a portal. Secret: has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The user in the CRM's numbering.
    pub user_id: String,
    /// Administrators' tokens are preferred for background work.
    pub is_admin: bool,
    /// Sent with every call.
    pub access: String,
    /// Gets the next pair.
    pub refresh: String,
    /// When the access token ends.
    pub expires: Timestamp,
}

impl fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenPair {{ user {}, admin {}, expires {} }}", self.user_id, self.is_admin, self.expires.0)
    }
}

/// The store did not answer. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreDown(pub String);

/// What an adapter needs remembered. The storage implements it; adapters see nothing else of the storage.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Living tokens of a portal, best first (administrators, then the longest lived).
    async fn load_tokens(&self, portal: &PortalId) -> Result<Vec<TokenPair>, StoreDown>;

    /// Keeps a new pair durably; the pair before it is kept beside it for one generation.
    async fn save_tokens(&self, portal: &PortalId, pair: &TokenPair) -> Result<(), StoreDown>;

    /// Marks one user's pair dead, unless it has been replaced since (`refresh` no longer matches).
    async fn drop_tokens(&self, portal: &PortalId, pair: &TokenPair) -> Result<(), StoreDown>;

    /// The portal moved: from now on it answers at this endpoint.
    async fn save_endpoint(&self, portal: &PortalId, domain: &str, client_endpoint: &str) -> Result<(), StoreDown>;

    /// Fingerprints of what was registered last, by `kind:code`.
    async fn load_registrations(&self, portal: &PortalId) -> Result<Vec<(String, String)>, StoreDown>;

    /// Remembers the fingerprint of one registration; `None` forgets it.
    async fn save_registration(&self, portal: &PortalId, key: &str, fingerprint: Option<&str>)
    -> Result<(), StoreDown>;
}

/// An error of ours that is nobody's answer.
fn own(class: FailureClass, trouble: PortalTrouble, code: &str, text: impl Into<String>) -> CrmError {
    let text = shorten(&text.into());
    CrmError { class, portal: trouble, code: code.to_owned(), text, retry_after: None, reach: Reach::Entry }
}

/// The store did not answer; nothing was sent.
fn store_down(error: StoreDown) -> CrmError {
    own(FailureClass::Unavailable, PortalTrouble::None, "store_down", error.0)
}

/// No living token is left.
fn needs_auth() -> CrmError {
    let text = "no living tokens; an administrator has to open the application in the portal";
    own(FailureClass::Misconfigured, PortalTrouble::NeedsAuth, "no_tokens", text)
}

/// A CRM's wording on one line and short enough for a journal.
fn shorten(text: &str) -> String {
    excerpt(text, 200)
}
