"use strict";
// What is shown of the runs beside their rollouts: figures, alarms, which curves there are, ledger, settings.

const RUN_COLOURS = ["blue", "orange", "green", "purple", "red", "teal", "brown", "slate"];
const GRADIENT = { acting: ["acts", "green"], zero: ["no advantage", "slate"], truncated: ["masked as truncated", "brown"], clipped_low: ["clipped low", "amber"], clipped_high: ["clipped high", "purple"], mismatch: ["vLLM mismatch", "red"] };
const ACCOUNTS = { trained: "green", surplus_kept: "teal", surplus_expired: "slate", truncated: "brown", shaping_only: "purple", constant: "amber", unscorable: "ink", all_right: "blue", all_wrong: "red" };
const GROUPS = { "groups/kept": ["informative", "green"], "groups/constant": ["constant", "amber"], "groups/unscorable": ["unscorable", "ink"], "groups/all_right": ["all correct", "blue"], "groups/all_wrong": ["all wrong", "red"] };
const DIFFICULTIES = { "difficulty/unsolved": ["none", "red"], "difficulty/hard": ["to ⅓", "orange"], "difficulty/medium": ["to ⅔", "amber"], "difficulty/easy": ["over ⅔", "green"], "difficulty/solved": ["all", "blue"] };
const VERDICTS = { correct: "blue", wrong: "red", no_answer: "amber", timeout: "purple", crash: "brown", infra_failure: "ink", other: "slate", "not judged": "slate" };
const X_AXES = {
  step: { name: "step", show: (x) => format(x) },
  time: { name: "time", show: duration },
  tokens: { name: "tokens", show: (x) => format(x, 3) },
};
// id, title, show, curves [metric, what it is], and bounds
const LINES = [
  ["reward", "Reward", format, [["reward/sampled", "all sampled"], ["reward", "trained on"]]],
  ["accuracy", "Accuracy", accuracy, [["accuracy/sampled", "before the filter"], ["accuracy/trained", "after the filter"]], { floor: 0, top: 1 }],
  ["held-out", "Held-out accuracy, 95 % intervals", accuracy, "held_out", { top: 1 }],
  ["entropy", "Entropy per token, nats", format, [["entropy", "entropy"]], { floor: 0 }],
  ["length", "Completion length, tokens", format, [["completions/mean_length", "mean"], ["completions/max_length", "longest"]], { floor: 0 }],
  ["cut-off", "Cut off at the length limit", percent, [["completions/clipped_ratio", "cut off"]], { floor: 0 }],
  ["clipped", "Tokens clipped", percent, [["clip_ratio/low_mean", "low, at 1 − ε"], ["clip_ratio/high_mean", "high, at 1 + ε high"]], { floor: 0 }],
  ["ratios", "Distance of importance ratios from 1", format, [["importance_ratio/deviation", "distance"]], { floor: 0 }],
  ["gradient", "Gradient norm", format, [["grad_norm", "norm"]], { floor: 0 }],
  ["kl", "KL to the reference model, nats", format, [["kl", "KL"]], { floor: 0 }],
  ["speed", "Tokens generated per second", format, [["throughput/tokens_per_second", "tokens per second"]], { floor: 0 }],
  ["seconds", "Seconds of a rollout batch and of a step", duration, [["time/rollout", "a rollout batch, sampled"], ["time/update", "an optimizer step"]], { floor: 0 }],
];

function colourOfRun(number) {
  return RUN_COLOURS[number % RUN_COLOURS.length];
}

function colourOfVerdict(verdict) {
  return VERDICTS[verdict] ?? "slate";
}

function xOf(run, axis) {
  if (axis === "step") return run.curves.step;
  const values = axis === "time" ? run.curves.values.seconds : run.curves.values["ledger/tokens"] ?? run.curves.values.num_tokens;
  return values?.some((value) => value !== null) ? values : null;
}

