// The emulator's page: shows the state that /_emulator/events sends, and flips the switches of /_emulator/.
//
// Prompts and paths come from anybody. They are written with textContent, and nothing here makes HTML of a string.

const MOST = 50; // rows of each table
const AGAIN = 1000; // milliseconds until the next attempt, when the emulator is gone
const STAYS = 600; // milliseconds a row must have been there before its pictures are asked for
const POINTS_PER_USD = 10_000_000;
const PICTURES = 4; // shown of one task
const LONGEST = 200; // characters shown of a path or a sentence
const FIRST = ["chaos", "progress", "polls", "queue_delay", "durations", "plan", "concurrency", "webhooks"];
const CHOICES = JSON.parse(byId("choices").textContent);

// --- small helpers

function byId(id) {
  return document.getElementById(id);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function put(element, property, value) {
  if (element[property] !== value) element[property] = value;
}

function clip(text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

function seconds(value) {
  if (value === null) return "–";
  if (value >= 6000) return `${Math.round(value / 60).toLocaleString("en")} min`;
  return `${value.toFixed(value < 100 ? 1 : 0)} s`;
}

function dollars(points, digits) {
  const number = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return `$${(points / POINTS_PER_USD).toLocaleString("en", number)}`;
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function shortId(taskId) {
  return clip(taskId.split("-")[0]);
}

// Keeps one row per item, in the items' order, and touches no row that need not move.
class Rows {
  constructor(body, { key, Row }) {
    Object.assign(this, { body, key, Row, rows: new Map() });
  }

  show(items, now) {
    const keys = this.#keys(items);
    this.#drop(new Set(keys));
    let place = this.body.firstElementChild;
    items.forEach((item, index) => {
      const row = this.#row(keys[index], item);
      row.show(item, now);
      if (row.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(row.element, place);
    });
  }

  // Items that are alike in everything are told apart by their number.
  #keys(items) {
    const seen = new Map();
    return items.map((item) => {
      const key = this.key(item);
      seen.set(key, (seen.get(key) ?? 0) + 1);
      return `${key} ${seen.get(key)}`;
    });
  }

  #row(key, item) {
    if (!this.rows.has(key)) this.rows.set(key, new this.Row(item));
    return this.rows.get(key);
  }

  #drop(wanted) {
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
  }
}

// --- tasks

class TaskRow {
  constructor(task) {
    this.input = make("div", { className: "picture" });
    this.outputs = make("div", { className: "picture" });
    // bdi: whatever direction a prompt has, or overrides, ends with it.
    this.prompt = make("bdi", { className: "prompt", textContent: task.prompt, title: task.prompt });
    this.reason = make("bdi", { className: "reason" });
    this.status = make("span", { className: "status" });
    this.queued = make("td", { className: "number" });
    this.worked = make("td", { className: "number" });
    this.polls = make("td", { className: "number" });
    this.cost = make("td", { className: "number" });
    this.buttons = new TaskButtons(task.task_id);
    this.element = make("tr", {}, ...this.#cells(task));
    this.element.dataset.task = task.task_id;
    this.since = connectedAt; // an emulator that was started again has the same ids, and other pictures
    this.#showInput(task);
  }

  show(task, now) {
    put(this.element, "className", task.status);
    write(this.status, task.status);
    write(this.reason, clip(task.reason ?? ""));
    put(this.reason, "title", clip(task.reason ?? ""));
    write(this.queued, seconds((task.started_at ?? task.ended_at ?? now) - task.created_at));
    write(this.worked, seconds(task.started_at === null ? null : (task.ended_at ?? now) - task.started_at));
    write(this.polls, String(task.polls));
    write(this.cost, task.cost ? dollars(task.cost, 4) : "–");
    this.buttons.show(task.status);
    this.#showOutputs(task.pictures);
  }

  #cells(task) {
    const { input, outputs, prompt, reason } = this;
    const kind = `${shortId(task.task_id)} · ${task.task_type} · ${task.model.replace("Qubico/", "")}`;
    const title = `${task.task_id}, ${task.task_type}, ${task.model}`;
    const arrow = make("span", { className: "arrow", textContent: "→", ariaHidden: "true" });
    this.#label();
    return [
      make("td", { className: "pictures" }, make("div", {}, input, arrow, outputs)),
      make("td", { className: "what" }, prompt, make("span", { className: "kind", textContent: kind, title }), reason),
      make("td", { className: "how" }, this.status, this.buttons.element),
      this.queued,
      this.worked,
      this.polls,
      this.cost,
    ];
  }

  // On a narrow screen the table has no head, and each number says what it is.
  #label() {
    for (const name of ["queued", "worked", "polls", "cost"]) this[name].dataset.label = name;
  }

  #showInput(task) {
    if (task.task_type.startsWith("txt2img")) this.input.classList.add("none");
    else this.input.append(thumbnail(`/_emulator/input/${task.task_id}`, { since: this.since, alt: "input" }));
  }

  #showOutputs(paths) {
    const shown = paths.slice(0, PICTURES);
    if (this.outputs.childElementCount === shown.length) return;
    this.outputs.classList.toggle("two", shown.length === 2);
    this.outputs.classList.toggle("many", shown.length > 2);
    this.outputs.replaceChildren(
      ...shown.map((path, index) => thumbnail(path, { since: this.since, alt: `picture ${index + 1}` })),
    );
  }
}

