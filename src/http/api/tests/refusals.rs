//! What is refused before any work is done (callers, paths, methods, bodies), and what the log says of it all.

use std::io::Write;
use std::sync::Mutex;

use super::*;
use crate::http::api::TABLE;
use crate::http::api::body::BODY_MAX;

/// A path of the table with plausible ids in its places.
fn filled(path: &str) -> String {
    path.replace("{line}", "line_1")
        .replace("{channel}", "chan_1")
        .replace("{portal}", "prt_1")
        .replace("{message}", "msg_1")
        .replace("{letter}", "send:msg_1")
        .replace("{app}", "main")
}

#[actix_web::test]
async fn every_route_wants_the_token() {
    let (on, off) = (Api::start().await, Api::with_token(None).await);
    let blank = Api::with_token(Some("")).await;
    let unknown = [("get", "/nothing".to_owned()), ("patch", "/lines".to_owned()), ("get", String::new())];
    let table = TABLE.iter().flat_map(|row| row.methods.iter().map(|method| (*method, filled(row.path))));
    for (method, path) in table.chain(unknown) {
        for api in [&on, &off, &blank] {
            let answer = api.send(Api::request(method, &path)).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(answer.text("/detail").len() > 10, "says what to do");
        }
        // Without a configured token, no token is right.
        assert_eq!(off.call(method, &path).await.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_ne!(on.call(method, &path).await.status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    assert!(off.get("/lines").await.text("/detail").contains("security.admin_token"));
}

#[actix_web::test]
async fn only_the_whole_token_is_right() {
    let api = Api::start().await;
    for (header, is_right) in [
        (format!("Bearer {TOKEN}"), true),
        (format!("bearer   {TOKEN}  "), true),
        (TOKEN.to_owned(), false),
        (format!("Basic {TOKEN}"), false),
        ("Bearer".to_owned(), false),
        ("Bearer ".to_owned(), false),
        (format!("Bearer {TOKEN}x"), false),
        (format!("Bearer {}", TOKEN.to_uppercase()), false),
        (format!("Bearer {}", TOKEN.get(..TOKEN.len() - 1).unwrap()), false),
    ] {
        let request = Api::request("get", "/lines").insert_header(("Authorization", header.clone()));
        let expected = if is_right { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(api.send(request).await.status, expected, "{header}");
    }
}

#[actix_web::test]
async fn guessing_is_slowed_down_per_address() {
    let api = Api::start().await;
    let guess = |peer: &str| {
        Api::request("get", "/lines").peer_addr(peer.parse().unwrap()).insert_header(("Authorization", "Bearer guess"))
    };
    for _ in 0..20 {
        assert_eq!(api.send(guess("198.51.100.1:1")).await.status, StatusCode::UNAUTHORIZED);
    }
    let refused = api.send(guess("198.51.100.1:2")).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!((1..=7).contains(&refused.header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(api.send(guess("198.51.100.2:1")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get("/lines").await.status, StatusCode::OK);
}

#[actix_web::test]
async fn unknown_paths_and_methods_are_named() {
    let api = Api::start().await;
    for path in ["", "/", "/nothing", "/lines/", "/messages/a/b", "/channels/chan_1/explode"] {
        assert_eq!(api.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for row in TABLE {
        let answer = api.call("trace", &filled(row.path)).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{}", row.path);
        assert_eq!(answer.header("allow"), row.methods.join(", ").to_uppercase());
    }
    let answer = api.get("/lines").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[actix_web::test]
async fn ids_that_are_none_are_not_found() {
    let api = Api::start().await;
    let line = api.add_line("Sales").await;
    for (method, path) in [
        ("get", "/lines/line_1"),
        ("get", "/lines/chan_1"),
        ("get", "/channels/chan_1"),
        ("get", "/channels/line_1"),
        ("get", "/channels/%00"),
        ("get", "/channels/%FF"),
        ("get", "/channels/..%2F..%2Fetc"),
        ("post", "/channels/chan_1/pause"),
        ("post", "/channels/chan_1/resume"),
        ("delete", "/channels/chan_1/queue"),
        ("put", "/portals/prt_1/lines/line_1"),
        ("delete", "/portals/prt_1/lines/line_1"),
        ("get", "/messages/msg_1"),
        ("get", "/messages/msg_%00"),
        ("get", "/messages/dead"),
        ("post", "/dead-letters/send:msg_1/redrive"),
        ("post", "/dead-letters/send:%00/redrive"),
        ("post", "/dead-letters/x/redrive"),
    ] {
        let answer = api.call(method, path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {}", answer.json);
    }
    let portal = api.add_portal("acme").await;
    let path = format!("/portals/{}/lines/line_404", portal.id);
    assert_eq!(api.call("put", &path).await.status, StatusCode::NOT_FOUND);
    let answer = api.post("/lines/line_404/channels", &new_channel()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let path = format!("/portals/prt_404/lines/{line}");
    assert_eq!(api.call("put", &path).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn bodies_are_checked_before_they_are_read() {
    let api = Api::start().await;
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(BODY_MAX));
    for (kind, body, expected) in [
        ("application/json", "", StatusCode::BAD_REQUEST),
        ("application/json", "{", StatusCode::BAD_REQUEST),
        ("application/json", "[]", StatusCode::BAD_REQUEST),
        ("application/json", "null", StatusCode::BAD_REQUEST),
        ("application/json", "{}", StatusCode::BAD_REQUEST),
        ("application/json", "{\"name\":7}", StatusCode::BAD_REQUEST),
        ("application/json", "{\"name\":\"a\",\"colour\":1}", StatusCode::BAD_REQUEST),
        ("application/json", "{\"name\":\"a\\u0000b\"}", StatusCode::BAD_REQUEST),
        ("application/json", "{\"name\":\"access-s3cret\"", StatusCode::BAD_REQUEST),
        ("application/json", long.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
        ("text/plain", "{\"name\":\"a\"}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/x-www-form-urlencoded", "name=a", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("nonsense", "{\"name\":\"a\"}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", "{\"name\":\" \"}", StatusCode::UNPROCESSABLE_ENTITY),
        ("application/json", "{\"name\":\"a\\nb\"}", StatusCode::UNPROCESSABLE_ENTITY),
        ("application/json; charset=utf-8", "{\"name\":\"a\"}", StatusCode::CREATED),
        ("application/vnd.api+json", "{\"name\":\"a\"}", StatusCode::CREATED),
    ] {
        let request =
            Api::authorized("post", "/lines").insert_header((CONTENT_TYPE, kind)).set_payload(body.to_owned());
        let answer = api.send(request).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.status, expected, "{kind} {shown}: {}", answer.json);
    }
    let plain = || Api::authorized("post", "/lines").set_payload("{\"name\":\"a\"}");
    assert_eq!(api.send(plain()).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let packed = plain().insert_header((CONTENT_TYPE, "application/json")).insert_header(("Content-Encoding", "gzip"));
    assert_eq!(api.send(packed).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let invalid = Api::authorized("post", "/lines").insert_header((CONTENT_TYPE, "application/json"));
    assert_eq!(api.send(invalid.set_payload(vec![b'"', 0xff, b'"'])).await.status, StatusCode::BAD_REQUEST);
    let deep = Api::authorized("post", "/lines").insert_header((CONTENT_TYPE, "application/json"));
    assert_eq!(api.send(deep.set_payload("[".repeat(100_000))).await.status, StatusCode::BAD_REQUEST);
}

#[actix_web::test]
async fn lists_are_bounded_and_their_questions_checked() {
    let api = Api::start().await;
    for path in ["/lines", "/channels", "/portals", "/messages", "/dead-letters"] {
        for query in
            ["limit=0", "limit=201", "limit=-1", "limit=x", "limit=1&limit=2", "cursor=x", "colour=1", "cursor=%00"]
        {
            let answer = api.get(&format!("{path}?{query}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}?{query}: {}", answer.json);
        }
        for query in ["", "limit=1", "limit=200", "limit=200&cursor="] {
            let answer = api.get(&format!("{path}?{query}")).await;
            assert_eq!(answer.json, json!({"items": [], "next": null}), "{path}?{query}");
        }
    }
}

#[actix_web::test]
async fn a_store_that_is_down_is_said_to_be_down() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    api.state.storage.close().await;
    let message = json!({"channel": channel, "to": "79001234567", "text": "Good day"});
    for answer in [
        api.get("/lines").await,
        api.get("/messages").await,
        api.post("/lines", &json!({"name": "Support"})).await,
        api.post("/messages", &message).await,
        api.call("delete", &format!("/channels/{channel}/queue")).await,
    ] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.json);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[actix_web::test]
async fn the_log_holds_no_secret_phone_or_text() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let id = api.send_text(&channel, "+7 900 123-45-67").await;
    api.post("/messages", &json!({"channel": channel, "to": "79001234567", "text": "Good day".repeat(1000)})).await;
    api.post("/messages", &json!({"channel": channel, "to": "8 900 123-45", "text": "Good day"})).await;
    api.get("/messages?peer=79001234567").await;
    api.get(&format!("/messages/{id}")).await;
    api.post(&format!("/channels/{channel}/pause"), &json!({"reason": "Good day"})).await;
    api.call("delete", &format!("/channels/{channel}/queue")).await;
    api.state.storage.close().await;
    api.get("/messages?peer=79001234567").await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("channel added") && text.contains("store unavailable"), "{text}");
    for hidden in SECRETS.iter().chain(&["123-45", "9001234567", "Good day"]) {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}