// One curve of one run, without the points that have no place on the axis; null if there are none.
function partOf(run, name, axis, rest) {
  const x = run.x[axis], y = run.curves.values[name];
  if (!x || !y || y.every((value) => value === null)) return null;
  if (!run.kept[axis]) run.kept[axis] = x.map((value, i) => (value === null ? -1 : i)).filter((i) => i >= 0);
  if (!run.cut[axis]) run.cut[axis] = run.kept[axis].map((i) => x[i]);
  const pick = (values) => values && run.kept[axis].map((i) => values[i]);
  return { x: run.cut[axis], y: pick(y), low: pick(run.curves.low[name]), high: pick(run.curves.high[name]), ...rest };
}

function prepare(run) {
  run.x = { step: xOf(run, "step"), time: xOf(run, "time"), tokens: xOf(run, "tokens") };
  run.kept = {};
  run.cut = {};
}

function heldOutPart(run, axis, rest) {
  const points = run.held_out;
  if (!points.length) return null;
  const steps = run.curves.step, xs = run.x[axis];
  const at = (step) => {
    if (axis === "step" || !xs) return axis === "step" ? step : null;
    if (step <= 0) return 0;
    const place = steps.findIndex((found) => found >= step);
    return xs[place < 0 ? xs.length - 1 : place];
  };
  const kept = points.map((point) => ({ ...point, x: at(point.step) })).filter((point) => point.x !== null && point.x !== undefined);
  if (!kept.length) return null;
  const pick = (name) => kept.map((point) => point[name] ?? null);
  return { x: pick("x"), y: pick("value"), low: pick("low"), high: pick("high"), points: true, ...rest };
}

// The runs' colours once; where a metric is one of two, how their lines differ.
function runLegend(runs, curves) {
  const kinds = curves.length > 1 ? curves.map(([, what], i) => ({ label: what, colour: "soft", dash: i > 0 })) : [];
  return [...runs.map((run) => ({ label: run.label, colour: run.colour })), ...kinds];
}

// What is healthy of each curve, in the unit of the axis.
function healthyOf(curves, meanings, show) {
  const unit = (text) => (show === percent ? text.replace(/\d*\.\d+/g, (share) => tick(percent, Number(share))) : text);
  const found = curves.map(([name, what]) => [what, meanings[name]?.healthy ?? "-"]).filter(([, healthy]) => healthy !== "-");
  const said = found.map(([what, healthy]) => (curves.length > 1 ? `${what.split(",")[0]}: ` : "") + unit(healthy));
  return said.length ? `healthy: ${said.join("; ")}` : "";
}

function definitionOf(curves, meanings) {
  return curves.map(([name]) => name).filter((name) => meanings[name]).map((name) => `${name}: ${meanings[name].definition}, over ${meanings[name].over}`).join("\n");
}

function lineCharts(state, runs, axis) {
  const several = state.runs.length > 1, charts = [], missing = [];
  for (const [id, title, show, curves, bounds = {}] of LINES) {
    const parts = runs.flatMap((run) => {
      if (curves === "held_out") return [heldOutPart(run, axis, { label: several ? run.label : "held out", colour: run.colour })];
      return curves.map(([name, what], i) => partOf(run, name, axis, {
        label: several ? (curves.length > 1 ? `${run.label}: ${what}` : run.label) : what,
        colour: several ? run.colour : ["blue", "orange"][i],
        dash: several && i > 0,
      }));
    }).filter(Boolean);
    const measured = curves === "held_out" ? [["eval_accuracy", "held out"]] : curves;
    const legend = several ? runLegend(runs, curves === "held_out" ? [] : curves) : null;
    if (parts.length) charts.push({ id, title, show, parts, legend, healthy: healthyOf(measured, state.meanings, show), definition: definitionOf(measured, state.meanings), ...bounds });
    else missing.push(title);
  }
  return { charts, missing };
}

function stackChart(state, run, axis, { id, title, table, show, healthy }) {
  const parts = Object.entries(table)
    .map(([name, [label, colour]]) => partOf(run, name, axis, { label, colour }))
    .filter((part) => part && part.y.some((value) => value));
  if (!parts.length) return null;
  parts.forEach((part) => delete part.low);
  return { id: `${id}-${run.number}`, title, of: state.runs.length > 1 ? run.label : "", show, stack: true, parts, healthy };
}

