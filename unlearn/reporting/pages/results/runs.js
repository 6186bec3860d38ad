// The runs of one cell: values, curves, commands, what their configs change

const DASHES = ["", "6 4", "1.5 4", "9 3 2 3"];
const COLOURS = { base: "var(--base)", model: "var(--base)", full: "var(--full)" };
const LINKS = { m: ["checkpoint", "model.pt"], c: ["config", ".hydra/config.yaml"],
  l: ["curves", "curves/metrics.csv"] };
const colour = (view) => COLOURS[view] ?? "var(--accent)";
const dash = (i) => DASHES[i % DASHES.length];
const seedName = (run) => `seed ${run.seed}`;
const scrolled = (...children) => el("div", { class: "scroll", tabindex: 0 },
  el("table", { class: "list" }, ...children));

function openCell(which, c, r) {
  state.cell = { which, c, r };
  move(which, c, r);
  drawRuns();
  link();
  $("runs-title").focus({ preventScroll: true });
  $("runs").scrollIntoView({ block: "start" });
}

function closeCell() {
  const { which, c, r } = state.cell;
  state.cell = null;
  drawRuns();
  link();
  find(which, c, r).focus();
}

function drawRuns() {
  for (const cell of document.querySelectorAll(".map td[aria-selected]"))
    cell.removeAttribute("aria-selected");
  $("runs").hidden = !state.cell;
  if (!state.cell) return $("runs").replaceChildren();
  const { which, c, r } = state.cell;
  find(which, c, r).setAttribute("aria-selected", "true");
  $("runs").replaceChildren(
    el("header", {}, el("h2", { id: "runs-title", tabindex: -1 }, `Runs: ${place(c, r)}`),
      el("button", { type: "button", onclick: closeCell }, "Close")),
    el("div", { class: "pair" },
      ...[...new Set(methodsOf(which))].flatMap((method) => cards(method, c, r))));
}

function cards(method, c, r) {
  const runs = [...runsIn(method, c, r)].sort((one, two) => one.seed - two.seed);
  const title = el("h3", {}, data.methods[method]);
  if (!runs.length) return [el("article", { class: "card" }, title, el("p", {}, "No runs."))];
  const copied = runs.find((run) => run.own !== undefined && run.own !== data.rates[r]);
  return [
    el("article", { class: "card" }, title, copied ? el("p", { class: "note" },
      `Run at discovery rate ${copied.own}; the method does not use the forget set, `
      + "so the result is the same at all rates.") : null, values(runs)),
    el("article", { class: "card" }, ...charts(runs), ...commands(runs), ...differences(runs)),
  ];
}

function values(runs) {
  const known = data.metrics.map((_, m) => m)
    .filter((m) => runs.some((run) => valueOf(run, m) !== null))
    .sort((one, two) => (two === state.metric) - (one === state.metric) || one - two);
  const notes = [...new Set(runs.flatMap((run) => Object.keys(run.notes ?? {})))];
  const line = (name, ...rest) => el("tr", {}, th(name), ...rest);
  const rows = [line("status", ...runs.map((run) =>
    td(run.status, run.status === "ok" ? "" : "bad")), td(""))];
  if (runs.some((run) => run.reason))
    rows.push(line("reason", ...runs.map((run) => td(run.reason ?? "", "text")), td("")));
  for (const m of known) {
    rows.push(line(data.metrics[m].title, ...runs.map((run) => td(number(run.values[m], m))),
      td(withError(stats(runs, m), m))));
    rows.at(-1).className = m === state.metric ? "chosen" : "";
  }
  for (const key of notes) rows.push(line(words(key.replace("/", " / ")), ...runs.map((run) =>
    td(String(run.notes?.[key] ?? "–"), key.startsWith("failed/") ? "text bad" : "")), td("")));
  return scrolled(el("thead", {}, line("", ...runs.map((run) => th(seedName(run), "col")),
    th("mean ± SE", "col"))), el("tbody", {}, ...rows));
}

