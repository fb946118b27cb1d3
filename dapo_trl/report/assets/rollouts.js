"use strict";
// The browser of rollouts: filters, a list of which only the visible rows exist, and one rollout in full.

const ROW = 54;
const TOKENS_AT_ONCE = 3000;
const larger = (a, b) => Math.abs(b.advantage ?? 0) - Math.abs(a.advantage ?? 0);
const SORTS = {
  "latest first": (a, b) => b.step - a.step || larger(a, b),
  "earliest first": (a, b) => a.step - b.step || larger(a, b),
  "highest advantage": (a, b) => (b.advantage ?? 0) - (a.advantage ?? 0),
  "lowest advantage": (a, b) => (a.advantage ?? 0) - (b.advantage ?? 0),
  "largest advantage, either sign": larger,
  "longest": (a, b) => b.tokens - a.tokens,
};
const COLOURINGS = {
  weighted: "advantage × change of log-probability",
  change: "change of log-probability",
  surprise: "probability when sampled",
  none: "nothing",
};

function bodyOf(rollout) {
  return (rollout.body ??= JSON.parse(rollout.line));
}

// The advantage of a token: that of its turn, where turns have their own.
function advantageOf(rollout, body, i) {
  const turn = body.turns?.findLast((turn) => turn.place <= i);
  return (turn ?? rollout).advantage ?? 0;
}

// Of runs that did not record it: the last message to the model, without the tokens of a chat template and the system's message.
function questionOf(prompt) {
  const pieces = prompt.split(/<\|[^|>]*\|>/).filter((piece) => !/^\s*assistant\b/.test(piece));
  const messages = pieces.map((piece) => piece.replace(/^\s*(system|user)\n/, "").trim()).filter(Boolean);
  return messages.at(-1) ?? prompt;
}

class RolloutBrowser {
  constructor(root) {
    this.root = root;
    this.filter = { run: "", verdict: "", level: "", account: "", from: "", to: "", sort: "latest first" };
    this.colouring = "weighted";
    this.selected = null;
    this.shown = [];
  }

  update(state) {
    this.state = state;
    byId("rollout-count").textContent = "";
    if (!state.rollouts.length) {
      this.root.replaceChildren(el("p", { class: "empty" }, "There are no rollouts to look at. A run records some of each rollout batch unless record_rollouts is 0."));
      this.list = null;
      return;
    }
    if (!this.list) this.build();
    this.fillFilters();
    if (this.selected) this.selected = state.rollouts.find((rollout) => rollout.line === this.selected.line) ?? this.selected;
    this.apply();
    if (!this.selected && this.shown.length) this.select(this.shown[0]);
  }

  build() {
    const select = (name, label) => {
      const node = el("select", { id: `filter-${name}`, on: { change: () => this.change(name, node.value) } });
      return el("label", { id: `label-${name}` }, label, node);
    };
    const number = (name, label) => el("label", {}, label, el("input", { id: `filter-${name}`, type: "number", min: "0", on: { input: (event) => this.change(name, event.target.value) } }));
    const filters = el("div", { class: "filters", role: "group", "aria-label": "Filter and sort the rollouts" },
      select("run", "Run"), select("verdict", "Verdict"), select("level", "Level"), select("account", "Group"), number("from", "Steps from"), number("to", "to"), select("sort", "Sort"),
      el("button", { type: "button", id: "clear", on: { click: () => this.clear() } }, "Clear"));
    this.spacer = el("div");
    this.list = el("div", { class: "list", id: "rollout-list", role: "listbox", tabindex: "0", "aria-label": "Rollouts", on: { scroll: () => this.paint(), keydown: (event) => this.key(event) } }, this.spacer);
    this.detail = el("div", { class: "detail", id: "rollout-detail", role: "region", "aria-label": "The selected rollout", tabindex: "0" });
    this.root.replaceChildren(filters, el("div", { class: "panes" }, this.list, this.detail));
    new ResizeObserver(() => this.paint()).observe(this.list);
  }

