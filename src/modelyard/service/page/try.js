import { command } from "./curl.js";
import { asUrl, imageControl } from "./image.js";
import { amounts, number, percent, translate, words } from "./words.js";

const TOP = 10;
const HUES = 8;
const at = (id) => document.getElementById(id);
const mac = /Mac|iPhone|iPad/.test(navigator.platform);
let release;
let busy = false;
let edits = 0;

// What stands before anything is typed

async function start() {
  translate(document);
  at("keys").textContent = mac ? words.macKeys : words.keys;
  release = await (await fetch("/assets/release.json")).json();
  document.title = `${release.name} · Modelyard`;
  at("name").textContent = release.name;
  at("lede").textContent = release.description;
  at("lede").hidden = !release.description;
  at("about").textContent = about();
  at("report").hidden = !release.report || release.keyed; // a link brings no key
  at("needs-key").hidden = !release.keyed;
  at("fields").replaceChildren(...release.inputs.map(field));
  showExamples();
  showCurl();
  (release.keyed ? at("key") : controls()[0]).focus();
}

function about() {
  const facts = [words.version(release.version)];
  const how = { labels: words.answersWithAny, spans: words.answersWithSpans };
  const several = how[release.target] ?? words.answersWith;
  if (release.labels.length) facts.push(several(number(release.labels.length)));
  return facts.join(" · ");
}

function field(input, place) {
  const id = `field-${place}`;
  const label = element("label", { htmlFor: id, textContent: input.name });
  const left = element("span", { className: "small muted", id: `left-${place}` });
  const control = (kinds[input.kind] ?? kinds.text)(id, input);
  Object.assign(control, { id, autocomplete: "off" });
  control.dataset.column = input.name;
  control.dataset.kind = input.kind;
  control.setAttribute("aria-describedby", left.id);
  control.placeholder = String(release.example[input.name] ?? "");
  control.addEventListener("input", () => edited(control, left));
  (control.shell ?? control).addEventListener("keydown", sendByKey);
  const name = element("div", { className: "name" }, label, left);
  const list = element("datalist", { id: `${id}-values` }, ...options(input));
  return element("div", { className: `field ${input.kind}` }, name, control, control.shell ?? "", list);
}

// A control for each kind of input

const kinds = {
  image: (id, input) => imageControl(input.name),
  text: () => element("textarea", { rows: several() ? 2 : 3 }),
  number: () => element("input", { type: "text", inputMode: "decimal" }),
  candidates: () => element("input", { type: "text" }),
  category: (id) => {
    const control = element("input", { type: "text" });
    control.setAttribute("list", `${id}-values`);
    return control;
  },
};

const several = () => release.inputs.filter((input) => !input.optional).length > 1;

function options(input) {
  return input.values.map((value) => element("option", { value }));
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function showExamples() {
  at("examples").hidden = !release.examples.length;
  for (const row of release.examples) {
    const text = release.inputs
      .filter((input) => input.kind !== "image")
      .map((input) => row[input.name] ?? "")
      .filter((value) => value !== "")
      .join(" · ");
    const button = element("button", { type: "button", textContent: text, title: text });
    button.prepend(...pictures(row));
    button.addEventListener("click", () => useExample(row));
    at("examples").append(button);
  }
}

function pictures(row) {
  const named = release.inputs.filter((input) => input.kind === "image" && row[input.name]);
  return named.map((input) => element("img", { src: asUrl(row[input.name]), alt: input.name }));
}

function useExample(row) {
  for (const control of controls()) {
    control.value = row[control.dataset.column] ?? "";
    control.dispatchEvent(Object.assign(new Event("input"), { example: true }));
  }
  send();
}

// Typing

const controls = () => [...at("fields").querySelectorAll("[data-column]")];
const length = (text) => [...text].length;
const longest = (control) => (control.dataset.kind === "image" ? Infinity : release.limits.max_characters);

function row() {
  return Object.fromEntries(controls().map((control) => [control.dataset.column, value(control)]));
}

function files() {
  const read = controls().filter((control) => control.fileName);
  return Object.fromEntries(read.map((control) => [control.dataset.column, control.fileName]));
}

function value(control) {
  const text = control.value;
  if (!text.trim() && several()) return null;
  const amount = Number(text);
  if (control.dataset.kind === "candidates") return ids(text);
  return control.dataset.kind === "number" && text.trim() && !Number.isNaN(amount) ? amount : text;
}

function ids(text) {
  if (text.trim().startsWith("[")) return text;
  return text.split(/[,，]/).map((id) => id.trim()).filter(Boolean);
}

function edited(area, left) {
  edits += 1;
  area.removeAttribute("aria-invalid");
  const most = longest(area);
  const spare = most - length(area.value);
  left.textContent = spare < 0 ? words.over(number(-spare)) : spare < most / 10 ? words.left(number(spare)) : "";
  at("answer").classList.add("stale");
  accept();
  showCurl();
}

function sendByKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
    event.preventDefault();
    send();
  }
}

