"use strict";
// Charts: lines with ranges, points with intervals, and stacked areas. Each has a table and a description in words.
//
// A chart is described by { id, title, of, healthy, definition, show, stack, floor, top, legend, parts }; a part is one curve:
// { label, colour, dash, run, x, y, low, high, points }. `show` makes text of a value.

const CHARTS = new Map();
const PLOT_HEIGHT = 200;
// Distances of the marks on an axis of seconds: what clocks show.
const DURATIONS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000];
const SMOOTHING = { none: 0, light: 0.6, strong: 0.9 };
let smoothing = "none";

function colourOf(name, alpha = "") {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() + alpha;
}

// A colour as it is on large areas: calmer, and opaque.
function areaColour(name) {
  const parse = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const card = parse(colourOf("card"));
  return `rgb(${parse(colourOf(name)).map((part, i) => Math.round(0.8 * part + 0.2 * card[i])).join(",")})`;
}

function swatch(name) {
  return `var(--${name})`;
}

function smoothed(values, weight) {
  let mean = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
}

function stacked(parts) {
  const sums = parts[0].y.map((_, i) => (parts.some((part) => part.y[i] !== null) ? 0 : null));
  return parts.map((part) => part.y.map((value, i) => (sums[i] === null ? null : (sums[i] += value ?? 0))));
}

// The columns that uPlot draws, and what each of them is: { part, role } with role line, faint, low, high or area.
function columnsOf(chart) {
  const weight = SMOOTHING[smoothing];
  const tables = new Map();
  const roles = new Map();
  const put = (part, role, values) => {
    if (!tables.has(part.x)) tables.set(part.x, [part.x]) && roles.set(part.x, []);
    tables.get(part.x).push(values);
    roles.get(part.x).push({ part, role });
  };
  if (chart.stack) {
    const sums = stacked(chart.parts);
    for (let i = chart.parts.length - 1; i >= 0; i--) put(chart.parts[i], "area", sums[i]);
  } else {
    for (const part of chart.parts) {
      const smooth = weight && !part.points && part.y.length > 8;
      if (smooth && !part.low) put(part, "faint", part.y);
      if (part.low && part.high && !part.points) {
        put(part, "low", part.low);
        put(part, "high", part.high);
      }
      put(part, "line", smooth ? smoothed(part.y, weight) : part.y);
    }
  }
  const joined = tables.size > 1 ? uPlot.join([...tables.values()]) : [...tables.values()][0];
  return { columns: joined, roles: [...roles.values()].flat() };
}

function seriesOf({ part, role }) {
  const few = part.y.filter((value) => value !== null).length < 12;
  const styles = {
    line: part.points
      ? { width: 1, stroke: () => colourOf(part.colour, "80"), dash: [2, 4] } // between measurements nothing is known
      : { width: 1.8, stroke: () => colourOf(part.colour), dash: part.dash ? [5, 4] : undefined },
    faint: { width: 1, stroke: () => colourOf(part.colour, "45") },
    low: { width: 0, stroke: "transparent" },
    high: { width: 0, stroke: "transparent" },
    area: { width: 0.5, stroke: () => areaColour(part.colour), fill: () => areaColour(part.colour) },
  };
  const dots = role === "line" && (part.points || few);
  return {
    spanGaps: true,
    ...styles[role],
    points: { show: dots, size: part.points ? 7 : 5, fill: () => colourOf(part.colour), stroke: () => colourOf(part.colour) },
  };
}

function drawIntervals(plot, roles) {
  const { ctx } = plot;
  roles.forEach(({ part }) => {
    if (!part.points || !part.low) return;
    ctx.save();
    ctx.strokeStyle = colourOf(part.colour);
    ctx.lineWidth = 1.4 * devicePixelRatio;
    part.x.forEach((x, i) => {
      if (part.low[i] === null || part.high[i] === null) return;
      const [at, low, high] = [plot.valToPos(x, "x", true), plot.valToPos(part.low[i], "y", true), plot.valToPos(part.high[i], "y", true)];
      const half = 4 * devicePixelRatio;
      ctx.beginPath();
      ctx.moveTo(at, low);
      ctx.lineTo(at, high);
      for (const end of [low, high]) {
        ctx.moveTo(at - half, end);
        ctx.lineTo(at + half, end);
      }
      ctx.stroke();
    });
    ctx.restore();
  });
}

function yRange(chart, parts) {
  return (plot, low, high) => {
    if (low === null || high === null) return [0, 1];
    for (const part of parts) {
      if (!part.points || !part.low) continue;
      low = Math.min(low, ...part.low.filter((value) => value !== null));
      high = Math.max(high, ...part.high.filter((value) => value !== null));
    }
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    if (chart.stack) return [0, chart.top ?? (high || 1)];
    const { floor, top } = chart;
    return [floor !== undefined && low - room < floor + (high - floor) * 0.5 ? floor : low - room,
      top !== undefined && high + room > top * 0.8 ? top : high + room];
  };
}

