//! The portal's side of an application frame: a host page for a real browser and the parent half of the postMessage
//! protocol. Source: §1.3, §1.4, §10.3.
//!
//! The page's script only passes messages on; every command is carried out by `POST /frame/call`, so that the protocol
//! can be tested without a browser. Also here: `GET /oauth/authorize/` of §2.2.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{PortalCell, lifecycle, pages};
use crate::{
    http::{Request, Response, form},
    world::{Call, World},
};

/// Frames that are remembered per portal.
const FRAMES_KEPT: usize = 1_000;
const HOST_PAGE: &str = include_str!("frame.html");

/// An open frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    client_id: String,
    user_id: i64,
    placement: String,
    options: Value,
    /// Opened as installer.
    install: bool,
    /// Commands in the order of their arrival.
    commands: Vec<String>,
}

pub(crate) async fn route(world: &Arc<World>, portal: &Arc<PortalCell>, request: Request) -> Response {
    let path = request.path.trim_end_matches('/').to_owned();
    let (target, response) = match path.as_str() {
        "/frame" => ("frame", host_page(world, portal, &request)),
        "/frame/call" => ("frame.call", call(world, portal, &request)),
        "/oauth/authorize" => ("portal.authorize", authorize(world, portal, &request)),
        _ => ("frame", Err((404, "no such page".to_owned()))),
    };
    let response = response.unwrap_or_else(|(status, text)| Response::text(status, text));
    let call = Call { request: &request, target, scope: &portal.member_id, phone: "" };
    world.note_call(&call, &response, String::new());
    response
}

type Outcome = Result<Response, (u16, String)>;

/// `GET /frame?app=<client_id>&placement=DEFAULT&user=1[&install=1][&options={…}]`.
///
/// An application that is not installed yet is opened at its installer.
fn host_page(world: &Arc<World>, portal: &Arc<PortalCell>, request: &Request) -> Outcome {
    let query = |name: &str| request.query_param(name).unwrap_or_default();
    let client_id = query("app");
    let user_id = query("user").parse().unwrap_or(1);
    let placement = Some(query("placement")).filter(|code| !code.is_empty()).unwrap_or_else(|| "DEFAULT".to_owned());
    let options = request.query_param("options").and_then(|text| serde_json::from_str(&text).ok());
    let (is_installed, has_installer) = {
        let state = portal.state.lock();
        let install = state.installs.get(&client_id);
        let install = install.ok_or_else(|| (404, format!("{client_id} is not on this portal")))?;
        (install.installed, install.app.installer_url.is_some())
    };
    let install = placement == "DEFAULT" && has_installer && (!is_installed || query("install") == "1");
    let place = match (placement.as_str(), install) {
        ("DEFAULT", true) => "installer".to_owned(),
        ("DEFAULT", false) => "application".to_owned(),
        (other, _) => other.to_owned(),
    };
    let page = pages::PageRequest {
        client_id: client_id.clone(),
        user_id,
        place,
        options: options.unwrap_or(Value::Null),
        ..pages::PageRequest::default()
    };
    let opening = pages::prepare(world, portal, &page).map_err(|error| (404, format!("{error:#}")))?;
    let frame = Frame {
        client_id,
        user_id,
        placement: opening.placement.clone(),
        options: opening.options.clone(),
        install,
        commands: Vec::new(),
    };
    {
        let mut state = portal.state.lock();
        state.frames.insert(opening.sid.clone(), frame);
        state.frame_order.push_back(opening.sid.clone());
        if state.frame_order.len() > FRAMES_KEPT
            && let Some(old) = state.frame_order.pop_front()
        {
            state.frames.remove(&old);
        }
    }
    let mut inputs = String::new();
    for (name, value) in &opening.fields {
        inputs.push_str(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">\n", attribute(value)));
    }
    let name = format!("{}|0|{}", portal.domain(), opening.sid);
    let html = HOST_PAGE
        .replace("{{title}}", &attribute(&portal.name))
        .replace("{{action}}", &attribute(&opening.url))
        .replace("{{frame_name}}", &attribute(&name))
        .replace("{{sid}}", &opening.sid)
        .replace("{{inputs}}", &inputs);
    Ok(Response::html(200, html))
}

fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

/// One message of the frame, as its parent page hands it on.
#[derive(Deserialize)]
struct Message {
    sid: String,
    /// `COMMAND:JSON:CALLBACK:SID` or the object form.
    message: Value,
}

