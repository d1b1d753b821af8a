// Builds elements. Strings become text nodes and are never parsed as HTML, because names and keys are untrusted.

export const byId = id => document.getElementById(id);

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const html = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// rate formats a number per second with as few digits as distinguish it from zero.
export function rate(n) {
  if (n === 0) return "0";
  if (n < 0.095) return "<0.1";
  if (n < 9.95) return n.toFixed(1);
  return Math.round(n).toLocaleString("en");
}

export function ratio(n) {
  if (n === 0) return "0";
  if (n < 0.0005) return "<0.001";
  return n < 1 ? n.toFixed(3) : n.toFixed(2);
}

export function percent(n) {
  if (n > 0.9995 && n < 1) return ">99.9 %";
  return (n * 100).toFixed(n >= 1 || n === 0 ? 0 : 1) + " %";
}

export const count = n => n.toLocaleString("en");

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i === 0 || n >= 99.95 ? Math.round(n) : n.toFixed(1)) + " " + units[i];
}

// duration formats nanoseconds in the two largest units.
export function duration(ns) {
  const s = ns / 1e9;
  if (s < 0.001) return Math.round(ns / 1e3) + " µs";
  if (s < 1) return (ns / 1e6).toFixed(s < 0.01 ? 1 : 0) + " ms";
  if (s < 60) return s.toFixed(1) + " s";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const i = units.findIndex(([, size]) => s >= size);
  const [[big, size], [small, part]] = [units[i], units[i + 1]];
  return `${Math.floor(s / size)} ${big} ${Math.floor(s % size / part)} ${small}`;
}

// seconds formats a duration in seconds with two digits.
export const seconds = s => {
  const [value, unit] = s < 0.000001 ? [s * 1e9, "ns"] : s < 0.001 ? [s * 1e6, "µs"] : s < 1 ? [s * 1e3, "ms"] : s < 90 ? [s, "s"] : [s / 60, "min"];
  return (value < 9.95 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value).toString()) + " " + unit;
};

// clock formats a time of the day.
export const clock = time => new Date(time).toLocaleTimeString("en-GB");
