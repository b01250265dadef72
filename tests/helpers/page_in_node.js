// Runs the search page's script in Node against a server: node page_in_node.js URL HASH [ACTION...]. An action is "click:SELECTOR" with
// SELECTOR an id or text of a button. Prints the elements by id as JSON: {id: {text, html, hidden}}.
"use strict";

const [url, hash, ...actions] = process.argv.slice(2);
const byId = new Map();

class Element {
  constructor(tag) {
    Object.assign(this, { tag, children: [], listeners: {}, dataset: {}, style: {}, attributes: {}, hidden: false, className: "", value: "", scrollTop: 0 });
    this.classList = { toggle() {} };
  }
  append(...nodes) { this.children.push(...nodes.map((node) => (typeof node === "string" ? Object.assign(new Element("#text"), { own: node }) : node))); }
  prepend(...nodes) { const old = this.children; this.children = []; this.append(...nodes); this.children.push(...old); }
  replaceChildren(...nodes) { this.children = []; this.own = undefined; this.append(...nodes); }
  remove() { this.gone = true; }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name] ?? null; }
  addEventListener(name, listener) { (this.listeners[name] ??= []).push(listener); }
  focus() {}
  set textContent(text) { this.children = []; this.own = String(text); }
  get textContent() { return (this.own ?? "") + this.children.filter((one) => !one.gone).map((one) => one.textContent).join(""); }
  get all() { return this.children.filter((one) => !one.gone).flatMap((one) => [one, ...one.all]); }
  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? (selector === "button" ? (this.button ??= new Element("button")) : null); }
  querySelectorAll(selector) { return this.all.filter((one) => one.tag === selector || (selector.startsWith(".") && one.className.split(" ").includes(selector.slice(1)))); }
  get html() {
    if (this.tag === "#text") return this.own;
    return `<${this.tag}${this.className ? ` class="${this.className}"` : ""}>${this.own ?? ""}${this.children.filter((one) => !one.gone).map((one) => one.html).join("")}</${this.tag}>`;
  }
}

const get = (id) => {
  if (!byId.has(id)) byId.set(id, Object.assign(new Element("div"), { id, checked: id === "word" }));
  return byId.get(id);
};
globalThis.document = { getElementById: get, createElement: (tag) => new Element(tag) };
globalThis.window = { addEventListener() {} };
globalThis.location = { hash: `#${hash}` };
globalThis.history = { replaceState() {} };
globalThis.sessionStorage = { getItem: () => null, setItem() {} };
globalThis.requestAnimationFrame = (work) => work();
let open = 0;
const real = globalThis.fetch;
globalThis.fetch = async (path, options) => {
  open++;
  try {
    const answer = await real(`${url}/${path}`, options);
    const text = await answer.text();
    return { ok: answer.ok, status: answer.status, json: async () => JSON.parse(text) };
  } finally {
    open--;
  }
};
// long enough for the script to react to an answer, and again while requests are open
const rest = async () => { do { for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate); } while (open > 0); };

(async () => {
  const [script, ...rows] = [await (await real(`${url}/static/page.js`)).text(), ...actions];
  (0, eval)(script);
  await rest();
  for (const row of rows) {
    const [kind, ...parts] = row.split(":");
    const wanted = parts.join(":");
    if (kind === "set") {
      const [id, value] = wanted.split("=");
      Object.assign(get(id), { checked: value === "true", value });
      for (const listener of get(id).listeners.change ?? []) listener({});
    } else {
      const target = byId.get(wanted) ?? [...byId.values()].flatMap((one) => one.all).find((one) => one.tag === "button" && one.textContent === wanted);
      for (const listener of target.listeners[kind] ?? []) listener({ preventDefault() {} });
    }
    await rest();
  }
  const found = {};
  for (const [id, one] of byId) found[id] = { text: one.textContent, html: one.html, hidden: one.hidden };
  console.log(JSON.stringify(found));
})();
