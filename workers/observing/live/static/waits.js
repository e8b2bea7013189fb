// Where the time of every stage goes: a band of four shares, which add up to all of it.

import { Chart } from "./chart.js";
import { el, setText } from "./dom.js";
import { percent, shareTick } from "./format.js";
import { card } from "./panel.js";
import { colour } from "./theme.js";

const PARTS = [
  ["busy", "computing"],
  ["input", "input"],
  ["output", "room"],
  ["copy", "copying"],
];
const COLUMNS = { busy: "busy", input: "wait_input", output: "wait_output", copy: "copying" };

export class Waits {
  constructor(plan) {
    Object.assign(this, { charts: new Map() }, card(plan));
    setText(this.unit, "computing, waiting for input, waiting for room, copying");
    this.body.className = "waits";
  }

  draw(model) {
    for (const stage of model.stages) {
      const shares = this.shares(model, stage, model.outcome === null ? null : model.now.stages[stage]?.shares);
      if (shares) this.chart(stage, model).show(model.steps, shares, model.stride);
    }
    if (this.charts.size === 0 && !this.body.firstChild)
      this.body.append(el("p", { class: "hint", text: "Waiting for the first step." }));
  }

  chart(stage, model) {
    if (!this.charts.has(stage)) {
      if (this.charts.size === 0) this.body.replaceChildren();
      const chart = new Chart({
        label: `Time of stage ${stage}`,
        height: 120,
        filled: true,
        range: () => [0, 1],
        tick: shareTick,
        format: (value) => percent(value),
      });
      this.charts.set(stage, chart);
      this.body.append(
        el("div", {}, el("h3", { text: model.facts.stages > 1 ? `Stage ${stage}` : "The stage" }), chart.node),
      );
    }
    return this.charts.get(stage);
  }

  /** Areas that are drawn one over the other, the tallest first; `shown` is what each adds, `overall` what is named
   * where nothing is pointed at: of a run that is over, its last step says nothing. */
  shares(model, stage, overall) {
    const [busy, input, output, copy] = PARTS.map(([name]) => model.column(stage, COLUMNS[name]));
    if (!busy || !input || !output) return null;
    const own = PARTS.map(() => []);
    const piled = PARTS.map(() => []);
    for (let row = 0; row < busy.length; row += 1) {
      // A run of an earlier version, which is gone on with, did not measure copying.
      const parts = [busy[row], input[row], output[row], copy?.[row] ?? (busy[row] === null ? null : 0)];
      const whole = parts.reduce((sum, part) => sum + (part ?? 0), 0);
      let below = 0;
      parts.forEach((part, place) => {
        const share = part === null || !whole ? null : part / whole;
        below += share ?? 0;
        own[place].push(share);
        piled[place].push(share === null ? null : below);
      });
    }
    return PARTS.map(([name, label], place) => ({
      label,
      short: "",
      swatch: name,
      colour: colour(`${name}-area`),
      values: piled[place],
      shown: own[place],
      overall: overall?.[place] ?? null,
    })).reverse();
  }
}