function differences(runs) {
  const own = runs.map((run) => new Map((run.differs ?? []).map((i) => data.pool[i])));
  const keys = [...new Set(own.flatMap((map) => [...map.keys()]))].sort();
  if (!keys.length) return [];
  const row = (key) => {
    const common = String(data.common[key] ?? "–");
    const found = own.map((map) => map.has(key) ? String(map.get(key) ?? "–") : common);
    const shown = new Set(found).size > 1 ? found.join(" / ") : found[0];
    return el("tr", {}, th(key), td(shown, "text"), td(common, "text soft"));
  };
  const out = el("details", {},
    el("summary", {}, `${count(keys.length, "option")} that differ${keys.length === 1 ? "s" : ""} from the common config`),
    scrolled(el("thead", {}, el("tr", {},
      ...["", "here", "common"].map((name) => th(name, "col")))),
    el("tbody", {}, ...keys.map(row))));
  out.open = keys.length <= 12;
  return [out];
}

function commands(runs) {
  return [el("h3", {}, "Commands and files"), el("ul", { class: "commands" }, ...runs.map((run) => {
    const folder = `${data.folder}${run.id}/`, files = [...run.files ?? ""].map((f) => LINKS[f]);
    return el("li", {}, el("strong", {}, seedName(run)), " ",
      ...[["folder", ""], ...files].map(([name, path]) => el("a", { href: folder + path }, name)),
      el("span", { class: "note" }, run.created?.slice(0, 10) ?? ""),
      run.command ? el("code", {}, run.command)
        : el("p", { class: "note" }, "Command line not recorded."));
  }))];
}

function charts(runs) {
  const drawn = runs.filter((run) => run.curves), title = el("h3", {}, "Learning curves");
  if (!drawn.length) return [title, el("p", { class: "note" }, "None recorded.")];
  const lines = drawn.flatMap((run, i) => Object.entries(run.curves).map(([column, ys]) => {
    const [view, kind] = column.split("/");
    const points = ys.map((y, k) => [data.axes[run.axis][k], y]).filter(([, y]) => y !== null);
    return { view, kind, points, dash: dash(i), label: `${view}, ${seedName(run)}` };
  })).filter((line) => line.points.length);
  const loss = lines.filter((line) => line.view === "train");
  const answers = lines.filter((line) => line.view !== "train");
  const set = answers.some((line) => line.kind.startsWith("hidden")) ? "hidden" : "corrupted";
  const key = (text, stroke, pattern) => el("span", {}, el("svg", { viewBox: "0 0 26 8" },
    el("path", { d: "M1 4H25", stroke, "stroke-dasharray": pattern })), text);
  const views = [...new Set(answers.map((line) => line.view))];
  return [title, el("div", { class: "charts" },
    loss.length ? chart("training loss", loss) : null,
    answers.length ? chart(`${set} samples that still get the corrupted label`, answers, [0, 1])
      : null),
  el("p", { class: "keys" },
    ...views.map((view) => key(view === "model" ? view : `${view} network`, colour(view), "")),
    ...drawn.map((run, i) => key(seedName(run), "var(--soft)", dash(i))))];
}

function chart(title, lines, range) {
  const width = 330, height = 170, all = lines.flatMap((line) => line.points);
  const ys = range ?? all.map(([, y]) => y), last = Math.max(1, ...all.map(([x]) => x));
  const low = Math.min(...ys), high = Math.max(...ys) > low ? Math.max(...ys) : low + 1;
  const x = (v) => 40 + v / last * (width - 50);
  const y = (v) => 8 + (high - v) / (high - low) * (height - 38);
  const tick = (v) => String(Number(v.toPrecision(2))).replace("-", "−");
  const horizontal = (v) => [
    el("line", { class: "grid", x1: 40, x2: width - 10, y1: y(v), y2: y(v) }),
    el("text", { x: 34, y: y(v) + 4, "text-anchor": "end" }, tick(v))];
  const line = ({ view, points, dash, label }) => points.length === 1
    ? el("circle", { cx: x(points[0][0]), cy: y(points[0][1]), r: 3, fill: colour(view) })
    : el("path", { "aria-label": label, stroke: colour(view), "stroke-dasharray": dash,
      d: "M" + points.map(([px, py]) => `${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("L") });
  return el("figure", {}, el("figcaption", {}, title),
    el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} by epoch` },
      ...[low, (low + high) / 2, high].flatMap(horizontal),
      ...[0, last / 2, last].map((v, i) => el("text", { x: x(v), y: height - 12,
        "text-anchor": "middle" }, tick(v) + (i === 1 ? " epochs" : ""))),
      ...lines.map(line)));
}
