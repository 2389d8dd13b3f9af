//! A wire in the middle that a test can stall and cut.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the wire does with what goes through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// It passes.
    Open,
    /// It stays where it is, in both directions, until the wire is open again. Connections stand.
    Stalled,
    /// It is lost, and a connection that had something to pass never passes anything again. Connections stand.
    Lost,
    /// Every connection is closed, and so is every new one.
    Cut,
}

struct Inner {
    targets: Mutex<Vec<u16>>,
    next: AtomicUsize,
    accepted: AtomicUsize,
    flow: watch::Sender<Flow>,
}

/// Passes connections on to ports of this machine, in turn.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    inner: Arc<Inner>,
    stop: CancellationToken,
    listener: Mutex<Option<TcpListener>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Proxy {
    /// Listens and passes on at once.
    pub(crate) fn to(targets: &[u16]) -> Self {
        let proxy = Self::closed(targets, 1024);
        proxy.open();
        proxy
    }

    /// Listens but takes nothing until [`Proxy::open`]: once `backlog` connections wait, further ones are not even
    /// established.
    pub(crate) fn closed(targets: &[u16], backlog: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(backlog).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flow, _) = watch::channel(Flow::Open);
        let inner = Inner {
            targets: Mutex::new(targets.to_vec()),
            next: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            flow,
        };
        let listener = Mutex::new(Some(listener));
        Self { port, inner: Arc::new(inner), stop: CancellationToken::new(), listener }
    }

    /// Begins to take connections.
    pub(crate) fn open(&self) {
        let Some(listener) = self.listener.lock().unwrap().take() else { return };
        let (inner, stop) = (Arc::clone(&self.inner), self.stop.clone());
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                inner.accepted.fetch_add(1, Ordering::SeqCst);
                let (inner, stop) = (Arc::clone(&inner), stop.clone());
                tokio::spawn(async move { stop.run_until_cancelled(pass(stream, inner)).await });
            }
        });
    }

    /// Connections taken so far.
    pub(crate) fn accepted(&self) -> usize {
        self.inner.accepted.load(Ordering::SeqCst)
    }

    /// Where new connections go from now on.
    pub(crate) fn aim(&self, targets: &[u16]) {
        *self.inner.targets.lock().unwrap() = targets.to_vec();
    }

    pub(crate) fn set(&self, flow: Flow) {
        self.inner.flow.send_replace(flow);
    }
}

async fn pass(mut near: TcpStream, inner: Arc<Inner>) {
    let mut flow = inner.flow.subscribe();
    if *flow.borrow_and_update() == Flow::Cut {
        return;
    }
    let targets = inner.targets.lock().unwrap().clone();
    let first = inner.next.fetch_add(1, Ordering::SeqCst);
    let mut far = None;
    for nth in 0..targets.len() {
        let port = targets[(first + nth) % targets.len()];
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
            far = Some(stream);
            break;
        }
    }
    let Some(mut far) = far else { return };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let (mut near_read, mut near_write) = near.split();
    let (mut far_read, mut far_write) = far.split();
    tokio::select! {
        () = copy(&mut near_read, &mut far_write, inner.flow.subscribe()) => {}
        () = copy(&mut far_read, &mut near_write, inner.flow.subscribe()) => {}
        () = until(&mut flow, |flow| flow == Flow::Cut) => {}
    }
}

/// Copies until either side ends; the last bytes of one direction are not waited for, as with a broken wire.
async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut flow: watch::Receiver<Flow>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        until(&mut flow, |flow| flow != Flow::Stalled).await;
        if *flow.borrow() == Flow::Lost {
            // The other direction may have nothing to lose yet; it is dropped with this one when an end hangs up.
            while matches!(from.read(&mut buffer).await, Ok(1..)) {}
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn until(flow: &mut watch::Receiver<Flow>, wanted: impl Fn(Flow) -> bool) {
    drop(flow.wait_for(|flow| wanted(*flow)).await);
}

/// Fills the queue of a closed proxy, so that the next connection is not established before it opens.
pub(crate) async fn fill(proxy: &Proxy) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(("127.0.0.1", proxy.port))).await
    {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue has no end");
    }
    waiting
}
