"use strict";
// The page: takes the data in, and again whenever there are newer ones; nothing that a person has chosen is lost.

const browser = new RolloutBrowser(byId("rollout-body"));
const choices = { axis: "step", shares: false };
let state = null;

function take(data) {
  const hidden = state?.hidden ?? new Set();
  data.runs.forEach((run, number) => Object.assign(run, { number, colour: colourOfRun(number) }));
  data.runs.forEach(prepare);
  state = { ...data, hidden };
  if (!byId("curve-controls").childElementCount) buildControls();
  showRuns(state);
  showCurves();
  browser.update(state);
  showSettings(state);
  byId("footer").textContent = `dapo-trl ${data.version}`;
  document.documentElement.dataset.ready = "";
}

function showCurves() {
  const runs = state.runs.filter((run) => !state.hidden.has(run.number));
  const axis = choices.axis, label = X_AXES[axis];
  const { charts, missing } = lineCharts(state, runs, axis);
  const kinds = runs.map((run) => runCharts(state, run, axis));
  const mixed = runs.flatMap((run) => environmentCharts(state, run, axis));
  const all = [...charts, ...mixed, ...[0, 1, 2, 3].flatMap((kind) => kinds.map((found) => found[kind])).filter(Boolean)];
  showCharts(byId("curve-grid"), all, label);
  byId("curve-missing").textContent = all.length ? (missing.length ? `Not logged: ${missing.join("; ")}.` : "") : "Nothing has been logged, so there are no curves.";
  const ledger = ledgerCharts(state, runs, axis, choices.shares);
  showCharts(byId("ledger-grid"), ledger, label);
  byId("ledger-missing").textContent = ledger.length ? "" : "There is no ledger in these logs: what became of the tokens is not known.";
  byId("more").hidden = byId("curve-controls").hidden = !state.runs.some((run) => run.logs);
  byId("ledger-controls").hidden = !ledger.length;
  if (byId("more").open) showCharts(byId("more-grid"), otherCharts(state, runs, axis), label);
}

function buildControls() {
  const select = (label, id, options, use) => {
    const node = el("select", { id, on: { change: () => use(node.value) } }, options.map(([value, text]) => el("option", { value }, text)));
    return el("label", {}, label, node);
  };
  const axes = Object.keys(X_AXES).filter((axis) => state.runs.some((run) => run.x[axis]));
  byId("curve-controls").append(
    select("Over", "axis", axes.map((axis) => [axis, { step: "optimizer steps", time: "time", tokens: "tokens generated" }[axis]]), (axis) => { choices.axis = axis; showCurves(); }),
    select("Smoothing", "smoothing", Object.keys(SMOOTHING).map((name) => [name, name]), (name) => { smoothing = name; redrawCharts(); }));
  if (state.runs.length > 1) {
    byId("curve-controls").append(...state.runs.map((run) => el("label", { class: "run-toggle" },
      el("input", { type: "checkbox", checked: true, on: { change: (event) => { state.hidden[event.target.checked ? "delete" : "add"](run.number); showCurves(); if (browser.list) browser.apply(); } } }),
      el("i", { swatch: swatch(run.colour) }), visible(run.label))));
  }
  const shares = el("input", { type: "checkbox", id: "shares", on: { change: () => { choices.shares = shares.checked; showCurves(); } } });
  byId("ledger-controls").append(el("label", {}, shares, "as shares"));
  byId("more").addEventListener("toggle", showCurves);
}

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  if (state) redrawCharts();
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  try { own = localStorage.getItem("theme"); } catch { /* pages from a file may have no storage */ }
  const current = () => own ?? (system.matches ? "dark" : "light");
  applyTheme(current());
  system.addEventListener("change", () => applyTheme(current()));
  byId("theme").addEventListener("click", () => {
    own = current() === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", own); } catch { /* then it is for this page alone */ }
    applyTheme(own);
  });
}

startTheme();
embedded().then((data) => {
  take(data);
  if ("live" in document.body.dataset) follow(take, (text) => { byId("live").textContent = text; });
}).catch((error) => {
  byId("overview").replaceChildren(el("p", { class: "empty" }, `This page's data cannot be read by this browser: ${error.message}`));
});
