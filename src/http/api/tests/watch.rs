//! Every state ends: with nothing alive around a message but the watch.

use super::*;
use crate::domain::channel::Messenger;
use crate::domain::event::StatusNews;
use crate::domain::ids::{MessageId, ProviderMessageId};
use crate::domain::job::{GivenUp, Job, JobKind, JobState};
use crate::domain::status::MessageState;
use crate::pipeline::watch::look;
use crate::storage::ingest::Ingest;
use crate::storage::messages::MessageNews;
use crate::storage::settle::{Fate, Right, Settlement, Start};

const HOUR: i64 = 3_600_000;

fn job(message: &str) -> String {
    Job::id_of(JobKind::Send, message)
}

impl Api {
    async fn settled(&self, message: &str, fate: Fate, state: Option<MessageState>) {
        let id = MessageId::parse(message).unwrap();
        let news = state.map(|state| MessageNews::new(id, state, self.clock.now()));
        let settlement = Settlement { job: job(message), right: Right::Store, fate, news, attempt: None };
        self.state.storage.settle(vec![settlement]).await.unwrap();
    }

    async fn heard(&self, channel: &str, message: &str, state: MessageState) {
        let status = StatusNews {
            provider_id: ProviderMessageId(format!("wamid.{message}")),
            message: MessageId::parse(message),
            state,
            at: self.clock.now(),
            failure: None,
            vendor_code: String::new(),
        };
        let ingest = Ingest {
            channel: channel_id(channel),
            messenger: Messenger::Whatsapp,
            statuses: vec![status],
            inbound: vec![],
            phones: vec![],
            typed: vec![],
        };
        self.state.storage.ingest(ingest).await.unwrap();
    }

    async fn begun(&self, message: &str) {
        let found = self.state.storage.find_message(&MessageId::parse(message).unwrap()).await.unwrap().unwrap();
        self.right(found.record.channel.unwrap().as_str()).await;
        let worker = self.state.pipeline.worker.clone();
        let run = "a process that died".to_owned();
        let start = Start { jobs: vec![job(message)], worker, run, again: false };
        assert_eq!(self.state.storage.start(start).await.unwrap().len(), 1);
    }
}

fn kept(state: JobState, reason: GivenUp) -> Fate {
    Fate::Keep { state, due: Timestamp(START), tries: 0, reason: Some(reason.stored().to_owned()) }
}

#[actix_web::test]
async fn no_message_stays_open_for_ever_with_everything_around_it_dead() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    api.post(&format!("/channels/{channel}/pause"), &json!({})).await;
    let undecided = Some(MessageState::Undecided);
    // What is done to a fresh message, and how it must end: state, what is said, reason of its dead letter.
    let cases = [
        ("queued", "failed", None, Some("expired")),
        ("queued without a job", "failed", None, Some("lost")),
        ("queued, begun", "undecided", Some("closed"), Some("process_ended")),
        ("undecided", "undecided", Some("closed"), Some("no_answer")),
        ("undecided, begun again", "undecided", Some("closed"), Some("process_ended")),
        ("undecided without a job", "undecided", Some("closed"), Some("lost")),
        ("undecided, to be sent again", "failed", None, Some("expired")),
        ("undecided, given up", "undecided", Some("closed"), Some("gateway")),
        ("accepted", "accepted", Some("closed"), None),
        ("sent", "sent", Some("closed"), None),
    ];
    let mut messages = Vec::new();
    for (index, (case, ..)) in cases.into_iter().enumerate() {
        // A dialog of its own: only the head of a lane can begin.
        let id = api.send_text(&channel, &format!("790012345{index:02}")).await;
        match case {
            "queued" => {}
            "queued without a job" => api.settled(&id, Fate::Done, None).await,
            "queued, begun" => api.begun(&id).await,
            "undecided" => api.settled(&id, kept(JobState::Unclear, GivenUp::NoAnswer), undecided).await,
            "undecided, begun again" => {
                api.settled(&id, kept(JobState::Ready, GivenUp::ProcessEnded), undecided).await;
                api.begun(&id).await;
            }
            "undecided without a job" => api.settled(&id, Fate::Done, undecided).await,
            "undecided, to be sent again" => api.settled(&id, kept(JobState::Ready, GivenUp::Gateway), undecided).await,
            "undecided, given up" => api.settled(&id, kept(JobState::Dead, GivenUp::Gateway), undecided).await,
            "accepted" => api.settled(&id, Fate::Done, Some(MessageState::Accepted)).await,
            "sent" => {
                api.settled(&id, Fate::Done, Some(MessageState::Accepted)).await;
                api.heard(&channel, &id, MessageState::Sent).await;
            }
            other => panic!("{other}"),
        }
        messages.push(id);
    }
    let open = |word: &str| MessageState::find(word).is_some_and(|state| state.rank() < MessageState::Delivered.rank());
    let begun: std::collections::BTreeSet<&str> =
        cases.iter().map(|case| case.0.split([',', ' ']).next().unwrap()).collect();
    let words = MessageState::ALL.iter().map(|state| state.code()).filter(|word| open(word));
    assert_eq!(begun, words.collect(), "every state that is not final");

    let mut silent = Vec::new();
    for hour in 1..=9 * 24 {
        api.clock.0.store(START + hour * HOUR, Ordering::SeqCst);
        look(&api.state.pipeline).await.unwrap();
        if hour == 2 {
            for id in &messages {
                let message = api.get(&format!("/messages/{id}")).await.json;
                silent.push((message["state"].clone(), message["silence"].clone()));
            }
        }
    }
    let said = |state: &str| silent.iter().filter(|(word, said)| word == state && said == "told").count();
    assert_eq!((said("undecided"), said("accepted"), said("sent"), said("queued")), (5, 1, 1, 0), "{silent:?}");
    for (id, (case, state, silence, reason)) in messages.iter().zip(cases) {
        let message = api.get(&format!("/messages/{id}")).await.json;
        assert_eq!((&message["state"], &message["silence"]), (&json!(state), &json!(silence)), "{case}: {message}");
        let letter = api.state.storage.jobs_now(&[job(id)]).await.unwrap();
        let found = letter.first().map(|job| (job.state, GivenUp::read(job.reason.as_deref().unwrap()).0.code()));
        assert_eq!(found, reason.map(|reason| (JobState::Dead, reason)), "{case}");
    }
    assert_eq!(look(&api.state.pipeline).await.unwrap(), 0, "nothing is left to be watched");
    assert!(api.state.storage.oldest_open().await.unwrap().is_empty());
    assert_eq!(api.get(&format!("/channels/{channel}")).await.json["queue"], 0);
}

#[actix_web::test]
async fn a_silence_counts_from_the_moment_somebody_listened() {
    let api = Api::start().await;
    let channel = api.add_channel().await;
    let id = api.send_text(&channel, "79001234567").await;
    // Accepted two hours before this process was there to hear anything.
    api.clock.0.store(START - 2 * HOUR, Ordering::SeqCst);
    api.settled(&id, Fate::Done, Some(MessageState::Accepted)).await;
    for (minutes, said) in [(1, Value::Null), (14, Value::Null), (15, json!("told"))] {
        api.clock.0.store(START + minutes * 60_000, Ordering::SeqCst);
        look(&api.state.pipeline).await.unwrap();
        assert_eq!(api.get(&format!("/messages/{id}")).await.json["silence"], said, "after {minutes} minutes");
    }
    api.heard(&channel, &id, MessageState::Delivered).await;
    let late = api.get(&format!("/messages/{id}")).await;
    assert_eq!((late.text("/state"), &late.json["silence"]), ("delivered", &Value::Null));
}
