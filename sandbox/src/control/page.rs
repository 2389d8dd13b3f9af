//! The page of the sandbox: its files, and one bounded answer with everything that it draws.

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Ask, Outcome, Refusal, good};
use crate::{
    bitrix24::Portal,
    http::{Request, Response},
    whatsapp::{Message, PhoneView, Route},
    world::World,
};

/// Newest messages that are looked at to find the phones that talked last.
const LOOK_AT: usize = 20_000;
/// Longest piece of a message that a list of chats carries, characters.
const LINE_SHOWN: usize = 120;

/// Foreign text is shown on this page: scripts only from here, and no way to turn text into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

macro_rules! files {
    ($($path:literal $kind:literal $file:literal;)*) => {
        &[$(($path, $kind, include_str!(concat!("../page/", $file)))),*]
    };
}

/// Path, content type, text.
const FILES: &[(&str, &str, &str)] = files! {
    "/" "text/html" "index.html";
    "/page/base.css" "text/css" "base.css";
    "/page/board.css" "text/css" "board.css";
    "/page/phone.css" "text/css" "phone.css";
    "/page/icon.svg" "image/svg+xml" "icon.svg";
    "/page/main.js" "text/javascript" "main.js";
    "/page/api.js" "text/javascript" "api.js";
    "/page/bbcode.js" "text/javascript" "bbcode.js";
    "/page/board.js" "text/javascript" "board.js";
    "/page/card.js" "text/javascript" "card.js";
    "/page/dom.js" "text/javascript" "dom.js";
    "/page/drag.js" "text/javascript" "drag.js";
    "/page/live.js" "text/javascript" "live.js";
    "/page/panels.js" "text/javascript" "panels.js";
    "/page/phone.js" "text/javascript" "phone.js";
    "/page/texts.js" "text/javascript" "texts.js";
    "/page/words.js" "text/javascript" "words.js";
};

/// A file of the page.
pub(super) fn file(request: &Request) -> Option<Response> {
    let (_, kind, text) = FILES.iter().find(|(path, _, _)| *path == request.path)?;
    let answer = Response::new(200, &format!("{kind}; charset=utf-8"), *text)
        .with_header(CONTENT_SECURITY_POLICY, POLICY.to_owned())
        .with_header(X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned())
        .with_header(REFERRER_POLICY, "no-referrer".to_owned())
        .with_header(HeaderName::from_static("cross-origin-opener-policy"), "same-origin".to_owned())
        // Another version may listen on the same port tomorrow.
        .with_header(CACHE_CONTROL, "no-store".to_owned());
    Some(answer)
}

/// Who a phone talks with, and the last thing it shows.
#[derive(Serialize)]
struct Chat {
    phone: PhoneView,
    number: Option<String>,
    last: Option<LastLine>,
}

#[derive(Serialize)]
struct LastLine {
    text: String,
    kind: String,
    route: Route,
    at_ms: i64,
}

impl LastLine {
    fn of(message: &Message) -> Self {
        Self {
            text: message.shown.text.chars().take(LINE_SHOWN).collect(),
            kind: message.shown.kind.clone(),
            route: message.route,
            at_ms: message.at_ms,
        }
    }
}

/// Phones, those that talked last first; then those that are known. `find` is a piece of the digits or the name.
fn chats(world: &World, limit: usize, find: &str) -> Vec<Chat> {
    let options = world.graph.options.read().clone();
    let find = find.trim().to_lowercase();
    let fits =
        |phone: &PhoneView| find.is_empty() || phone.wa_id.contains(&find) || phone.name.to_lowercase().contains(&find);
    let wanted = if find.is_empty() { limit } else { LOOK_AT };
    let newest: Vec<(String, String, LastLine)> = {
        let ledger = world.graph.ledger.lock();
        let newest = ledger.newest_by_phone(wanted, LOOK_AT);
        newest.into_iter().map(|own| (own.phone.clone(), own.phone_number_id.clone(), LastLine::of(own))).collect()
    };
    let mut phones = world.graph.phones.lock();
    let mut chats: Vec<Chat> = newest
        .into_iter()
        .map(|(phone, number, last)| Chat {
            phone: phones.dial(&options, &phone).view(),
            number: Some(number),
            last: Some(last),
        })
        .filter(|chat| fits(&chat.phone))
        .take(limit)
        .collect();
    if chats.len() < limit {
        let talked: std::collections::HashSet<String> = chats.iter().map(|chat| chat.phone.wa_id.clone()).collect();
        let silent = phones.views(usize::MAX).into_iter().filter(|phone| fits(phone) && !talked.contains(&phone.wa_id));
        chats.extend(silent.take(limit - chats.len()).map(|phone| Chat { phone, number: None, last: None }));
    }
    chats
}

