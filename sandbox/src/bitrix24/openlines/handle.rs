//! What tests and people do with open lines: the handle's methods.

use anyhow::{Context as _, bail};

use super::{
    Attachment, Chat, ChatAuthor, Notification, Standing,
    connectors::status_delete,
    messages::{change_event, operator_event},
};
use crate::{
    bitrix24::{Portal, events, events::Raised},
    php::Php,
};

impl Portal {
    /// Adds an open line; gives its number.
    pub fn add_open_line(&self, name: &str) -> i64 {
        self.cell.state.lock().openlines.add_line(name)
    }

    /// Deletes an open line; every subscriber is told, whosever line it was.
    pub fn delete_open_line(&self, line: i64) -> anyhow::Result<()> {
        let mut state = self.cell.state.lock();
        state.openlines.lines.remove(&line).with_context(|| format!("no open line {line}"))?;
        state.openlines.standings.retain(|(_, own), _| *own != line);
        drop(state);
        let raised = Raised::new("ONIMCONNECTORLINEDELETE", Php::Int(line));
        events::flush(&self.world, &self.cell, vec![raised], Some(1), None);
        Ok(())
    }

    /// Ids of registered connectors.
    pub fn connectors(&self) -> Vec<String> {
        self.cell.state.lock().openlines.connectors.keys().cloned().collect()
    }

    /// How a connector stands on a line; `None` when it does not.
    pub fn standing(&self, connector: &str, line: i64) -> Option<Standing> {
        self.cell.state.lock().openlines.standings.get(&(connector.to_owned(), line)).cloned()
    }

    /// An administrator disconnects a connector from a line in the portal.
    pub fn disconnect(&self, connector: &str, line: i64) -> anyhow::Result<()> {
        let raised = status_delete(&mut self.cell.state.lock().openlines, connector, line);
        let raised = raised.context("the connector does not stand on this line")?;
        events::flush(&self.world, &self.cell, vec![raised], Some(1), None);
        Ok(())
    }

    /// Chats of open lines, oldest first.
    pub fn chats(&self) -> Vec<Chat> {
        self.cell.state.lock().openlines.chats.values().cloned().collect()
    }

    /// The application's user may or may not enter a chat.
    pub fn open_chat_to_app(&self, chat: i64, open: bool) -> anyhow::Result<()> {
        let mut state = self.cell.state.lock();
        state.openlines.chats.get_mut(&chat).with_context(|| format!("no chat {chat}"))?.open_to_app = open;
        Ok(())
    }

    /// Notifications of users, oldest first.
    pub fn notifications(&self) -> Vec<Notification> {
        self.cell.state.lock().openlines.notifications.clone()
    }

    /// An operator writes in a chat; gives the message's number.
    pub fn operator_says(&self, chat: i64, user_id: i64, text: &str) -> anyhow::Result<i64> {
        self.says(chat, ChatAuthor::Employee(user_id), text, Vec::new())
    }

    /// An operator sends files, with or without words; gives the message's number.
    pub fn operator_sends(&self, chat: i64, user_id: i64, text: &str, files: Vec<Attachment>) -> anyhow::Result<i64> {
        self.says(chat, ChatAuthor::Employee(user_id), text, files)
    }

    /// An operator gives a message of theirs other words.
    pub fn operator_edits(&self, chat: i64, user_id: i64, message: i64, text: &str) -> anyhow::Result<()> {
        self.changes(chat, user_id, message, Some(text))
    }

    /// An operator deletes a message of theirs.
    pub fn operator_deletes(&self, chat: i64, user_id: i64, message: i64) -> anyhow::Result<()> {
        self.changes(chat, user_id, message, None)
    }

    fn changes(&self, number: i64, user_id: i64, message: i64, text: Option<&str>) -> anyhow::Result<()> {
        let mut state = self.cell.state.lock();
        let user = state.users.get(&user_id).map(|user| format!("{} {}", user.name, user.last_name));
        let name = user.with_context(|| format!("no user {user_id}"))?;
        let lines = &mut state.openlines;
        let chat = lines.chats.get_mut(&number).with_context(|| format!("no chat {number}"))?;
        let connector = lines.connectors.get(&chat.connector);
        if !connector.is_some_and(|own| if text.is_some() { own.edits } else { own.deletes }) {
            bail!("the portal does not offer that with this connector");
        }
        let at =
            chat.messages.iter().position(|own| own.id == message).with_context(|| format!("no message {message}"))?;
        if chat.messages[at].author != ChatAuthor::Employee(user_id) {
            bail!("message {message} is somebody else's");
        }
        let ids = chat.messages[at].external_ids.clone();
        match text {
            Some(text) => text.clone_into(&mut chat.messages[at].text),
            None => {
                chat.messages.remove(at);
            }
        }
        // In edits the signature stands a little differently (§5.8).
        let signed = text.map(|text| match connector.is_some_and(|own| own.needs_signature) {
            true => format!("[b]{name}:[/b][br] {text}"),
            false => text.to_owned(),
        });
        let raised = change_event(chat, message, &ids, signed.as_deref(), connector);
        drop(state);
        if let Some(raised) = raised {
            events::flush(&self.world, &self.cell, vec![raised], Some(user_id), None);
        }
        self.world.change("chat", &self.cell.member_id, number.to_string());
        Ok(())
    }

    /// The portal says something to the client by itself (a greeting); gives the message's number.
    pub fn line_says(&self, chat: i64, text: &str) -> anyhow::Result<i64> {
        self.says(chat, ChatAuthor::System, text, Vec::new())
    }

    fn says(&self, number: i64, author: ChatAuthor, text: &str, files: Vec<Attachment>) -> anyhow::Result<i64> {
        let domain = self.cell.domain();
        let now = self.world.now_ms();
        let mut state = self.cell.state.lock();
        let user_id = match author {
            ChatAuthor::Employee(id) => id,
            ChatAuthor::System | ChatAuthor::Client | ChatAuthor::Note => 0,
        };
        let user = state.users.get(&user_id).map(|user| format!("{} {}", user.name, user.last_name));
        if user_id > 0 && user.is_none() {
            bail!("no user {user_id}");
        }
        let lines = &mut state.openlines;
        let id = lines.put(number, author, text, Vec::new(), now).with_context(|| format!("no chat {number}"))?;
        let (told, shown): (Vec<Php>, Vec<_>) = files.into_iter().map(|file| lines.attach(&domain, file)).unzip();
        lines.put_files(number, id, shown);
        let chat = lines.chats.get(&number).with_context(|| format!("no chat {number}"))?;
        let connector = lines.connectors.get(&chat.connector);
        let skips = user_id == 0 && connector.is_some_and(|own| !own.needs_system);
        let signed = match user.filter(|_| connector.is_some_and(|own| own.needs_signature)) {
            Some(name) => format!("[b]{name}:[/b] [br]{text}"),
            None => text.to_owned(),
        };
        let raised = operator_event(chat, id, user_id, (&signed, told), connector);
        drop(state);
        if !skips {
            events::flush(&self.world, &self.cell, vec![raised], Some(user_id).filter(|id| *id > 0), None);
        }
        self.world.change("chat", &self.cell.member_id, number.to_string());
        Ok(id)
    }
}