/// A message taken apart.
#[derive(Debug, PartialEq)]
struct Command {
    name: String,
    params: Value,
    callback: String,
    sid: String,
}

/// Empty parts are left out and the JSON may hold colons, so the ends are taken first.
fn parse(message: &Value) -> Option<Command> {
    if let Value::Object(object) = message {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let params = object.get("params").cloned().unwrap_or(Value::Null);
        return Some(Command { name: text("method"), params, callback: text("callback"), sid: text("appSid") });
    }
    let text = message.as_str()?;
    let (name, rest) = text.split_once(':')?;
    let (middle, sid) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (params, callback) = if middle.starts_with(['{', '[', '"']) {
        match serde_json::from_str::<Value>(middle) {
            Ok(params) => (params, ""),
            Err(_) => {
                let (json, callback) = middle.rsplit_once(':')?;
                (serde_json::from_str(json).ok()?, callback)
            }
        }
    } else {
        (Value::Null, middle.trim_start_matches(':'))
    };
    Some(Command { name: name.to_owned(), params, callback: callback.to_owned(), sid: sid.to_owned() })
}

/// `POST /frame/call` `{"sid":…,"message":…}` → `{"callback":…,"reply":…,"reload":bool,"resize":…}`.
fn call(world: &Arc<World>, portal: &Arc<PortalCell>, request: &Request) -> Outcome {
    let message: Message =
        serde_json::from_slice(&request.body).map_err(|error| (400, format!("not a frame message: {error}")))?;
    let command = parse(&message.message).ok_or_else(|| (400, "cannot take the message apart".to_owned()))?;
    if command.sid != message.sid {
        return Err((403, "the message carries another APP_SID".to_owned()));
    }
    let frame = {
        let mut state = portal.state.lock();
        let frame = state.frames.get_mut(&message.sid).ok_or_else(|| (404, "unknown APP_SID".to_owned()))?;
        if frame.commands.len() < 1000 {
            frame.commands.push(command.name.clone());
        }
        frame.clone()
    };
    world.journal.count(&format!("frame.command.{}", command.name));
    let mut answer = json!({"callback": command.callback, "reply": null});
    match command.name.as_str() {
        "getInitData" => answer["reply"] = init_data(world, portal, &frame)?,
        "setInstallFinish" => {
            // Outside the installer it does nothing useful.
            if frame.install {
                lifecycle::finish(world, portal, &frame.client_id).map_err(|error| (400, format!("{error:#}")))?;
                answer["reload"] = json!(true);
            }
        }
        "refreshAuth" => answer["reply"] = tokens(world, portal, &frame)?,
        "resizeWindow" => answer["resize"] = command.params.clone(),
        "setTitle" => answer["title"] = command.params["title"].clone(),
        "reloadWindow" => answer["reload"] = json!(true),
        "setAppOption" | "setUserOption" => {
            set_option(portal, &frame, &command);
            answer["reply"] = json!(true);
        }
        "getInterface" => {
            let commands = [
                "getInitData",
                "setInstallFinish",
                "setInstall",
                "refreshAuth",
                "resizeWindow",
                "setTitle",
                "setScroll",
                "reloadWindow",
                "closeApplication",
                "openApplication",
                "openPath",
                "setAppOption",
                "setUserOption",
                "getInterface",
                "placementBindEvent",
                "setPropertyValue",
                "reloadData",
            ];
            answer["reply"] = json!({"command": commands, "event": []});
        }
        "selectUser" | "selectAccess" | "selectCRM" => answer["reply"] = json!([]),
        // Everything else (setPropertyValue, openPath, im…) is noted and acknowledged.
        _ => answer["reply"] = json!({"command": command.name, "params": command.params}),
    }
    Ok(Response::value(200, &answer))
}

fn set_option(portal: &PortalCell, frame: &Frame, command: &Command) {
    let name = command.params["name"].as_str().unwrap_or("").to_owned();
    let value = crate::php::Php::from_json(&command.params["value"]);
    let mut state = portal.state.lock();
    if let Some(install) = state.installs.get_mut(&frame.client_id) {
        if command.name == "setAppOption" {
            install.options.set(&name, value);
        } else {
            install.user_options.entry(frame.user_id).or_insert_with(crate::php::Php::empty).set(&name, value);
        }
    }
}

