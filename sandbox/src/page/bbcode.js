// BBCode of card comments as a tree of nodes. Only a handful of tags is known; everything else, broken tags included, stays
// text. No string ever becomes markup, and only http(s) addresses become links.

const TAG = /\[(\/?)(b|i|u|s|url|user|color|br)(?:=([^\]\n]{0,2000}))?\]/gi;
const LONGEST = 20000;
const DEEPEST = 16;
const PLAIN = { b: "b", i: "i", u: "u", s: "s" };

function open(name, value, inner) {
  if (PLAIN[name]) return document.createElement(PLAIN[name]);
  if (name === "user") {
    const user = document.createElement("span");
    user.className = "user";
    return user;
  }
  if (name === "color") {
    const span = document.createElement("span");
    if (/^(#[0-9a-f]{3,8}|[a-z]{3,20})$/i.test(value)) span.style.color = value;
    return span;
  }
  return link(value || inner);
}

function link(address) {
  const text = address.trim();
  if (!/^https?:\/\/[^\s]+$/i.test(text) || !URL.canParse(text)) return document.createElement("span");
  const anchor = document.createElement("a");
  anchor.href = new URL(text).href;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer nofollow";
  return anchor;
}

/** Reads the tags of a text once: `{at, end, name, closes, value}`. */
function tags(text) {
  const found = [];
  for (const match of text.matchAll(TAG)) {
    const at = match.index;
    found.push({ at, end: at + match[0].length, name: match[2].toLowerCase(), closes: match[1] === "/", value: match[3] ?? "" });
  }
  return found;
}

/** Pairs every opening tag with its closing one; what has no partner is text. */
function pair(found) {
  const stack = [];
  for (const tag of found) {
    if (tag.name === "br" && !tag.closes) {
      tag.paired = true;
    } else if (!tag.closes) {
      stack.push(tag);
    } else {
      const at = stack.findLastIndex((open) => open.name === tag.name);
      if (at >= 0) {
        const opening = stack[at];
        stack.length = at;
        opening.partner = tag;
        opening.paired = tag.paired = true;
      }
    }
  }
}

/** The text as a fragment. */
export function bbcode(source) {
  const text = String(source ?? "").slice(0, LONGEST);
  const found = tags(text);
  pair(found);
  const root = document.createDocumentFragment();
  const path = [root];
  let at = 0;
  const put = (piece) => {
    const lines = piece.split(/\r\n|\r|\n/);
    lines.forEach((line, nth) => {
      if (nth > 0) path[path.length - 1].append(document.createElement("br"));
      if (line) path[path.length - 1].append(document.createTextNode(line));
    });
  };
  for (const tag of found) {
    if (!tag.paired) continue;
    put(text.slice(at, tag.at));
    at = tag.end;
    if (tag.name === "br") {
      path[path.length - 1].append(document.createElement("br"));
    } else if (tag.closes) {
      if (path.length > 1) path.pop();
    } else {
      const parent = path[path.length - 1];
      if (path.length > DEEPEST) {
        path.push(parent);
      } else {
        const node = open(tag.name, tag.value, text.slice(tag.end, tag.partner.at));
        parent.append(node);
        path.push(node);
      }
    }
  }
  put(text.slice(at));
  return root;
}

/** The text without tags, on one line. */
export function plain(source) {
  return String(source ?? "").replace(TAG, " ").replace(/\s+/g, " ").trim();
}
