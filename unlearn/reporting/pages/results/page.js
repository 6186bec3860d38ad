// The table of all methods, the controls, and the address that remembers them

const HEADLINE = ["healed", "utility", "healed_utility", "recovered", "seconds"];
const sorted = { key: null, down: null }; // null: by the chosen metric, the best first
const index = (key) => data.metrics.findIndex((metric) => metric.key === key);

function columns() {
  const product = index("healed_utility");
  const shown = new Set([state.metric, ...HEADLINE.map(index).filter((m) => m >= 0)]);
  const total = (key, value) => ({ key, title: key, down: true, value,
    text: (row) => String(value(row)) });
  const means = [...shown].map((m) => ({ key: data.metrics[m].key, title: data.metrics[m].title, about: data.metrics[m].about,
    down: data.metrics[m].best !== "min", best: data.metrics[m].fraction && data.metrics[m].best,
    value: ({ runs }) => meanOf(runs, m).mean, text: ({ runs }) => withError(meanOf(runs, m), m) }));
  const worst = ({ method }) => data.corruptions.flatMap((_, c) => data.rates
    .map((_, r) => meanOf(runsIn(method, c, r), product).mean)).filter((v) => v !== null)
    .reduce((least, v) => least === null || v < least ? v : least, null);
  return [
    { key: "method", title: "method", down: false }, ...means,
    ...(product < 0 ? [] : [{ ...total("worst cell", worst), best: "max",
      text: (row) => number(worst(row), product) }]),
    total("cells", ({ runs }) => runs.length),
    ...Object.entries({ collapsed, failed }).filter(([, test]) => data.runs.some(test))
      .map(([key, test]) => total(key, ({ runs }) => runs.filter(test).length)),
  ];
}

function drawSummary() {
  const shown = columns(), by = shown.find((column) => column.key === sorted.key) ?? shown[1];
  const down = sorted.down ?? by.down;
  const rows = data.methods.map((name, method) => ({ name, method, runs: runsOf(method) }))
    .filter((row) => row.runs.length);
  rows.sort((one, two) => {
    const [a, b] = [one, two].map((row) => by.value ? by.value(row) : row.name);
    if (a === null || b === null) return (a === null) - (b === null);
    return (down ? -1 : 1) * (a < b ? -1 : a > b ? 1 : 0);
  });
  const top = ({ best, value }) => best ? Math[best](
    ...rows.filter((row) => !data.oracles.includes(row.name)).map(value)
      .filter((v) => v !== null)) : undefined;
  const tops = new Map(shown.map((column) => [column, top(column)]));
  const choose = (which, { method, name }) => el("button", { type: "button",
    "aria-pressed": String(state[which] === method), "data-choose": `${which}${method}`,
    "aria-label": `${name} as method ${which.toUpperCase()}`,
    onclick: () => change(which, method) }, which.toUpperCase());
  const head = (column) => el("th", { scope: "col", "aria-sort":
    column !== by ? null : down ? "descending" : "ascending" },
  el("button", { type: "button", "data-column": column.key, title: column.about ?? null,
    onclick: () => sort(column.key, column === by ? !down : column.down) }, column.title));
  const cell = (column, row) => td(column.value(row) === tops.get(column)
    && !data.oracles.includes(row.name)
    ? el("b", {}, column.text(row)) : column.text(row));
  $("summary").replaceChildren(el("thead", {}, el("tr", {}, ...shown.map(head))),
    el("tbody", {}, ...rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, choose("a", row), choose("b", row), el("span", {}, row.name)),
      ...shown.slice(1).map((column) => cell(column, row))))));
}

function sort(key, down) {
  Object.assign(sorted, { key, down });
  drawSummary();
  [...$("summary").querySelectorAll("button")].find((one) => one.dataset.column === key).focus();
}

function link() {
  const { cell } = state, query = new URLSearchParams({
    data: data.sources[state.source], metric: data.metrics[state.metric].key,
    a: data.methods[state.a], b: data.methods[state.b] });
  if (cell) for (const [key, value] of Object.entries({ cell: cell.which,
    corruption: data.corruptions[cell.c], rate: data.rates[cell.r] })) query.set(key, value);
  history.replaceState(null, "", `#${query}`);
}

function follow() {
  const query = new URLSearchParams(location.hash.slice(1));
  const found = (key, list) => list.map(String).indexOf(query.get(key));
  const take = (key, at) => { if (at >= 0) state[key] = at; };
  take("source", found("data", data.sources));
  take("metric", index(query.get("metric")));
  for (const key of ["a", "b"]) take(key, found(key, data.methods));
  const which = query.get("cell"), c = found("corruption", data.corruptions);
  const r = found("rate", data.rates);
  state.cell = MAPS.includes(which) && c >= 0 && r >= 0 ? { which, c, r } : null;
  if (state.cell) active[which] = [c, r];
  draw();
  if (state.cell) $("runs").scrollIntoView({ block: "start" });
}

function draw() {
  for (const key of ["source", "metric", "a", "b"]) $(key).value = state[key];
  const { title, about } = data.metrics[state.metric];
  $("definition").textContent = about ? `${title}: ${about}.` : title;
  drawMaps();
  drawRuns();
  drawSummary();
}

function change(key, value) {
  const chosen = document.activeElement?.dataset.choose;
  state[key] = value;
  draw();
  link();
  if (chosen) document.querySelector(`[data-choose="${chosen}"]`).focus();
}

function theme(choice) {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  if (choice) root.dataset.theme = choice;
  const dark = (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  $("theme").setAttribute("aria-pressed", String(dark));
  return dark;
}

function start() {
  const fill = (id, names) => {
    const about = (i) => id === "metric" ? data.metrics[i].about : null;
    $(id).replaceChildren(...names.map((name, i) => el("option", { value: i, title: about(i) }, name)));
    $(id).addEventListener("change", () => change(id, Number($(id).value)));
  };
  const list = (id, rows) => {
    const line = ([key, ...texts]) => el("tr", {}, th(key), ...texts.map((text) =>
      td(String(text ?? "–"), "text")));
    $(id).append(scrolled(el("tbody", {}, ...rows.map(line))));
    $(id).hidden = !rows.length;
  };
  $("about").textContent = [data.sources.join(", "), count(data.runs.length, "run"),
    count(data.methods.length, "method")].join(" · ");
  fill("source", data.sources);
  fill("metric", data.metrics.map((metric) => metric.title));
  fill("a", data.methods);
  fill("b", data.methods);
  list("common", Object.entries(data.common));
  list("broken", data.broken.map((run) => [run.id, run.reason, run.command]));
  $("sources").hidden = data.sources.length < 2;
  state.metric = Math.max(0, index("healed_utility"));
  state.b = Math.min(1, data.methods.length - 1);
  $("swap").addEventListener("click", () => {
    [state.a, state.b] = [state.b, state.a];
    draw();
    link();
  });
  $("theme").addEventListener("click", () => theme(theme() ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => event.key === "Escape" && state.cell && closeCell());
  theme();
  follow();
}

start();
