//! Installing, updating, removing an application. Source: §1.4, §1.5, §1.7.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::{Context, bail};

use super::{
    AppSpec, Install, PortalCell,
    events::{Auth, Raised, parcel},
    tokens::{Grant, TokenPair},
};
use crate::{php::Php, world::World};

/// Stores the application on the portal. With pages and an installer it is not *installed* yet; without pages
/// ONAPPINSTALL goes out at once.
pub(crate) fn begin(world: &Arc<World>, portal: &Arc<PortalCell>, client_id: &str, user_id: i64) -> anyhow::Result<()> {
    let app = world.bitrix.app(client_id).with_context(|| format!("no application {client_id} is registered"))?;
    {
        let mut state = portal.state.lock();
        if !state.users.contains_key(&user_id) {
            bail!("portal has no user {user_id}");
        }
        if state.installs.contains_key(client_id) {
            bail!("{client_id} is installed already: uninstall or update it");
        }
        state.epochs += 1;
        let epoch = state.epochs;
        let install = Install {
            epoch,
            application_token: world.ids.hex(32),
            installed: !app.ui || app.installer_url.is_none(),
            active: true,
            payment_expired: false,
            status: if app.market { "F" } else { "L" }.to_owned(),
            version: app.version,
            user_id,
            scopes: app.scopes.clone().into(),
            access: None,
            handlers: Vec::new(),
            placements: Vec::new(),
            robots: BTreeMap::new(),
            senders: BTreeMap::new(),
            options: Php::empty(),
            user_options: HashMap::new(),
            app: app.clone(),
        };
        state.installs.insert(client_id.to_owned(), install);
    }
    world.change("install", &portal.member_id, client_id);
    if !app.ui || app.installer_url.is_none() {
        announce_install(world, portal, client_id)?;
    }
    Ok(())
}

/// `setInstallFinish`: sets INSTALLED and emits ONAPPINSTALL; `false` if it was set before.
pub(crate) fn finish(world: &Arc<World>, portal: &Arc<PortalCell>, client_id: &str) -> anyhow::Result<bool> {
    {
        let mut state = portal.state.lock();
        let install = state.installs.get_mut(client_id).context("application is not on this portal")?;
        if install.installed {
            return Ok(false);
        }
        install.installed = true;
    }
    world.change("install", &portal.member_id, client_id);
    announce_install(world, portal, client_id)?;
    Ok(true)
}

fn announce_install(world: &Arc<World>, portal: &Arc<PortalCell>, client_id: &str) -> anyhow::Result<()> {
    let language = portal.switches.read().language.clone();
    let (version, user_id) = {
        let state = portal.state.lock();
        let install = state.installs.get(client_id).context("application is not on this portal")?;
        (install.version, install.user_id)
    };
    let data = Php::map([
        ("VERSION", Php::Int(version)),
        ("ACTIVE", "Y".into()),
        ("INSTALLED", "Y".into()),
        ("LANGUAGE_ID", language.into()),
    ]);
    let auth = Auth::User { id: user_id, with_refresh: true, hops: None };
    announce(world, portal, client_id, &Raised::new("ONAPPINSTALL", data), auth)
}

/// Sends a life-cycle event to the card's handler and to every stored one, each address once.
fn announce(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    client_id: &str,
    event: &Raised,
    auth: Auth,
) -> anyhow::Result<()> {
    let now = world.now_ms();
    let mut parcels = Vec::new();
    {
        let mut state = portal.state.lock();
        let row = state.next_row();
        let install = state.installs.get(client_id).context("application is not on this portal")?;
        if !install.installed {
            // §1.4: before installFinish nothing is delivered.
            return Ok(());
        }
        let mut urls: Vec<(String, i64)> = card_handler(&install.app).map(|url| (url, row)).into_iter().collect();
        for handler in install.handlers.iter().filter(|own| own.event == event.event && !own.offline) {
            if !urls.iter().any(|(url, _)| *url == handler.handler) {
                urls.push((handler.handler.clone(), handler.row));
            }
        }
        parcels.extend(urls.iter().map(|(url, row)| parcel(world, portal, install, event, url, *row, auth, now)));
    }
    for parcel in parcels {
        world.bitrix.queue.send(world, parcel);
    }
    Ok(())
}

