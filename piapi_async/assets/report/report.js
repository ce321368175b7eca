// The report's page: shows those of its rows that are in sight, filtered and in order.
//
// Prompts and reasons come from anybody. They are written as text, and nothing here makes HTML of a string.
"use strict";
{
  const SPARE = 6; // rows beyond each edge of what is in sight
  const MOST = 4; // pictures of a row in the list
  const PRINTED = 500; // rows
  const STATES = new Set(["completed", "failed", "canceled", "in_doubt", "refused", "in_flight", "submitting", "not_sent"]);
  const ORDERS = { slowest: ["seconds", -1], fastest: ["seconds", 1], dearest: ["usd", -1], cheapest: ["usd", 1] };

  const byId = (id) => document.getElementById(id);
  const items = JSON.parse(byId("data").textContent);
  const list = byId("rows");
  const dialog = byId("open");
  const chips = [...document.querySelectorAll(".chip")];

  // --- one row, in the shape that those in the file have

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function makeRow(item) {
    const arrow = make("span", { class: "arrow", "aria-hidden": "true" }, "→");
    const pair = [makePictures(item.inputs, "input"), arrow, makePictures(item.outputs, "output")];
    const settings = [item.model, item.type, ...item.settings].filter((one) => one !== "");
    const text = [
      make("p", { class: "prompt", dir: "auto" }, item.prompt),
      make("p", { class: "settings" }, ...settings.map((one) => make("span", { dir: "auto" }, one))),
      make("p", { class: "reason", dir: "auto" }, item.reason),
    ];
    const state = STATES.has(item.state) ? `state ${item.state}` : "state";
    const facts = [
      make("span", { class: state }, item.state.replaceAll("_", " ")),
      make("span", { class: "time" }, item.time),
      make("span", { class: "cost" }, item.cost),
      make("button", { class: "key", type: "button", dir: "auto", "aria-haspopup": "dialog" }, item.key),
      make("span", { class: "id" }, item.id),
    ];
    const parts = Object.entries({ pair, text, facts });
    return make("li", { class: "row" }, ...parts.map(([name, part]) => make("div", { class: name }, ...part)));
  }

  function makePictures(pictures, kind) {
    if (pictures.length === 0) return make("div", { class: "pictures none" }, `no ${kind}`);
    const all = pictures.map((one, index) => makePicture(one, `${kind} ${index + 1} of ${pictures.length}`));
    if (all.length > MOST) all.push(make("span", { class: "more" }, `+${all.length - MOST}`));
    return make("div", { class: `pictures n${Math.min(pictures.length, MOST)}` }, ...all);
  }

  function makePicture({ name, href, small, words }, label) {
    const named = `${label}: ${name}`;
    const looks = { class: small === null ? "picture" : `picture p${small}`, title: named };
    const link = { ...looks, "aria-label": named, href, target: "_blank", rel: "noopener noreferrer" };
    const still = { ...looks, role: "img", "aria-label": named };
    const element = href === null ? make("span", still, words) : make("a", link, words);
    fill(element, small);
    return element;
  }

  // The small pictures of the first rows are in a style sheet; the others wait at the end of the file as text.
  function fill(element, small) {
    if (small === null || document.readyState === "loading") return;
    const text = byId(`p${small}`);
    if (text !== null) element.style.backgroundImage = `url("${text.textContent}")`;
  }

  // --- which rows, and in what order

  let shown = items.map((_item, index) => index);
  let texts = null; // what is searched, made when somebody first does

  function choose() {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter((word) => word !== "");
    if (words.length > 0) texts ??= items.map(searched);
    const wanted = pressed();
    const matches = (index) =>
      wanted.every(([field, values]) => values.has(items[index][field])) &&
      words.every((word) => texts[index].includes(word));
    shown = inOrder([...items.keys()].filter(matches));
    byId("count").textContent = `${number(shown.length)} of ${number(items.length)}`;
    byId("empty").hidden = shown.length > 0;
    const beyond = list.getBoundingClientRect().top - byId("bar").offsetHeight;
    if (beyond < 0) scrollBy(0, beyond); // to the first of them, before any is made
    range = [];
    render();
  }

  function searched({ key, prompt, id, reason }) {
    return [key, prompt, id, reason].join("\n").toLowerCase();
  }

  function number(value) {
    return value.toLocaleString("en");
  }

  function pressed() {
    const groups = new Map();
    for (const { ariaPressed, dataset } of chips) {
      if (ariaPressed !== "true") continue;
      if (!groups.has(dataset.field)) groups.set(dataset.field, new Set());
      groups.get(dataset.field).add(dataset.value);
    }
    return [...groups];
  }

  // What is not known comes last, either way.
  function inOrder(indexes) {
    const order = ORDERS[byId("sort").value];
    if (order === undefined) return indexes;
    const [field, sign] = order;
    const place = (index) => (items[index][field] === null ? Infinity : sign * items[index][field]);
    return indexes.sort((one, other) => (place(one) === place(other) ? one - other : place(one) - place(other)));
  }

  function clear() {
    byId("find").value = "";
    for (const chip of chips) chip.ariaPressed = "false";
    choose();
    byId("find").focus();
  }

  // --- the rows in sight

  const rows = new Map([...list.children].map((element, index) => [index, element]));
  let range = []; // from, to, and how high a row was

  function render() {
    const height = parseFloat(getComputedStyle(list).getPropertyValue("--row"));
    const top = list.getBoundingClientRect().top;
    const within = (value) => Math.max(0, Math.min(shown.length, value));
    const from = within(Math.floor(-top / height) - SPARE);
    put(from, within(Math.ceil((innerHeight - top) / height) + SPARE), height);
  }

  function put(from, to, height) {
    if (range[0] === from && range[1] === to && range[2] === height) return;
    range = [from, to, height];
    list.style.paddingTop = `${from * height}px`;
    list.style.paddingBottom = `${(shown.length - to) * height}px`;
    list.hidden = shown.length === 0;
    place(shown.slice(from, to), from);
  }

  // Touches no row that can stay: it may have the focus, or be selected.
  function place(wanted, from) {
    const staying = new Set(wanted);
    for (const [index, element] of rows) {
      if (staying.has(index)) continue;
      element.remove();
      rows.delete(index);
    }
    let next = list.firstElementChild;
    wanted.forEach((index, offset) => {
      if (!rows.has(index)) rows.set(index, makeRow(items[index]));
      const element = rows.get(index);
      element.ariaPosInSet = from + offset + 1;
      element.ariaSetSize = shown.length;
      if (element === next) next = next.nextElementSibling;
      else list.insertBefore(element, next);
    });
  }

  let asked = false;

  function renderSoon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      render();
    });
  }

  // --- one row, whole

  let position = 0; // in what is shown

  function open(at) {
    position = at;
    const item = items[shown[at]];
    byId("open-key").textContent = item.key;
    byId("open-row").replaceChildren(...makeRow(item).children);
    byId("earlier").disabled = at === 0;
    byId("later").disabled = at === shown.length - 1;
    dialog.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
  }

  function turn(by) {
    if (shown[position + by] !== undefined) open(position + by);
  }

  function onRow(event) {
    const [row, key, link] = [".row", ".key", "a"].map((part) => event.target.closest(part));
    const selecting = key === null && !getSelection().isCollapsed;
    if (row !== null && link === null && !selecting) open(row.ariaPosInSet - 1);
  }

  // --- on paper

  function beforePrint() {
    const most = Math.min(PRINTED, shown.length);
    put(0, most, 0);
    byId("printed").hidden = most === shown.length;
    byId("printed").textContent = `The first ${number(most)} of ${number(shown.length)} rows.`;
  }

  function afterPrint() {
    byId("printed").hidden = true;
    render();
  }

  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.ariaPressed = String(chip.ariaPressed !== "true");
      choose();
    });
  }
  byId("find").addEventListener("input", choose);
  byId("sort").addEventListener("change", choose);
  byId("clear").addEventListener("click", clear);
  byId("earlier").addEventListener("click", () => turn(-1));
  byId("later").addEventListener("click", () => turn(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", ({ key }) => turn({ ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0));
  list.addEventListener("click", onRow);
  addEventListener("scroll", renderSoon, { passive: true });
  addEventListener("resize", renderSoon);
  addEventListener("beforeprint", beforePrint);
  addEventListener("afterprint", afterPrint);
  document.addEventListener("DOMContentLoaded", () => {
    for (const [index, element] of rows) refill(items[index], element);
  });

  // What was shown before the end of the file was there.
  function refill({ inputs, outputs }, row) {
    const pictures = [...inputs, ...outputs];
    row.querySelectorAll(".picture").forEach((element, index) => fill(element, pictures[index].small));
  }

  render();
}