function runCharts(state, run, axis) {
  const found = Object.keys(run.curves.values).filter((name) => name.startsWith("accuracy/level_"));
  found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const levels = found.map((name, i) => partOf(run, name, axis, { label: `level ${name.slice(15)}`, colour: RUN_COLOURS[i % 8], dash: i >= 8 })).filter(Boolean);
  const groups = run.filtered ? GROUPS : { ...GROUPS, "groups/kept": ["kept (no filter)", "slate"] };
  const verdicts = Object.fromEntries(Object.keys(VERDICTS).map((name) => [`verdicts/${name}`, [words(name), VERDICTS[name]]]));
  return [
    stackChart(state, run, axis, { id: "groups", title: "Groups per rollout batch", table: groups, show: format, healthy: run.filtered ? "healthy: a third or more informative" : "all are trained on, informative or not" }),
    stackChart(state, run, axis, { id: "difficulty", title: "Difficulty of the prompts", table: DIFFICULTIES, show: percent, healthy: "prompts by the share of their completions that are right" }),
    stackChart(state, run, axis, { id: "verdicts", title: "Verdicts", table: verdicts, show: percent, healthy: "share of completions sampled" }),
    levels.length ? { id: `levels-${run.number}`, title: "Accuracy by level", of: state.runs.length > 1 ? run.label : "", show: accuracy, floor: 0, top: 1, parts: levels, healthy: "before the filter" } : null,
  ];
}

function shares(parts) {
  const totals = parts[0].x.map((_, i) => parts.reduce((sum, part) => sum + (part.y[i] ?? 0), 0));
  return parts.map((part) => ({ ...part, y: part.y.map((value, i) => (totals[i] ? (value ?? 0) / totals[i] : null)) }));
}

function ledgerCharts(state, runs, axis, asShares) {
  return ["tokens", "seconds"].flatMap((unit) => runs.map((run) => {
    const table = Object.fromEntries(Object.entries(ACCOUNTS).map(([account, colour]) => [`ledger/${account}_${unit}`, [words(account), colour]]));
    const chart = stackChart(state, run, axis, {
      id: `ledger-${unit}`, title: unit === "tokens" ? "Tokens generated" : "Seconds of sampling and scoring", table,
      show: unit === "tokens" ? (x) => format(x, 3) : duration, healthy: "summed over the run",
    });
    if (chart && asShares) Object.assign(chart, { parts: shares(chart.parts), show: percent, top: 1 });
    return chart;
  })).concat(runs.map((run) => gradientChart(state, run, axis))).filter(Boolean);
}

function gradientChart(state, run, axis) {
  const table = Object.fromEntries(Object.entries(GRADIENT).map(([account, drawn]) => [`gradient/${account}`, drawn]));
  const chart = stackChart(state, run, axis, { id: "gradient", title: "Gradient weight", table, show: percent, healthy: "healthy: most of it acts" });
  if (!chart) return null;
  // a correction that adds more than it takes away is a negative share, which has no place in a stack
  const drawn = chart.parts.map((part) => ({ ...part, y: part.y.map((value) => (value === null ? null : Math.max(value, 0))) }));
  return Object.assign(chart, { parts: shares(drawn), top: 1 });
}

function otherCharts(state, runs, axis) {
  const usual = new Set([...LINES.flatMap(([, , , curves]) => (curves === "held_out" ? [] : curves.map(([name]) => name))), ...Object.keys(GROUPS), ...Object.keys(DIFFICULTIES), "seconds", "epoch"]);
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves.values)))].filter(
    (name) => !usual.has(name) && !/^(ledger|verdicts|gradient\/(?!sample|mismatch_long)|accuracy\/level_)/.test(name));
  return names.sort().map((name) => ({
    id: `other-${name}`, title: name, show: format, healthy: healthyOf([[name]], state.meanings, format), definition: definitionOf([[name]], state.meanings),
    parts: runs.map((run) => partOf(run, name, axis, { label: state.runs.length > 1 ? run.label : name, colour: run.colour })).filter(Boolean),
  })).filter((chart) => chart.parts.length);
}

