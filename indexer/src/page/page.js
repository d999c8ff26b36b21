// Asks /status and /history every few seconds and draws what they say. What comes from outside is only ever set as text.

const EVERY_MS = 5_000;
const byId = (id) => document.getElementById(id);

const KINDS = { OKAY: "good", UNKNOWN: "unsure" };
const kindOf = (state) => KINDS[state] ?? "bad";

function bytes(number) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (number >= 1000 && at < units.length - 1) [number, at] = [number / 1000, at + 1];
  return `${at && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

function age(ms) {
  if (ms == null) return "never";
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s ago`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

const seconds = (ms) => `${Math.round(ms / 1000)} s`;
const count = (number) => (number == null ? "" : number.toLocaleString("en"));

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/* A table that can be sorted by its heads. A column has a head, the value to sort by, and perhaps its text and class. */
class Table {
  constructor(id, caption, columns) {
    this.table = byId(id);
    this.columns = columns;
    this.rows = [];
    this.sort = null;
    const head = columns.map((column, at) => {
      const button = element("button", { type: "button" }, column.head);
      button.addEventListener("click", () => this.sortBy(at));
      return element("th", { scope: "col", class: column.class ?? "" }, button);
    });
    this.heads = head;
    this.body = element("tbody");
    this.table.append(element("caption", { class: "faint" }, caption), element("thead", {}, element("tr", {}, ...head)), this.body);
  }

  sortBy(at) {
    const isDescending = this.sort?.at === at ? !this.sort.isDescending : this.columns[at].class === "number";
    this.sort = { at, isDescending };
    this.heads.forEach((head, other) => {
      if (other === at) head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.draw();
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const rows = [...this.rows];
    if (this.sort) {
      const { at, isDescending } = this.sort;
      const value = this.columns[at].value;
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true }));
      rows.sort((a, b) => order(value(a), value(b)) * (isDescending ? -1 : 1));
    }
    const cell = (column, row) => {
      const text = column.text ? column.text(row) : String(column.value(row) ?? "");
      const inner = column.kind ? element("span", { class: column.kind(row) }, text) : text;
      return element("td", { class: column.class ?? "" }, inner);
    };
    const lines = rows.map((row) => element("tr", {}, ...this.columns.map((column) => cell(column, row))));
    const none = element("tr", {}, element("td", { colspan: this.columns.length, class: "faint" }, "none"));
    this.body.replaceChildren(...(lines.length ? lines : [none]));
  }
}

const number = (head, value, text) => ({ head, value, text: (row) => (text ?? count)(value(row)), class: "number" });
const state = { head: "State", value: (row) => row.state, kind: (row) => kindOf(row.state) };
const detail = { head: "Why", value: (row) => row.detail, class: "wide" };

let rates = new Map();

const hosts = new Table("hosts", "Worst first; a head sorts.", [
  { head: "Host", value: (host) => host.name || host.host },
  state,
  { ...detail, value: (host) => [host.detail, ...host.blocked].filter(Boolean).join("; ") },
  { head: "Last seen", value: (host) => host.seen_ms_ago, text: (host) => (host.stopped ? "said goodbye, " : "") + age(host.seen_ms_ago) },
  number("Lines/s", (host) => host.events_per_second, (rate) => (rate == null ? "" : count(Number(rate.toPrecision(3))))),
  number("Bytes/s", (host) => rates.get(host.host) ?? 0, bytes),
  number("Delay", (host) => host.late_ms, seconds),
  number("Unread", (host) => host.unread_bytes, bytes),
  number("Waiting", (host) => Math.max(0, host.acknowledged_bytes - host.indexed_bytes), bytes),
  number("Sources", (host) => host.num_sources),
]);

const sources = new Table("sources", "Worst first; a head sorts.", [
  { head: "File", value: (source) => source.path, class: "wide" },
  state,
  { ...detail, value: (source) => [source.detail, holes(source)].filter(Boolean).join("; ") },
  { head: "Host", value: (source) => source.host_name },
  number("Unread", (source) => source.size - source.read, bytes),
  number("Waiting", (source) => source.waiting, bytes),
  number("Delay", (source) => source.late_ms, seconds),
  number("Missing", (source) => source.missing, bytes),
  number("Given up", (source) => source.given_up, bytes),
  number("Dead letters", (source) => source.dead_letters),
]);

