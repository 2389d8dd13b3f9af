//! Starting a sandbox, and its typed handle.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    amocrm::{AccountSpec, AmoAccount, AmoOptions, ChatChannelSpec, IntegrationSpec},
    bitrix24::{AppSpec, OAuthOptions, Portal, PortalSpec},
    clock::Millis,
    courier::CourierKnobs,
    faults::{Fault, FaultStatus},
    journal::{Call, Change, Severity, Violation},
    telegram::{Bot, BotPerson, BotSpec, TelegramOptions},
    whatsapp::{GraphOptions, Ledger, Number, NumberSpec, Phone},
    world::World,
};

/// How a sandbox is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Port of the OAuth server; 0 = any.
    pub oauth_port: u16,
    /// Port of the Graph server; 0 = any.
    pub graph_port: u16,
    /// Port of amoCRM; 0 = any.
    pub amo_port: u16,
    /// Port of the Bot API server; 0 = any.
    pub telegram_port: u16,
    /// Port of the control API; 0 = any.
    pub control_port: u16,
    /// Seed of ids and random choices; absent = different at every start.
    pub seed: Option<u64>,
    /// Recorded calls that are kept; 0 = none (counters stay exact).
    pub calls_kept: usize,
    /// Calls to the service that may be on their way at a time, for each of queue server and webhook sender.
    pub senders: usize,
    /// Behaviour of the Graph server.
    pub graph: GraphOptions,
    /// Behaviour of the Bot API server.
    pub telegram: TelegramOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            oauth_port: 0,
            graph_port: 0,
            amo_port: 0,
            telegram_port: 0,
            control_port: 0,
            seed: None,
            calls_kept: 20_000,
            senders: 32,
            graph: GraphOptions::default(),
            telegram: TelegramOptions::default(),
        }
    }
}

/// Where everything listens.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    /// Base of the control API, `http://127.0.0.1:PORT`.
    pub control: String,
    /// Base of the OAuth server; `oauth_hosts` of the service.
    pub oauth: String,
    /// `server_endpoint` that portals tell.
    pub server_endpoint: String,
    /// `account_url` of the service for amoCRM.
    pub amocrm: String,
    /// Base of the Graph API; `base_url` of the service.
    pub graph: String,
    /// Base of the Bot API; `base_url` of the service.
    pub telegram: String,
}

/// A running sandbox. Dropping it stops everything.
pub struct Sandbox {
    world: Arc<World>,
    control_port: u16,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.world.stop.cancel();
        // Planned jobs hold the world; without this it would never be freed.
        self.world.timetable.clear();
    }
}

