//! HTTP as the sandbox speaks it: hyper on plain loopback TCP, with a hand on the wire so that answers can be cut.

pub(crate) mod form;
pub(crate) mod json;
mod wire;

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::{
    HeaderMap,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use wire::{CutFrom, Shape};
use wire::{Wire, WireIo};

/// Larger request bodies are answered with 413.
const BODY_MAX: usize = 32 * 1024 * 1024;

/// One request, fully read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: hyper::Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The caller's address.
    pub(crate) source: IpAddr,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(crate) fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization");
        let scheme = value.get(..7)?;
        scheme.eq_ignore_ascii_case("bearer ").then(|| value[7..].trim())
    }

    pub(crate) fn is_json(&self) -> bool {
        self.header("content-type").starts_with("application/json")
    }

    pub(crate) fn body_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    pub(crate) fn query_param(&self, name: &str) -> Option<String> {
        form::pairs(&self.query).find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// Path without the leading slash, split at slashes.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|part| !part.is_empty()).collect()
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// What is to happen to the answer on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is sent.
    Sent,
    /// The connection is closed without a byte of it.
    Closed,
    /// The connection is closed after so many bytes.
    Cut { at: usize, from: CutFrom },
    /// It is written by hand in this shape, so many bytes of its body at most, then the connection is closed.
    Misshapen { shape: Shape, at: Option<usize> },
    /// Nothing is sent and the connection stays open so long, then it is closed.
    Silent { hold_ms: u64 },
}

pub(crate) enum Body {
    Full(Bytes),
    Stream(Chunks),
}

/// One answer.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Body,
    pub(crate) fate: Fate,
}

impl Response {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(CONTENT_TYPE, content_type.to_owned())];
        Self { status, headers, body: Body::Full(body.into()), fate: Fate::Sent }
    }

    pub(crate) fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/json; charset=utf-8", body)
    }

    pub(crate) fn value<T: serde::Serialize + ?Sized>(status: u16, value: &T) -> Self {
        Self::json(status, json::plain(value))
    }

    pub(crate) fn html(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(crate) fn redirect(status: u16, location: String) -> Self {
        let mut answer = Self::html(status, "");
        answer.headers.push((LOCATION, location));
        answer
    }

    /// The plain pages of a gateway in trouble.
    pub(crate) fn gateway_page(status: u16) -> Self {
        let title = match status {
            502 => "502 Bad Gateway",
            503 => "503 Service Temporarily Unavailable",
            504 => "504 Gateway Time-out",
            _ => "Error",
        };
        let page = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body><center><h1>{title}</h1></center></body>\r\n</html>\r\n"
        );
        Self::html(status, page)
    }

    pub(crate) fn fated(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body_bytes(&self) -> Bytes {
        match &self.body {
            Body::Full(bytes) => bytes.clone(),
            Body::Stream(_) => Bytes::new(),
        }
    }
}

/// A boxed future, as handlers return it.
pub(crate) type Reply = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Something that answers requests on one port.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(self: Arc<Self>, request: Request) -> Reply;

    /// Asked when the first byte of a request has arrived: after how many bytes the connection is cut, if at all.
    fn cut_request(&self) -> Option<usize> {
        None
    }
}

/// Says hyper to drop the connection.
#[derive(Debug)]
struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("connection cut on purpose")
    }
}
impl Error for Gone {}

