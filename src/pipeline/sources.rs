//! What a CRM is asked before a command can be planned: whom its card concerns, and which files are meant.
//!
//! A file of a CRM has no address that a vendor could keep: what the CRM gives carries a token and ends with it. So a
//! message holds a name of the file ([`FileLink`]), and an address of ours is made when it is sent.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Pipeline, renames};
use crate::crm::{Crm, FileQuery};
use crate::domain::capability::{Capabilities, MediaKind};
use crate::domain::command::{Command, CommandBody, RecipientSource, SendMessage};
use crate::domain::crm_file::{CrmFile, FileInfo, FileLink};
use crate::domain::effect::{CardPerson, CrmError, RecipientQuery};
use crate::domain::file::FileRef;
use crate::domain::ids::PortalId;
use crate::domain::outcome::{ErrorCode, Failure};
use crate::domain::portal::Portal;
use crate::domain::time::{Millis, Timestamp};
use crate::storage::StorageError;
use crate::storage::messages::NewMessage;

/// How long a vendor may take to fetch a file.
const ADDRESS_LASTS: Millis = Millis::hours(1);

/// What the CRM told for one command.
#[derive(Debug, Default)]
pub(super) struct FromCrm {
    /// Whom the card concerns.
    pub(super) people: Vec<CardPerson>,
    /// The files by the name that the automation gave them, or why one cannot be had.
    files: Option<Result<HashMap<String, Vec<FileInfo>>, Failure>>,
    /// What was done in the CRM itself, by person; empty for actions that do nothing there.
    pub(super) done: Vec<NewMessage>,
}

/// Asks a portal for several commands: one call for people, one for files. What is to be done in the portal itself, and may be
/// done twice without harm, is done here.
pub(super) async fn ask(
    pipeline: &Arc<Pipeline>,
    portal_id: &PortalId,
    commands: &[Arc<Command>],
) -> Result<Vec<Result<FromCrm, CrmError>>, StorageError> {
    let gone = || StorageError::Broken(format!("portal {portal_id} or its CRM is gone"));
    let known_portal = pipeline.storage.portal(portal_id).await?.ok_or_else(gone)?;
    let crm = pipeline.crm(known_portal.portal.crm).ok_or_else(gone)?;
    let mut queries = Vec::new();
    for command in commands {
        queries.extend(person_query(command));
    }
    let mut people = match queries.is_empty() {
        true => Vec::new(),
        false => crm.people(&known_portal.portal, &queries).await,
    }
    .into_iter();
    let mut files = files_of(crm, &known_portal.portal, commands).await.into_iter();
    // A command that asks nobody has no people.
    let told = commands.iter().map(|command| {
        let people = match person_query(command) {
            Some(_) => people.next().unwrap_or_else(|| Ok(Vec::new())),
            None => Ok(Vec::new()),
        };
        let files = files.next().unwrap_or(Ok(None));
        Ok(FromCrm { people: people?, files: files?, done: Vec::new() })
    });
    let mut told: Vec<Result<FromCrm, CrmError>> = told.collect();
    for (command, told) in commands.iter().zip(&mut told) {
        if let (CommandBody::RenameChat(rename), Ok(known)) = (&command.body, &mut *told) {
            match renames::carry_out(pipeline, crm, &known_portal.portal, command, rename, &known.people).await? {
                Ok(done) => known.done = done,
                Err(error) => *told = Err(error),
            }
        }
    }
    Ok(told)
}

fn person_query(command: &Command) -> Option<RecipientQuery> {
    let (Some(card), true) = (command.card, command.body.needs_card()) else { return None };
    let recipients = command.body.recipients()?;
    Some(RecipientQuery { card, all: recipients.source == RecipientSource::All })
}

type Found = Option<Result<HashMap<String, Vec<FileInfo>>, Failure>>;