// Pictures are painted when they are asked for, by the process that is being watched. So as not to slow it down: only
// those in sight, only of rows that stay for a moment, and one after another.
class Loader {
  constructor() {
    Object.assign(this, { urls: new WeakMap(), waiting: new Set(), busy: false });
    this.sight = new IntersectionObserver((entries) => this.#onSight(entries));
  }

  add(image, url) {
    this.urls.set(image, url);
    setTimeout(() => image.isConnected && this.sight.observe(image), STAYS);
  }

  #onSight(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.waiting.add(target);
      else this.waiting.delete(target);
    }
    this.#next();
  }

  #next() {
    if (this.busy || this.waiting.size === 0) return;
    const [image] = this.waiting;
    this.waiting.delete(image);
    this.sight.unobserve(image);
    this.busy = true;
    image.addEventListener("load", () => this.#done());
    image.addEventListener("error", () => this.#done());
    image.src = this.urls.get(image);
  }

  #done() {
    this.busy = false;
    this.#next();
  }
}

const loader = new Loader();

function thumbnail(path, { since, alt }) {
  const url = `${path}?since=${since}`;
  const image = make("img", { decoding: "async", width: 48, height: 48, alt });
  const link = make("a", { href: url, target: "_blank", rel: "noopener", title: `${alt}, in a new tab` }, image);
  image.addEventListener("error", () => link.classList.add("missing"));
  loader.add(image, url);
  return link;
}

class TaskButtons {
  constructor(taskId) {
    this.taskId = taskId;
    this.start = this.#button("Start", "start");
    this.finish = this.#button("Finish", "finish");
    this.fail = this.#button("Fail", "fail");
    this.element = make("span", { className: "actions" }, this.start, this.finish, this.fail);
  }

  show(status) {
    put(this.element, "hidden", status !== "pending" && status !== "processing");
    put(this.start, "hidden", status !== "pending");
  }

  #button(text, action) {
    const button = make("button", { type: "button", textContent: text, ariaLabel: `${text} task ${shortId(this.taskId)}` });
    button.addEventListener("click", () => ask("POST", `tasks/${this.taskId}`, { action }));
    return button;
  }
}

// --- requests

const OUTCOMES = {
  answered: "answered",
  refused: "refused",
  lost: "done, answer lost",
  "not-done": "not done",
};

class RequestRow {
  constructor(request) {
    const { endpoint, method, path, status } = request;
    const name = endpoint === "unknown" ? `${method} ${clip(path)}` : endpoint;
    this.element = make(
      "tr",
      { className: rowClass(request), title: `${method} ${clip(path)}` },
      make("td", { className: "number", textContent: request.time.toFixed(2) }),
      make("td", { className: "endpoint" }, make("bdi", { textContent: name })),
      make("td", { className: "task", textContent: request.task_id === null ? "" : shortId(request.task_id) }),
      make("td", { className: "code", textContent: status === null ? "none" : String(status) }),
      make("td", { className: "outcome" }, ...fate(request)),
    );
  }

  show() {} // what is written down does not change
}

function rowClass({ fault, outcome }) {
  if (fault !== null) return "faulty";
  return outcome === "refused" ? "refused" : "";
}

function fate({ fault, outcome, refusal }) {
  const parts = fault === null ? [] : [make("span", { className: "fault", textContent: fault }), " "];
  const words = refusal === null ? OUTCOMES[outcome] : clip(refusal);
  return [...parts, make("bdi", { textContent: words })];
}

// --- sums

const SUMS = {
  credits: (state) => dollars(state.credits, 2),
  spent: (state) => dollars(state.charged, 4),
  pending: (state) => state.counts.pending.toLocaleString("en"),
  processing: (state) => state.counts.processing.toLocaleString("en"),
  completed: (state) => state.counts.completed.toLocaleString("en"),
  failed: (state) => state.counts.failed.toLocaleString("en"),
  canceled: (state) => state.counts.canceled.toLocaleString("en"),
};

const sums = Object.keys(SUMS).map((name) => {
  const value = make("dd", { textContent: "–" });
  byId("sums").append(make("div", { className: name }, make("dt", { textContent: name }), value));
  return [value, SUMS[name]];
});

function showSums(state) {
  for (const [element, sum] of sums) write(element, sum(state));
}

