"use strict";
// Everything of the data reaches the page as text nodes; nothing is ever parsed as HTML.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const VIRIDIS = ["440154", "46327e", "365c8d", "277f8e", "1fa187", "4ac16d", "a0da39", "fde725"];
const MAPS = ["a", "b", "difference"];
const SVG = new Set(["svg", "path", "line", "circle", "text"]);
const state = { source: 0, metric: 0, a: 0, b: 1, cell: null };
const active = { a: [0, 0], b: [0, 0], difference: [0, 0] };
const cells = new Map(); // runs by source, method, corruption and rate

for (const run of data.runs) for (const rate of run.rates ?? []) {
  const key = [run.source, run.method, run.corruption, rate].join();
  cells.set(key, [...(cells.get(key) ?? []), run]);
}

function el(tag, options = {}, ...children) {
  const out = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key.startsWith("on")) out.addEventListener(key.slice(2), value);
    else if (key === "background") out.style.background = value;
    else if (value !== null) out.setAttribute(key, value);
  }
  out.append(...children.filter((child) => child !== null));
  return out;
}
const th = (text, scope = "row") => el("th", { scope }, text);
const td = (text, kind = "") => el("td", { class: kind }, text);

// Numbers

const runsIn = (method, c, r) => cells.get([state.source, method, c, r].join()) ?? [];
const runsOf = (method) => data.corruptions.flatMap((_, c) =>
  data.rates.flatMap((_, r) => runsIn(method, c, r)));
const collapsed = (run) => run.status === "collapsed";
const failed = (run) => run.status === "failed"
  || Object.keys(run.notes ?? {}).some((key) => key.startsWith("failed/"));

const MEMORIZED = data.metrics.findIndex((metric) => metric.key === "memorized");
const nothing = (run) => MEMORIZED >= 0 && run.values[MEMORIZED] !== null
  && run.values[MEMORIZED] < data.least;
// Means of healing leave out cells with nothing to unlearn.
const meanOf = (runs, m) => stats(data.metrics[m].healing ? runs.filter((run) => !nothing(run)) : runs, m);

// A collapsed model counts as 0 where the tables do so too; a failed run has no value.
function valueOf(run, m) {
  const value = run.values[m] ?? null;
  return value === null && collapsed(run) && data.metrics[m].counted ? 0 : value;
}

function stats(runs, m) {
  const values = runs.map((run) => valueOf(run, m)).filter((v) => v !== null), n = values.length;
  const mean = n ? values.reduce((sum, v) => sum + v, 0) / n : null;
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  const error = n > 1 ? Math.sqrt(squares / (n - 1) / n) : null;
  return { mean, error };
}

function number(value, m, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value), { fraction, whole } = data.metrics[m];
  const [unit, by] = size >= 1e9 ? ["G", 1e9] : size >= 1e6 ? ["M", 1e6]
    : size >= 1e4 ? ["k", 1e3] : ["", 1];
  const text = fraction ? value.toFixed(digits)
    : whole && Number.isInteger(value) && size < 1e4 ? String(value)
      : size < 0.1 ? String(Number(value.toPrecision(2)))
        : (value / by).toFixed(size / by >= 100 ? 0 : size / by >= 10 ? 1 : 2) + unit;
  return text.replace("-", "−");
}

const withError = ({ mean, error }, m) => number(mean, m)
  + (error === null ? "" : ` ± ${number(error, m)}`);
function signed(value, m, digits) {
  const text = number(value, m, digits);
  return /[1-9]/.test(text) ? (value > 0 ? "+" : "") + text : text.replace("−", "");
}
const words = (name) => name.replaceAll("_", " ");
const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

// Colours

