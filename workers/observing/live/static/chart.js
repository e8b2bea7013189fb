// One chart: lines over steps that share their cursor and their zoom with all others on the page.

import { el, setAttribute, setText } from "./dom.js";
import { count, tick } from "./format.js";
import { nameEnds } from "./ends.js";
import { colour } from "./theme.js";

const sync = window.uPlot.sync("steps");
const charts = new Set();
const FEW = 48;
let zoom = null;
let zoomed = () => {};

/** Show only these steps in all charts; null for everything. */
export function setZoom(range) {
  zoom = range;
  zoomed(range !== null);
  for (const chart of charts) chart.rescale();
}

/** `listener` is told whether only a part of the run is shown. */
export function onZoom(listener) {
  zoomed = listener;
}

/** Colours have changed. */
export function repaint() {
  for (const chart of charts) chart.repaint();
}

export class Chart {
  /** `look` has: label, height, format (a value in words), tick (the same on the axis), range (of the axis, or null),
   * filled (areas, in order), sparse (not measured at every step, so that gaps say nothing). */
  constructor(look) {
    this.look = look;
    this.plot = null;
    this.key = "";
    this.pending = null;
    this.seen = false;
    this.box = el("div", { class: "chart", tabindex: "0", role: "img" });
    this.at = el("span", { class: "at", hidden: true });
    this.legend = el("ul", { class: "legend" });
    this.box.append(this.at);
    this.box.style.minHeight = `${look.height}px`; // before it is drawn, so that nothing moves when it is
    this.node = el("div", {}, this.box, this.legend);
    this.box.addEventListener("keydown", (event) => this.press(event));
    this.box.addEventListener("focus", () => setAttribute(this.legend, "aria-live", "polite"));
    this.box.addEventListener("blur", () => setAttribute(this.legend, "aria-live", null));
    this.sizes = new ResizeObserver(() => this.resize());
    this.sights = new IntersectionObserver((entries) => this.looked(entries.at(-1).isIntersecting), {
      rootMargin: "200px",
    });
    this.sizes.observe(this.box);
    this.sights.observe(this.box);
    charts.add(this);
  }

  /** `series` has for each line: label, short (beside its end), colour, values, and perhaps what is named where nothing
   * is pointed at (overall). `stride`: a point is the mean of so many steps. `log`: a logarithmic axis. */
  show(steps, series, stride, log = false) {
    this.pending = { steps, series, stride, log };
    if (this.seen) this.flush();
  }

  /** It is shown no longer. */
  discard() {
    this.sizes.disconnect();
    this.sights.disconnect();
    this.plot?.destroy();
    charts.delete(this);
  }

  /** Colours have changed: whatever is shown next is made anew. */
  repaint() {
    this.key = "";
  }

  looked(visible) {
    this.seen = visible;
    if (visible && this.pending) this.flush();
  }

  flush() {
    const { steps, series, stride, log } = this.pending;
    const positive = (values) => values.map((value) => (value !== null && value > 0 ? value : null));
    const data = [steps, ...series.map((line) => (log ? positive(line.values) : line.values))];
    const key = JSON.stringify([log, series.map((line) => [line.label, line.colour])]);
    Object.assign(this, { series, stride });
    if (key !== this.key || !this.plot) {
      this.key = key;
      this.make(data, log);
    } else {
      this.plot.setData(data);
    }
    this.drawLegend();
    this.describe(steps);
  }

  make(data, log) {
    this.plot?.destroy();
    this.values = new Map();
    this.plot = new window.uPlot(this.options(log), data, this.box);
    this.legend.replaceChildren();
    for (const line of this.look.filled ? [...this.series].reverse() : this.series) {
      const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
      if (line.swatch) swatch.classList.add(line.swatch);
      else swatch.style.background = line.colour;
      const value = el("b", {});
      this.values.set(line.label, value);
      this.legend.append(el("li", {}, swatch, el("span", { text: line.label }), value));
    }
  }

  options(log) {
    const axis = {
      stroke: colour("quiet"),
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { show: false },
      font: this.font(11),
    };
    return {
      width: Math.max(this.box.clientWidth, 120),
      height: this.look.height,
      padding: [10, this.look.filled ? 8 : 24, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false },
        sync: { key: sync.key, filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
        bind: { dblclick: () => () => setZoom(null) },
        points: { size: 7 },
      },
      scales: {
        x: { time: false, range: (plot, low, high) => zoom ?? [low ?? 0, Math.max(high ?? 1, (low ?? 0) + 1)] },
        y: { distr: log ? 3 : 1, ...(this.look.range && !log ? { range: this.look.range } : {}) },
      },
      axes: [
        {
          ...axis,
          size: 30,
          gap: 8,
          space: 60,
          incrs: [1, 2, 5].flatMap((base) => [...Array(9)].map((_, power) => base * 10 ** power)).sort((a, b) => a - b),
          values: (plot, ticks) => ticks.map((value) => tick(value)),
        },
        {
          ...axis,
          size: (plot, texts) => Math.max(50, 10 + 7 * Math.max(...(texts ?? [""]).map((text) => text.length))),
          gap: 4,
          space: 32,
          values: (plot, ticks, place, space, apart) =>
            ticks.map((value) => (value === null ? "" : (this.look.tick ?? tick)(value, log ? 0 : apart))),
        },
      ],
      series: [{}, ...this.series.map((line) => this.line(line))],
      hooks: {
        setCursor: [() => this.drawLegend()],
        setSelect: [(plot) => this.selected(plot)],
        draw: [
          (plot) => this.nameAxis(plot),
          (plot) => this.look.filled || nameEnds(plot, this.series, this.font(11 * window.devicePixelRatio)),
        ],
      },
    };
  }

