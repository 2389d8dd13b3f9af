//! Typed handles: a business number, a customer's phone, the ledger.

use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{
    Message, PhoneTraits, PhoneView, TemplateSpec, TemplateView,
    inbound::{self, Inbound},
    ledger::Route,
    numbers::{self, NumberCell, NumberSpec, NumberView},
    phones, statuses, webhooks,
};
use crate::world::World;

/// A business number. Cheap to clone.
#[derive(Clone)]
pub struct Number {
    pub(crate) world: Arc<World>,
    pub(crate) cell: Arc<NumberCell>,
}

impl Number {
    pub(crate) fn create(world: &Arc<World>, spec: NumberSpec) -> anyhow::Result<Self> {
        Ok(Self { world: world.clone(), cell: numbers::create(world, spec)? })
    }

    pub(crate) fn find(world: &Arc<World>, id: &str) -> Option<Self> {
        world.graph.number(id).map(|cell| Self { world: world.clone(), cell })
    }

    pub(crate) fn all(world: &Arc<World>) -> Vec<Self> {
        let mut cells: Vec<Arc<NumberCell>> = world.graph.numbers.read().values().cloned().collect();
        cells.sort_by(|left, right| left.id.cmp(&right.id));
        cells.into_iter().map(|cell| Self { world: world.clone(), cell }).collect()
    }

    /// Path element for sending.
    pub fn id(&self) -> String {
        self.cell.id.to_string()
    }

    /// Everything about it, secrets included: what an administrator types into the service.
    pub fn view(&self) -> NumberView {
        numbers::view(&self.world.graph, &self.cell)
    }

    /// Sets where webhooks go, without the challenge.
    pub fn set_callback(&self, url: Option<&str>) {
        self.cell.state.write().callback_url = url.map(Arc::from);
    }

    /// Does the verification challenge (§5.1) with the number's verify token and takes the address if it is passed.
    pub async fn subscribe(&self, url: &str) -> anyhow::Result<()> {
        let token = self.cell.state.read().verify_token.clone();
        webhooks::verify(&self.world, url, &token).await?;
        self.set_callback(Some(url));
        Ok(())
    }

    /// Sets the messages per second; 0 = no limit.
    pub fn set_throughput(&self, per_second: u32) {
        self.cell.state.write().throughput = per_second;
    }

    /// Registered or not (133010).
    pub fn set_registered(&self, registered: bool) {
        self.cell.state.write().registered = registered;
    }

    /// Deleted or not (33).
    pub fn set_deleted(&self, deleted: bool) {
        self.cell.state.write().deleted = deleted;
    }

    /// Access token valid or not (190).
    pub fn set_token_valid(&self, valid: bool) {
        if let Some(row) = self.world.graph.tokens.write().get_mut(&self.cell.spec.access_token) {
            row.valid = valid;
        }
    }

    /// Whether the token has the permission to send (10).
    pub fn set_token_may_send(&self, may_send: bool) {
        if let Some(row) = self.world.graph.tokens.write().get_mut(&self.cell.spec.access_token) {
            row.may_send = may_send;
        }
    }

    /// Changes the quality rating and tells by `phone_number_quality_update`.
    pub fn set_quality(&self, quality: &str) {
        let old = std::mem::replace(&mut self.cell.state.write().quality, quality.to_owned());
        let event = if quality == "RED" || (quality == "YELLOW" && old == "GREEN") { "FLAGGED" } else { "UNFLAGGED" };
        let value = json!({
            "display_phone_number": self.cell.spec.display_phone_number,
            "event": event,
            "max_daily_conversations_per_business": 10_000,
        });
        self.send_webhook("phone_number_quality_update", &value);
    }

    /// Somebody writes to a person in the phone's own application (coexistence, §5.4, §10.6); gives the message id.
    pub fn type_on_phone(&self, wa_id: &str, text: &str) -> String {
        let wamid = phones::wamid(&self.world.ids);
        let number = self.cell.spec.display_phone_number.as_str();
        let value = json!({
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": number, "phone_number_id": &*self.cell.id},
            "contacts": [{"wa_id": wa_id}],
            "message_echoes": [{
                "from": number, "to": wa_id, "id": wamid, "timestamp": self.world.clock.now_secs().to_string(),
                "type": "text", "text": {"body": text},
            }],
        });
        self.send_webhook("smb_message_echoes", &value);
        wamid
    }

    /// Posts a signed webhook of any field with any value.
    pub fn send_webhook(&self, field: &str, value: &Value) {
        webhooks::push_field(&self.world, &self.cell, field, value);
    }

