// Dragging cards with pointer events: at once with a mouse or pen, after a short press with a finger (a quick swipe scrolls).

const SLACK_PX = 5;
const PRESS_MS = 260;
const SWIPE_PX = 10;
const EDGE_PX = 56;

export function dragging(app, board, begun) {
  let held = null;

  function over(x, y) {
    return document.elementFromPoint(x, y)?.closest("#board [data-stage]") ?? null;
  }

  function start() {
    const { card, x, y } = held;
    const at = card.getBoundingClientRect();
    const ghost = card.cloneNode(true);
    ghost.removeAttribute("data-deal");
    ghost.classList.add("ghost");
    ghost.setAttribute("aria-hidden", "true");
    ghost.inert = true;
    ghost.style.width = `${at.width}px`;
    document.body.append(ghost);
    held = { ...held, ghost, dx: x - at.left, dy: y - at.top, target: null };
    card.classList.add("lifted");
    board.classList.add("dragging");
    app.dragging = true;
    begun();
    try {
      card.setPointerCapture(held.id);
    } catch {
      // The pointer may be gone already; then its end is told to the window.
    }
    place();
    held.frame = requestAnimationFrame(scroll);
  }

  function place() {
    const { ghost, x, y, dx, dy } = held;
    ghost.style.transform = `translate(${x - dx}px, ${y - dy}px) rotate(1.5deg)`;
    const target = over(x, y);
    if (target !== held.target) {
      held.target?.classList.remove("target");
      target?.classList.add("target");
      held.target = target;
    }
  }

  /** Near an edge the board moves along. */
  function scroll() {
    if (!held?.ghost) return;
    const at = board.getBoundingClientRect();
    const left = at.left + EDGE_PX - held.x;
    const right = held.x - (at.right - EDGE_PX);
    const by = left > 0 ? -Math.min(left, EDGE_PX) : right > 0 ? Math.min(right, EDGE_PX) : 0;
    if (by && held.y > at.top && held.y < at.bottom) {
      board.scrollLeft += by / 8;
      place();
    }
    held.frame = requestAnimationFrame(scroll);
  }

  function end(drop) {
    if (!held) return;
    const { card, ghost, target, timer, frame } = held;
    held = null;
    clearTimeout(timer);
    if (!ghost) return;
    cancelAnimationFrame(frame);
    ghost.remove();
    card.classList.remove("lifted");
    target?.classList.remove("target");
    board.classList.remove("dragging");
    app.dragging = false;
    // The click that follows a drag opens nothing.
    const swallow = (event) => {
      event.stopPropagation();
      event.preventDefault();
    };
    addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => removeEventListener("click", swallow, { capture: true }), 60);
    if (drop && target) {
      app.move(Number(card.dataset.deal), target.dataset.stage);
      target.scrollIntoView({ behavior: "smooth", block: "nearest", inline: "nearest" });
    }
    app.draw();
    app.refresh();
  }

  board.addEventListener("pointerdown", (event) => {
    const card = event.target.closest(".card");
    if (!card || held || !event.isPrimary || event.button !== 0 || event.target.closest(".more")) return;
    const isFinger = event.pointerType === "touch";
    held = { card, id: event.pointerId, x: event.clientX, y: event.clientY, fromX: event.clientX, fromY: event.clientY, isFinger };
    if (isFinger) held.timer = setTimeout(() => held && !held.ghost && start(), PRESS_MS);
  });
  addEventListener("pointermove", (event) => {
    if (!held || event.pointerId !== held.id) return;
    held.x = event.clientX;
    held.y = event.clientY;
    if (held.ghost) return place();
    const far = Math.hypot(held.x - held.fromX, held.y - held.fromY);
    if (held.isFinger) {
      if (far > SWIPE_PX) end(false);
    } else if (far > SLACK_PX) {
      start();
    }
  });
  addEventListener("pointerup", (event) => event.pointerId === held?.id && end(true));
  addEventListener("pointercancel", (event) => event.pointerId === held?.id && end(false));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && held?.ghost) {
      event.preventDefault();
      end(false);
    }
  }, true);
  // A press has decided that this is a drag: now the finger must not scroll.
  board.addEventListener("touchmove", (event) => held?.ghost && event.preventDefault(), { passive: false });
  board.addEventListener("contextmenu", (event) => held?.isFinger && event.preventDefault());
}
