//! Callbacks of messaging providers: `/webhooks/{provider}/{channel}`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};

use super::State;
use super::problem::Problem;
use super::verified::Verified;
use crate::domain::channel::Channel;
use crate::domain::ids::ChannelId;
use crate::domain::time::Timestamp;
use crate::pipeline::Pipeline;
use crate::pipeline::ingest::IngestError;
use crate::providers::WebhookError;
use crate::{providers, telemetry, webhook_auth};

/// The channel an address names; a provider that does not fit the channel counts as unknown.
async fn channel(state: &State, provider: &str, channel: &str) -> Result<Arc<Channel>, Problem> {
    let unknown = || Problem::NotFound("no such channel".to_owned());
    let id = ChannelId::parse(channel).ok_or_else(unknown)?;
    let channel = state.storage.find_channel(&id).await?.ok_or_else(unknown)?;
    if channel.provider == provider { Ok(channel) } else { Err(unknown()) }
}

/// Takes a callback: its signature over the raw bytes first, everything else after.
pub async fn receive(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (provider, id) = path.into_inner();
    let began = state.clock.now();
    let channel = channel(&state, &provider, &id).await.inspect_err(|problem| {
        // Whoever it was from: as long as no channel is found, the vendor's callbacks are not taken either.
        if *problem == Problem::Unavailable {
            state.pipeline.was_deaf(began);
        }
    })?;
    let entry = providers::find(&provider).ok_or_else(|| Problem::NotFound("no such provider".to_owned()))?;
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if !webhook_auth::verify(&entry.spec.webhook_auth, &channel, header, &body) {
        telemetry::webhook(entry.spec.id, "unsigned");
        tracing::warn!(channel.id = %channel.id, "callback refused: its signature does not fit");
        return Err(Problem::Forbidden("the signature does not fit".to_owned()));
    }
    let body = Verified::checked(body.to_vec());
    let unheard = Unheard::new(&state.pipeline, began);
    let (result, answer) = match state.pipeline.ingest(&channel, &body).await {
        Err(IngestError::Storage(error)) => {
            telemetry::webhook(entry.spec.id, "unavailable");
            return Err(error.into());
        }
        Ok(()) => ("ok", Ok(HttpResponse::Ok().finish())),
        // Correctly signed news of another number of the same application: not ours to keep, and no reason to have it
        // sent again for a week.
        Err(IngestError::Webhook(WebhookError::ForeignSender)) => {
            tracing::warn!(channel.id = %channel.id, "callback for another sender of the same account ignored");
            ("foreign", Ok(HttpResponse::Ok().finish()))
        }
        Err(IngestError::Webhook(WebhookError::Malformed(what))) => ("malformed", Err(Problem::Malformed(what))),
        Err(IngestError::UnknownProvider(name)) => ("unknown", Err(Problem::NotFound(name))),
    };
    unheard.answered();
    telemetry::webhook(entry.spec.id, result);
    answer
}

/// A callback of the vendor that is not answered, or with a refusal for the moment. The vendor sends it again, but later: until then
/// the absence of an echo means nothing. Also when the vendor hangs up while the database takes its time, and nothing after that
/// is run any more. Only for what is signed: others must not make us wait.
struct Unheard<'a>(Option<&'a Pipeline>, Timestamp);

impl<'a> Unheard<'a> {
    fn new(pipeline: &'a Pipeline, began: Timestamp) -> Self {
        Self(Some(pipeline), began)
    }

    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(pipeline) = self.0 {
            pipeline.was_deaf(self.1);
        }
    }
}

/// Answers the provider's question whether the address is ours.
pub async fn handshake(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let (provider, id) = path.into_inner();
    let channel = channel(&state, &provider, &id).await?;
    let entry = providers::find(&provider).ok_or_else(|| Problem::NotFound("no such provider".to_owned()))?;
    let query: Vec<(String, String)> = form_urlencoded::parse(request.query_string().as_bytes()).into_owned().collect();
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let challenge =
        entry.spec.handshake.as_ref().and_then(|handshake| webhook_auth::handshake(handshake, &channel, value));
    match challenge {
        Some(challenge) => Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(challenge.to_owned())),
        None => Err(Problem::Forbidden("the verification token does not fit".to_owned())),
    }
}