fn tokens(world: &Arc<World>, portal: &Arc<PortalCell>, frame: &Frame) -> Result<Value, (u16, String)> {
    let pair = lifecycle::issue(world, portal, &frame.client_id, frame.user_id)
        .map_err(|error| (400, format!("{error:#}")))?;
    Ok(json!({
        "AUTH_ID": pair.access_token,
        "REFRESH_ID": pair.refresh_token,
        "AUTH_EXPIRES": pair.expires_in.to_string(),
    }))
}

fn init_data(world: &Arc<World>, portal: &Arc<PortalCell>, frame: &Frame) -> Result<Value, (u16, String)> {
    let mut data = tokens(world, portal, frame)?;
    let language = portal.switches.read().language.clone();
    let state = portal.state.lock();
    let is_admin = state.users.get(&frame.user_id).is_some_and(|user| user.admin);
    let install = state.installs.get(&frame.client_id);
    let own = install.map(|install| install.options.to_json()).unwrap_or_else(|| json!([]));
    let user = install.and_then(|install| install.user_options.get(&frame.user_id)).map(crate::php::Php::to_json);
    data["DOMAIN"] = json!(portal.domain());
    data["PROTOCOL"] = json!("0");
    data["PATH"] = json!("/rest");
    data["LANG"] = json!(language);
    data["MEMBER_ID"] = json!(&*portal.member_id);
    data["IS_ADMIN"] = json!(is_admin);
    data["APP_OPTIONS"] = own;
    data["USER_OPTIONS"] = user.unwrap_or_else(|| json!({}));
    data["PLACEMENT"] = json!(frame.placement);
    data["PLACEMENT_OPTIONS"] = frame.options.clone();
    data["INSTALL"] = json!(frame.install);
    data["FIRST_RUN"] = json!(false);
    Ok(data)
}

/// `GET /oauth/authorize/?client_id=…&state=…[&user_id=…]` → 302 to the application URL with a code (§2.2).
fn authorize(world: &Arc<World>, portal: &Arc<PortalCell>, request: &Request) -> Outcome {
    let client_id = request.query_param("client_id").unwrap_or_default();
    let app = world.bitrix.app(&client_id).ok_or_else(|| (404, "unknown application".to_owned()))?;
    let user_id = request.query_param("user_id").and_then(|id| id.parse().ok());
    let user_id = user_id.or_else(|| portal.state.lock().first_admin()).unwrap_or(1);
    let code =
        lifecycle::issue_code(world, portal, &client_id, user_id).map_err(|error| (400, format!("{error:#}")))?;
    let mut query = crate::http::form::FormBody::default();
    query.put(&["code"], &code);
    query.put(&["state"], &request.query_param("state").unwrap_or_default());
    query.put(&["domain"], &portal.domain());
    query.put(&["member_id"], &portal.member_id);
    query.put(&["scope"], &app.scopes.join(","));
    query.put(&["server_domain"], &world.bitrix.oauth_host());
    let joint = if app.application_url.contains('?') { '&' } else { '?' };
    debug_assert!(form::pairs(&request.query).count() > 0);
    Ok(Response::redirect(302, format!("{}{joint}{}", app.application_url, query.finish())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart_whatever_is_left_out() {
        let take = |text: &str| {
            let command = parse(&json!(text)).unwrap();
            (command.name, command.params, command.callback, command.sid)
        };
        let owned = |text: &str| text.to_owned();
        assert_eq!(take("getInitData:cb17:5f"), (owned("getInitData"), Value::Null, owned("cb17"), owned("5f")));
        assert_eq!(take("setInstallFinish:5f"), (owned("setInstallFinish"), Value::Null, owned(""), owned("5f")));
        assert_eq!(take("setInstallFinish::5f"), (owned("setInstallFinish"), Value::Null, owned(""), owned("5f")));
        assert_eq!(
            take(r#"setTitle:{"title":"a:b"}:cb1:5f"#),
            (owned("setTitle"), json!({"title": "a:b"}), owned("cb1"), owned("5f"))
        );
        assert_eq!(
            take(r#"resizeWindow:{"width":"100%","height":300}:5f"#),
            (owned("resizeWindow"), json!({"width": "100%", "height": 300}), owned(""), owned("5f"))
        );
    }
}
