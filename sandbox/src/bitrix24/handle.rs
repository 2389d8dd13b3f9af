//! The typed handle on one portal, for tests and for the control API.

use std::sync::{Arc, atomic::Ordering};

use anyhow::{Context, bail};

use super::{
    Automation, InstallView, ItemSpec, ItemView, KanbanColumn, Page, PageRequest, PortalCell, PortalLimits, RobotRun,
    RobotView, StageSpec, Switches, TimelineEntry, TokenPair, UserSpec, automation, create_portal, crm::kinds,
    crm::write, events, kanban, lifecycle, model, pages, rename_portal,
};
use crate::world::World;

/// One simulated portal. Cheap to clone.
#[derive(Clone)]
pub struct Portal {
    pub(crate) world: Arc<World>,
    pub(crate) cell: Arc<PortalCell>,
}

impl Portal {
    pub(crate) async fn create(world: &Arc<World>, spec: model::PortalSpec) -> anyhow::Result<Self> {
        let cell = create_portal(world, spec).await?;
        Ok(Self { world: world.clone(), cell })
    }

    /// Stable id, 32 hex.
    pub fn member_id(&self) -> String {
        self.cell.member_id.to_string()
    }

    /// Name for people.
    pub fn name(&self) -> String {
        self.cell.name.clone()
    }

    /// `127.0.0.1:PORT`.
    pub fn domain(&self) -> String {
        self.cell.domain()
    }

    /// `http://127.0.0.1:PORT/rest/`.
    pub fn client_endpoint(&self) -> String {
        self.cell.endpoint()
    }

    /// Address of the frame host page for a real browser (§10.3).
    pub fn frame_url(&self, client_id: &str, placement: &str) -> String {
        format!("http://{}/frame?app={client_id}&placement={placement}", self.cell.domain())
    }

    // Installation -------------------------------------------------------------------------------------------------

    /// Puts the application on the portal, by user 1. With pages and an installer it stays `INSTALLED=N`; a UI-less
    /// one gets its ONAPPINSTALL at once.
    pub fn begin_install(&self, client_id: &str) -> anyhow::Result<()> {
        self.begin_install_as(client_id, 1)
    }

    /// The same by another user.
    pub fn begin_install_as(&self, client_id: &str, user_id: i64) -> anyhow::Result<()> {
        lifecycle::begin(&self.world, &self.cell, client_id, user_id)
    }

    /// Opens the installer page as a browser would.
    pub async fn open_installer(&self, client_id: &str) -> anyhow::Result<Page> {
        let place = "installer".to_owned();
        self.open_page(&PageRequest { client_id: client_id.to_owned(), place, ..PageRequest::default() }).await
    }

    /// What the page's `BX24.installFinish()` does: INSTALLED=Y and ONAPPINSTALL. `false` if it was done before.
    pub fn finish_install(&self, client_id: &str) -> anyhow::Result<bool> {
        lifecycle::finish(&self.world, &self.cell, client_id)
    }

    /// The whole installation without a browser: begin, installer page, finish. Fails if the page does not answer 2xx.
    pub async fn install(&self, client_id: &str) -> anyhow::Result<Page> {
        self.begin_install(client_id)?;
        let page = self.open_installer(client_id).await?;
        if !(200..300).contains(&page.status) {
            bail!("the installer page answered {}: {}", page.status, page.body);
        }
        self.finish_install(client_id)?;
        Ok(page)
    }

    /// A new version of the application arrives (§1.7).
    pub fn update_app(&self, client_id: &str, version: i64) -> anyhow::Result<()> {
        lifecycle::update(&self.world, &self.cell, client_id, version)
    }

    /// The application is removed; `clean` = the user also wants its data gone.
    pub fn uninstall(&self, client_id: &str, clean: bool) -> anyhow::Result<()> {
        lifecycle::uninstall(&self.world, &self.cell, client_id, clean)
    }

    /// The application's payment ends or begins again.
    pub fn set_payment_expired(&self, client_id: &str, expired: bool) -> anyhow::Result<()> {
        lifecycle::payment(&self.world, &self.cell, client_id, expired)
    }

    /// Only these users may use the application; `None` = everybody.
    pub fn set_app_access(&self, client_id: &str, users: Option<Vec<i64>>) -> anyhow::Result<()> {
        let mut state = self.cell.state.lock();
        let install = state.installs.get_mut(client_id).context("application is not on this portal")?;
        install.access = users;
        Ok(())
    }