async fn files_of(crm: &Arc<dyn Crm>, portal: &Portal, commands: &[Arc<Command>]) -> Vec<Result<Found, CrmError>> {
    let wanted: Vec<Vec<CrmFile>> = commands.iter().map(|command| command.body.crm_files()).collect();
    let query = |(command, files): (&Arc<Command>, &Vec<CrmFile>)| {
        let card = command.card;
        files.iter().map(|file| FileQuery { card, file: file.clone() }).collect::<Vec<_>>()
    };
    let asked: Vec<FileQuery> = commands.iter().zip(&wanted).flat_map(query).collect();
    if asked.is_empty() {
        return commands.iter().map(|_| Ok(None)).collect();
    }
    let Some(files) = crm.files() else {
        let cannot = || Failure::with(ErrorCode::Unsupported, "files");
        return wanted.iter().map(|files| Ok((!files.is_empty()).then(|| Err(cannot())))).collect();
    };
    let mut answers = files.find_files(portal, &asked).await.into_iter();
    wanted
        .iter()
        .map(|files| {
            let answers: Vec<_> = answers.by_ref().take(files.len()).collect();
            let mut found = HashMap::new();
            let mut refused = None;
            for (file, answer) in files.iter().zip(answers) {
                match answer {
                    Ok(infos) => {
                        found.insert(file.to_string(), infos);
                    }
                    Err(error) if error.class.is_final() => {
                        let detail = format!("{file}: {}", error.text);
                        refused.get_or_insert(Failure::with(ErrorCode::FileNotFound, detail));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(match (files.is_empty(), refused) {
                (true, _) => None,
                (false, Some(failure)) => Some(Err(failure)),
                (false, None) => Some(Ok(found)),
            })
        })
        .collect()
}

impl FromCrm {
    /// The action with the places of its files instead of their names.
    ///
    /// # Errors
    /// The [`Failure`] of a file that cannot be had.
    pub(super) fn with_files(&self, command: &Command, send: &SendMessage) -> Result<SendMessage, Failure> {
        let mut send = send.clone();
        let found = match &self.files {
            None => return Ok(send),
            Some(found) => found.as_ref().map_err(Clone::clone)?,
        };
        let place = |info: &FileInfo| FileLink::new(command.portal.clone(), command.card, info).to_string();
        let placed = |files: &[String]| -> Vec<String> {
            let of = |file: &String| match found.get(file) {
                Some(infos) => infos.iter().map(place).collect(),
                None => vec![file.clone()],
            };
            files.iter().flat_map(of).collect()
        };
        send.files = placed(&send.files);
        for call in [&mut send.template, &mut send.fallback].into_iter().flatten() {
            call.files = placed(&call.files);
        }
        Ok(send)
    }

    /// Says no to a file that the messenger would refuse for its length, before anything is sent.
    pub(super) fn check_sizes(&self, capabilities: &Capabilities) -> Result<(), Failure> {
        const MIB: u64 = 1024 * 1024;
        let Some(Ok(found)) = &self.files else { return Ok(()) };
        for info in found.values().flatten() {
            let kind = MediaKind::of_name(&info.name);
            let most = capabilities.link_max.iter().find(|(known, _)| *known == kind).map(|(_, most)| *most);
            if let (Some(size), Some(most)) = (info.size, most)
                && size > most
            {
                let detail = format!("{}: {} / {} MiB", info.name, size.div_ceil(MIB), most / MIB);
                return Err(Failure::with(ErrorCode::FileTooLarge, detail));
            }
        }
        Ok(())
    }
}

/// The address at which a vendor finds a file of a message now. Addresses of the network stay as they are.
pub(super) fn address_of(
    pipeline: &Pipeline,
    owner: Option<&PortalId>,
    link: &str,
    now: Timestamp,
) -> Result<String, Failure> {
    let Some(file) = FileLink::parse(link) else { return Ok(link.to_owned()) };
    let no_file = || Failure::with(ErrorCode::FileNotFound, file.name.clone());
    // Only a portal's own message may name its files.
    if owner != Some(&file.portal) {
        return Err(no_file());
    }
    pipeline.address_of(&FileRef::Kept(link.to_owned()), &file.name, now.plus(ADDRESS_LASTS)).map_err(|error| {
        tracing::error!(%error, "no address for a file could be made");
        no_file()
    })
}