function path() {
  return `/v1/models/${encodeURIComponent(release.name)}/predict`;
}

function showCurl() {
  const filled = controls().some((control) => control.value.trim());
  at("curl").textContent = command(location.origin + path(), filled ? row() : release.example, files(), release.keyed);
}

// Asking

async function send() {
  if (busy || !hasKey() || !complete()) return;
  const sent = edits;
  const asked = row();
  working(true);
  const begun = performance.now();
  try {
    const reply = await fetch(path(), {
      method: "POST",
      headers: { "Content-Type": "application/json", ...bearer() },
      body: JSON.stringify({ rows: [asked] }),
    });
    const body = await reply.json();
    if (reply.ok) show(body, performance.now() - begun, sent, asked);
    else explain(reply, body);
  } catch {
    refuse(words.offline);
  } finally {
    working(false);
  }
}

// The key is where it was typed and nowhere else: in no storage, no address, no command that is shown.
const key = () => at("key").value.trim();
const bearer = () => (release.keyed ? { Authorization: `Bearer ${key()}` } : {});

function hasKey() {
  if (!release.keyed || /^[!-~]+$/.test(key())) return true;
  askForKey(words.noKey);
  return false;
}

function askForKey(sentence, detail) {
  at("key").setAttribute("aria-invalid", "true");
  at("key").focus();
  refuse(sentence, detail);
}

function complete() {
  const needed = controls().filter((control) => control.dataset.kind !== "candidates");
  const none = needed.every((control) => !control.value.trim());
  for (const area of controls()) {
    const most = longest(area);
    const problem = none
      ? (area.dataset.kind === "image" ? words.noImage : words.empty)(area.dataset.column)
      : length(area.value) > most && words.tooLong(number(most));
    if (problem) {
      area.setAttribute("aria-invalid", "true");
      area.focus();
      refuse(problem);
      return false;
    }
  }
  return true;
}

function working(now) {
  busy = now;
  at("send").setAttribute("aria-disabled", String(now));
  at("send").textContent = now ? words.sending : words.send;
}

function explain(reply, body) {
  if (reply.status === 401) askForKey(words.keyRefused, body.detail);
  else refuse(reason(reply), body.detail);
}

function reason(reply) {
  const seconds = reply.headers.get("Retry-After");
  if (reply.status === 503) return words.busy(seconds ?? 1);
  if (reply.status === 403) return words.notAllowed;
  if (reply.status === 429) return seconds ? words.limitedUntil(number(seconds)) : words.limited;
  if (reply.status >= 500) return words.failed;
  return words.refused;
}

function refuse(sentence, detail) {
  at("answer").hidden = true;
  const parts = [element("p", { textContent: sentence })];
  if (detail) parts.push(element("p", { className: "small detail", textContent: detail, lang: "en" }));
  at("refused").replaceChildren(...parts);
  at("refused").className = "refused";
}

function accept() {
  at("refused").replaceChildren();
  at("refused").className = "";
}

// Answering

function show(body, ms, sent, asked) {
  const [answer] = body.predictions;
  accept();
  at("answer").hidden = false;
  at("answer").classList.toggle("stale", sent !== edits);
  at("facts").textContent = words.facts(number(Math.max(1, Math.round(ms))), number(body.usage.tokens));
  const known = Object.keys(shows).find((name) => name in answer);
  at("raw").hidden = Boolean(known);
  at("marked").hidden = !answer.spans;
  at("bars").replaceChildren();
  at("bars").classList.toggle("ranked", Boolean(answer.candidates));
  if (known) shows[known](answer, asked);
  else at("raw").textContent = JSON.stringify(answer, null, 2);
}