function showHeld(state) {
  const tasks = Object.values(state.counts).reduce((a, b) => a + b, 0);
  const requests = Object.values(state.asked).reduce((a, b) => a + b, 0);
  write(byId("tasks-held"), newest(state.tasks.length, tasks));
  write(byId("requests-held"), newest(state.requests.length, requests));
  put(byId("no-tasks"), "hidden", tasks > 0);
  put(byId("no-requests"), "hidden", state.requests.length > 0);
  write(byId("example"), `Session("${state.options.api_key}", base_url="${location.origin}")`);
}

function newest(shown, all) {
  return shown < all ? `the newest ${shown} of ${all.toLocaleString("en")}` : all.toLocaleString("en");
}

// --- options

// One control per kind; `read` gives what is sent, `text` what is shown.
const KINDS = {
  choice: {
    build: ({ words }) => make("select", {}, ...words.map((word) => new Option(word))),
    read: (control) => control.value,
  },
  chance: {
    build: () => make("input", { type: "range", min: "0", max: "1", step: "0.01" }),
    read: (control) => control.valueAsNumber,
  },
  number: {
    build: ({ whole, optional }) =>
      make("input", { type: "number", min: "0", step: whole ? "1" : "any", placeholder: optional ? "not set" : "" }),
    read: (control) => (control.value === "" ? null : control.valueAsNumber),
  },
  seconds: {
    build: () => make("input", { type: "text", placeholder: "3, or 1 to 4", autocomplete: "off" }),
    read: (control) => readSeconds(control.value),
  },
  text: {
    build: () => make("input", { type: "text", autocomplete: "off", spellcheck: false }),
    read: (control) => control.value,
  },
};

function readSeconds(text) {
  const numbers = text.split(/to|[-–,]/).map((part) => (part.trim() === "" ? NaN : Number(part)));
  if (numbers.some(Number.isNaN)) return text;
  return numbers.length === 1 ? numbers[0] : numbers;
}

// As Python writes durations, and as people read them.
function readable(value) {
  if (value === null) return "";
  if (typeof value === "object") return Object.keys(value).length ? "by model" : "";
  return String(value)
    .replace(/^Constant\(seconds=(.*)\)$/, "$1")
    .replace(/^Uniform\(low=(.*), high=(.*)\)$/, "$1 to $2")
    .replace(/^LogNormal\(median=(.*), sigma=(.*)\)$/, "about $1");
}

function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
}

class Switch {
  constructor(option) {
    Object.assign(this, { option, kind: KINDS[option.kind], seen: undefined });
    this.control = this.kind.build(option);
    this.control.id = `option-${option.name}`;
    this.control.setAttribute("aria-describedby", `about-${option.name}`);
    this.value = make("output", { htmlFor: this.control.id });
    this.error = make("p", { className: "error", role: "alert", hidden: true });
    this.element = this.#element();
    this.control.addEventListener("change", () => this.#send());
    this.control.addEventListener("input", () => this.#showChance());
    this.control.addEventListener("blur", () => this.#refill());
  }

  // Not while somebody is at it.
  show(value) {
    const news = JSON.stringify(value);
    if (news === this.seen) return;
    Object.assign(this, { seen: news, given: value });
    if (document.activeElement !== this.control || this.option.kind === "choice") this.#refill();
    this.element.classList.toggle("changed", news !== JSON.stringify(this.option.usual));
  }

  get changed() {
    return this.element.classList.contains("changed");
  }

  find(words) {
    put(this.element, "hidden", !`${this.option.name} ${this.option.about}`.toLowerCase().includes(words));
  }

  #element() {
    const { name, about, kind } = this.option;
    const label = make("label", { htmlFor: this.control.id, textContent: name.replaceAll("_", " ") });
    const help = make("p", { id: `about-${name}`, className: "about" }, ...withCode(about));
    return make("div", { className: `option by-${kind}` }, label, this.value, this.control, this.error, help);
  }

  #refill() {
    if (this.given === undefined) return;
    this.#restore(readable(this.given));
    this.#showChance();
  }

  #restore(text) {
    const { control, option } = this;
    if (option.kind === "choice" && !option.words.includes(text)) {
      if (control.options.length === option.words.length) control.add(new Option("other words", text));
      control.options[option.words.length].value = text;
    }
    control.value = text;
  }

  #showChance() {
    if (this.option.kind === "chance") write(this.value, `${Math.round(this.control.valueAsNumber * 100)} %`);
  }

  async #send() {
    const answer = await send("POST", "options", { [this.option.name]: this.kind.read(this.control) });
    this.error.hidden = answer.error === undefined;
    write(this.error, answer.error ?? "");
    if (answer.options) showOptions(answer.options);
  }
}

const switches = CHOICES.options.map((option) => new Switch(option));