impl Sandbox {
    /// Starts on free ports with default options. Needs a tokio runtime around it.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts as told.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let (world, control_port) = World::start(&options).await?;
        Ok(Self { world, control_port })
    }

    /// Where everything listens.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            control: format!("http://127.0.0.1:{}", self.control_port),
            oauth: format!("http://{}", self.world.bitrix.oauth_host()),
            server_endpoint: self.world.bitrix.server_endpoint(),
            amocrm: self.world.amo.account_url(),
            graph: self.world.graph.base_url(),
            telegram: self.world.telegram.base_url(),
        }
    }

    /// Stops all listeners and tasks and waits for them.
    pub async fn stop(self) {
        self.world.stop.cancel();
        self.world.tasks.close();
        self.world.tasks.wait().await;
    }

    /// Completes when the sandbox is stopped.
    pub async fn stopped(&self) {
        self.world.stop.cancelled().await;
    }

    // Bitrix24 -----------------------------------------------------------------------------------------------------

    /// Registers an application; missing ids and secret are made up.
    pub fn add_app(&self, app: AppSpec) -> AppSpec {
        (*self.world.bitrix.add_app(&self.world, app)).clone()
    }

    /// Removes an application from the OAuth server: `wrong_client` from now on.
    pub fn remove_app(&self, client_id: &str) -> bool {
        self.world.bitrix.remove_app(client_id)
    }

    /// Registered applications.
    pub fn apps(&self) -> Vec<AppSpec> {
        self.world.bitrix.apps()
    }

    /// Creates a portal on a port of its own.
    pub async fn add_portal(&self, spec: PortalSpec) -> anyhow::Result<Portal> {
        Portal::create(&self.world, spec).await
    }

    /// A portal by `member_id`.
    pub fn portal(&self, member_id: &str) -> Option<Portal> {
        self.world.bitrix.portal(member_id).map(|cell| Portal { world: self.world.clone(), cell })
    }

    /// All portals.
    pub fn portals(&self) -> Vec<Portal> {
        let cells = self.world.bitrix.portals();
        cells.into_iter().map(|cell| Portal { world: self.world.clone(), cell }).collect()
    }

    /// Changes how the OAuth server behaves.
    pub fn set_oauth(&self, change: impl FnOnce(&mut OAuthOptions)) {
        change(&mut self.world.bitrix.oauth.write());
    }

    /// Knobs of the queue server (events and robot callbacks).
    pub fn set_queue_knobs(&self, change: impl FnOnce(&mut CourierKnobs)) {
        let mut knobs = self.world.bitrix.queue.knobs();
        change(&mut knobs);
        self.world.bitrix.queue.set_knobs(&self.world, knobs);
    }

    // amoCRM -------------------------------------------------------------------------------------------------------

    /// Registers an integration; missing ids and secret are made up.
    pub fn add_integration(&self, spec: IntegrationSpec) -> IntegrationSpec {
        (*self.world.amo.add_integration(&self.world, spec)).clone()
    }

    /// Registers a channel of chats at amoCRM's chats service, as its support does.
    pub fn add_chat_channel(&self, spec: ChatChannelSpec) -> ChatChannelSpec {
        self.world.amo.amojo.lock().register(&self.world, spec)
    }

    /// The chats of an integration are cut in an account, and nobody is told.
    pub fn cut_chats(&self, client_id: &str, account: &AmoAccount) {
        self.world.amo.amojo.lock().cut(client_id, account.id());
    }

    /// Creates an account.
    pub fn add_account(&self, spec: AccountSpec) -> anyhow::Result<AmoAccount> {
        let cell = self.world.amo.add_account(&self.world, spec)?;
        Ok(AmoAccount { world: self.world.clone(), cell })
    }

    /// Changes how amoCRM behaves.
    pub fn set_amo(&self, change: impl FnOnce(&mut AmoOptions)) {
        change(&mut self.world.amo.options.write());
    }

    /// Shuts our address out, or lets it in again (§6.2); forgets what was counted.
    pub fn set_amo_shut(&self, shut: bool) {
        self.world.amo.set_shut(shut);
    }

    /// Knobs of what calls Salesbot handlers.
    pub fn set_bot_knobs(&self, change: impl FnOnce(&mut CourierKnobs)) {
        let mut knobs = self.world.amo.courier.knobs();
        change(&mut knobs);
        self.world.amo.courier.set_knobs(&self.world, knobs);
    }

    // WhatsApp -----------------------------------------------------------------------------------------------------

    /// Adds a business number; missing ids, token and secrets are made up, default templates come with a new account.
    pub fn add_number(&self, spec: NumberSpec) -> anyhow::Result<Number> {
        Number::create(&self.world, spec)
    }

    /// A business number by its `phone_number_id`.
    pub fn number(&self, phone_number_id: &str) -> Option<Number> {
        Number::find(&self.world, phone_number_id)
    }

    /// All business numbers.
    pub fn numbers(&self) -> Vec<Number> {
        Number::all(&self.world)
    }

    /// A customer's phone; it comes into being when it is first named.
    pub fn phone(&self, wa_id: &str) -> Phone {
        Phone::of(&self.world, wa_id)
    }

    /// What was really sent, and what phones show.
    pub fn ledger(&self) -> Ledger {
        Ledger::of(&self.world)
    }

    /// Changes how the Graph server behaves.
    pub fn set_graph(&self, change: impl FnOnce(&mut GraphOptions)) {
        change(Arc::make_mut(&mut self.world.graph.options.write()));
    }

    /// Closes the Graph server's port with all its connections (nobody answers there), or opens it again.
    pub fn set_graph_up(&self, up: bool) {
        self.world.set_up(self.world.graph.port, up);
    }

    /// Knobs of the webhook sender.
    pub fn set_webhook_knobs(&self, change: impl FnOnce(&mut CourierKnobs)) {
        let mut knobs = self.world.graph.courier.knobs();
        change(&mut knobs);
        self.world.graph.courier.set_knobs(&self.world, knobs);
    }

    // Telegram -----------------------------------------------------------------------------------------------------

    /// Adds a bot; a missing token and missing names are made up.
    pub fn add_bot(&self, spec: BotSpec) -> anyhow::Result<Bot> {
        Bot::create(&self.world, spec)
    }

    /// A person with a Telegram account; they come into being when they are first named.
    pub fn bot_person(&self, id: i64) -> BotPerson {
        BotPerson::of(&self.world, id)
    }

    /// Changes how the Bot API server behaves.
    pub fn set_telegram(&self, change: impl FnOnce(&mut TelegramOptions)) {
        change(Arc::make_mut(&mut self.world.telegram.options.write()));
    }

    /// Closes the Bot API server's port with all its connections, or opens it again.
    pub fn set_telegram_up(&self, up: bool) {
        self.world.set_up(self.world.telegram.port, up);
    }

    /// Knobs of the sender of Telegram's updates.
    pub fn set_update_knobs(&self, change: impl FnOnce(&mut CourierKnobs)) {
        let mut knobs = self.world.telegram.courier.knobs();
        change(&mut knobs);
        self.world.telegram.courier.set_knobs(&self.world, knobs);
    }

    // Faults -------------------------------------------------------------------------------------------------------

    /// Adds a fault rule; gives its number.
    pub fn add_fault(&self, fault: Fault) -> u64 {
        self.world.faults.add(fault)
    }

    /// Removes a fault rule.
    pub fn remove_fault(&self, id: u64) -> bool {
        self.world.faults.remove(id)
    }

    /// Removes all fault rules.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Fault rules with how often they fired.
    pub fn faults(&self) -> Vec<FaultStatus> {
        self.world.faults.list()
    }

    // Observation --------------------------------------------------------------------------------------------------

    /// An exact counter; 0 if it never counted. Names: every fault target, `rest.error.<CODE>`, `method.<name>`,
    /// `rest.batch.commands`, `graph.error.<code>`, `messages.accepted`, `status.sent` …, `robot.fired`, `violations`.
    pub fn counter(&self, name: &str) -> u64 {
        self.world.journal.counter(name)
    }

    /// All counters.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.world.journal.counters()
    }

    /// Recorded calls whose target matches the pattern (as fault rules match), oldest first.
    pub fn calls(&self, target: &str) -> Vec<Call> {
        self.world.journal.calls(0, Some(target), None, usize::MAX)
    }

    /// Broken rules of every kind, oldest first (the last 5,000).
    pub fn violations(&self) -> Vec<Violation> {
        self.world.journal.violations()
    }

    /// Requests that the vendors refuse or limits that were exceeded; careless ones are left out.
    pub fn refusals(&self) -> Vec<Violation> {
        self.violations().into_iter().filter(|violation| violation.severity != Severity::Careless).collect()
    }

    /// Changes after `since` and the number to ask with next.
    pub fn changes(&self, since: u64) -> (Vec<Change>, u64) {
        self.world.journal.changes(since, usize::MAX)
    }

    /// Forgets recorded calls, counters and violations.
    pub fn clear_journal(&self) {
        self.world.journal.clear();
    }

    // Time ---------------------------------------------------------------------------------------------------------

    /// Now, on the sandbox's clock, milliseconds since 1970.
    pub fn now_ms(&self) -> Millis {
        self.world.now_ms()
    }

    /// Moves the sandbox's clock forward: tokens expire, windows close, timeouts and retries fall due.
    pub fn advance(&self, by: Duration) {
        self.world.timetable.advance(by);
    }

    /// Waits until the sandbox owes nobody a call: queues empty, no status outstanding. Workflow timeouts and slow
    /// webhook retries are not waited for, and held calls do not count.
    pub async fn settled(&self, within: Duration) -> anyhow::Result<()> {
        let waited = tokio::time::timeout(within, self.world.pending.zero()).await;
        waited.with_context(|| format!("{} calls are still owed", self.world.pending.get()))
    }

    /// Waits until `condition` holds; it is looked at after every call and change.
    pub async fn until(&self, within: Duration, condition: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let mut ticks = self.world.journal.watch();
        let watch = async {
            loop {
                ticks.mark_unchanged();
                if condition(self) {
                    return;
                }
                // The pause bundles bursts; the second wait is a safety net for conditions outside the journal.
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(tokio::time::timeout(Duration::from_millis(50), ticks.changed()).await);
            }
        };
        tokio::time::timeout(within, watch).await.context("the condition did not come true in time")
    }
}