// What shows an answer, by what it holds.
const shows = {
  scores: showScores,
  spans: (answer, asked) => showSpans(answer.spans, Object.values(asked)[0]),
  value: showNumber,
  candidates: (answer) => showCandidates(answer.candidates),
};

// The interval's ends lie at a fifth and four fifths of the line, the value between them.
function showNumber(answer) {
  const [value, low, high] = amounts(answer);
  const width = answer.high - answer.low;
  const place = 20 + 60 * (width ? (answer.value - answer.low) / width : 0.5);
  const dot = element("b", {});
  dot.style.left = `${place}%`;
  const line = element("span", { className: "line", ariaHidden: "true" }, element("i", {}), dot);
  const ends = element("span", { className: "ends", ariaHidden: "true" });
  ends.append(element("span", { textContent: low }), element("span", { textContent: high }));
  at("label").textContent = value;
  at("said").textContent = words.saidNumber(value, low, high);
  at("more").hidden = true;
  const told = element("p", { className: "small muted", textContent: words.between(low, high) });
  at("bars").replaceChildren(element("li", { className: "interval" }, line, ends, told));
}

function showScores(answer) {
  const ranked = Object.entries(answer.scores).sort((a, b) => b[1] - a[1]);
  const best = answer.labels ?? [answer.label];
  const shown = best.map((label) => words.said(label, percent(answer.scores[label])));
  at("label").textContent = best.join(" · ") || words.noLabel;
  at("said").textContent = shown.join("; ") || words.noLabel;
  at("more").hidden = ranked.length <= TOP;
  showBars(ranked, best, ranked.length <= TOP);
}

function showBars(ranked, best, whole) {
  const shown = whole ? ranked : ranked.slice(0, TOP);
  at("bars").replaceChildren(...shown.map(([label, score]) => bar(label, score, best.includes(label))));
  at("all").textContent = whole ? words.fewer(TOP) : words.all(number(ranked.length));
  at("all").onclick = () => showBars(ranked, best, !whole);
}

function bar(label, score, best) {
  const filled = element("i", {});
  filled.style.width = `${score * 100}%`;
  const track = element("span", { className: "bar", ariaHidden: "true" }, filled);
  return element(
    "li",
    { className: best ? "best" : "" },
    element("span", { className: "of", textContent: label }),
    element("span", { className: "percent", textContent: percent(score) }),
    track,
  );
}

// Places are counted in characters; a string here is made of halves of some of them.
function showSpans(spans, text) {
  const characters = [...text];
  const parts = [];
  let reached = 0;
  for (const span of spans) {
    parts.push(characters.slice(reached, span.start).join(""), mark(span));
    reached = span.end;
  }
  at("marked").replaceChildren(...parts, characters.slice(reached).join(""));
  const told = spans.map((span) => `${span.label}: ${span.text}`);
  at("label").textContent = spans.length ? words.spans(number(spans.length)) : words.noSpan;
  at("said").textContent = told.join("; ") || words.noSpan;
  at("more").hidden = true;
  at("bars").replaceChildren(...spans.map((span, place) => bar(told[place], span.score, false)));
}

// The best is told in full; a score is a cosine, and one below 0 has no bar.
function showCandidates(candidates) {
  at("label").textContent = candidates.length ? words.candidates(number(candidates.length)) : words.noCandidate;
  at("said").textContent = candidates[0]?.text ?? words.noCandidate;
  at("more").hidden = true;
  at("bars").replaceChildren(...candidates.map(candidate));
}

function candidate({ id, text, score }, place) {
  const made = bar(text, Math.max(0, score), place === 0);
  made.classList.add("candidate");
  made.title = id;
  made.querySelector(".percent").textContent = score.toFixed(2);
  return made;
}

function mark(span) {
  const hue = release.labels.indexOf(span.label) % HUES;
  const made = element("mark", { className: `hue-${hue}`, textContent: span.text });
  made.dataset.label = span.label;
  return made;
}

async function copy() {
  const text = at("curl").textContent;
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyBySelection();
  at("copy").textContent = words.copied;
  setTimeout(() => (at("copy").textContent = words.copy), 1500);
}

// Where the page came over plain HTTP from another machine there is no clipboard object.
function copyBySelection() {
  getSelection().selectAllChildren(at("curl"));
  document.execCommand("copy");
}

at("key").addEventListener("input", () => {
  at("key").removeAttribute("aria-invalid");
  accept();
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("copy").addEventListener("click", copy);
start();
