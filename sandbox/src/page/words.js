// Language, and how texts, times, sums and phones are written in it.

import { TEXTS, STATES } from "./texts.js";

const LANGUAGES = ["ru", "en"];
let language = first();

function first() {
  const asked = new URLSearchParams(location.search).get("lang");
  if (LANGUAGES.includes(asked)) return asked;
  try {
    const kept = localStorage.getItem("lang");
    if (LANGUAGES.includes(kept)) return kept;
  } catch {
    // Storage may be forbidden; the browser's language serves as well.
  }
  return (navigator.languages ?? [navigator.language]).some((own) => /^ru\b/i.test(own ?? "")) ? "ru" : "en";
}

export const lang = () => language;

export function choose(wanted) {
  language = LANGUAGES.includes(wanted) ? wanted : "en";
  try {
    localStorage.setItem("lang", language);
  } catch {
    // Then it is asked again next time.
  }
}

function lay(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, key) => (values && key in values ? String(values[key]) : whole));
}

/** A text by key. */
export function t(key, values) {
  const own = TEXTS[key];
  return own ? lay(own[language === "ru" ? 0 : 1], values) : key;
}

/** A text that depends on a number. */
export function plural(key, n) {
  const forms = TEXTS[key][language === "ru" ? 0 : 1];
  const rule = new Intl.PluralRules(language).select(n);
  const nth = language === "ru" ? { one: 0, few: 1 }[rule] ?? 2 : rule === "one" ? 0 : 1;
  return lay(forms[nth], { n: number(n) });
}

export const number = (n) => new Intl.NumberFormat(language).format(n);

export function sum(amount, currency) {
  const value = Number(amount);
  if (!Number.isFinite(value) || value === 0) return "";
  try {
    return new Intl.NumberFormat(language, { style: "currency", currency, maximumFractionDigits: 0 }).format(value);
  } catch {
    return `${number(value)} ${currency}`;
  }
}

export const clock = (ms) => new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hour12: false }).format(ms);

export function moment(ms) {
  const today = new Date().toDateString() === new Date(ms).toDateString();
  const shape = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  return new Intl.DateTimeFormat(language, today ? shape : { ...shape, day: "2-digit", month: "2-digit" }).format(ms);
}

/** A span of time in one or two units. */
export function span(ms) {
  const unit = (value, name, digits = 0) =>
    new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits }).format(value);
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return unit(seconds, "second", 1);
  if (seconds < 60) return unit(Math.floor(seconds), "second");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return unit(minutes, "minute");
  const rest = minutes % 60;
  return unit(Math.floor(minutes / 60), "hour") + (rest ? " " + unit(rest, "minute") : "");
}

/** Digits as WhatsApp knows a phone; 8 at the start of a Russian number is 7. */
export function digits(phone) {
  const own = String(phone ?? "").replace(/\D/g, "");
  if (own.length === 11 && own.startsWith("8")) return "7" + own.slice(1);
  return own.length === 10 && own.startsWith("9") ? "7" + own : own;
}

export function phoneText(phone) {
  const own = digits(phone);
  const parts = /^7(\d{3})(\d{3})(\d{2})(\d{2})$/.exec(own);
  if (parts) return `+7 ${parts[1]} ${parts[2]}-${parts[3]}-${parts[4]}`;
  const american = /^1(\d{3})(\d{3})(\d{4})$/.exec(own);
  return american ? `+1 ${american[1]} ${american[2]}-${american[3]}` : own ? "+" + own : "";
}

/** What a comment says about its message: `{state, label}` in the portal's words, or null. */
export function stateOf(comment) {
  for (const line of String(comment ?? "").split("\n").slice(0, 6)) {
    for (const [state, words] of Object.entries(STATES)) {
      const label = words.find((word) => line === word || line.startsWith(word + ","));
      if (label) return { state, label };
    }
  }
  return null;
}

/** Sign of a state: one grey tick, two grey, two blue, and others for trouble. */
export const SIGNS = {
  queued: "clock",
  undecided: "what",
  accepted: "tick",
  sent: "tick",
  delivered: "ticks",
  read: "ticks",
  failed: "mark",
  cancelled: "ban",
  waiting: "clock",
  note: "chat",
};

/** A text that may come in several languages. */
export function named(name, otherwise) {
  if (typeof name === "string" && name) return name;
  if (name && typeof name === "object") {
    const own = name[language] ?? name.en ?? name.ru ?? Object.values(name)[0];
    if (typeof own === "string") return own;
  }
  return otherwise;
}
