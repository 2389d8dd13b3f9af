//! Everything that lives as long as one sandbox, and the common way of a request through faults into the journal.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    amocrm::Amo,
    bitrix24::Bitrix,
    clock::{Clock, Millis, Pending, Timetable},
    faults::{Action, FaultBook, Subject},
    http::{Fate, Handler, Request, Response, bind, serve},
    ids::Ids,
    journal::{Direction, Entry, Journal, Severity, Violation},
    sandbox::Options,
    telegram::Telegram,
    whatsapp::Graph,
};

/// The shared state of one sandbox.
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) timetable: Arc<Timetable>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) ids: Ids,
    pub(crate) journal: Journal,
    pub(crate) faults: FaultBook,
    pub(crate) client: reqwest::Client,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Switches of the open ports.
    doors: Mutex<HashMap<u16, watch::Sender<bool>>>,
    pub(crate) bitrix: Bitrix,
    pub(crate) graph: Graph,
    pub(crate) amo: Amo,
    pub(crate) telegram: Telegram,
}

impl World {
    /// Binds the ports and starts the tasks. Must run inside a tokio runtime.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<(Arc<Self>, u16)> {
        // Another provider may already be installed by the process; either will do for loopback HTTP.
        drop(rustls::crypto::ring::default_provider().install_default());
        let clock = Arc::new(Clock::new());
        let pending = Arc::new(Pending::default());
        let timetable = Arc::new(Timetable::new(clock.clone(), pending.clone()));
        let (oauth_listener, oauth_port) = bind(options.oauth_port).await.context("cannot bind the OAuth port")?;
        let (graph_listener, graph_port) = bind(options.graph_port).await.context("cannot bind the Graph port")?;
        let (amo_listener, amo_port) = bind(options.amo_port).await.context("cannot bind the amoCRM port")?;
        let (telegram_listener, telegram_port) =
            bind(options.telegram_port).await.context("cannot bind the Telegram port")?;
        let (control_listener, control_port) =
            bind(options.control_port).await.context("cannot bind the control port")?;
        let (bitrix, bitrix_queue) = Bitrix::new(oauth_port);
        let (graph, graph_queue) = Graph::new(graph_port, options);
        let (amo, amo_queue) = Amo::new(amo_port);
        let (telegram, telegram_queue) = Telegram::new(telegram_port, options);
        let world = Arc::new(Self {
            clock,
            timetable,
            pending,
            ids: Ids::new(options.seed.unwrap_or_else(rand::random)),
            journal: Journal::new(options.calls_kept),
            faults: FaultBook::default(),
            client: client()?,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            doors: Mutex::default(),
            bitrix,
            graph,
            amo,
            telegram,
        });
        let senders = options.senders;
        world.tasks.spawn(world.timetable.clone().run(world.stop.clone()));
        world.tasks.spawn(world.bitrix.queue.clone().run(world.clone(), bitrix_queue, senders));
        world.tasks.spawn(world.graph.courier.clone().run(world.clone(), graph_queue, senders));
        world.tasks.spawn(world.amo.courier.clone().run(world.clone(), amo_queue, senders));
        world.amo.courier.set_knobs(&world, Amo::usual_knobs());
        world.listen(amo_listener, Arc::new(crate::amocrm::Door(world.clone())));
        world.tasks.spawn(world.telegram.courier.clone().run(world.clone(), telegram_queue, senders));
        world.listen(oauth_listener, Arc::new(crate::bitrix24::oauth::Door(world.clone())));
        world.listen(graph_listener, Arc::new(crate::whatsapp::Door(world.clone())));
        world.listen(telegram_listener, Arc::new(crate::telegram::Door(world.clone())));
        world.listen(control_listener, Arc::new(crate::control::Door(world.clone())));
        Ok((world, control_port))
    }

    pub(crate) fn listen(self: &Arc<Self>, listener: tokio::net::TcpListener, door: Arc<dyn Handler>) {
        let (switch, up) = watch::channel(true);
        if let Ok(address) = listener.local_addr() {
            self.doors.lock().insert(address.port(), switch);
        }
        self.tasks.spawn(serve(listener, door, self.stop.clone(), self.tasks.clone(), up));
    }

    /// Closes a port with all its connections, or opens it again.
    pub(crate) fn set_up(&self, port: u16, up: bool) {
        if let Some(switch) = self.doors.lock().get(&port) {
            switch.send_replace(up);
        }
    }

    /// Whether the connection on which a request begins to arrive is to be cut, and after how many bytes.
    pub(crate) fn cut_request(&self, target: &str, portal: &str) -> Option<usize> {
        let subject = Subject { target, portal, phone: "", body: &[] };
        let verdict = self.faults.decide(subject, |action| matches!(action, Action::CutRequest { .. }));
        if let Some(Action::CutRequest { at }) = verdict.action { Some(at) } else { None }
    }

    pub(crate) fn now_ms(&self) -> Millis {
        self.clock.now_ms()
    }

    pub(crate) fn violation(
        &self,
        severity: Severity,
        target: &str,
        scope: &str,
        code: &str,
        message: impl Into<String>,
    ) {
        self.journal.violation(Violation {
            at_ms: self.now_ms(),
            severity,
            target: target.to_owned(),
            scope: scope.to_owned(),
            code: code.to_owned(),
            message: message.into(),
        });
    }

    pub(crate) fn change(&self, kind: &'static str, scope: &str, id: impl Into<String>) {
        self.journal.change(self.now_ms(), kind, scope, id);
    }

    /// Takes one request through the fault rules: waits, refuses, processes, cuts; then records it.
    ///
    /// `process` does the vendor's work. `error` makes the vendor's own error answer. `expire` makes the presented
    /// token expire.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        call: Call<'_>,
        process: impl FnOnce() -> Response,
        error: impl FnOnce(&VendorError) -> Response,
        expire: impl FnOnce(),
    ) -> Response {
        let subject = Subject { target: call.target, portal: call.scope, phone: call.phone, body: &call.request.body };
        let verdict = self.faults.decide(subject, is_inbound);
        let mut note = String::new();
        if let Some(action) = &verdict.action {
            note = format!("fault: {action:?}");
        }
        if verdict.delay_ms > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(verdict.delay_ms)).await;
        }
        let response = match verdict.action {
            None => process(),
            Some(Action::ExpireToken) => {
                expire();
                process()
            }
            Some(Action::CutBefore) => Response::text(0, "").fated(Fate::Closed),
            Some(Action::CutAfter) => process().fated(Fate::Closed),
            Some(Action::CutAnswer { at, from }) => process().fated(Fate::Cut { at, from }),
            Some(Action::Misshape { shape, at }) => process().fated(Fate::Misshapen { shape, at }),
            Some(Action::DropAnswer { hold_ms }) => process().fated(Fate::Silent { hold_ms }),
            Some(Action::Respond { status, body, content_type, after }) => {
                if after {
                    drop(process());
                }
                Response::new(status, content_type.as_deref().unwrap_or("application/json; charset=utf-8"), body)
            }
            Some(Action::Html { status, after }) => {
                if after {
                    drop(process());
                }
                Response::gateway_page(status)
            }
            Some(Action::Error { code, status, description, retry_after, after }) => {
                if after {
                    drop(process());
                }
                let answer = error(&VendorError { code, status, description });
                match retry_after {
                    Some(seconds) => answer.with_header(hyper::header::RETRY_AFTER, seconds.to_string()),
                    None => answer,
                }
            }
            Some(
                Action::Duplicate { .. }
                | Action::Reorder { .. }
                | Action::Lose
                | Action::WithoutAuth
                | Action::CutRequest { .. }
                | Action::Delay { .. },
            ) => process(),
        };
        self.note_call(&call, &response, note);
        response
    }

    /// Counts and records a finished call.
    pub(crate) fn note_call(&self, call: &Call<'_>, response: &Response, note: String) {
        self.journal.count(call.target);
        let status = if response.fate == Fate::Closed { 0 } else { response.status };
        self.journal.record(|| {
            let request = call.request;
            let mut line = format!("{} {}", request.method, request.path);
            if !request.query.is_empty() {
                line.push('?');
                line.push_str(&request.query);
            }
            Entry {
                at_ms: self.now_ms(),
                direction: Direction::In,
                target: Arc::from(call.target),
                scope: Arc::from(call.scope),
                line,
                body: request.body.clone(),
                status,
                answer: response.body_bytes(),
                note,
            }
        });
    }
}

/// One incoming call, named.
pub(crate) struct Call<'a> {
    pub(crate) request: &'a Request,
    pub(crate) target: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) phone: &'a str,
}

/// An error that a fault rule asked for.
#[derive(Debug)]
pub(crate) struct VendorError {
    pub(crate) code: String,
    pub(crate) status: Option<u16>,
    pub(crate) description: Option<String>,
}

fn is_inbound(action: &Action) -> bool {
    !matches!(
        action,
        Action::Duplicate { .. }
            | Action::Reorder { .. }
            | Action::Lose
            | Action::WithoutAuth
            | Action::CutRequest { .. }
    )
}

#[expect(clippy::disallowed_methods, reason = "the sandbox plays the outside world and needs a client of its own")]
fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(256)
        .tcp_nodelay(true)
        .build()
        .context("cannot build the sandbox's HTTP client")
}

/// Plain body of a reqwest answer, for callers that need to look at it.
pub(crate) async fn fetch(
    request: reqwest::RequestBuilder,
) -> anyhow::Result<(u16, reqwest::header::HeaderMap, Bytes)> {
    let answer = request.send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Ok((status, headers, answer.bytes().await?))
}