function viridis(t) {
  const at = Math.min(Math.max(t, 0), 1) * 7, i = Math.min(Math.floor(at), 6);
  const part = (hex, k) => parseInt(hex.slice(2 * k, 2 * k + 2), 16);
  const mixed = (k) => part(VIRIDIS[i], k) * (1 + i - at) + part(VIRIDIS[i + 1], k) * (at - i);
  return `rgb(${[0, 1, 2].map((k) => Math.round(mixed(k)))})`;
}

// One scale for all methods of the chosen data, so that maps can be compared as methods change.
function scale(m) {
  if (data.metrics[m].fraction) return { low: 0, high: 1, at: (v) => v };
  const known = data.runs.filter((run) => run.source === state.source)
    .map((run) => valueOf(run, m)).filter((v) => v !== null);
  const low = Math.min(...known), high = Math.max(...known), log = low > 0 && high / low > 50;
  const at = log ? (v) => Math.log(v / low) / Math.log(high / low)
    : (v) => (v - low) / (high - low || 1);
  return { low, high, at, log };
}

function difference(c, r) {
  const [a, b] = [state.a, state.b].map((method) => stats(runsIn(method, c, r), state.metric).mean);
  return a === null || b === null ? null : a - b;
}

// The largest difference, rounded up, so that both ends of the scale mean the same.
function widest() {
  const all = data.corruptions.flatMap((_, c) => data.rates.map((_, r) => difference(c, r)));
  const most = Math.max(0, ...all.map(Math.abs));
  if (!data.metrics[state.metric].fraction) return most || 1;
  return [0.05, 0.1, 0.2, 0.5].find((v) => most <= v) ?? 1;
}

function paint(cell, which, value, range, span) {
  const t = which === "difference" ? value / span : range.at(value);
  const share = Math.round(Math.min(Math.abs(t), 1) * 100);
  const end = t > 0 ? "var(--more)" : "var(--less)";
  cell.style.background = which !== "difference" ? viridis(t)
    : `color-mix(in oklab, ${end} ${share}%, var(--mid))`;
  cell.style.color = which !== "difference" ? (t > 0.48 ? "#000" : "#fff")
    : share > 78 ? "#fff" : "var(--ink)";
}

// Maps

const methodsOf = (which) => which === "difference" ? [state.a, state.b] : [state[which]];
const nameOf = (which) => methodsOf(which).map((m) => data.methods[m]).join(" − ");
const place = (c, r) => `${words(data.corruptions[c])}, discovery rate ${data.rates[r]}`;

function drawCell(which, c, r, range, span) {
  const m = state.metric, { fraction, title } = data.metrics[m];
  const runs = methodsOf(which).flatMap((method) => runsIn(method, c, r));
  const own = stats(runs, m), value = which === "difference" ? difference(c, r) : own.mean;
  const write = which === "difference" && value !== null ? signed : number;
  const marks = [["▼", "collapsed", collapsed], ["✕", "failed", failed],
    ["∅", "with nothing to unlearn", nothing]]
    .map(([sign, word, test]) => [sign, word, runs.filter(test).length]).filter(([, , n]) => n);
  const said = !runs.length ? "no runs" : [
    value === null ? "no value" : which === "difference" ? signed(value, m) : withError(own, m),
    count(runs.length, "run"), ...marks.map(([, word, n]) => `${n} ${word}`)].join(", ");
  const label = `${nameOf(which)}, ${place(c, r)}: ${title} ${said}`;
  const cell = el("td", {
    role: "gridcell", tabindex: active[which].join() === [c, r].join() ? 0 : -1,
    title: label, "aria-label": label, "data-corruption": c, "data-rate": r,
    class: !runs.length ? "missing" : value === null ? "blank" : "known",
    onclick: () => openCell(which, c, r), onfocus: () => move(which, c, r),
  }, write(value, m, fraction ? 2 : 3), marks.length ? el("small", {}, marks.map(([sign, , n]) =>
    n === runs.length ? sign : `${sign}${n}`).join(" ")) : null);
  if (value !== null) paint(cell, which, value, range, span);
  return cell;
}