    /// Changes granted scopes of an installation (§2.5 `insufficient_scope`).
    pub fn set_scopes(&self, client_id: &str, scopes: &[&str]) -> anyhow::Result<()> {
        let mut state = self.cell.state.lock();
        let install = state.installs.get_mut(client_id).context("application is not on this portal")?;
        install.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Ok(())
    }

    /// Installations.
    pub fn installs(&self) -> Vec<InstallView> {
        self.cell.state.lock().installs.values().map(model::Install::view).collect()
    }

    /// One installation.
    pub fn app(&self, client_id: &str) -> Option<InstallView> {
        self.cell.state.lock().installs.get(client_id).map(model::Install::view)
    }

    /// Opens any page of the application.
    pub async fn open_page(&self, request: &PageRequest) -> anyhow::Result<Page> {
        pages::open(&self.world, &self.cell, request).await
    }

    // Tokens -------------------------------------------------------------------------------------------------------

    /// A fresh pair for a user of an installed application.
    pub fn issue_tokens(&self, client_id: &str, user_id: i64) -> anyhow::Result<TokenPair> {
        lifecycle::issue(&self.world, &self.cell, client_id, user_id)
    }

    /// An authorization code (§2.2), good for 30 seconds.
    pub fn issue_code(&self, client_id: &str, user_id: i64) -> anyhow::Result<String> {
        lifecycle::issue_code(&self.world, &self.cell, client_id, user_id)
    }

    /// Lets every access token of this portal expire now; tells how many.
    pub fn expire_access_tokens(&self) -> usize {
        self.world.bitrix.tokens.expire_portal(&self.cell.member_id)
    }

    /// Makes every refresh token of this portal useless: only a new page open or event brings tokens again.
    pub fn kill_refresh_tokens(&self) -> usize {
        self.world.bitrix.tokens.kill_refresh(&self.cell.member_id)
    }

    // Users --------------------------------------------------------------------------------------------------------

    /// Adds (or replaces) a user; gives the id.
    pub fn add_user(&self, mut user: UserSpec) -> i64 {
        let mut state = self.cell.state.lock();
        if user.id == 0 {
            user.id = state.users.keys().last().copied().unwrap_or(0) + 1;
        }
        let id = user.id;
        state.users.insert(id, user);
        id
    }

    /// Users.
    pub fn users(&self) -> Vec<UserSpec> {
        self.cell.state.lock().users.values().cloned().collect()
    }

    /// Dismisses (or takes back) a user: tokens answer `authorization_error`.
    pub fn set_fired(&self, user_id: i64, fired: bool) -> anyhow::Result<()> {
        let mut state = self.cell.state.lock();
        state.users.get_mut(&user_id).with_context(|| format!("no user {user_id}"))?.fired = fired;
        Ok(())
    }

    // CRM ----------------------------------------------------------------------------------------------------------

    /// Adds a card of any type. Robots of its stage are started and ONCRM…ADD is emitted, as if user 1 had done it.
    pub fn add_item(&self, spec: ItemSpec) -> anyhow::Result<i64> {
        let type_id = spec.entity_type_id;
        let (id, fired) = {
            let mut state = self.cell.state.lock();
            let id = state.crm.add(spec, self.world.now_ms());
            let id = id.with_context(|| format!("this portal has no card type {type_id}"))?;
            let fired = automation::fire(&self.world, &self.cell, &mut state, type_id, id);
            (id, fired)
        };
        let raised = write::raised(type_id, id, write::Happened::Added);
        events::flush(&self.world, &self.cell, raised.into_iter().collect(), Some(1), None);
        automation::launch(&self.world, &self.cell, fired);
        self.world.change("item", &self.cell.member_id, kinds::card(type_id, id));
        Ok(id)
    }

    /// A contact with one phone.
    pub fn add_contact(&self, name: &str, last_name: &str, phone: &str) -> anyhow::Result<i64> {
        self.add_item(ItemSpec {
            entity_type_id: kinds::CONTACT,
            name: name.to_owned(),
            last_name: last_name.to_owned(),
            phones: vec![phone.to_owned()],
            ..ItemSpec::default()
        })
    }

    /// A deal on the first stage, with this contact (0 = none).
    pub fn add_deal(&self, title: &str, contact_id: i64) -> anyhow::Result<i64> {
        let contact_ids = if contact_id > 0 { vec![contact_id] } else { Vec::new() };
        self.add_item(ItemSpec { title: title.to_owned(), contact_ids, ..ItemSpec::default() })
    }