const lag = new Table("lag", "Records not yet finished.", [
  { head: "Topic", value: (partition) => partition.topic },
  number("Partition", (partition) => partition.partition),
  number("Records", (partition) => partition.lag_records),
  number("Age", (partition) => partition.lag_seconds, (seconds) => (seconds == null ? "" : `${Math.round(seconds)} s`)),
  { head: "Held", value: (partition) => (partition.held ? "held" : "") },
]);

const letters = new Table("letters", "By reason; see indexer dlq.", [
  { head: "Reason", value: ([reason]) => reason },
  number("Letters", ([, num]) => num),
]);

const fields = new Table("fields", "What the rules moved.", [
  { head: "Field", value: (field) => field.field, class: "wide" },
  { head: "Action", value: (field) => field.action },
  number("Times", (field) => field.sampled),
]);

function holes(source) {
  return source.holes.length ? "missing bytes " + source.holes.map(([start, end]) => `${start}–${end}`).join(", ") : "";
}

function drawHistory(history) {
  const perSecond = (values) => values.map((value) => value / history.step_seconds);
  rates = new Map();
  const figures = history.hosts.map((host) => {
    const lines = { acknowledged: perSecond(host.acknowledged), indexed: perSecond(host.indexed) };
    // The minute that runs is not over.
    const last = lines.acknowledged.at(-2) ?? lines.acknowledged.at(-1) ?? 0;
    rates.set(host.host, last);
    const top = Math.max(1, ...lines.acknowledged, ...lines.indexed);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 60 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${host.name}: ${bytes(last)} a second in the last minute, at most ${bytes(top)} in the last hour`);
    for (const [name, values] of Object.entries(lines)) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      const points = values.map((value, at) => `${60 - values.length + at + 0.5},${98 - (value / top) * 94}`);
      line.setAttribute("points", points.join(" "));
      line.setAttribute("class", name);
      svg.append(line);
    }
    const caption = element("figcaption", {}, element("span", {}, host.name || host.host), element("span", { class: "faint" }, `${bytes(last)}/s, at most ${bytes(top)}/s`));
    return element("figure", {}, caption, svg);
  });
  byId("throughput").replaceChildren(...figures);
}

let known = null;

function drawSources() {
  const wanted = byId("filter").value.toLowerCase();
  const all = known?.sources ?? [];
  sources.show(all.filter((source) => `${source.path} ${source.host_name} ${source.state}`.toLowerCase().includes(wanted)));
}

function draw(status) {
  known = status;
  const word = status.pipeline.status;
  const kind = { OKAY: "good", ERROR: "bad" }[word] ?? "unsure";
  const state = byId("state");
  // Said again only when it changes.
  if (state.textContent !== word) state.textContent = word;
  state.className = `state ${kind}`;
  document.title = `${word}: Millrace`;
  const troubles = Object.entries(status.states).filter(([state, num]) => num > 0 && state !== "OKAY").map(([state, num]) => `${count(num)} ${state}`);
  const blocked = status.blocked.map(({ reason, detail }) => `${reason}: ${detail}`);
  byId("reason").textContent = [status.pipeline.reason, ...troubles, ...blocked].filter(Boolean).join("; ");
  hosts.show(status.hosts);
  drawSources();
  const { left_out: left } = status;
  byId("left-out").textContent = left.sources ? `${count(left.sources)} more sources are not listed.` : "";
  lag.show(status.partitions);
  letters.show(Object.entries(status.dead_letters ?? {}));
  fields.show(status.fields ?? []);
}

let heardAt = 0;

async function ask(path) {
  const reply = await fetch(path, { signal: AbortSignal.timeout(EVERY_MS * 2) });
  if (!reply.ok) throw new Error(`${path} answered ${reply.status}`);
  return reply.json();
}

async function update() {
  try {
    const [status, history] = await Promise.all([ask("status"), ask("history")]);
    drawHistory(history);
    draw(status);
    heardAt = Date.now();
  } catch (error) {
    byId("updated").textContent = `the indexer does not answer (${error.message})`;
    const state = byId("state");
    if (state.textContent !== "UNKNOWN") state.textContent = "UNKNOWN";
    state.className = "state unsure";
    document.title = "UNKNOWN: Millrace";
  }
  setTimeout(update, EVERY_MS);
}

setInterval(() => {
  if (heardAt && Date.now() - heardAt < EVERY_MS * 3) byId("updated").textContent = `as of ${age(Date.now() - heardAt)}`;
}, 1000);
byId("filter").addEventListener("input", drawSources);
update();