  line(line) {
    const present = line.values.filter((value) => value !== null).length;
    return {
      label: line.label,
      stroke: line.colour,
      fill: this.look.filled ? line.colour : undefined,
      width: this.look.filled ? 0 : 1.75,
      spanGaps: Boolean(this.look.sparse),
      points: {
        filter: (plot, index, shown) => (shown || this.look.sparse ? null : lonely(plot.data[index])),
        show:
          !this.look.filled && present <= FEW && present > 0
            ? (plot, index) => plot.data[index].filter((value) => value !== null).length <= FEW
            : false,
        size: 4.5,
        fill: line.colour,
        stroke: line.colour,
      },
    };
  }

  font(size) {
    return `${size}px ${getComputedStyle(document.body).fontFamily}`;
  }

  nameAxis(plot) {
    const ratio = window.devicePixelRatio;
    plot.ctx.save();
    plot.ctx.font = this.font(11 * ratio);
    plot.ctx.fillStyle = colour("quiet");
    plot.ctx.textAlign = "right";
    plot.ctx.textBaseline = "top";
    plot.ctx.fillText("step", plot.bbox.left - 10 * ratio, plot.bbox.top + plot.bbox.height + 8 * ratio);
    plot.ctx.restore();
  }

  /** Values at the cursor, or the last ones; of what is measured now and then, the one that held there. */
  drawLegend() {
    if (!this.plot) return;
    const at = this.plot.cursor.idx ?? null;
    const steps = this.plot.data[0];
    this.at.hidden = at === null;
    if (at !== null) setText(this.at, this.moment(steps[at]));
    for (const line of this.series) {
      const values = line.shown ?? line.values;
      const from = at ?? values.length - 1;
      let index = from;
      if (at === null || this.look.sparse) while (index > 0 && values[index] === null) index -= 1;
      const old = index < from && !this.look.sparse ? ` at step ${count(steps[index])}` : "";
      const node = this.values.get(line.label);
      const value = (at === null ? line.overall : null) ?? values[index] ?? null;
      if (node) setText(node, this.look.format(value) + old);
    }
  }

  /** The steps that the point at `step` stands for. */
  moment(step) {
    const first = Math.floor(step / this.stride) * this.stride;
    return first < step ? `mean of steps ${count(first)} to ${count(step)}` : `step ${count(step)}`;
  }

  describe(steps) {
    const parts = this.series.map((line) => {
      const last = (line.shown ?? line.values).findLast((value) => value !== null);
      return `${line.label} ${this.look.format(last ?? null)}`;
    });
    const where = steps.length ? ` at step ${steps[steps.length - 1]}` : "";
    setAttribute(this.box, "aria-label", `${this.look.label}${where}: ${parts.join(", ")}. Arrow keys read values.`);
  }

  selected(plot) {
    if (plot.select.width < 8) return;
    const [from, to] = [plot.select.left, plot.select.left + plot.select.width].map((place) =>
      plot.posToVal(place, "x"),
    );
    setZoom([from, Math.max(to, from + 1)]);
  }

  rescale() {
    if (!this.plot) return;
    this.plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.plot.setData(this.plot.data);
  }

  resize() {
    const width = this.box.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.look.height });
  }

  press(event) {
    if (!this.plot) return;
    const last = this.plot.data[0].length - 1;
    const at = this.plot.cursor.idx ?? last;
    const jump = Math.max(Math.round(last / 50), 1);
    const places = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      PageDown: at - jump,
      PageUp: at + jump,
      Home: 0,
      End: last,
    };
    if (event.key === "Escape") setZoom(null);
    else if (event.key in places) {
      event.preventDefault();
      const to = Math.min(Math.max(places[event.key], 0), last);
      this.plot.setCursor({ left: this.plot.valToPos(this.plot.data[0][to], "x"), top: this.look.height / 3 });
    }
  }
}

/** Places of values without a neighbour, which no line would show; null if there are none. */
function lonely(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value !== null && (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null)
      found.push(index);
  });
  return found.length > 0 ? found : null;
}