    /// Deletes a card.
    pub fn delete_item(&self, type_id: i64, id: i64) -> bool {
        let was = self.cell.state.lock().crm.remove(type_id, id);
        if was {
            let raised = write::raised(type_id, id, write::Happened::Deleted);
            events::flush(&self.world, &self.cell, raised.into_iter().collect(), Some(1), None);
            self.world.change("item", &self.cell.member_id, kinds::card(type_id, id));
        }
        was
    }

    /// This user may not see the card from now on (§8.2: `ACCESS_DENIED`).
    pub fn hide_item(&self, type_id: i64, id: i64, user_id: i64) {
        self.cell.state.lock().crm.hidden.insert((type_id, id, user_id));
    }

    /// A card.
    pub fn item(&self, type_id: i64, id: i64) -> Option<ItemView> {
        self.cell.state.lock().crm.item(type_id, id).map(|item| item.view(type_id))
    }

    /// Cards of a type, newest first, at most `limit`.
    pub fn items(&self, type_id: i64, limit: usize) -> Vec<ItemView> {
        let state = self.cell.state.lock();
        let entity = state.crm.entity(type_id);
        entity.map_or_else(Vec::new, |entity| {
            entity.items.values().rev().take(limit).map(|item| item.view(type_id)).collect()
        })
    }

    /// How many cards of a type there are.
    pub fn item_count(&self, type_id: i64) -> usize {
        self.cell.state.lock().crm.entity(type_id).map_or(0, |entity| entity.items.len())
    }

    /// Moves a card to a stage, as a person drags it: starts the robots of that stage.
    pub fn move_item(&self, type_id: i64, id: i64, stage: &str) -> anyhow::Result<()> {
        if self.move_items(type_id, &[id], stage)? == 0 {
            bail!("no card {}", kinds::card(type_id, id));
        }
        Ok(())
    }

    /// Moves many cards at once (§6.4: the queue server then delivers in parallel); tells how many exist.
    pub fn move_items(&self, type_id: i64, ids: &[i64], stage: &str) -> anyhow::Result<usize> {
        if !self.cell.state.lock().crm.has_stage(type_id, stage) {
            bail!("no stage {stage} for card type {type_id}");
        }
        let mut moved = 0;
        for chunk in ids.chunks(50) {
            let (mut fired, mut raised) = (Vec::new(), Vec::new());
            {
                let mut state = self.cell.state.lock();
                for id in chunk {
                    let started = write::move_to(&self.world, &self.cell, &mut state, type_id, *id, stage);
                    let Some(started) = started else { continue };
                    moved += 1;
                    fired.extend(started);
                    raised.extend(write::raised(type_id, *id, write::Happened::Updated));
                }
            }
            for id in chunk {
                self.world.change("item", &self.cell.member_id, kinds::card(type_id, *id));
            }
            events::flush(&self.world, &self.cell, raised, Some(1), None);
            automation::launch(&self.world, &self.cell, fired);
        }
        Ok(moved)
    }

    /// Adds a stage to a pipeline.
    pub fn add_stage(&self, stage: StageSpec) {
        self.cell.state.lock().crm.stages.push(stage);
    }

    /// Replaces the stages of one pipeline, in their order. Fails if a card would be left without a stage.
    pub fn set_stages(&self, type_id: i64, category_id: i64, stages: Vec<StageSpec>) -> anyhow::Result<()> {
        let is_own = |stage: &StageSpec| stage.entity_type_id == type_id && stage.category_id == category_id;
        if stages.is_empty() || !stages.iter().all(is_own) {
            bail!("stages of card type {type_id}, pipeline {category_id} are expected, at least one");
        }
        {
            let mut state = self.cell.state.lock();
            let items = state.crm.entity(type_id).into_iter().flat_map(|entity| entity.items.values());
            for item in items.filter(|item| item.category_id == category_id) {
                if !stages.iter().any(|stage| stage.stage_id == item.stage_id) {
                    bail!("{} stands on {}", kinds::card(type_id, item.id), item.stage_id);
                }
            }
            state.crm.stages.retain(|stage| !is_own(stage));
            state.crm.stages.extend(stages);
        }
        self.world.change("stage", &self.cell.member_id, type_id.to_string());
        Ok(())
    }

    /// A pipeline as a kanban page draws it, at most `per_stage` cards of each stage.
    pub fn kanban(&self, type_id: i64, category_id: i64, per_stage: usize) -> Vec<KanbanColumn> {
        kanban::columns(&self.cell.state.lock(), type_id, category_id, per_stage)
    }

    /// Stages of all pipelines.
    pub fn stages(&self) -> Vec<StageSpec> {
        self.cell.state.lock().crm.stages.clone()
    }