function valueAt(plot, column, index) {
  const values = plot.data[column];
  for (let away = 0; away < values.length; away++) {
    for (const place of [index - away, index + away]) {
      if (values[place] !== null && values[place] !== undefined) return place;
    }
  }
  return null;
}

function tooltip(chart, box, xLabel) {
  const tip = el("div", { class: "tip" });
  box.append(tip);
  return (plot, roles) => {
    const { left, top, idx } = plot.cursor;
    const active = box.matches(":hover") || box === document.activeElement;
    if (idx === null || idx === undefined || left < 0 || !active) return void (tip.style.display = "none");
    const lines = [];
    roles.forEach(({ part, role }, i) => {
      if (role !== "line" && role !== "area") return;
      const place = valueAt(plot, i + 1, idx);
      if (place === null) return;
      const own = part.x.indexOf(plot.data[0][place]);
      const value = role === "area" ? part.y[own] : plot.data[i + 1][place];
      const range = part.low && own >= 0 && part.low[own] !== null ? ` (${chart.show(part.low[own])} to ${chart.show(part.high[own])})` : "";
      if (role === "area" && !value) return;
      lines.push(el("div", {}, el("i", { swatch: swatch(part.colour) }), visibleLine(part.label, 40), el("span", { class: "value" }, chart.show(value) + range)));
    });
    if (chart.stack) lines.reverse();
    tip.replaceChildren(el("b", {}, `${xLabel.name} ${xLabel.show(plot.data[0][idx])}`), ...lines);
    tip.style.display = "block";
    const width = tip.offsetWidth, area = box.clientWidth;
    const at = plot.over.offsetLeft + left;
    tip.style.left = `${Math.max(0, at + 14 + width > area ? at - width - 14 : at + 14)}px`;
    tip.style.top = `${Math.max(0, Math.min(top - 10, PLOT_HEIGHT - tip.offsetHeight))}px`;
  };
}

function describe(chart, xLabel) {
  const said = chart.parts.map((part) => {
    const places = part.y.map((value, i) => (value === null ? -1 : i)).filter((i) => i >= 0);
    if (!places.length) return `${part.label}: nothing logged`;
    const [first, last] = [places[0], places.at(-1)];
    const shown = (i) => `${chart.show(part.y[i])} at ${xLabel.name} ${xLabel.show(part.x[i])}`;
    return first === last ? `${part.label}: ${shown(first)}` : `${part.label}: from ${shown(first)} to ${shown(last)}`;
  });
  return `${chart.title}${chart.of ? `, ${chart.of}` : ""}. ${said.join("; ")}. Arrow keys read single values.`;
}

