//! `batch`: up to fifty commands in one request. Source: §3.4.

use super::rest::{Answer, Hit, RestError, time_block};
use crate::{
    http::form,
    journal::Severity,
    php::{Key, Php},
};

const COMMANDS_MAX: usize = 50;

/// Runs the commands; the answer is good even if every command failed.
pub(crate) fn run(hit: &mut Hit<'_>, params: &Php) -> Answer {
    let commands = params.get_ci("cmd").map(|cmd| cmd.entries().to_vec()).unwrap_or_default();
    let halt = params.get_ci("halt").is_some_and(|halt| !halt.is_empty());
    let offset = hit.portal.switches.read().offset_min;
    let mut parts = Parts::default();
    for (nth, (key, command)) in commands.iter().enumerate() {
        let Php::Str(command) = command else {
            careless(hit, "batch_not_a_string", &format!("command {key} is not a string and is skipped silently"));
            continue;
        };
        if matches!(key, Key::Int(_)) {
            careless(hit, "batch_numeric_key", "numeric keys turn the result maps into arrays: use names");
        }
        let (outcome, operating) = if nth >= COMMANDS_MAX {
            let text = "Max batch length exceeded";
            (Err(RestError::bad("ERROR_BATCH_LENGTH_EXCEEDED", text)), None)
        } else {
            one(hit, command, &parts.result)
        };
        let failed = outcome.is_err();
        match outcome {
            Ok(answer) => {
                if let Some(total) = answer.total {
                    *parts.total.entry(key.clone()) = Php::Int(total);
                }
                if let Some(next) = answer.next {
                    *parts.next.entry(key.clone()) = Php::Int(next);
                }
                *parts.time.entry(key.clone()) = time_block(hit.now, hit.now, offset, operating);
                *parts.result.entry(key.clone()) = answer.result;
            }
            Err(error) => {
                let method = command.split('?').next().unwrap_or("");
                error.note(hit.world, hit.portal, &format!("rest.{method}"));
                *parts.error.entry(key.clone()) = Php::map(error.body());
            }
        }
        if failed && halt {
            break;
        }
    }
    hit.world.journal.count_by("rest.batch.commands", commands.len() as u64);
    Answer::of(Php::map([
        ("result", parts.result),
        ("result_error", parts.error),
        ("result_total", parts.total),
        ("result_next", parts.next),
        ("result_time", parts.time),
    ]))
}

struct Parts {
    result: Php,
    error: Php,
    total: Php,
    next: Php,
    time: Php,
}

impl Default for Parts {
    fn default() -> Self {
        let [result, error, total, next, time] = std::array::from_fn(|_| Php::empty());
        Self { result, error, total, next, time }
    }
}

fn one(
    hit: &mut Hit<'_>,
    command: &str,
    so_far: &Php,
) -> (Result<Answer, RestError>, Option<super::limits::Operating>) {
    let (method, query) = command.split_once('?').unwrap_or((command, ""));
    let method = method.trim().trim_start_matches('/').to_ascii_lowercase();
    let is_forbidden = method == "batch" || method.contains("upload") || method.contains("download");
    if is_forbidden {
        let text = "Method is not allowed for batch usage";
        return (Err(RestError::new(405, "ERROR_BATCH_METHOD_NOT_ALLOWED", text)), None);
    }
    let mut params = form::parse(query);
    resolve(&mut params, so_far);
    hit.call(&method, &params, Some(command))
}

/// Replaces `$result[key][path]…` in every value.
fn resolve(value: &mut Php, so_far: &Php) {
    match value {
        Php::Array(entries) => entries.iter_mut().for_each(|(_, inner)| resolve(inner, so_far)),
        Php::Str(text) if text.contains("$result[") => {
            let trimmed = text.trim();
            if let Some((found, "")) = reference(trimmed, so_far) {
                *value = found;
                return;
            }
            let mut out = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some(at) = rest.find("$result[") {
                out.push_str(&rest[..at]);
                rest = &rest[at..];
                if let Some((found, after)) = reference(rest, so_far) {
                    out.push_str(&found.text());
                    rest = after;
                } else {
                    out.push_str("$result");
                    rest = &rest["$result".len()..];
                }
            }
            out.push_str(rest);
            *value = Php::Str(out);
        }
        _ => {}
    }
}

/// Reads one reference at the start of `text`: its value and the text after it. Resolution stops at the last level that
/// exists; a first key that does not exist gives `null`.
fn reference<'t>(text: &'t str, so_far: &Php) -> Option<(Php, &'t str)> {
    let mut rest = text.strip_prefix("$result")?;
    let mut keys = Vec::new();
    while let Some(inner) = rest.strip_prefix('[') {
        let end = inner.find(']')?;
        keys.push(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let (first, deeper) = keys.split_first()?;
    let Some(mut found) = so_far.get(first) else { return Some((Php::Null, rest)) };
    for key in deeper {
        let Some(inner) = found.get(key) else { break };
        found = inner;
    }
    Some((found.clone(), rest))
}

fn careless(hit: &Hit<'_>, code: &str, message: &str) {
    hit.world.violation(Severity::Careless, "rest.batch", &hit.portal.member_id, code, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_whole_values_or_text_and_stop_at_the_last_level() {
        let so_far: Php =
            serde_json::from_str(r#"{"c":{"ID":"17","PHONE":["+7","+8"]},"list":[{"ID":5}],"n":3}"#).unwrap();
        let check = |text: &str, expected: &str| {
            let mut value = Php::from(text);
            resolve(&mut value, &so_far);
            assert_eq!(serde_json::to_string(&value).unwrap(), expected, "{text}");
        };
        check("$result[c][ID]", "\"17\"");
        check("$result[c][PHONE]", r#"["+7","+8"]"#);
        check("deal $result[c][ID] of $result[n]!", "\"deal 17 of 3!\"");
        check("$result[list][0][ID]", "5");
        check("$result[c][ID][MISSING]", "\"17\"");
        check("$result[nothing][ID]", "null");
        check("a $result[nothing] b", "\"a  b\"");
        check("$result and $result[", "\"$result and $result[\"");
    }
}