function showRuns(state) {
  const cards = state.runs.map((run) => {
    const held = run.held_out, last = held.at(-1);
    const interval = last && last.low !== null && last.low !== undefined ? ` (${accuracy(last.low)} to ${accuracy(last.high)})` : "";
    const drawn = run.sampling ? `, ${run.sampling}` : "";
    const newest = run.newest;
    const figures = [
      ["Held-out accuracy", last ? [held.length > 1 ? `${accuracy(held[0].value)} → ${accuracy(last.value)}` : accuracy(last.value), interval + drawn] : null],
      ["Accuracy", newest["accuracy/sampled"] === null ? null : [accuracy(newest["accuracy/sampled"]), " sampled last"]],
      ["Reward", [format(newest["reward/sampled"] ?? newest.reward, 3), ""]],
      ["Optimizer steps", [format(run.steps), run.max_steps ? ` of ${format(run.max_steps)}` : ""]],
      ["Tokens", run.tokens === null ? null : [format(run.tokens, 3), ""]],
      ["Time", run.seconds === null ? null : [duration(run.seconds), ""]],
    ].filter(([, value]) => value);
    const rows = run.logs ? figures.map(([name, [value, more]]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, more)))) : [];
    return el("article", { class: "run", swatch: swatch(run.colour) },
      el("header", {}, el("h2", {}, visible(run.label)), el("span", { class: `status ${run.status}` }, run.status), el("span", { class: "note" }, visible(run.folder))),
      run.why ? el("p", { class: `said ${run.status}` }, visible(run.why)) : null,
      run.diagnosis ? el("p", { class: "said diagnosis" }, visible(run.diagnosis)) : null,
      run.logs ? el("dl", { class: "figures" }, rows) : el("p", { class: "note" }, run.status === "running" ? "Nothing has been logged yet." : "Nothing was logged."),
      run.alarms.length ? el("ul", { class: "alarms", "aria-label": "Alarms" }, run.alarms.map((alarm) => el("li", {},
        el("b", {}, `${words(alarm.name)}, step ${alarm.step}${alarm.cleared ? ` to ${alarm.cleared}` : ""}: `), visible(alarm.message)))) : null,
      run.notes.length ? el("ul", { class: "notes", "aria-label": "What is missing" }, run.notes.map((note) => el("li", {}, visible(note)))) : null);
  });
  byId("overview").replaceChildren(el("div", { class: "runs" }, cards));
}

function showSettings(state) {
  const several = state.runs.length > 1;
  const table = (title, rows, empty) => {
    if (!rows.length) return el("div", { class: "card" }, el("h3", {}, title), el("p", { class: "note" }, empty));
    const head = el("tr", {}, el("th", {}, "name"), state.runs.map((run) => el("th", {}, several ? visible(run.label) : "value")));
    const line = (row) => el("tr", { class: row.differs ? "differs" : null },
      el("td", {}, visible(row.name)), row.values.map((value, i) => el("td", { class: row.asked && !row.asked[i] ? "default" : null }, value === null ? "–" : visible(value))));
    const different = rows.filter((row) => row.differs), alike = rows.filter((row) => !row.differs);
    const part = (found) => el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head.cloneNode(true)), el("tbody", {}, found.map(line))));
    return el("div", { class: "card" }, el("h3", {}, title),
      several && different.length ? [part(different), el("p", { class: "note" }, title.startsWith("Settings") ? "grey: not asked for, so the default; –: none, or not known" : "–: none")] : null,
      several && !different.length ? el("p", { class: "note" }, "The same in all runs.") : null,
      alike.length ? (several ? el("details", {}, el("summary", {}, `${alike.length} that are the same`), part(alike)) : part(alike)) : null);
  };
  byId("setting-tables").replaceChildren(el("div", { class: "tables" },
    table("Settings asked for", state.settings, "There is no config.yaml: the settings are not known."),
    table("Environments and versions", state.environments, "There is no environment.json: they are not known.")));
}
