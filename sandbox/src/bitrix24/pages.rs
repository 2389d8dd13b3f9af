//! Opening an application's page as the portal's browser page does: a form POST into a frame. Source: §1.3.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PortalCell, lifecycle};
use crate::{
    http::{form, form::FormBody},
    journal::{Direction, Entry},
    world::{World, fetch},
};

/// A page to be opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageRequest {
    /// Application.
    pub client_id: String,
    /// Who looks at it.
    pub user_id: i64,
    /// `installer`, `application`, or a placement code.
    pub place: String,
    /// Address to open; absent = the installer URL, the application URL or the bound placement's handler.
    pub url: Option<String>,
    /// `PLACEMENT_OPTIONS` as an object; `null` = none. `URI` is added for the main page.
    pub options: Value,
    /// `AUTH_ID`, `AUTH_EXPIRES`, `REFRESH_ID` are sent empty (a viewer without access).
    pub without_auth: bool,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self {
            client_id: String::new(),
            user_id: 1,
            place: "application".into(),
            url: None,
            options: Value::Null,
            without_auth: false,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// HTTP status; 0 = no answer.
    pub status: u16,
    /// Answer headers, lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The HTML.
    pub body: String,
    /// Address with query, as opened.
    pub url: String,
    /// Form body, as sent.
    pub form: String,
    /// Access token that the page got.
    pub access_token: String,
}

/// Address and form of a page, ready to be posted by a browser or by us.
pub(crate) struct Opening {
    pub(crate) url: String,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) sid: String,
    pub(crate) placement: String,
    pub(crate) options: Value,
}

impl Opening {
    fn form(&self) -> String {
        let mut form = FormBody::with_capacity(1024);
        for (name, value) in &self.fields {
            form.put(&[name], value);
        }
        form.finish()
    }
}

/// Makes the query string and the form of §1.3, with the variants of old portals.
pub(crate) fn prepare(world: &World, portal: &PortalCell, request: &PageRequest) -> anyhow::Result<Opening> {
    let (installer, application, placement_url, token, scope, status) = {
        let state = portal.state.lock();
        let install = state.installs.get(&request.client_id).context("application is not on this portal")?;
        let place = install.placements.iter().find(|own| own.code == request.place).map(|own| own.handler.clone());
        let robot_page = install.robots.values().find_map(|robot| {
            let is_asked = request.place == "BIZPROC_ACTIVITY_PROPERTIES_DIALOG"
                && request.options.get("code").and_then(Value::as_str).is_none_or(|code| code == robot.code);
            is_asked.then(|| robot.placement_handler.clone()).flatten()
        });
        (
            install.app.installer_url.clone(),
            install.app.application_url.clone(),
            place.or(robot_page),
            install.application_token.clone(),
            install.scope_list(),
            install.status.clone(),
        )
    };
    let chosen = request.url.clone().or(match request.place.as_str() {
        "installer" => installer,
        "application" => Some(application),
        _ => placement_url,
    });
    let base =
        chosen.filter(|url| !url.is_empty()).with_context(|| format!("no address is known for {}", request.place))?;
    let placement = match request.place.as_str() {
        "installer" | "application" => "DEFAULT".to_owned(),
        other => other.to_owned(),
    };
    let switches = portal.switches.read().clone();
    let sid = world.ids.hex(32);
    let mut url = base.clone();
    url.push(if base.contains('?') { '&' } else { '?' });
    let mut query = FormBody::default();
    query.put(&["DOMAIN"], &portal.domain());
    query.put(&["PROTOCOL"], "0");
    query.put(&["LANG"], &switches.language);
    query.put(&["APP_SID"], &sid);
    url.push_str(&query.finish());

    let mut fields = Vec::new();
    if request.without_auth {
        fields.extend([("AUTH_ID", String::new()), ("AUTH_EXPIRES", String::new()), ("REFRESH_ID", String::new())]);
    } else {
        let pair = lifecycle::issue(world, portal, &request.client_id, request.user_id)?;
        fields.push(("AUTH_ID", pair.access_token));
        fields.push(("AUTH_EXPIRES", pair.expires_in.to_string()));
        fields.push(("REFRESH_ID", pair.refresh_token));
    }
    let mut options = request.options.clone();
    if options.is_null() && !switches.old_pages {
        options = serde_json::json!({"URI": "/devops/"});
    }
    if !switches.old_pages {
        fields.push(("SERVER_ENDPOINT", world.bitrix.server_endpoint()));
        fields.push(("APPLICATION_TOKEN", token));
        fields.push(("APPLICATION_SCOPE", scope));
    }
    fields.push(("member_id", portal.member_id.to_string()));
    fields.push(("status", status));
    fields.push(("PLACEMENT", placement.clone()));
    let is_empty = options.is_null() || options.as_object().is_some_and(serde_json::Map::is_empty);
    if !is_empty {
        let text = String::from_utf8(crate::http::json::escaped(&options)).context("options are not UTF-8")?;
        fields.push(("PLACEMENT_OPTIONS", text));
    }
    Ok(Opening { url, fields, sid, placement, options })
}

/// Posts the form as a browser would and returns the page.
pub(crate) async fn open(world: &Arc<World>, portal: &Arc<PortalCell>, request: &PageRequest) -> anyhow::Result<Page> {
    let opening = prepare(world, portal, request)?;
    let body = opening.form();
    let origin = format!("http://{}", portal.domain());
    let post = world
        .client
        .post(&opening.url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", &origin)
        .header("referer", format!("{origin}/"))
        .header("accept", "text/html,application/xhtml+xml")
        .timeout(std::time::Duration::from_secs(30))
        .body(body.clone());
    let (status, headers, answer) = fetch(post).await.context("the page did not answer")?;
    world.journal.count("page");
    world.journal.record(|| Entry {
        at_ms: world.now_ms(),
        direction: Direction::Out,
        target: Arc::from("page"),
        scope: portal.member_id.clone(),
        line: format!("POST {}", opening.url),
        body: body.clone().into(),
        status,
        answer: answer.clone(),
        note: String::new(),
    });
    let token = form::pairs(&body).find(|(name, _)| name == "AUTH_ID").map(|(_, value)| value).unwrap_or_default();
    Ok(Page {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: String::from_utf8_lossy(&answer).into_owned(),
        url: opening.url,
        form: body,
        access_token: token,
    })
}
