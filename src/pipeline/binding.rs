//! Which portals may use which lines. Robots show a portal's lines in a select, so every change asks for the portal's
//! registrations to be compared again.

use super::Pipeline;
use crate::domain::channel::Line;
use crate::domain::ids::{LineId, PortalId};
use crate::domain::job::{Job, JobKind, QueueKey};
use crate::domain::portal::{Portal, PortalState};
use crate::domain::time::Millis;
use crate::storage::StorageError;

/// Portals read at once.
const PAGE: u32 = 200;
/// Rest between two portals when all are asked.
const PAUSE: Millis = Millis(20);
/// Lane of the jobs that compare registrations: one per portal, beside the lanes of its cards.
const LANE: &str = "reconcile";

/// A walk over the portals in which the application is installed.
#[derive(Default)]
struct Walk {
    after: Option<PortalId>,
    over: bool,
}

impl Walk {
    /// The next few portals; `None` at the end.
    async fn next(&mut self, pipeline: &Pipeline) -> Result<Option<Vec<Portal>>, StorageError> {
        if self.over {
            return Ok(None);
        }
        let mut page = pipeline.storage.list_portals(self.after.as_ref(), PAGE).await?;
        self.over = page.len() < PAGE as usize;
        self.after = page.last().map(|portal| portal.id.clone());
        page.retain(is_installed);
        Ok(Some(page))
    }
}

impl Pipeline {
    /// Lets a portal use a line. Doing it twice is doing it once.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn bind(&self, portal: &Portal, line: &LineId) -> Result<(), StorageError> {
        self.storage.bind_line(&portal.id, line).await?;
        self.ask_reconcile(portal).await
    }

    /// Takes a line from a portal; false when it was not bound.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn unbind(&self, portal: &Portal, line: &LineId) -> Result<bool, StorageError> {
        let was_bound = self.storage.unbind_line(&portal.id, line).await?;
        // Also when it was not bound: the call before may have ended between the two steps.
        self.ask_reconcile(portal).await?;
        Ok(was_bound)
    }

    /// A line has been added: if it is the service's only one, every installed portal without a line gets it. Tells how
    /// many did.
    ///
    /// # Errors
    /// [`StorageError`]; portals already bound stay bound, and the rest is bound by a repeated call.
    pub async fn bind_new_line(&self, line: &LineId) -> Result<usize, StorageError> {
        if self.only_line().await?.is_none_or(|only| only.id != *line) {
            return Ok(0);
        }
        let mut bound = 0;
        let mut walk = Walk::default();
        while let Some(portals) = walk.next(self).await? {
            for portal in &portals {
                if self.storage.lines_of_portal(&portal.id).await?.is_empty() {
                    self.bind(portal, line).await?;
                    bound += 1;
                }
            }
        }
        Ok(bound)
    }

    /// Asks for the registrations of every portal to be compared: what should be there may have changed with this
    /// program or its configuration, and what is there by somebody's hand.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub(super) async fn reconcile_all(&self) -> Result<(), StorageError> {
        let mut walk = Walk::default();
        while let Some(portals) = walk.next(self).await? {
            for portal in &portals {
                self.ask_reconcile(portal).await?;
                // Thousands of portals are not asked within one second.
                tokio::time::sleep(PAUSE.to_duration()).await;
            }
        }
        Ok(())
    }

    /// A portal has been installed: if it has no line and the service has exactly one, it gets that one. Tells whether
    /// it did.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn bind_new_portal(&self, portal: &PortalId) -> Result<bool, StorageError> {
        let Some(known) = self.storage.portal(portal).await?.filter(|known| is_installed(&known.portal)) else {
            return Ok(false);
        };
        let Some(only) = self.only_line().await? else { return Ok(false) };
        if !self.storage.lines_of_portal(portal).await?.is_empty() {
            return Ok(false);
        }
        self.bind(&known.portal, &only.id).await?;
        Ok(true)
    }

    /// The service's line, if it has exactly one.
    async fn only_line(&self) -> Result<Option<Line>, StorageError> {
        let mut first_two = self.storage.lines(None, 2).await?;
        Ok(first_two.pop().filter(|_| first_two.is_empty()))
    }

    /// Asks for the portal's registrations to be brought in line; asking twice is asking once.
    ///
    /// # Errors
    /// [`StorageError`]; may be repeated.
    pub async fn ask_reconcile(&self, portal: &Portal) -> Result<(), StorageError> {
        if !is_installed(portal) {
            // Nothing of ours is left there; a new installation compares everything anyway.
            return Ok(());
        }
        let queue = QueueKey::Crm(portal.id.clone());
        let (seq, now) = (self.ids.ulid(), self.clock.now());
        let job = Job::new(JobKind::Reconcile, portal.id.as_str(), queue, LANE.to_owned(), seq, now);
        self.storage.ask_job(job).await
    }
}

/// True while the application is in the portal, also when the portal cannot be talked to for the moment.
fn is_installed(portal: &Portal) -> bool {
    match portal.state {
        PortalState::Installed | PortalState::NeedsAuth | PortalState::Blocked => true,
        PortalState::Uninstalled => false,
    }
}
