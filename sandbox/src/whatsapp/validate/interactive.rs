//! Interactive messages: buttons, lists, links, and the one-button requests. Source: §2.8.
//!
//! Products, catalogues, carousels and calls are not simulated and refused as unsupported.

use std::collections::HashSet;

use super::{Obj, Result, content};
use crate::whatsapp::{
    error::GraphError,
    ledger::{Button, Shown},
};

const HEADER_MAX: usize = 60;
const BODY_MAX: usize = 1024;
const FOOTER_MAX: usize = 60;

pub(super) fn read(interactive: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    interactive.only(&["type", "header", "body", "footer", "action"])?;
    let kind = interactive.need_text("type")?;
    let may_have_media = match kind {
        "button" | "cta_url" | "flow" => true,
        "list" | "location_request_message" | "request_contact_info" => false,
        "product" | "product_list" | "catalog_message" | "carousel" | "voice_call" | "call_permission_request" => {
            return Err(GraphError::new(131_051, format!("interactive type {kind} is not simulated")));
        }
        other => {
            return Err(GraphError::new(
                100,
                format!("Param interactive['type'] must be a known type - got \"{other}\""),
            ));
        }
    };
    if let Some(header) = interactive.sub("header")? {
        read_header(&header, may_have_media, shown)?;
    }
    let body = interactive.need_sub("body")?;
    body.only(&["text"])?;
    body.need_short("text", BODY_MAX)?.clone_into(&mut shown.text);
    if let Some(footer) = interactive.sub("footer")? {
        footer.only(&["text"])?;
        footer.need_short("text", FOOTER_MAX)?.clone_into(&mut shown.footer);
    }
    let action = interactive.need_sub("action")?;
    match kind {
        "button" => buttons(&action, shown),
        "list" => list(&action, shown),
        "cta_url" => cta_url(&action, shown),
        "flow" => flow(&action, shown),
        "location_request_message" => request(&action, "send_location", shown),
        _ => request(&action, "request_contact_info", shown),
    }
}

fn read_header(header: &Obj<'_>, may_have_media: bool, shown: &mut Shown) -> Result<()> {
    let kind = header.need_text("type")?;
    header.only(&["type", kind])?;
    match kind {
        "text" => header.need_short("text", HEADER_MAX)?.clone_into(&mut shown.header),
        "image" | "video" | "document" if may_have_media => {
            let body = std::mem::take(&mut shown.text);
            content::media(kind, &header.need_sub(kind)?, shown)?;
            shown.text = body;
        }
        _ => return Err(GraphError::new(131_009, format!("A header of type {kind} is not allowed here."))),
    }
    Ok(())
}

fn buttons(action: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    action.only(&["buttons"])?;
    let mut titles = HashSet::new();
    let mut ids = HashSet::new();
    for button in action.need_objects("buttons", 3)? {
        button.only(&["type", "reply"])?;
        if button.need_text("type")? != "reply" {
            return Err(GraphError::new(100, format!("Param {} must be one of {{REPLY}}", button.place("type"))));
        }
        let reply = button.need_sub("reply")?;
        reply.only(&["id", "title"])?;
        let (id, title) = (reply.need_short("id", 256)?, reply.need_short("title", 20)?);
        if !titles.insert(title) || !ids.insert(id) {
            return Err(GraphError::new(131_009, format!("Duplicated title or id in {}", button.place("reply"))));
        }
        shown.buttons.push(Button { kind: "reply".into(), text: title.into(), value: id.into() });
    }
    Ok(())
}

fn list(action: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    action.only(&["button", "sections"])?;
    action.need_short("button", 20)?;
    let sections = action.need_objects("sections", 10)?;
    let needs_titles = sections.len() > 1;
    let mut ids = HashSet::new();
    for section in sections {
        section.only(&["title", "rows"])?;
        let title = section.short_or_none("title", 24)?.unwrap_or("");
        if needs_titles && title.is_empty() {
            return Err(section.missing("title"));
        }
        for row in section.need_objects("rows", 10)? {
            row.only(&["id", "title", "description"])?;
            let (id, title) = (row.need_short("id", 200)?, row.need_short("title", 24)?);
            row.short_or_none("description", 72)?;
            if !ids.insert(id) {
                return Err(GraphError::new(131_009, format!("Duplicated row id {id}")));
            }
            shown.buttons.push(Button { kind: "list_row".into(), text: title.into(), value: id.into() });
        }
    }
    if ids.len() > 10 {
        return Err(GraphError::new(131_009, "Total row count exceed max allowed count: 10"));
    }
    Ok(())
}

fn cta_url(action: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    action.only(&["name", "parameters"])?;
    named(action, "cta_url")?;
    let parameters = action.need_sub("parameters")?;
    parameters.only(&["display_text", "url"])?;
    let (text, url) = (parameters.need_short("display_text", 20)?, parameters.need_text("url")?);
    if !reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        return Err(GraphError::new(131_009, format!("Param {} is not a valid URL", parameters.place("url"))));
    }
    shown.buttons.push(Button { kind: "url".into(), text: text.into(), value: url.into() });
    Ok(())
}

fn flow(action: &Obj<'_>, shown: &mut Shown) -> Result<()> {
    action.only(&["name", "parameters"])?;
    named(action, "flow")?;
    let parameters = action.need_sub("parameters")?;
    parameters.only(&[
        "flow_message_version",
        "flow_id",
        "flow_name",
        "flow_cta",
        "flow_token",
        "flow_action",
        "flow_action_payload",
        "mode",
    ])?;
    parameters.need_text("flow_message_version")?;
    if parameters.has("flow_id") == parameters.has("flow_name") {
        return Err(GraphError::new(100, "Exactly one of flow_id and flow_name is required."));
    }
    let one_of = |key: &str, allowed: &[&str]| match parameters.text(key)? {
        Some(value) if !allowed.contains(&value) => {
            Err(GraphError::new(131_009, format!("Param {} must be one of {allowed:?}", parameters.place(key))))
        }
        _ => Ok(()),
    };
    one_of("flow_action", &["navigate", "data_exchange"])?;
    one_of("mode", &["draft", "published"])?;
    let is_empty_data = |payload: &Obj<'_>| {
        payload.get("data").and_then(|data| data.as_object()).is_some_and(serde_json::Map::is_empty)
    };
    if parameters.sub("flow_action_payload")?.is_some_and(|payload| is_empty_data(&payload)) {
        return Err(GraphError::new(131_009, "flow_action_payload.data must not be empty."));
    }
    let text = parameters.need_short("flow_cta", 30)?;
    shown.buttons.push(Button { kind: "flow".into(), text: text.into(), value: String::new() });
    Ok(())
}

fn request(action: &Obj<'_>, name: &str, shown: &mut Shown) -> Result<()> {
    action.only(&["name"])?;
    named(action, name)?;
    shown.buttons.push(Button { kind: "other".into(), text: name.into(), value: String::new() });
    Ok(())
}

fn named(action: &Obj<'_>, name: &str) -> Result<()> {
    if action.need_text("name")? != name {
        return Err(GraphError::new(100, format!("Param interactive['action']['name'] must be \"{name}\".")));
    }
    Ok(())
}