  fillFilters() {
    const { rollouts, runs } = this.state;
    const fill = (name, options) => {
      const node = byId(`filter-${name}`);
      node.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
      if (!options.some(([value]) => value === this.filter[name])) this.filter[name] = options[0][0];
      node.value = this.filter[name];
    };
    const counted = (name) => {
      const counts = new Map();
      for (const rollout of rollouts) if (rollout[name] !== null) counts.set(rollout[name], (counts.get(rollout[name]) ?? 0) + 1);
      return [...counts].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })).map(([value, count]) => [value, `${visibleLine(words(value), 40)} (${count})`]);
    };
    fill("run", [["", "all"], ...runs.map((run) => [String(run.number), visibleLine(run.label, 60)])]);
    byId("label-run").hidden = runs.length < 2;
    fill("verdict", [["", "all"], ...counted("verdict")]);
    fill("level", [["", "all"], ...counted("level")]);
    byId("label-level").hidden = !rollouts.some((rollout) => rollout.level !== null);
    fill("account", [["", "all"], ["trained", "trained on"], ["dropped", "dropped or masked"], ...counted("account").filter(([value]) => value !== "trained")]);
    fill("sort", Object.keys(SORTS).map((name) => [name, name]));
  }

  change(name, value) {
    this.filter[name] = value;
    this.apply();
    this.list.scrollTop = 0;
    if (name === "sort" || !this.shown.includes(this.selected)) this.select(this.shown[0] ?? null);
  }

  clear() {
    for (const name of ["run", "verdict", "level", "account", "from", "to"]) this.filter[name] = byId(`filter-${name}`).value = "";
    this.apply();
  }

  apply() {
    const { run, verdict, level, account, from, to, sort } = this.filter;
    const low = from === "" ? -Infinity : Number(from), high = to === "" ? Infinity : Number(to);
    const hasAccount = { "": () => true, dropped: (found) => found !== "trained" }[account] ?? ((found) => found === account);
    this.shown = this.state.rollouts.filter((rollout) =>
      !this.state.hidden.has(rollout.run) && (run === "" || rollout.run === Number(run)) && (verdict === "" || rollout.verdict === verdict) &&
      (level === "" || rollout.level === level) && hasAccount(rollout.account) && rollout.step >= low && rollout.step <= high);
    this.shown.sort(SORTS[sort]);
    const recorded = this.state.runs.reduce((sum, one) => sum + one.rollouts.recorded, 0), here = this.state.rollouts.length;
    const all = recorded > here
      ? `${here.toLocaleString("en")} of ${recorded.toLocaleString("en")} recorded rollouts are in this page, evenly over the steps and by largest advantage`
      : `${recorded.toLocaleString("en")} recorded: of each rollout batch the best and worst of some groups, and some that were dropped`;
    byId("rollout-count").textContent = `${this.shown.length.toLocaleString("en")} match. ${all}.`;
    this.spacer.style.height = `${Math.max(this.shown.length * ROW, 1)}px`;
    this.paint();
  }

  paint() {
    const { list, shown } = this;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5), last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    const rows = [];
    for (let i = first; i < last; i++) rows.push(this.row(shown[i], i));
    if (!shown.length) rows.push(el("p", { class: "note", style: "padding: 1rem" }, "No rollout matches these filters."));
    list.replaceChildren(this.spacer, ...rows);
    const at = shown.indexOf(this.selected);
    if (at >= first && at < last) list.setAttribute("aria-activedescendant", `rollout-${at}`);
    else list.removeAttribute("aria-activedescendant");
  }

  row(rollout, i) {
    const { prompt, question } = bodyOf(rollout);
    const several = this.state.runs.length > 1;
    return el("div", { class: "row", role: "option", id: `rollout-${i}`, "aria-selected": String(rollout === this.selected), "aria-posinset": i + 1, "aria-setsize": this.shown.length, style: `top: ${i * ROW}px`, on: { click: () => this.select(rollout) } },
      el("div", { class: "top" },
        el("span", {}, several ? el("span", { class: "of-run", swatch: swatch(this.state.runs[rollout.run].colour) }, "● ") : null, `after step ${rollout.step}`, rollout.level === null ? null : el("span", { class: "note" }, ` · level ${visibleLine(rollout.level, 12)}`)),
        el("span", {}, el("span", { class: "note" }, "A "), signed(rollout.advantage), " ", el("span", { class: "badge", swatch: swatch(colourOfVerdict(rollout.verdict)) }, visibleLine(words(rollout.verdict), 24)))),
      el("div", { class: "under" }, el("span", { style: "overflow: hidden; text-overflow: ellipsis" }, visibleLine(question ?? questionOf(prompt), 70)), el("span", {}, `${rollout.tokens}`)));
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.shown.length) return;
    event.preventDefault();
    const at = this.shown.indexOf(this.selected);
    const to = Math.max(0, Math.min(this.shown.length - 1, at + moves[event.key]));
    const { scrollTop, clientHeight } = this.list;
    if (to * ROW < scrollTop) this.list.scrollTop = to * ROW;
    else if ((to + 1) * ROW > scrollTop + clientHeight) this.list.scrollTop = (to + 1) * ROW - clientHeight;
    this.select(this.shown[to]);
  }

  select(rollout) {
    this.selected = rollout;
    this.paint();
    this.detail.scrollTop = 0;
    if (rollout) this.show(rollout);
    else this.detail.replaceChildren(el("p", { class: "note" }, "Nothing is selected."));
  }

  show(rollout) {
    const body = bodyOf(rollout), run = this.state.runs[rollout.run];
    const facts = [
      ["After step", rollout.step], ["Row", body.index ?? "–"], ["Level", body.level ?? "–"],
      ["Verdict", el("span", { class: "badge", swatch: swatch(colourOfVerdict(rollout.verdict)) }, visibleLine(words(rollout.verdict), 60))],
      ["Group", rollout.account === "trained" ? "trained on" : words(rollout.account)], ["Accuracy", format(body.accuracy)], ["Advantage", signed(rollout.advantage, 4)], ["Tokens", format(rollout.tokens)],
      ...Object.entries(body.rewards).map(([name, value]) => [`Reward: ${words(name)}`, signed(value, 4)]),
      ...(Object.keys(body.components).length > 1 ? Object.entries(body.components).map(([name, value]) => [`of the environment: ${words(name)}`, signed(value, 4)]) : []),
    ];
    if (this.state.runs.length > 1) facts.unshift(["Run", run.label]);
    const about = el("div", { class: "about-token", role: "status" }, el("span", { class: "note" }, "Point at a token, or use the arrow keys in the completion, for its figures."));
    this.detail.replaceChildren(
      el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, visibleLine(name, 80)), el("dd", {}, value instanceof Node ? value : visible(String(value)))))),
      el("h3", {}, "Prompt"), this.long(body.prompt),
      el("h3", {}, "Completion"), ...this.completion(rollout, body, about),
      ...(body.solution === null ? [] : [el("h3", {}, "Solution that the environment gives"), this.long(body.solution)]), about);
  }

  long(text) {
    const most = 4000;
    const box = el("div", { class: "text" }, visible(text.slice(0, most)));
    if (text.length <= most) return box;
    const more = el("button", { type: "button", on: { click: () => box.replaceChildren(...visible(text)) } }, `Show ${(text.length - most).toLocaleString("en")} more characters`);
    box.append(" ", more);
    return box;
  }

  completion(rollout, body, about) {
    const values = this.valuesOf(rollout, body);
    const sizes = (values ?? []).filter((value) => value !== null).map(Math.abs).sort((a, b) => a - b);
    const scale = this.colouring === "surprise" ? 1 : Math.max(sizes[Math.floor(sizes.length * 0.98)] ?? 0, 1e-6);
    const box = el("div", { class: "text completion", id: "completion", tabindex: "0", role: "group", "aria-label": "The completion, token by token. Arrow keys move." });
    const spans = [];
    const add = () => {
      const last = Math.min(spans.length + TOKENS_AT_ONCE, body.pieces.length);
      const nodes = [];
      for (let i = spans.length; i < last; i++) {
        if (body.gap && body.gap[0] === i) nodes.push(el("span", { class: "mark" }, ` ${format(body.gap[1])} tokens were not recorded `));
        body.turns?.forEach((turn, number) => {
          if (turn.place === i) nodes.push(el("span", { class: "mark" }, ` turn ${number + 1}: reward ${signed(turn.reward, 4)}, advantage ${signed(turn.advantage, 4)} `));
        });
        const span = el("span", { class: body.own?.[i] === 0 ? "token foreign" : "token" }, visible(body.pieces[i]));
        if (values && values[i] !== null && values[i] !== undefined) this.paintToken(span, values[i] / scale);
        span.dataset.token = i;
        spans.push(span);
        nodes.push(span);
      }
      const left = body.pieces.length - spans.length;
      if (left) nodes.push(el("button", { type: "button", on: { click: (event) => { event.target.remove(); add(); } } }, `Show more (${format(left)} tokens left)`));
      else if (body.missing) nodes.push(el("span", { class: "mark" }, ` ${body.missing.toLocaleString("en")} more characters are in the run's rollouts file, not in this page `));
      box.append(...nodes);
    };
    add();
    let current = -1;
    const point = (i) => {
      spans[current]?.classList.remove("current");
      current = i;
      spans[i]?.classList.add("current");
      about.replaceChildren(...this.aboutToken(rollout, body, i));
    };
    box.addEventListener("pointerover", (event) => event.target.closest?.(".token") && point(Number(event.target.closest(".token").dataset.token)));
    box.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!move || event.target !== box) return;
      event.preventDefault();
      point(Math.max(0, Math.min(spans.length - 1, current + move)));
      spans[current].scrollIntoView({ block: "nearest" });
    });
    return [this.scale(rollout, body, scale), box];
  }

  valuesOf(rollout, body) {
    if (this.colouring === "surprise") return body.before?.map((value) => (value === null ? null : Math.exp(value) - 1)) ?? null;
    if (this.colouring === "none" || !body.change) return null;
    const weight = (i) => (this.colouring === "weighted" ? advantageOf(rollout, body, i) : 1);
    return body.change.map((value, i) => (value === null ? null : weight(i) * value));
  }

  paintToken(span, value) {
    const strength = Math.min(Math.sqrt(Math.abs(value)), 1) * 0.75;
    if (strength > 0.03) span.style.backgroundColor = `rgba(var(--${value > 0 ? "up" : "down"}), ${strength.toFixed(2)})`;
  }

  scale(rollout, body, scale) {
    const choose = el("select", { id: "colouring", on: { change: (event) => { this.colouring = event.target.value; this.show(rollout); byId("colouring").focus(); } } },
      Object.entries(COLOURINGS).map(([value, text]) => el("option", { value }, text)));
    choose.value = this.colouring;
    const line = el("div", { class: "scale" }, el("label", {}, "Colour: ", choose));
    if (this.colouring === "none") return line;
    if (!body.change) {
      line.append(el("span", {}, rollout.account === "trained" ? "No change is known: the last pass over this completion was with the policy that sampled it, or another trainer's loss." : "Not trained on, so nothing is known of a change."));
    } else if (this.colouring === "surprise") line.append(el("span", {}, "certain"), el("span", { class: "ramp single" }), el("span", {}, "improbable"));
    else {
      const sides = this.colouring === "weighted" ? ["against the advantage", "as it asks"] : ["less likely", "more likely"];
      line.append(el("span", {}, `${sides[0]} −${format(scale, 2)}`), el("span", { class: "ramp" }), el("span", {}, `+${format(scale, 2)} ${sides[1]}`),
        el("span", {}, `from sampling to the last pass over it, ${body.updates} update${body.updates === 1 ? "" : "s"} later`));
    }
    return line;
  }

  aboutToken(rollout, body, i) {
    const said = [el("b", {}, "“", ...visible((body.pieces[i] ?? "").replaceAll("\n", "⏎")), "”"), ` token ${i + 1}`];
    const before = body.before?.[i], change = body.change?.[i];
    if (body.own?.[i] === 0) said.push(" · the environment's, not trained on");
    else if (before !== undefined && before !== null) {
      said.push(` · probability ${percent(Math.exp(before))} → ${percent(Math.exp(before + (change ?? 0)))}`);
      if (change !== null && change !== undefined) said.push(` · Δ log p ${signed(change)} · × advantage ${signed(advantageOf(rollout, body, i) * change)}`);
    }
    return said;
  }
}