function drawMap(which, range, span) {
  const m = state.metric, row = (...children) => el("tr", { role: "row" }, ...children);
  const head = (text, role) => el("th", { role }, ...[text].flat());
  const grid = el("table", {
    class: data.rates.length > 6 ? "map many" : "map", role: "grid", "data-map": which,
    "aria-label": `${nameOf(which)}: ${data.metrics[m].title}`, onkeydown: keys,
  }, el("thead", {}, row(head(el("small", {}, "discovery rate →"), "columnheader"),
    ...data.rates.map((rate) => head(String(rate), "columnheader")))),
  el("tbody", {}, ...data.corruptions.map((name, c) => row(
    head([words(name), ...(data.regularity[name]
      ? [el("small", {}, `${data.regularity[name]} regularity`)] : [])], "rowheader"),
    ...data.rates.map((_, r) => drawCell(which, c, r, range, span))))));
  return el("article", { class: "card" },
    el("header", {},
      el("h2", {}, el("span", {}, which === "difference" ? "A − B" : which.toUpperCase()),
        ` ${nameOf(which)}`),
      which === "difference" ? null
        : el("p", { class: "note" }, `mean ${withError(meanOf(runsOf(state[which]), m), m)}`)),
    el("div", { class: "scroll" }, grid));
}

function drawLegend(range, span) {
  const m = state.metric, { title, best, counted } = data.metrics[m];
  const better = { max: ", higher is better", min: ", lower is better" }[best] ?? "";
  const ramp = (...stops) => el("i", {
    class: "ramp", background: `linear-gradient(to right, ${stops})` });
  const hint = (shown, ...parts) => shown ? el("span", {}, ...parts) : null;
  $("legend").replaceChildren(...[
    hint(true, `${title}${range.log ? " (log scale)" : ""}${better}: ${number(range.low, m, 2)}`,
      ramp(...VIRIDIS.map((hex) => `#${hex}`)), number(range.high, m, 2)),
    hint(true, `B higher ${signed(-span, m, 2)}`,
      ramp("var(--less)", "var(--mid)", "var(--more)"), `${signed(span, m, 2)} A higher`),
    hint(true, el("i", { class: "key missing" }), "no runs"), hint(true, "– no value"),
    hint(data.runs.some(collapsed), counted ? "▼ collapsed, counted as 0" : "▼ collapsed"),
    hint(data.runs.some(failed), "✕ failed, excluded"),
    hint(data.runs.some(nothing), `∅ nothing to unlearn: memorized below ${data.least}, not in means of healing`),
  ].filter(Boolean));
}

function drawMaps() {
  const range = scale(state.metric), span = widest();
  $("maps").style.setProperty("--wide", `${Math.max(21, 8.5 + data.rates.length * 2.8)}rem`);
  $("maps").replaceChildren(...MAPS.map((which) => drawMap(which, range, span)));
  drawLegend(range, span);
}

const find = (which, c, r) => document.querySelector(
  `[data-map=${which}] [data-corruption="${c}"][data-rate="${r}"]`);

function move(which, c, r) {
  find(which, ...active[which]).tabIndex = -1;
  active[which] = [c, r];
  find(which, c, r).tabIndex = 0;
}

function keys(event) {
  const which = event.currentTarget.dataset.map, [c, r] = active[which];
  const end = [data.corruptions.length - 1, data.rates.length - 1];
  const to = {
    ArrowUp: [Math.max(c - 1, 0), r], ArrowDown: [Math.min(c + 1, end[0]), r],
    ArrowLeft: [c, Math.max(r - 1, 0)], ArrowRight: [c, Math.min(r + 1, end[1])],
    Home: [c, 0], End: [c, end[1]],
  }[event.key];
  if (to) find(which, ...to).focus();
  else if (event.key === "Enter" || event.key === " ") openCell(which, c, r);
  else return;
  event.preventDefault();
}