function tableOf(chart, xLabel) {
  const rows = [];
  const xs = [...new Set(chart.parts.flatMap((part) => part.x))].sort((a, b) => a - b);
  const most = 60;
  for (let i = 0; i < Math.min(xs.length, most); i++) {
    const x = xs[Math.round((i * (xs.length - 1)) / Math.max(Math.min(xs.length, most) - 1, 1))];
    rows.push(el("tr", {}, el("td", { class: "number" }, xLabel.show(x)), chart.parts.map((part) => {
      const place = part.x.indexOf(x);
      return el("td", { class: "number" }, place < 0 ? "" : chart.show(part.y[place]));
    })));
  }
  const head = el("tr", {}, el("th", { class: "number" }, xLabel.name), chart.parts.map((part) => el("th", { class: "number" }, visibleLine(part.label, 40))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${chart.title} as a table` }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
}

class ChartCard {
  constructor(grid, chart) {
    this.title = el("h3");
    this.legend = el("div", { class: "legend" });
    this.healthy = el("p", { class: "healthy" });
    this.box = el("div", { class: "plot", tabindex: "0", role: "img" });
    this.button = el("button", { type: "button", class: "quiet", "aria-pressed": "false", on: { click: () => this.toggleTable() } }, "Table");
    this.figure = el("figure", { class: "chart", id: `chart-${chart.id}` }, el("figcaption", {}, this.title, this.button), this.legend, this.box, this.healthy);
    grid.append(this.figure);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("blur", () => this.plot?.setCursor({ left: -10, top: -10 }));
    new ResizeObserver(() => this.plot?.setSize({ width: this.box.clientWidth, height: PLOT_HEIGHT })).observe(this.box);
    this.seen = false;
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      this.seen = true;
      this.draw();
    }, { rootMargin: "400px" }).observe(this.figure);
  }

  update(chart, xLabel) {
    this.chart = chart;
    this.xLabel = xLabel;
    this.title.replaceChildren(chart.title, chart.of ? el("span", { class: "of" }, ` · ${visibleLine(chart.of, 60)}`) : "");
    this.title.title = `${chart.title}${chart.of ? ` · ${chart.of}` : ""}${chart.definition ? `\n${chart.definition}` : ""}`;
    this.legend.replaceChildren(...legendOf(chart));
    this.healthy.textContent = chart.healthy || "\u00a0";
    this.box.setAttribute("aria-label", describe(chart, xLabel));
    if (this.table) this.showTable();
    if (this.seen) this.draw();
  }

  draw() {
    this.plot?.destroy();
    this.box.replaceChildren();
    const { chart, xLabel } = this;
    const { columns, roles } = columnsOf(chart);
    if (chart.stack && columns[0].length === 1) { // an area needs two points
      columns.forEach((column, i) => column.splice(0, 1, ...(i ? [column[0], column[0]] : [column[0] - 0.5, column[0] + 0.5])));
    }
    const tip = tooltip(chart, this.box, xLabel);
    const bands = roles.flatMap(({ part, role }, i) => (role === "high" ? [{ series: [i + 1, i], fill: () => colourOf(part.colour, "2b") }] : []));
    const axis = { stroke: () => colourOf("soft"), font: "11.5px system-ui, sans-serif", grid: { stroke: () => colourOf("grid"), width: 1 }, ticks: { show: false } };
    const steps = (show) => (show === duration ? { incrs: DURATIONS } : {});
    this.plot = new uPlot({
      width: this.box.clientWidth,
      height: PLOT_HEIGHT,
      padding: [8, 10, 0, 0],
      legend: { show: false },
      cursor: { points: { show: !chart.stack }, y: false, sync: { key: "charts" }, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: { range: yRange(chart, chart.parts) } },
      axes: [
        { ...axis, ...steps(xLabel.show), size: 26, space: 60, values: (_, ticks) => ticks.map(xLabel.show) },
        { ...axis, ...steps(chart.show), size: 54, space: 24, values: (_, places) => places.map((place) => tick(chart.show, Number(place.toPrecision(10)))) },
      ],
      series: [{}, ...roles.map(seriesOf)],
      bands,
      hooks: { setCursor: [(plot) => tip(plot, roles)], draw: [(plot) => drawIntervals(plot, roles)] },
    }, columns, this.box);
    this.box.addEventListener("mouseleave", () => tip(this.plot, roles));
  }

  key(event) {
    const { plot } = this;
    const xs = plot?.data[0];
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!xs || !(event.key in moves)) return;
    event.preventDefault();
    const from = plot.cursor.left >= 0 && plot.cursor.idx !== null ? plot.cursor.idx : event.key === "ArrowLeft" ? xs.length : -1;
    const to = Math.max(0, Math.min(xs.length - 1, from + moves[event.key]));
    plot.setCursor({ left: plot.valToPos(xs[to], "x"), top: 10 });
    byId("spoken").textContent = [...this.box.querySelector(".tip").children].map((line) => line.textContent).join(", ");
  }

  toggleTable() {
    if (this.table) {
      this.table.remove();
      this.table = null;
    } else this.showTable();
    this.button.setAttribute("aria-pressed", String(Boolean(this.table)));
  }

  showTable() {
    this.table?.remove();
    this.table = tableOf(this.chart, this.xLabel);
    this.figure.append(this.table);
  }

  remove() {
    this.plot?.destroy();
    this.figure.remove();
  }
}

function legendOf(chart) {
  if (chart.parts.length < 2 && !chart.stack && !chart.legend) return [];
  const parts = chart.legend ?? (chart.stack ? [...chart.parts].reverse() : chart.parts);
  return parts.map((part) => el("span", {}, el("i", { class: chart.stack ? "block" : part.dash ? "dashed" : "", swatch: swatch(part.colour) }), visibleLine(part.label, 40)));
}

// Shows these charts in a grid, in this order: those that are there already are given their new data.
function showCharts(grid, charts, xLabel) {
  for (const [id, card] of CHARTS) {
    if (card.figure.parentNode === grid && !charts.some((chart) => chart.id === id)) {
      card.remove();
      CHARTS.delete(id);
    }
  }
  charts.forEach((chart, place) => {
    if (!CHARTS.has(chart.id)) CHARTS.set(chart.id, new ChartCard(grid, chart));
    const card = CHARTS.get(chart.id);
    if (grid.children[place] !== card.figure) grid.insertBefore(card.figure, grid.children[place] ?? null);
    card.update(chart, xLabel);
  });
}

function redrawCharts() {
  for (const card of CHARTS.values()) if (card.seen) card.draw();
}
