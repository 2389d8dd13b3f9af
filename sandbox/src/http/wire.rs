//! A TCP stream whose outgoing bytes can be cut off at an exact offset.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// Where the byte offset of a cut is counted from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutFrom {
    /// From the first byte of the body: the client sees a good status line and headers, then too few bytes.
    #[default]
    Body,
    /// From the first byte of the status line.
    Answer,
}

#[derive(Debug, Default)]
enum Scissors {
    #[default]
    Away,
    Armed {
        at: usize,
        from: CutFrom,
    },
    /// So many bytes may still leave.
    Counting(usize),
}

/// The part of a connection that the request handler can reach.
#[derive(Debug, Default)]
pub(super) struct Wire {
    scissors: Mutex<Scissors>,
}

impl Wire {
    /// Arms the cut for the answer that is about to be written.
    pub(super) fn cut(&self, at: usize, from: CutFrom) {
        *self.scissors.lock() = Scissors::Armed { at, from };
    }

    /// How many of `bytes` may be written now; `None` = no limit.
    fn allowance(&self, bytes: &[u8]) -> Option<usize> {
        let mut scissors = self.scissors.lock();
        let left = match *scissors {
            Scissors::Away => return None,
            Scissors::Counting(left) => left,
            Scissors::Armed { at, from: CutFrom::Answer } => at,
            Scissors::Armed { at, from: CutFrom::Body } => {
                let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
                head + at
            }
        };
        *scissors = Scissors::Counting(left);
        Some(left.min(bytes.len()))
    }

    fn wrote(&self, count: usize) {
        if let Scissors::Counting(left) = &mut *self.scissors.lock() {
            *left = left.saturating_sub(count);
        }
    }
}

/// hyper's view of the stream.
pub(super) struct WireIo {
    stream: TokioIo<TcpStream>,
    wire: Arc<Wire>,
}

impl WireIo {
    pub(super) fn new(stream: TokioIo<TcpStream>, wire: Arc<Wire>) -> Self {
        Self { stream, wire }
    }
}

impl Read for WireIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for WireIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(allowed) = self.wire.allowance(buf) else {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        };
        if allowed == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..allowed]))?;
        self.wire.wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