/// Binds a loopback port (0 = any free one).
pub(crate) async fn bind(port: u16) -> std::io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Accepts until `stop`; every connection is a task of `tasks`. While `up` says no, nobody listens on the port and every
/// connection is closed.
pub(crate) async fn serve(
    mut listener: TcpListener,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
    tasks: TaskTracker,
    mut up: watch::Receiver<bool>,
) {
    let Ok(address) = listener.local_addr() else { return };
    let mut connections = stop.child_token();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
            changed = up.changed() => {
                if changed.is_err() {
                    // Whoever could switch it is gone with the world.
                    return;
                }
                if *up.borrow() {
                    continue;
                }
                drop(listener);
                connections.cancel();
                connections = stop.child_token();
                listener = tokio::select! {
                    again = listen_again(address, &mut up) => again,
                    () = stop.cancelled() => return,
                };
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                drop(stream.set_nodelay(true));
                tasks.spawn(connection(stream, peer.ip(), handler.clone(), connections.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "sandbox could not accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Waits until the port may be listened on again, and does.
async fn listen_again(address: SocketAddr, up: &mut watch::Receiver<bool>) -> TcpListener {
    loop {
        drop(up.wait_for(|up| *up).await);
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::warn!(%error, "sandbox could not listen again");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, source: IpAddr, handler: Arc<dyn Handler>, stop: CancellationToken) {
    let wire = Arc::new(Wire::default());
    let door = handler.clone();
    let io = WireIo::new(TokioIo::new(stream), wire.clone(), Box::new(move || door.cut_request()));
    let service = service_fn(move |request| answer(request, source, handler.clone(), wire.clone()));
    tokio::select! {
        served = http1::Builder::new().serve_connection(io, service) => {
            if let Err(error) = served {
                tracing::trace!(%error, "sandbox connection ended early");
            }
        }
        () = stop.cancelled() => {}
    }
}

type Sent = Either<Full<Bytes>, StreamBody<Frames>>;
type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

async fn answer(
    request: hyper::Request<Incoming>,
    source: IpAddr,
    handler: Arc<dyn Handler>,
    wire: Arc<Wire>,
) -> Result<hyper::Response<Sent>, Gone> {
    let (head, body) = request.into_parts();
    let response = match Limited::new(body, BODY_MAX).collect().await {
        Ok(collected) => {
            let request = Request {
                method: head.method,
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or("").to_owned(),
                headers: head.headers,
                body: collected.to_bytes(),
                source,
            };
            handler.handle(request).await
        }
        Err(error) => {
            tracing::debug!(%error, "sandbox could not read a request body");
            Response::text(413, "request body cannot be read or is too large")
        }
    };
    match response.fate {
        Fate::Sent => {}
        Fate::Closed => return Err(Gone),
        Fate::Cut { at, from } => wire.cut(at, from),
        Fate::Misshapen { shape, at } => wire.instead(misshapen(&response, shape, at)),
        Fate::Silent { hold_ms } => {
            tokio::time::sleep(Duration::from_millis(hold_ms)).await;
            return Err(Gone);
        }
    }
    Ok(to_hyper(response))
}

/// A whole answer as bytes, its body cut off at `at`.
fn misshapen(response: &Response, shape: Shape, at: Option<usize>) -> Vec<u8> {
    use std::io::Write as _;
    let body = response.body_bytes();
    let shown = &body[..at.unwrap_or(body.len()).min(body.len())];
    let mut answer = Vec::new();
    // Writing into memory does not fail.
    drop(write!(answer, "HTTP/1.1 {} Answer\r\n", response.status));
    for (name, value) in &response.headers {
        drop(write!(answer, "{name}: {value}\r\n"));
    }
    match shape {
        Shape::Length { by } => {
            let told = i64::try_from(body.len()).unwrap_or(i64::MAX).saturating_add(by).max(0);
            drop(write!(answer, "content-length: {told}\r\n\r\n"));
            answer.extend_from_slice(shown);
        }
        Shape::Chunked => {
            drop(write!(answer, "transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()));
            answer.extend_from_slice(shown);
            if shown.len() == body.len() {
                answer.extend_from_slice(b"\r\n0\r\n\r\n");
            }
        }
        Shape::UntilClose => {
            answer.extend_from_slice(b"connection: close\r\n\r\n");
            answer.extend_from_slice(shown);
        }
    }
    answer
}

fn to_hyper(response: Response) -> hyper::Response<Sent> {
    let body: Sent = match response.body {
        Body::Full(bytes) => Either::Left(Full::new(bytes)),
        Body::Stream(chunks) => {
            let frames: Frames = Box::pin(futures_util::StreamExt::map(chunks, |chunk| Ok(Frame::data(chunk))));
            Either::Right(StreamBody::new(frames))
        }
    };
    let mut sent = hyper::Response::new(body);
    *sent.status_mut() =
        hyper::StatusCode::from_u16(response.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            sent.headers_mut().append(name, value);
        }
    }
    sent
}
