// The search page. Texts from the index are inserted as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en-GB");
const state = { indexes: [], search: 0, trace: 0, query: null, next: null, nextRoute: "next", documents: null };
const MAX_TERMS = 4; // in a clause
const WHOLE_TOKENS = 10_000; // the most that a service returns of a document

class Trouble extends Error {}

async function ask(path, body) {
  const key = sessionStorage.getItem("key");
  const headers = { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    throw new Trouble("The service does not respond; is it still running?");
  }
  const answer = await response.json().catch(() => ({ error: `The service returned status ${response.status}.` }));
  $("key-form").hidden = response.status !== 401;
  if (!response.ok) throw new Trouble(answer.error);
  return answer;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(trouble) {
  if (!(trouble instanceof Trouble)) throw trouble;
  $("alert").textContent = trouble.message;
  $("alert").hidden = false;
}

const current = () => state.indexes.find((index) => index.name === $("index").value);
const route = (name) => `v1/${encodeURIComponent(current().name)}/${name}`;
const times = (count) => (count === 1 ? "time" : "times");
const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";

// The content of the query field in the form of the typed routes: text, ids if the index has no tokenizer, or clauses of terms.
function readQuery() {
  const index = current();
  const written = $("query").value;
  const anyCase = $("case").checked && index.tokenizer;
  const start = $("word").checked ? index.word_start : "";
  const term = (text) => (index.tokenizer ? start + text : text.trim().split(/[\s,]+/).filter(Boolean).map(Number));
  if (/(^|\s)(AND|OR)(\s|$)/.test(written)) {
    const clauses = written.split(/(?:^|\s)AND(?:\s|$)/).map((clause) => clause.split(/(?:^|\s)OR(?:\s|$)/));
    if (clauses.flat().some((text) => text.trim() === "")) throw new Trouble("A phrase is missing beside AND or OR; write one on each side.");
    return { clauses: clauses.map((clause) => (anyCase ? spellings(clause) : clause).map(term)) };
  }
  if (!index.tokenizer) return { ids: term(written) };
  if (anyCase && written !== "") return { clauses: [spellings([written]).map(term)] };
  return { text: written === "" ? "" : term(written) };
}

// The phrases as written, in small letters, with a capital at the start, with one on each word, and in capitals. A service takes four
// terms in a clause, so the last spellings are left out where there are more.
function spellings(phrases) {
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const ways = [(text) => text, (text) => text.toLowerCase(), (text) => capital(text.toLowerCase()), (text) => text.toUpperCase(),
    (text) => text.toLowerCase().split(" ").map(capital).join(" ")];
  const all = [...new Set(ways.flatMap((way) => phrases.map(way)))];
  if (phrases.length > MAX_TERMS) return phrases; // the service says what is wrong
  return all.slice(0, MAX_TERMS);
}

// Clauses may be up to 100 tokens apart, so longer windows of their documents are shown.
const shown = () => ({ limit: 5, max_tokens: state.query.clauses ? 260 : 160, distinct_documents: true });

// Every term of a query, to show its tokens.
function terms(query) {
  if (query.clauses) return query.clauses.flat().map((term) => (typeof term === "string" ? { text: term } : { ids: term }));
  return $("query").value ? [query] : [];
}

async function search() {
  const turn = ++state.search;
  const button = $("search-form").querySelector("button");
  $("alert").hidden = true;
  button.disabled = true;
  try {
    state.query = readQuery();
    const plain = state.query.clauses === undefined;
    const [count, next, documents, ...tokens] = await Promise.all([
      ask(route("count"), state.query),
      plain ? follow() : null,
      ask(route("search"), { ...state.query, ...shown() }),
      ...terms(state.query).map((term) => ask(route("score"), term)),
    ]);
    if (turn !== state.search) return;
    showCount(count);
    showTokens(tokens);
    $("next").replaceChildren();
    $("next-part").hidden = !plain;
    if (next) {
      noteNext(next, tokens[0]);
      showNext(next);
    }
    $("documents").replaceChildren();
    showDocuments(documents);
    $("found").hidden = false;
    remember({ q: $("query").value, ...($("case").checked ? { case: "any" } : {}) });
  } catch (trouble) {
    $("found").hidden = true;
    say(trouble);
  } finally {
    button.disabled = false;
  }
}

// What follows the query; if the query does not occur, what follows its longest end that does.
async function follow() {
  state.nextRoute = "next";
  const next = await ask(route("next"), { ...state.query, limit: 20 });
  if (next.prompt_count > 0) return next;
  state.nextRoute = "infgram_next";
  return ask(route("infgram_next"), { ...state.query, limit: 20 });
}

function noteNext(next, scores) {
  const exact = next.distinct ? `${number.format(next.distinct)} distinct ${next.distinct === 1 ? "token" : "tokens"}, exact counts` : "Nothing follows it in this index.";
  if (state.nextRoute === "next") {
    $("next-note").textContent = exact;
    return;
  }
  const end = next.suffix_tokens;
  const last = current().tokenizer ? `“${visible(scores.tokens.slice(-end).join(""))}”` : scores.ids.slice(-end).join(" ");
  const known = `after its longest end that does, ${last} (${number.format(end)} ${end === 1 ? "token" : "tokens"}, ${number.format(next.prompt_count)} ${times(next.prompt_count)}): ${exact}`;
  $("next-note").textContent = end ? `The whole phrase does not occur; ${known}` : `No end of it occurs; all tokens of the index: ${exact}`;
}

function showCount({ count, approximate }) {
  $("count").textContent = (approximate ? "about " : "") + number.format(count);
  $("count-unit").textContent = $("query").value ? times(count) : "tokens in total";
}

function showTokens(terms) {
  $("tokens").replaceChildren();
  terms.forEach((scores, place) => {
    if (place) $("tokens").append(element("span", { className: "between", textContent: "·" }));
    scores.tokens.forEach((token, at) => {
      const p = scores.probabilities[at];
      const title = `token ${scores.ids[at]}; ∞-gram probability ${p === null ? "unknown" : p.toPrecision(3)}, after ${scores.suffix_tokens[at]} tokens`;
      $("tokens").append(element("span", { title, textContent: visible(token) || String(scores.ids[at]) }));
    });
  });
}

function showNext(next) {
  state.next = next.next_cursor;
  for (const token of next.tokens) {
    const bar = element("div", { className: "bar" });
    bar.style.width = `${100 * token.probability}%`;
    const label = current().tokenizer ? visible(token.text) : String(token.id);
    const go = element("button", { type: "button", textContent: label, title: `token ${token.id}: search with it` });
    go.addEventListener("click", () => extend(token));
    const percent = (100 * token.probability).toFixed(token.probability < 0.1 ? 2 : 1);
    const share = element("span", { className: "figure", textContent: `${percent} %` });
    const figure = element("span", { className: "figure amount", textContent: number.format(token.count) });
    $("next").append(element("li", {}, bar, go, share, figure));
  }
  $("next-more").hidden = !next.next_cursor;
}

function extend(token) {
  $("query").value = current().tokenizer ? $("query").value + token.text : `${$("query").value} ${token.id}`.trim();
  $("query").focus();
  search();
}

function showDocuments(found) {
  state.documents = found.next_cursor;
  const shown = $("documents").children.length + found.documents.length;
  const drawn = found.next_cursor ? "drawn at random, each once" : "each once";
  const where = `${number.format(found.count)} ${found.count === 1 ? "occurrence" : "occurrences"}`;
  $("documents-note").textContent = found.count ? `${number.format(shown)} ${shown === 1 ? "document" : "documents"} from ${where}, ${drawn}` : "None.";
  for (const one of found.documents) $("documents").append(card(one));
  $("documents-more").hidden = !found.next_cursor;
}

function card(one, relevance) {
  const ranked = relevance === undefined ? "" : ` · relevance ${relevance.toFixed(1)}`;
  const title = `document ${number.format(one.number)} · tokens ${number.format(one.begin)} to ${number.format(one.begin + one.ids.length)} of ${number.format(one.tokens)}${ranked}`;
  const text = element("pre", { tabIndex: 0 });
  if (one.begin > 0) text.append("… ");
  let marked = null;
  for (const [piece, clause] of current().tokenizer ? one.spans : [[one.ids.join(" "), null]]) {
    if (clause === null) {
      text.append(piece);
    } else {
      const mark = element("mark", { className: `clause-${clause}`, textContent: piece });
      marked ??= mark;
      text.append(mark);
    }
  }
  if (one.begin + one.ids.length < one.tokens) text.append(" …");
  const item = element("li", {}, element("h3", { textContent: title }), text);
  if (one.ids.length < one.tokens) item.append(wholeButton(one, text));
  if (one.metadata) {
    const details = element("details", {}, element("summary", { textContent: "metadata" }));
    details.append(element("pre", { textContent: JSON.stringify(one.metadata, null, 2) }));
    item.append(details);
  }
  if (marked) requestAnimationFrame(() => (text.scrollTop = Math.max(0, marked.offsetTop - text.offsetTop - 120)));
  return item;
}

// Replaces a window by its document.
function wholeButton(one, text) {
  const part = one.tokens > WHOLE_TOKENS;
  const button = element("button", { type: "button", className: "more", textContent: part ? `First ${number.format(WHOLE_TOKENS)} tokens` : "Whole document" });
  button.addEventListener("click", () =>
    more(button, "documents", { numbers: [one.number], max_tokens: WHOLE_TOKENS }, ({ documents: [whole] }) => {
      text.replaceChildren(current().tokenizer ? whole.spans.map(([piece]) => piece).join("") : whole.ids.join(" "), part ? " …" : "");
      text.scrollTop = 0;
      button.remove();
      text.focus();
    }));
  return button;
}

async function more(button, path, body, show) {
  button.disabled = true;
  try {
    show(await ask(route(path), body));
  } catch (trouble) {
    say(trouble);
  } finally {
    button.disabled = false;
  }
}

async function trace() {
  const turn = ++state.trace;
  const button = $("trace-form").querySelector("button");
  $("alert").hidden = true;
  button.disabled = true;
  try {
    const written = $("text").value;
    const index = current();
    const asked = index.tokenizer ? { text: written } : { ids: written.trim().split(/[\s,]+/).filter(Boolean).map(Number) };
    const options = { max_count: 1000, min_tokens: 3, context_tokens: 60, ...($("all-spans").checked ? { spans_per_token: null, max_documents: 3 } : {}) };
    const found = await ask(route("trace"), { ...asked, ...options });
    if (turn !== state.trace) return;
    showTraced(found);
    remember({ trace: written.length < 1500 ? written : "" });
  } catch (trouble) {
    $("traced").hidden = true;
    say(trouble);
  } finally {
    button.disabled = false;
  }
}

// Spans may overlap: every segment between two borders belongs to the rarest span that covers it.
function showTraced(found) {
  const spans = found.spans;
  const order = spans.map((_, at) => at).sort((a, b) => spans[a].unigram_log_probability - spans[b].unigram_log_probability);
  const rank = new Map(order.map((span, at) => [span, Math.min(2, Math.floor((3 * at) / spans.length))]));
  const owner = new Array(found.ids.length).fill(-1);
  for (const at of [...order].reverse()) owner.fill(at, spans[at].begin, spans[at].end);
  const text = $("traced-text");
  text.replaceChildren();
  for (let begin = 0; begin < owner.length; ) {
    let end = begin + 1;
    while (end < owner.length && owner[end] === owner[begin]) end++;
    const piece = found.tokens.slice(begin, end).map((token, at) => (current().tokenizer ? token : `${found.ids[begin + at]} `)).join("");
    text.append(owner[begin] < 0 ? piece : spanMark(piece, spans[owner[begin]], owner[begin], rank.get(owner[begin])));
    begin = end;
  }
  $("traced-note").textContent = spans.length
    ? `${number.format(spans.length)} ${spans.length === 1 ? "span occurs" : "spans occur"} in the index; the stronger the colour, the rarer. Select one to see where.`
    : "No span of at least three tokens occurs in the index.";
  $("span-part").hidden = true;
  $("traced").hidden = false;
}

function spanMark(piece, span, at, level) {
  const mark = element("span", { className: `rare-${level}`, textContent: piece, tabIndex: 0, title: `${number.format(span.count)} ${times(span.count)}` });
  mark.setAttribute("role", "button");
  mark.dataset.span = at;
  const choose = () => {
    for (const other of $("traced-text").querySelectorAll("[data-span]")) other.classList.toggle("chosen", other.dataset.span === mark.dataset.span);
    $("span-title").textContent = `“${span.text.trim()}”`;
    $("span-note").textContent = `occurs ${number.format(span.count)} ${times(span.count)}; the most relevant documents come first`;
    $("span-documents").replaceChildren(...span.documents.map((one) => card(one.document, one.relevance)));
    $("span-part").hidden = false;
  };
  mark.addEventListener("click", choose);
  mark.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose();
  });
  return mark;
}