    /// Adds or replaces a template of the number's account.
    pub fn put_template(&self, spec: TemplateSpec) -> anyhow::Result<TemplateView> {
        let template = self.world.graph.templates.write().put(&self.world, &self.cell.spec.waba_id, spec)?;
        self.world.change("template", &self.cell.id, format!("{}:{}", template.spec.name, template.spec.language));
        Ok(template.view())
    }

    /// Changes a template's status and tells by `message_template_status_update`.
    pub fn set_template_status(
        &self,
        name: &str,
        language: &str,
        status: &str,
        reason: Option<&str>,
    ) -> anyhow::Result<()> {
        let waba = &self.cell.spec.waba_id;
        let own = self.world.graph.templates.read().find(waba, name, language);
        let own = own.with_context(|| format!("no template {name} in {language}"))?;
        let spec =
            TemplateSpec { status: status.to_owned(), rejected_reason: reason.map(str::to_owned), ..own.spec.clone() };
        self.put_template(spec)?;
        let value = json!({
            "event": status,
            "message_template_id": own.id.parse::<u64>().unwrap_or(0),
            "message_template_name": name,
            "message_template_language": language,
            "message_template_category": own.spec.category,
            "reason": reason.unwrap_or("NONE"),
        });
        self.send_webhook("message_template_status_update", &value);
        Ok(())
    }

    /// Removes a template.
    pub fn remove_template(&self, name: &str, language: &str) -> bool {
        self.world.graph.templates.write().remove(&self.cell.spec.waba_id, name, language)
    }

    /// Templates of the number's account.
    pub fn templates(&self) -> Vec<TemplateView> {
        let list = self.world.graph.templates.read().list(&self.cell.spec.waba_id);
        list.iter().map(|template| template.view()).collect()
    }
}

/// A customer's phone. Cheap to clone.
#[derive(Clone)]
pub struct Phone {
    world: Arc<World>,
    wa_id: String,
}

impl Phone {
    pub(crate) fn of(world: &Arc<World>, wa_id: &str) -> Self {
        let options = world.graph.options.read().clone();
        let digits = super::phones::digits(wa_id).unwrap_or_else(|| wa_id.to_owned());
        let wa_id = world.graph.phones.lock().dial(&options, &digits).wa_id.clone();
        Self { world: world.clone(), wa_id }
    }

    /// Digits.
    pub fn wa_id(&self) -> &str {
        &self.wa_id
    }

    /// What it is like.
    pub fn view(&self) -> PhoneView {
        let options = self.world.graph.options.read().clone();
        self.world.graph.phones.lock().dial(&options, &self.wa_id).view()
    }

    /// Changes what it is like; coming online delivers what waits.
    pub fn set(&self, traits: PhoneTraits) {
        let options = self.world.graph.options.read().clone();
        let mut waiting = Vec::new();
        {
            let mut phones = self.world.graph.phones.lock();
            if let Some(alias) = traits.alias {
                phones.alias(alias, self.wa_id.clone());
            }
            let phone = phones.dial(&options, &self.wa_id);
            if let Some(name) = traits.name {
                phone.name = name;
            }
            phone.exists = traits.exists.unwrap_or(phone.exists);
            phone.read_receipts = traits.read_receipts.unwrap_or(phone.read_receipts);
            phone.auto_read = traits.auto_read.or(phone.auto_read);
            phone.online = traits.online.unwrap_or(phone.online);
            if phone.online {
                waiting.extend(phone.dialogs.values_mut().flat_map(|dialog| std::mem::take(&mut dialog.undelivered)));
            }
            match traits.block {
                Some((number, true)) => drop(phone.blocked.insert(number)),
                Some((number, false)) => drop(phone.blocked.remove(&number)),
                None => {}
            }
        }
        for track in waiting {
            statuses::delivered(&self.world, track);
        }
        self.world.change("phone", "", self.wa_id.clone());
    }

    /// Switches it off (or on).
    pub fn set_online(&self, online: bool) {
        self.set(PhoneTraits { online: Some(online), ..PhoneTraits::default() });
    }

    /// Has (or has not) a WhatsApp account.
    pub fn set_exists(&self, exists: bool) {
        self.set(PhoneTraits { exists: Some(exists), ..PhoneTraits::default() });
    }

    /// Blocks a business number, or takes it back.
    pub fn block(&self, number: &Number, block: bool) {
        self.set(PhoneTraits { block: Some((number.id(), block)), ..PhoneTraits::default() });
    }

