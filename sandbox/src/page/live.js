// Keeps the page up to date: the event stream says that something changed, never what to draw. However many changes come,
// the page asks at most five times a second, and never again before the last answer is there.

const GAP_MS = 200;
const POLL_MS = 2000;
const AGAIN_MS = 5000;

/** `refresh()` draws everything and may fail; `tell(state)` gets "connecting", "live", "polling" or "offline". */
export function live(refresh, tell) {
  let source = null;
  let wanted = false;
  let busy = false;
  let last = 0;
  let timer = 0;
  let poll = 0;
  let again = 0;
  let failed = false;
  let streams = false;

  const status = () => tell(failed ? "offline" : streams ? "live" : poll ? "polling" : "connecting");

  async function run() {
    timer = 0;
    busy = true;
    wanted = false;
    last = performance.now();
    try {
      await refresh();
      failed = false;
    } catch {
      failed = true;
    }
    busy = false;
    status();
    if (wanted) plan();
  }

  function plan() {
    wanted = true;
    if (busy || timer) return;
    timer = setTimeout(run, Math.max(0, last + GAP_MS - performance.now()));
  }

  function stopPolling() {
    clearInterval(poll);
    poll = 0;
  }

  function startPolling() {
    if (!poll) poll = setInterval(plan, POLL_MS);
  }

  function connect() {
    clearTimeout(again);
    source?.close();
    source = new EventSource("/control/events");
    source.onopen = () => {
      streams = true;
      stopPolling();
      status();
      // Whatever happened while nobody listened.
      plan();
    };
    source.onmessage = plan;
    source.onerror = () => {
      streams = false;
      startPolling();
      status();
      if (source.readyState === EventSource.CLOSED) again = setTimeout(connect, AGAIN_MS);
    };
  }

  // A hidden page needs no stream, and browsers open only six connections to one server.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(again);
      stopPolling();
      source?.close();
      streams = false;
    } else {
      connect();
      plan();
    }
  });

  status();
  connect();
  plan();
  return plan;
}