function show(tab) {
  for (const name of ["search", "trace"]) {
    $(`tab-${name}`).setAttribute("aria-selected", name === tab);
    $(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    $(`panel-${name}`).hidden = name !== tab;
  }
  $("alert").hidden = true;
}

// The address encodes what is shown, so that it can be shared.
function remember(fields) {
  history.replaceState(null, "", `#${new URLSearchParams({ index: current().name, ...fields })}`);
}

function showIndex() {
  const index = current();
  const text = index.tokenizer ? "" : "; it has no tokenizer, so queries are token ids";
  $("facts").textContent = `${number.format(index.tokens)} tokens in ${number.format(index.documents)} documents${text}`;
  $("word-line").hidden = !index.word_start;
  $("case-line").hidden = !index.tokenizer;
}

async function start() {
  try {
    state.indexes = await ask("v1/indexes");
  } catch (trouble) {
    say(trouble);
    return;
  }
  $("alert").hidden = true;
  $("index").replaceChildren(...state.indexes.map((index) => element("option", { value: index.name, textContent: index.name })));
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (state.indexes.some((index) => index.name === wanted.get("index"))) $("index").value = wanted.get("index");
  showIndex();
  if (wanted.has("trace")) {
    show("trace");
    $("text").value = wanted.get("trace");
    trace();
  } else if (wanted.has("q")) {
    $("query").value = wanted.get("q");
    $("case").checked = wanted.get("case") === "any";
    search();
  } else {
    $("query").focus();
  }
}

$("index").addEventListener("change", () => {
  showIndex();
  if ($("tab-trace").getAttribute("aria-selected") === "true") $("traced").hidden = true;
  else if (!$("found").hidden) search();
});
$("search-form").addEventListener("submit", (event) => (event.preventDefault(), search()));
$("trace-form").addEventListener("submit", (event) => (event.preventDefault(), trace()));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  start();
});
$("next-more").addEventListener("click", () => more($("next-more"), state.nextRoute, { ...state.query, limit: 40, cursor: state.next }, showNext));
$("documents-more").addEventListener("click", () =>
  more($("documents-more"), "search", { ...state.query, ...shown(), cursor: state.documents }, showDocuments));
for (const name of ["search", "trace"]) {
  $(`tab-${name}`).addEventListener("click", () => show(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "search" ? "trace" : "search";
    show(other);
    $(`tab-${other}`).focus();
  });
}
window.addEventListener("hashchange", start);
start();
