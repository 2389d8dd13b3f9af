//! A lean HTTP client, and runs of many connections against an address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::measure::percentile;

/// Connections at once.
const CONNECTIONS: u64 = 64;
/// How long a run at full speed takes.
pub(crate) const RUN: Duration = Duration::from_secs(4);

/// One request by POST.
pub(crate) struct Request {
    /// Path with query.
    pub(crate) path: String,
    /// Lines of the head beside `Host` and `Content-Length`, each ended.
    pub(crate) head: String,
    /// Body.
    pub(crate) body: String,
}

impl Request {
    /// A form, as Bitrix24 posts it.
    pub(crate) fn form(path: &str, body: String) -> Self {
        let head = "Content-Type: application/x-www-form-urlencoded\r\n".to_owned();
        Self { path: path.to_owned(), head, body }
    }
}

/// Sends requests over one kept connection and reads answers without a body of interest.
pub(crate) struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Line {
    /// `None` when nobody listens.
    pub(crate) async fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// The status of the answer.
    pub(crate) async fn post(&mut self, request: &Request) -> u16 {
        let mut text = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {}\r\n\r\n",
            request.path,
            request.head,
            request.body.len()
        )
        .into_bytes();
        text.extend_from_slice(request.body.as_bytes());
        self.stream.write_all(&text).await.unwrap();
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "connection closed");
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
                let length: usize = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .and_then(|length| length.trim().parse().ok())
                    .unwrap_or(0);
                while self.buffer.len() < end + 4 + length {
                    self.stream.read_buf(&mut self.buffer).await.unwrap();
                }
                return head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            }
        }
    }
}

/// When requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as they are answered, for so long.
    Full(Duration),
    /// So many a second whether or not earlier ones have been answered, and so many in all. Time counts from the moment
    /// a request was due.
    Open(f64, u64),
}

/// What a run showed.
pub(crate) struct Figures {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Time to the answer that half of them were below, in milliseconds.
    pub(crate) p50: f64,
    /// That 99 of 100 were below.
    pub(crate) p99: f64,
}

/// The next number of a request, over several runs.
pub(crate) type Numbers = Arc<AtomicU64>;

/// One run against a port. `request` makes the request of a number. Every answer must be 200.
pub(crate) async fn run(
    port: u16,
    request: impl Fn(u64) -> Request + Send + Sync + 'static,
    numbers: &Numbers,
    pace: Pace,
) -> Figures {
    let first = match pace {
        Pace::Full(_) => 0,
        Pace::Open(_, count) => numbers.fetch_add(count, Ordering::Relaxed),
    };
    let request = Arc::new(request);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for index in 0..CONNECTIONS {
        let (request, numbers) = (Arc::clone(&request), Arc::clone(numbers));
        tasks.push(tokio::spawn(async move {
            let mut line = Line::open(port).await.expect("nobody listens");
            let mut times: Vec<u32> = Vec::new();
            for turn in 0_u64.. {
                let (number, mut since) = match pace {
                    Pace::Full(length) if began.elapsed() >= length => break,
                    Pace::Full(_) => (numbers.fetch_add(1, Ordering::Relaxed), None),
                    Pace::Open(rate, count) => {
                        let number = turn * CONNECTIONS + index;
                        if number >= count {
                            break;
                        }
                        #[expect(clippy::cast_precision_loss, reason = "a count")]
                        let due = began + Duration::from_secs_f64(number as f64 / rate);
                        let late = Instant::now() > due;
                        tokio::time::sleep_until(due.into()).await;
                        // A timer that rings a little late is this program's fault, a busy connection is not.
                        (first + number, late.then_some(due))
                    }
                };
                let request = request(number);
                let since = *since.get_or_insert_with(Instant::now);
                let status = line.post(&request).await;
                assert_eq!(status, 200, "refused: {}", String::from_utf8_lossy(&line.buffer));
                times.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            times
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    all.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let rate = all.len() as f64 / seconds;
    Figures { rate, p50: percentile(&all, 0.5), p99: percentile(&all, 0.99) }
}
