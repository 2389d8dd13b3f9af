//! Events: from what happened in a portal to the queue server's POST. Source: §4.2, §4.3, §1.5.

use std::sync::Arc;

use bytes::Bytes;

use super::{Install, PortalCell, PortalState, tokens::Grant};
use crate::{
    clock::Millis,
    courier::Parcel,
    faults::{Action, Subject},
    http::form::FormBody,
    php::Php,
    world::World,
};

/// Hops an event's token may still cause events over (§4.2.6).
const HOPS: u8 = 7;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raised {
    pub(crate) event: &'static str,
    pub(crate) data: Php,
    /// Only for this application.
    pub(crate) only: Option<Arc<str>>,
}

impl Raised {
    pub(crate) fn new(event: &'static str, data: Php) -> Self {
        Self { event, data, only: None }
    }
}

/// Whose tokens a call carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Auth {
    /// A user's; robots and life-cycle events also get the refresh token.
    User { id: i64, with_refresh: bool, hops: Option<u8> },
    /// Nobody is known: no tokens.
    Nobody,
    /// ONAPPUNINSTALL: only what identifies the portal.
    Farewell,
}

/// Appends the `auth[…]` fields.
pub(crate) fn put_auth(
    form: &mut FormBody,
    world: &World,
    portal: &PortalCell,
    install: &Install,
    auth: Auth,
    now: Millis,
) {
    let endpoints = |form: &mut FormBody| {
        form.put(&["auth", "domain"], &portal.domain());
        form.put(&["auth", "server_endpoint"], &world.bitrix.server_endpoint());
    };
    let mut refresh = None;
    match auth {
        Auth::Farewell => {
            form.put(&["auth", "domain"], &portal.domain());
            form.put(&["auth", "client_endpoint"], &portal.endpoint());
            form.put(&["auth", "server_endpoint"], &world.bitrix.server_endpoint());
            form.put(&["auth", "member_id"], &portal.member_id);
        }
        Auth::Nobody | Auth::User { .. } => {
            let user_id = if let Auth::User { id, with_refresh, hops } = auth {
                let grant = Grant {
                    member_id: portal.member_id.clone(),
                    client_id: Arc::from(install.app.client_id.as_str()),
                    user_id: id,
                    epoch: install.epoch,
                    hops,
                };
                let options = world.bitrix.oauth.read();
                let pair = world.bitrix.tokens.issue(&world.ids, &options, now, grant);
                form.put(&["auth", "access_token"], &pair.access_token);
                form.put_int(&["auth", "expires"], pair.expires);
                form.put_int(&["auth", "expires_in"], pair.expires_in);
                refresh = with_refresh.then_some(pair.refresh_token);
                id
            } else {
                0
            };
            form.put(&["auth", "scope"], &install.scope_list());
            endpoints(form);
            form.put(&["auth", "status"], &install.status);
            form.put(&["auth", "client_endpoint"], &portal.endpoint());
            form.put(&["auth", "member_id"], &portal.member_id);
            form.put_int(&["auth", "user_id"], user_id);
        }
    }
    if let Some(refresh) = refresh {
        form.put(&["auth", "refresh_token"], &refresh);
    }
    form.put(&["auth", "application_token"], &install.application_token);
}

/// Sends the events of one hit, identical ones once. `user` caused them; `hops` come from the token that did.
pub(crate) fn flush(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    raised: Vec<Raised>,
    user: Option<i64>,
    hops: Option<u8>,
) {
    if raised.is_empty() || hops == Some(0) {
        return;
    }
    let mut unique: Vec<Raised> = Vec::with_capacity(raised.len());
    for event in raised {
        if !unique.contains(&event) {
            unique.push(event);
        }
    }
    let user = user.filter(|_| !portal.switches.read().events_without_auth);
    let hops = Some(hops.map_or(HOPS, |left| left - 1));
    let now = world.now_ms();
    let mut parcels = Vec::new();
    {
        let state = portal.state.lock();
        for event in &unique {
            deliveries(world, portal, &state, event, user, hops, now, &mut parcels);
        }
    }
    for parcel in parcels {
        world.bitrix.queue.send(world, parcel);
    }
}

fn deliveries(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    state: &PortalState,
    event: &Raised,
    user: Option<i64>,
    hops: Option<u8>,
    now: Millis,
    parcels: &mut Vec<Parcel>,
) {
    for install in state.installs.values() {
        let is_addressed = event.only.as_ref().is_none_or(|only| **only == *install.app.client_id);
        if !is_addressed || !install.active || !install.installed || install.payment_expired {
            continue;
        }
        for handler in install.handlers.iter().filter(|row| row.event == event.event && !row.offline) {
            let who = if handler.auth_type != 0 { Some(handler.auth_type) } else { user };
            let auth = who.map_or(Auth::Nobody, |id| Auth::User { id, with_refresh: false, hops });
            parcels.push(parcel(world, portal, install, event, &handler.handler, handler.row, auth, now));
        }
    }
}

/// One POST of the queue server.
pub(crate) fn parcel(
    world: &Arc<World>,
    portal: &Arc<PortalCell>,
    install: &Install,
    event: &Raised,
    url: &str,
    row: i64,
    auth: Auth,
    now: Millis,
) -> Parcel {
    let target = format!("event.{}", event.event);
    let subject = Subject { target: &target, portal: &portal.member_id, phone: "", body: &[] };
    let verdict = world.faults.decide(subject, |action| matches!(action, Action::WithoutAuth));
    let auth = if verdict.action.is_some() { Auth::Nobody } else { auth };
    let mut form = FormBody::with_capacity(1024);
    form.put(&["event"], event.event);
    form.put_int(&["event_handler_id"], row);
    form.put_value(&mut vec!["data".to_owned()], &event.data);
    form.put_int(&["ts"], now / 1000);
    put_auth(&mut form, world, portal, install, auth, now);
    queue_post(Arc::from(target), portal, url, form)
}

/// Wraps a form for the queue server.
pub(crate) fn queue_post(target: Arc<str>, portal: &PortalCell, url: &str, form: FormBody) -> Parcel {
    Parcel {
        target,
        scope: portal.member_id.clone(),
        phone: String::new(),
        url: Arc::from(url),
        headers: vec![
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("user-agent", "Bitrix24 Webhook Engine".to_owned()),
        ],
        body: Bytes::from(form.finish()),
        start: None,
        done: None,
    }
}