function placeSwitches() {
  const byName = new Map(switches.map((one) => [one.option.name, one]));
  byId("first-options").append(...FIRST.map((name) => byName.get(name).element));
  const others = switches.filter((one) => !FIRST.includes(one.option.name));
  byId("other-options").append(...others.map((one) => one.element));
  byId("find").addEventListener("input", (event) => {
    for (const one of others) one.find(event.target.value.trim().toLowerCase());
  });
}

function showOptions(options) {
  for (const one of switches) one.show(options[one.option.name]);
  const changed = switches.filter((one) => one.changed).length;
  write(byId("switches-changed"), changed ? `${changed} not as usual` : "all as usual");
}

// --- faults

function fillFaults() {
  const endpoint = byId("fault-endpoint");
  endpoint.replaceChildren(...Object.keys(CHOICES.faults).map((name) => new Option(name)));
  endpoint.addEventListener("change", fillFaultNames);
  byId("fault-when").addEventListener("change", fillAmount);
  byId("fault").addEventListener("submit", addFault);
  byId("fault-clear").addEventListener("click", clearFaults);
  fillFaultNames();
}

function fillFaultNames() {
  const [select, before] = [byId("fault-name"), byId("fault-name").value];
  const names = CHOICES.faults[byId("fault-endpoint").value];
  select.replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(before)) select.value = before;
}

function fillAmount() {
  const chance = byId("fault-when").value === "probability";
  write(byId("fault-amount-label"), chance ? "Per cent" : "How many");
  byId("fault-amount").value = chance ? "20" : "1";
}

async function addFault(event) {
  event.preventDefault();
  const amount = byId("fault-amount").valueAsNumber;
  const when = byId("fault-when").value;
  const body = { endpoint: byId("fault-endpoint").value, name: byId("fault-name").value };
  const answer = await ask("POST", "faults", { ...body, [when]: when === "times" ? amount : amount / 100 });
  if (answer.faults) showPlanned(answer.faults);
}

async function clearFaults() {
  const answer = await ask("DELETE", "faults");
  if (answer.faults) showPlanned(answer.faults);
}

let plannedBefore = "";

function showPlanned(faults) {
  const groups = new Map();
  for (const fault of faults) {
    const name = `${fault.endpoint} ${fault.name}`;
    const words = fault.probability === null ? name : `${name}, ${Math.round(fault.probability * 100)} % of them`;
    groups.set(words, (groups.get(words) ?? 0) + 1);
  }
  const texts = [...groups].slice(0, MOST).map(([words, times]) => (times > 1 ? `${words} × ${times}` : words));
  if (texts.join("\n") === plannedBefore) return;
  plannedBefore = texts.join("\n");
  byId("planned").replaceChildren(...texts.map((textContent) => make("li", { textContent })));
}

// --- the emulator

async function send(method, path, body) {
  try {
    const json = { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    return await (await fetch(`/_emulator/${path}`, json)).json();
  } catch {
    return { error: "The emulator does not answer; nothing was changed." };
  }
}

async function ask(method, path, body) {
  const answer = await send(method, path, body);
  notice(answer.error ?? "");
  return answer;
}

function notice(text) {
  put(byId("notice"), "hidden", text === "");
  write(byId("notice"), text);
}

const taskRows = new Rows(byId("task-rows"), {
  key: (task) => [task.task_id, task.created_at, task.model, task.prompt].join(" "),
  Row: TaskRow,
});
const requestRows = new Rows(byId("request-rows"), {
  key: (request) => [request.time, request.method, request.path, request.status, request.fingerprint].join(" "),
  Row: RequestRow,
});

function show(state) {
  taskRows.show(state.tasks, state.now);
  requestRows.show(state.requests, state.now);
  showSums(state);
  showHeld(state);
  showOptions(state.options);
  showPlanned(state.faults);
}

function showLink(className, text) {
  put(byId("link"), "className", `link ${className}`);
  write(byId("link"), text);
  document.body.classList.toggle("away", className === "away");
}

let stream = null;
let timer = 0;
let connectedAt = 0;

function connect() {
  disconnect();
  connectedAt = Date.now();
  stream = new EventSource(`/_emulator/events?most=${MOST}`);
  stream.addEventListener("message", (event) => {
    showLink("live", "live");
    show(JSON.parse(event.data));
  });
  stream.addEventListener("error", () => {
    disconnect();
    showLink("away", "disconnected, trying again");
    timer = setTimeout(connect, AGAIN);
  });
}

function disconnect() {
  clearTimeout(timer);
  stream?.close();
}

// A browser keeps few connections to one host; a page that nobody sees needs none.
function onVisibility() {
  if (document.hidden) disconnect();
  else connect();
}

placeSwitches();
fillFaults();
document.addEventListener("visibilitychange", onVisibility);
onVisibility();