fn portal(ask: &Ask<'_>) -> Result<Option<Portal>, Refusal> {
    let all = super::bitrix::all(ask.world);
    match ask.request.query_param("portal").filter(|wanted| !wanted.is_empty()) {
        Some(wanted) => {
            let found = all.into_iter().find(|portal| portal.member_id() == wanted);
            found.map(Some).ok_or_else(|| Refusal::missing("portal"))
        }
        None => Ok(all.into_iter().next()),
    }
}

fn portal_view(world: &World, portal: &Portal, category: i64, per_stage: usize) -> Value {
    let users: serde_json::Map<String, Value> = portal
        .users()
        .into_iter()
        .take(500)
        .map(|user| (user.id.to_string(), format!("{} {}", user.name, user.last_name).trim().into()))
        .collect();
    let apps: Vec<Value> = portal
        .installs()
        .into_iter()
        .map(|install| {
            let name = world.bitrix.app(&install.client_id).map(|app| app.name.clone());
            json!({
                "client_id": install.client_id,
                "name": name,
                "installed": install.installed,
                "frame_url": portal.frame_url(&install.client_id, "DEFAULT"),
            })
        })
        .collect();
    json!({
        "member_id": portal.member_id(),
        "name": portal.name(),
        "domain": portal.domain(),
        "language": portal.switches().language,
        "users": users,
        "apps": apps,
        "columns": portal.kanban(crate::entity::DEAL, category, per_stage),
    })
}

/// `GET page?portal=&category=0&per_stage=12&chats=30&find=`: one portal's board, phones, faults, totals.
pub(super) fn view(ask: &Ask<'_>) -> Outcome {
    let world = ask.world;
    let per_stage = ask.query("per_stage").unwrap_or(12_usize).min(500);
    let limit = ask.query("chats").unwrap_or(30_usize).min(500);
    let find = ask.request.query_param("find").unwrap_or_default();
    let change = world.journal.last_change();
    let own = portal(ask)?;
    let all = super::bitrix::all(world);
    let portals: Vec<Value> =
        all.iter().map(|portal| json!({"member_id": portal.member_id(), "name": portal.name()})).collect();
    let category = ask.query("category").unwrap_or(0);
    let numbers: Vec<Value> = super::whatsapp::all(world)
        .iter()
        .map(|number| {
            let spec = number.view().spec;
            json!({"id": spec.phone_number_id, "display": spec.display_phone_number, "name": spec.verified_name})
        })
        .collect();
    let count = |name: &str| world.journal.counter(name);
    let (accepted, repeated) = {
        let ledger = world.graph.ledger.lock();
        (ledger.accepted, ledger.repeated)
    };
    good(&json!({
        "now_ms": world.now_ms(),
        "change": change,
        "pending": world.pending.get(),
        "portals": portals,
        "portal": own.as_ref().map(|portal| portal_view(world, portal, category, per_stage)),
        "numbers": numbers,
        "chats": chats(world, limit, &find),
        "phone_count": world.graph.phones.lock().len(),
        "faults": world.faults.list(),
        "totals": {
            "accepted": accepted, "repeated": repeated,
            "sent": count("status.sent"), "delivered": count("status.delivered"),
            "read": count("status.read"), "failed": count("status.failed"), "inbound": count("messages.inbound"),
            "refused": count("violations.refused"), "limit": count("violations.limit"),
            "careless": count("violations.careless"),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_only_files_that_are_here_and_holds_no_script_of_its_own() {
        let page = FILES[0].2;
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick"));
        for word in page.split(['"', '\'']).filter(|word| word.starts_with("/page/")) {
            assert!(FILES.iter().any(|(path, _, _)| *path == word), "{word}");
        }
        for (path, _, text) in FILES {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{path} names another server");
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!text.contains(way), "{path} uses {way}");
            }
            for line in text.lines().filter(|line| line.starts_with("import ")) {
                let from = line.split('"').nth(1).unwrap_or_default().replacen("./", "/page/", 1);
                assert!(FILES.iter().any(|(path, _, _)| *path == from), "{path}: {line}");
            }
            assert!(text.lines().count() <= 800, "{path} is too long");
        }
    }
}
