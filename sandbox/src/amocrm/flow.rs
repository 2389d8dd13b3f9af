//! The code of a block that a widget gave a bot, executed: calls, branches, ways out. Source: §3.1, §3.2, §3.6.

use serde_json::{Map, Value};

/// Most handlers of one run: a block that goes round in circles ends.
const HOPS: usize = 100;

/// Where a block stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// It calls, and goes on at this step and handler when it is continued.
    Call {
        /// Whom.
        url: String,
        /// With what.
        data: Value,
        /// Step and handler to go on at.
        at: (usize, usize),
    },
    /// It left by this way.
    Exit(String),
    /// It cannot go on.
    Stuck(String),
}

/// `{{json.KEY}}` and the like of results.
fn filled(text: &str, results: &Map<String, Value>) -> String {
    let mut text = text.to_owned();
    for (key, value) in results {
        text = text.replace(&format!("{{{{json.{key}}}}}"), value.as_str().unwrap_or_default());
    }
    text
}

fn holds(condition: &Value, results: &Map<String, Value>) -> Option<bool> {
    let term = |key: &str| condition[key].as_str().map(|text| filled(text, results));
    let (one, other) = (term("term1")?, term("term2")?);
    match condition["operation"].as_str()? {
        "=" => Some(one == other),
        "!=" => Some(one != other),
        _ => None,
    }
}

/// Runs a block from a step and handler on.
pub(super) fn run(code: &Value, from: (usize, usize), results: &Map<String, Value>) -> Next {
    let stuck = |words: &str| Next::Stuck(words.to_owned());
    let (mut step, mut place) = from;
    let mut inside: Vec<Value> = Vec::new();
    for _ in 0..HOPS {
        // Handlers of a branch come before the rest of the step.
        let handler = match inside.is_empty() {
            false => inside.remove(0),
            true => match code[step]["question"].get(place) {
                Some(handler) => {
                    place += 1;
                    handler.clone()
                }
                None => return stuck("the step ends without a way out"),
            },
        };
        let params = &handler["params"];
        match handler["handler"].as_str().unwrap_or_default() {
            "widget_request" => {
                let Some(url) = params["url"].as_str() else { return stuck("widget_request without url") };
                return Next::Call { url: url.to_owned(), data: params["data"].clone(), at: (step, place) };
            }
            "goto" => {
                let wanted = params["step"].as_u64().and_then(|step| usize::try_from(step).ok());
                match wanted.filter(|_| params["type"] == "question") {
                    Some(wanted) => (step, place) = (wanted, 0),
                    None => return stuck("goto needs type and step"),
                }
                inside.clear();
            }
            "conditions" => {
                let all: Vec<Option<bool>> =
                    params["conditions"].as_array().into_iter().flatten().map(|one| holds(one, results)).collect();
                if all.is_empty() || all.contains(&None) {
                    return stuck("a condition cannot be read");
                }
                let yes = match params["logic"].as_str() {
                    Some("and") => all.iter().all(|one| *one == Some(true)),
                    Some("or") => all.contains(&Some(true)),
                    _ => return stuck("conditions need a logic"),
                };
                if yes {
                    inside = params["result"].as_array().cloned().unwrap_or_default();
                }
            }
            "exits" => match params["value"].as_str() {
                Some(value) => return Next::Exit(value.to_owned()),
                None => return stuck("exits without value"),
            },
            other => return Next::Stuck(format!("{other} is not simulated")),
        }
    }
    stuck("the block goes round in circles")
}

/// §3.2: what is wrong with a block as it is saved.
pub(super) fn wrong(code: &str, exits: &[String]) -> Option<String> {
    if code.len() > 64 * 1024 {
        return Some("longer than 64 KB".to_owned());
    }
    let Ok(Value::Array(steps)) = serde_json::from_str::<Value>(code) else {
        return Some("no JSON array of steps".to_owned());
    };
    let known = ["widget_request", "goto", "conditions", "exits"];
    let mut left = steps.iter().map(|step| step["question"].clone()).collect::<Vec<Value>>();
    while let Some(handlers) = left.pop() {
        for handler in handlers.as_array().into_iter().flatten() {
            let name = handler["handler"].as_str().unwrap_or_default();
            if !known.contains(&name) {
                return Some(format!("the handler {name} is not simulated"));
            }
            if name == "exits" && !exits.iter().any(|exit| handler["params"]["value"] == exit.as_str()) {
                return Some(format!("{} is no way out of the block", handler["params"]["value"]));
            }
            left.push(handler["params"]["result"].clone());
        }
    }
    None
}