    /// Adds a pipeline with default stages; gives its id.
    pub fn add_category(&self, type_id: i64, name: &str) -> i64 {
        self.cell.state.lock().crm.add_category(type_id, name)
    }

    /// Adds a smart process (type id 0 = next free); gives its type id.
    pub fn add_smart_process(&self, type_id: i64, title: &str) -> i64 {
        self.cell.state.lock().crm.add_smart_type(type_id, title)
    }

    /// Comments and log messages of a card, oldest first.
    pub fn timeline(&self, type_id: i64, id: i64) -> Vec<TimelineEntry> {
        self.cell.state.lock().crm.timeline.of(type_id, id)
    }

    /// How many comments and log messages a card has.
    pub fn timeline_len(&self, type_id: i64, id: i64) -> usize {
        self.cell.state.lock().crm.timeline.count(type_id, id)
    }

    /// How many comments and log messages the portal has.
    pub fn timeline_total(&self) -> usize {
        self.cell.state.lock().crm.timeline.len()
    }

    // Robots -------------------------------------------------------------------------------------------------------

    /// Registered robots and activities.
    pub fn robots(&self) -> Vec<RobotView> {
        let state = self.cell.state.lock();
        let of = |install: &model::Install| -> Vec<RobotView> {
            install.robots.values().map(|robot| robot.view(&install.app.client_id)).collect()
        };
        state.installs.values().flat_map(of).collect()
    }

    /// Puts a robot on a stage; gives the automation's number.
    pub fn add_automation(&self, mut automation: Automation) -> u64 {
        let mut state = self.cell.state.lock();
        automation.id = state.automations.iter().map(|own| own.id).max().unwrap_or(0) + 1;
        let id = automation.id;
        state.automations.push(Arc::new(automation));
        drop(state);
        self.world.change("stage", &self.cell.member_id, id.to_string());
        id
    }

    /// Automations.
    pub fn automations(&self) -> Vec<Automation> {
        self.cell.state.lock().automations.iter().map(|own| (**own).clone()).collect()
    }

    /// Takes a robot off its stage.
    pub fn remove_automation(&self, id: u64) -> bool {
        let mut state = self.cell.state.lock();
        let before = state.automations.len();
        state.automations.retain(|own| own.id != id);
        let was = state.automations.len() < before;
        drop(state);
        self.world.change("stage", &self.cell.member_id, id.to_string());
        was
    }

    /// Robot runs of a card, oldest first.
    pub fn robot_runs(&self, type_id: i64, id: i64) -> Vec<RobotRun> {
        let state = self.cell.state.lock();
        let tokens = state.workflows_of.get(&(type_id, id)).map_or(&[][..], Vec::as_slice);
        tokens.iter().filter_map(|token| state.workflows.get(token)).map(|own| own.run().clone()).collect()
    }

    /// The newest robot run of a deal: "the result of the robot for deal 134".
    pub fn deal_run(&self, deal_id: i64) -> Option<RobotRun> {
        self.robot_runs(kinds::DEAL, deal_id).pop()
    }

    /// A run by its event token.
    pub fn robot_run(&self, event_token: &str) -> Option<RobotRun> {
        self.cell.state.lock().workflows.get(event_token).map(|own| own.run().clone())
    }

    /// Stops a workflow by hand; later results for it are ignored.
    pub fn terminate_workflow(&self, event_token: &str) -> bool {
        automation::terminate(&self.world, &self.cell, event_token)
    }

    // Behaviour ----------------------------------------------------------------------------------------------------

    /// Current switches.
    pub fn switches(&self) -> Switches {
        self.cell.switches.read().clone()
    }

    /// Changes switches.
    pub fn set_switches(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.cell.switches.write());
    }

    /// Current limits.
    pub fn limits(&self) -> PortalLimits {
        self.cell.limiter.lock().limits.clone()
    }

    /// Sets limits and forgets what was used up.
    pub fn set_limits(&self, limits: PortalLimits) {
        let mut limiter = self.cell.limiter.lock();
        limiter.limits = limits;
        limiter.reset();
    }

    /// Renames the portal: a new address; the old one answers 302 (§2.6). Gives the new domain.
    pub async fn rename(&self) -> anyhow::Result<String> {
        rename_portal(&self.world, &self.cell, 0).await?;
        Ok(self.cell.domain())
    }

    /// Closes the portal's port with all its connections (nobody answers there), or opens it again.
    pub fn set_up(&self, up: bool) {
        self.world.set_up(self.port(), up);
    }

    /// Port at the moment.
    pub fn port(&self) -> u16 {
        self.cell.port.load(Ordering::Acquire)
    }
}
