//! A TCP stream that can be cut at an exact byte, of a request or of its answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
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

/// How an answer tells the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// By a `content-length` that is off by so many bytes.
    Length {
        /// Added to the true length.
        by: i64,
    },
    /// In one chunk.
    Chunked,
    /// Not at all: the body ends where the connection does.
    UntilClose,
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
    /// These bytes are written in place of the answer; so many of them have been.
    Instead(Vec<u8>, usize),
    /// All of them have: whatever else is written is swallowed, and the connection ends.
    Over,
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

    /// Writes these bytes in place of the answer that is about to be written, then closes.
    pub(super) fn instead(&self, bytes: Vec<u8>) {
        *self.scissors.lock() = Scissors::Instead(bytes, 0);
    }

    fn is_over(&self) -> bool {
        matches!(*self.scissors.lock(), Scissors::Over)
    }

    /// Writes what stands in place of the answer; `None` when nothing does.
    fn write_instead(&self, stream: &mut TokioIo<TcpStream>, cx: &mut Context<'_>) -> Option<Poll<io::Result<()>>> {
        let mut scissors = self.scissors.lock();
        if matches!(*scissors, Scissors::Over) {
            return Some(Poll::Ready(Ok(())));
        }
        let Scissors::Instead(bytes, written) = &mut *scissors else { return None };
        while *written < bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &bytes[*written..]) {
                Poll::Ready(Ok(count)) => *written += count,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        *scissors = Scissors::Over;
        Some(Poll::Ready(Ok(())))
    }

    /// How many of `bytes` may be written now; `None` = no limit.
    fn allowance(&self, bytes: &[u8]) -> Option<usize> {
        let mut scissors = self.scissors.lock();
        let left = match *scissors {
            Scissors::Away | Scissors::Instead(..) | Scissors::Over => return None,
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

/// Asked at the first byte of a request: after how many bytes the connection is cut, if at all.
type Door = Box<dyn Fn() -> Option<usize> + Send>;

/// hyper's view of the stream.
pub(super) struct WireIo {
    stream: TokioIo<TcpStream>,
    wire: Arc<Wire>,
    door: Door,
    /// The next byte that arrives is the first of a request.
    fresh: bool,
    /// So many bytes of the request may still be read; `None` = no limit.
    left: Option<usize>,
}

impl WireIo {
    pub(super) fn new(stream: TokioIo<TcpStream>, wire: Arc<Wire>, door: Door) -> Self {
        Self { stream, wire, door, fresh: true, left: None }
    }

    /// Waits for the first byte of a request and asks the door about it.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0; 1];
        let seen = ready!(self.stream.inner().poll_peek(cx, &mut tokio::io::ReadBuf::new(&mut byte)))?;
        if seen > 0 {
            self.fresh = false;
            self.left = (self.door)();
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for WireIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.wire.is_over() {
            return Poll::Ready(Ok(()));
        }
        if self.fresh {
            ready!(self.poll_begin(cx))?;
        }
        let Some(left) = self.left else { return Pin::new(&mut self.stream).poll_read(cx, buf) };
        if left == 0 {
            // Not even a refusal of the half request may leave.
            self.wire.cut(0, CutFrom::Answer);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut piece = vec![0; left.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, part.unfilled()))?;
        buf.put_slice(part.filled());
        self.left = Some(left - part.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl Write for WireIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // What arrives after an answer is the next request.
        this.fresh = true;
        this.left = None;
        if let Some(done) = this.wire.write_instead(&mut this.stream, cx) {
            return done.map_ok(|()| buf.len());
        }
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
