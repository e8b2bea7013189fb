// Numbers as people read them, with their units.

const DASH = "–";

/** About `digits` significant digits; thousands are grouped by a thin space. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(digits - 1).replace("e+", "e");
  const whole = size >= 1 ? Math.floor(Math.log10(size)) + 1 : 0;
  const places = size === 0 ? 0 : Math.max(digits - Math.max(whole, 1), 0) + (size < 0.1 ? 1 : 0);
  return grouped(value.toFixed(size >= 10 ** digits ? 0 : places));
}

/** A count: no places, thousands grouped. */
export function count(value) {
  return value === null || value === undefined ? DASH : grouped(String(Math.round(value)));
}

/** A share of 1 in percent. */
export function percent(value, places = 0) {
  return value === null || value === undefined ? DASH : `${(100 * value).toFixed(places)} %`;
}

/** Bytes, or bytes a second, in powers of 1000. */
export function bytes(value, per = "") {
  return scaled(value, ["B", "kB", "MB", "GB", "TB"], per);
}

/** Floating-point operations a second, likewise. */
export function flops(value) {
  return scaled(value, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"], "/s");
}

function scaled(value, units, per) {
  if (value === null || value === undefined) return DASH;
  let scale = 0;
  while (Math.abs(value) >= 999.5 && scale < units.length - 1) {
    value /= 1000;
    scale += 1;
  }
  return `${scale ? number(value, 3) : Math.round(value)} ${units[scale]}${per}`;
}

/** A length of time with its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return DASH;
  const whole = Math.max(Math.round(seconds), 0);
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([amount], index) => index === 0 || amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(" ");
}

/** Time of day; with the date unless it is today. `seconds` since 1970. */
export function clock(seconds, withSeconds = true) {
  const date = new Date(1000 * seconds);
  const today = date.toDateString() === new Date().toDateString();
  const time = { hour: "2-digit", minute: "2-digit", ...(withSeconds ? { second: "2-digit" } : {}), hourCycle: "h23" };
  return date.toLocaleString("en-GB", today ? time : { day: "numeric", month: "short", ...time });
}

/** The short form for the axis of a chart whose ticks are so far `apart`, 0 if at uneven distances. */
export function tick(value, apart = 0) {
  const size = Math.abs(value);
  const shown = Number(value.toPrecision(digitsOf(size, apart)));
  if (size !== 0 && (size < 1e-3 || size >= 1e12)) return shown.toExponential().replace("e+", "e");
  const [scale, unit] = [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
    [0, ""],
  ].find(([least]) => size >= least);
  return `${unit ? Number((shown / (unit === "k" ? 1e3 : scale)).toPrecision(12)) : shown}${unit}`;
}

/** The same of a share of 1, in percent. */
export function shareTick(value, apart = 0) {
  return `${tick(100 * value, 100 * apart)} %`;
}

/** As many as it takes to tell a tick from its neighbours, and no more. */
function digitsOf(size, apart) {
  if (!apart || !size) return 4;
  return Math.min(Math.max(Math.floor(Math.log10(size)) - Math.floor(Math.log10(apart)) + 2, 1), 12);
}

function grouped(text) {
  const [whole, places] = text.split(".");
  const parts = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  return places === undefined ? parts : `${parts}.${places}`;
}