/// The address on the version card; a UI-less application's installer URL is one too (§1.2).
fn card_handler(app: &AppSpec) -> Option<String> {
    app.event_handler_url.clone().or_else(|| if app.ui { None } else { app.installer_url.clone() })
}

/// A new version: robots, activities and placements go, the installer's ONAPPINSTALL handler goes, ONAPPUPDATE comes.
pub(crate) fn update(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    client_id: &str,
    version: i64,
) -> anyhow::Result<()> {
    let app = world.bitrix.app(client_id).context("application is not registered")?;
    let (language, drops_all) = {
        let switches = portal.switches.read();
        (switches.language.clone(), switches.update_drops_handlers)
    };
    let (previous, user_id) = {
        let mut state = portal.state.lock();
        let install = state.installs.get_mut(client_id).context("application is not on this portal")?;
        let previous = std::mem::replace(&mut install.version, version);
        install.scopes = app.scopes.clone().into();
        install.app = app;
        install.robots.clear();
        install.senders.clear();
        install.placements.clear();
        (previous, install.user_id)
    };
    let data = Php::map([
        ("VERSION", Php::Int(version)),
        ("PREVIOUS_VERSION", Php::Int(previous)),
        ("LANGUAGE_ID", language.into()),
    ]);
    let auth = Auth::User { id: user_id, with_refresh: true, hops: None };
    announce(world, portal, client_id, &Raised::new("ONAPPUPDATE", data), auth)?;
    let mut state = portal.state.lock();
    if let Some(install) = state.installs.get_mut(client_id) {
        install.handlers.retain(|own| !drops_all && own.event != "ONAPPINSTALL");
    }
    drop(state);
    world.change("install", &portal.member_id, client_id);
    Ok(())
}

/// Removes everything of the application and says farewell without tokens.
pub(crate) fn uninstall(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    client_id: &str,
    clean: bool,
) -> anyhow::Result<()> {
    let language = portal.switches.read().language.clone();
    let data = Php::map([("LANGUAGE_ID", language.into()), ("CLEAN", Php::Int(i64::from(clean)))]);
    announce(world, portal, client_id, &Raised::new("ONAPPUNINSTALL", data), Auth::Farewell)?;
    let mut state = portal.state.lock();
    state.installs.remove(client_id);
    state.openlines.drop_connectors_of(client_id);
    drop(state);
    world.change("install", &portal.member_id, client_id);
    Ok(())
}

/// The application's paid period ends (or begins again); ONAPPPAYMENT tells.
pub(crate) fn payment(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    client_id: &str,
    expired: bool,
) -> anyhow::Result<()> {
    let (version, user_id, status) = {
        let mut state = portal.state.lock();
        let install = state.installs.get_mut(client_id).context("application is not on this portal")?;
        install.payment_expired = expired;
        (install.version, install.user_id, install.status.clone())
    };
    let data = Php::map([
        ("CODE", client_id.into()),
        ("VERSION", Php::Int(version)),
        ("STATUS", status.into()),
        ("PAYMENT_EXPIRED", Php::yes_no(expired)),
        ("DAYS", Php::Int(if expired { 0 } else { 30 })),
    ]);
    let auth = Auth::User { id: user_id, with_refresh: false, hops: None };
    announce(world, portal, client_id, &Raised::new("ONAPPPAYMENT", data), auth)
}

/// A pair for a user, as a page open carries it.
pub(crate) fn issue(world: &World, portal: &PortalCell, client_id: &str, user_id: i64) -> anyhow::Result<TokenPair> {
    let epoch = {
        let state = portal.state.lock();
        state.installs.get(client_id).context("application is not on this portal")?.epoch
    };
    let grant =
        Grant { member_id: portal.member_id.clone(), client_id: Arc::from(client_id), user_id, epoch, hops: None };
    let options = world.bitrix.oauth.read();
    Ok(world.bitrix.tokens.issue(&world.ids, &options, world.now_ms(), grant))
}

/// An authorization code (§2.2).
pub(crate) fn issue_code(world: &World, portal: &PortalCell, client_id: &str, user_id: i64) -> anyhow::Result<String> {
    let epoch = {
        let state = portal.state.lock();
        state.installs.get(client_id).context("application is not on this portal")?.epoch
    };
    let grant =
        Grant { member_id: portal.member_id.clone(), client_id: Arc::from(client_id), user_id, epoch, hops: None };
    Ok(world.bitrix.tokens.issue_code(&world.ids, world.now_ms(), grant))
}