    /// Writes a text; opens the window. Gives the message id.
    pub fn say(&self, number: &Number, text: &str) -> anyhow::Result<String> {
        self.send(number, &Inbound::text(text), None)
    }

    /// Sends anything, perhaps as a reply.
    pub fn send(&self, number: &Number, what: &Inbound, reply_to: Option<&str>) -> anyhow::Result<String> {
        inbound::send(&self.world, &number.cell, &self.wa_id, what, reply_to)
    }

    /// Taps the button (or picks the row) with this caption under a message, and sends what the app would send.
    pub fn tap(&self, number: &Number, wamid: &str, caption: &str) -> anyhow::Result<String> {
        let message = self.world.graph.ledger.lock().get(wamid).cloned().context("no such message")?;
        let button = message.shown.buttons.iter().find(|button| button.text == caption);
        let button = button.with_context(|| format!("no button {caption:?} under that message"))?;
        let (id, title) = (button.value.clone(), button.text.clone());
        let what = match button.kind.as_str() {
            "quick_reply" => Inbound::Button { payload: id, text: title },
            "reply" => Inbound::ButtonReply { id, title },
            "list_row" => Inbound::ListReply { id, title, description: None },
            other => bail!("a {other} button sends nothing to the business"),
        };
        self.send(number, &what, Some(wamid))
    }

    /// Opens the chat with a number: everything delivered and unread is read now.
    pub fn read(&self, number: &Number) {
        let options = self.world.graph.options.read().clone();
        let unread = {
            let mut phones = self.world.graph.phones.lock();
            std::mem::take(&mut phones.dial(&options, &self.wa_id).dialog(&number.cell.id).unread)
        };
        for track in unread {
            statuses::read(&self.world, &track);
        }
    }

    /// Closes the service window with a number at once.
    pub fn close_window(&self, number: &Number) {
        let options = self.world.graph.options.read().clone();
        self.world.graph.phones.lock().dial(&options, &self.wa_id).dialog(&number.cell.id).window_until_ms = 0;
    }

    /// Opens the service window without a message, as if the person had just written (no webhook is sent).
    pub fn open_window(&self, number: &Number) {
        let options = self.world.graph.options.read().clone();
        let until = self.world.now_ms() + options.window_s * 1000;
        self.world.graph.phones.lock().dial(&options, &self.wa_id).dialog(&number.cell.id).window_until_ms = until;
    }

    /// Both directions, oldest first.
    pub fn messages(&self) -> Vec<Message> {
        self.world.graph.ledger.lock().of_phone(&self.wa_id)
    }

    /// What the person sees from the business: messages that really arrived, oldest first.
    pub fn screen(&self) -> Vec<Message> {
        let all = self.messages();
        all.into_iter().filter(|message| message.route == Route::Out && message.arrived).collect()
    }
}

/// The book of messages.
#[derive(Clone)]
pub struct Ledger {
    world: Arc<World>,
}

impl Ledger {
    pub(crate) fn of(world: &Arc<World>) -> Self {
        Self { world: world.clone() }
    }

    /// Messages accepted from the business, ever.
    pub fn accepted(&self) -> u64 {
        self.world.graph.ledger.lock().accepted
    }

    /// How many `biz_opaque_callback_data` values were accepted more than once, ever.
    pub fn repeated(&self) -> u64 {
        self.world.graph.ledger.lock().repeated
    }

    /// Those values.
    pub fn repeated_opaques(&self) -> Vec<String> {
        self.world.graph.ledger.lock().repeated_opaques()
    }

    /// Messages with this `biz_opaque_callback_data`; exactly-once means one.
    pub fn by_opaque(&self, opaque: &str) -> Vec<Message> {
        self.world.graph.ledger.lock().of_opaque(opaque)
    }

    /// Messages of a phone, both directions, oldest first.
    pub fn by_phone(&self, wa_id: &str) -> Vec<Message> {
        self.world.graph.ledger.lock().of_phone(wa_id)
    }

    /// One message.
    pub fn get(&self, wamid: &str) -> Option<Message> {
        self.world.graph.ledger.lock().get(wamid).cloned()
    }

    /// The last `limit` messages, oldest first.
    pub fn last(&self, limit: usize) -> Vec<Message> {
        self.world.graph.ledger.lock().last(limit)
    }

    /// How many outbound messages satisfy a condition.
    pub fn count(&self, condition: impl Fn(&Message) -> bool) -> usize {
        let book = self.world.graph.ledger.lock();
        book.iter().filter(|message| message.route == Route::Out && condition(message)).count()
    }
}
