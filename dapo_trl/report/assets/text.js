"use strict";
// Elements, texts and numbers. Whatever comes from a run becomes a text node, never markup.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "swatch") node.style.setProperty("--swatch", value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

// Control characters, directions, lone surrogates: what would be invisible or change how the rest is shown.
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

function isInvisible(character) {
  return !"\n\t\u200c\u200d".includes(character) && INVISIBLE.test(character);
}

function nameOf(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return code === 0x7f ? "\u2421" : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

function visible(text) {
  const found = [];
  let plain = "";
  for (const character of text) {
    if (isInvisible(character)) {
      if (plain) found.push(plain);
      plain = "";
      found.push(el("span", { class: "mark" }, nameOf(character)));
    } else plain += character;
  }
  if (plain || !found.length) found.push(plain);
  return found;
}

function visibleLine(text, most) {
  const shown = Array.from(text.slice(0, 2 * most)).slice(0, most);
  return shown.map((character) => (isInvisible(character) ? nameOf(character) : /\s/.test(character) ? " " : character)).join("");
}

function format(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 0) return `−${format(-value, digits)}`;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return value.toLocaleString("en");
  if (size >= 1e9) return `${(value / 1e9).toPrecision(3)} G`;
  if (size >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return Math.round(value).toLocaleString("en");
  if (size && size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(digits)));
}

// One decimal, and two below 1 %, where shares like those of clipped tokens lie.
function percent(value) {
  if (value === null || value === undefined) return "–";
  return `${(100 * value).toFixed(value && Math.abs(value) < 0.01 ? 2 : 1)} %`;
}

// As everywhere else: on the console, in evaluations and in the documentation.
function accuracy(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

// A round value, as on an axis.
function tick(show, value) {
  if (show === accuracy) return String(Number(value.toPrecision(3)));
  return show === percent ? `${Number((100 * value).toPrecision(3))} %` : show(value);
}

function signed(value, digits = 3) {
  return value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + format(value, digits);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
  const [smaller, unit] = seconds < 3600 ? [1, "min"] : [60, "h"];
  const parts = Math.round(seconds / smaller), rest = parts % 60;
  if (seconds >= 172800) return `${(seconds / 86400).toFixed(1)} days`;
  return `${Math.floor(parts / 60)}${rest ? `:${String(rest).padStart(2, "0")}` : ""} ${unit}`;
}

function words(name) {
  return name.replaceAll("_", " ").replace("all right", "all correct"); // the name of a metric stays
}
