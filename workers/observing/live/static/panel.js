// A card with one chart and the ways to look at it, or with a word on why there is none.

import { Chart } from "./chart.js";
import { el, segments, setText } from "./dom.js";
import { tick } from "./format.js";

const MAX_BUTTONS = 3;

/** An empty card: its node, the place for a unit beside the title, that for buttons, and its body. */
export function card(plan) {
  const title = el("h2", { text: plan.title }, el("small", {}));
  const tools = el("div", { class: "tools" });
  const body = el("div", {});
  const node = el(
    "section",
    { class: `card panel${plan.wide ? " wide" : ""}`, "aria-label": plan.title },
    el("div", { class: "card-head" }, title, tools),
    body,
  );
  return { node, unit: title.lastChild, tools, body };
}

export class Panel {
  constructor(plan) {
    Object.assign(this, { plan, chosen: null, log: false, tooled: "" }, card(plan));
  }

  draw(model) {
    const all = this.plan.views(model);
    const on = all.filter((look) => (look.on ? look.on(model) : !look.optional) || look.lines(model).length > 0);
    const look = on.find((one) => one.name === this.chosen) ?? on[0];
    this.node.classList.toggle("off", !look);
    if (!look) {
      this.tools.replaceChildren();
      this.tooled = "";
      this.say([
        "Not measured; turn it on with ",
        ...this.plan.hint.flatMap((setting, place) => (place ? [" or ", { setting }] : [{ setting }])),
      ]);
      return;
    }
    this.drawTools(on, look, model);
    setText(this.unit, look.unit);
    const lines = look.lines(model);
    if (lines.length === 0) {
      this.say([
        model.oneProcess && this.plan.title === "Links"
          ? "All stages share one process; nothing travels."
          : this.waiting(model),
      ]);
      return;
    }
    const log = this.log && Boolean(this.plan.logarithmic);
    if (log && !lines.some((line) => line.values.some((value) => value > 0))) {
      this.say(["Nothing is above 0, and a logarithmic axis shows nothing else."]);
      return;
    }
    this.chart(look).show(model.steps, lines, model.stride, log);
  }

  waiting(model) {
    if (model.outcome !== null) return "The run ended before the first measurement.";
    return model.steps.length ? "Waiting for the first measurement." : "Waiting for the first step.";
  }

  /** The chart of this look; another unit or range is another chart. */
  chart(look) {
    if (this.look !== look.name || !this.drawn) {
      const { format, range = null, sparse = false, tick: ticks = tick } = look;
      const label = `${this.plan.title}${look.label ? `, ${look.label}` : ""}`;
      this.drawn?.discard();
      this.drawn = new Chart({ label, format, range, sparse, tick: ticks, height: this.plan.height ?? 190 });
      this.body.replaceChildren(this.drawn.node);
      this.look = look.name;
    }
    return this.drawn;
  }

  say(parts) {
    this.drawn?.discard();
    this.drawn = null;
    const key = JSON.stringify(parts);
    if (this.said === key && this.body.firstChild?.className === "hint") return;
    this.said = key;
    const nodes = parts.map((part) =>
      typeof part === "string" ? document.createTextNode(part) : el("code", { text: part.setting }),
    );
    this.body.replaceChildren(el("p", { class: "hint" }, el("span", {}, ...nodes)));
  }

  drawTools(looks, chosen, model) {
    const key = JSON.stringify([looks.map((look) => look.name), chosen.name]);
    if (this.tooled === key) return;
    this.tooled = key;
    const choose = (name) => {
      this.chosen = name;
      this.draw(model);
    };
    const parts = [];
    if (looks.length > MAX_BUTTONS + 1) {
      const select = el("select", {
        "aria-label": this.plan.choices ?? "Show",
        on: { change: () => choose(select.value) },
      });
      select.append(
        ...looks.map((look) => el("option", { value: look.name, text: look.label, selected: look === chosen })),
      );
      parts.push(select);
    } else if (looks.length > 1) {
      parts.push(
        segments(
          this.plan.choices ?? "Show",
          looks.map((look) => [look.name, look.label]),
          chosen.name,
          choose,
        ),
      );
    }
    if (this.plan.logarithmic) {
      const scale = (name) => {
        this.log = name === "log";
        this.draw(model);
      };
      parts.push(
        segments(
          "Scale",
          [
            ["linear", "Linear"],
            ["log", "Log"],
          ],
          this.log ? "log" : "linear",
          scale,
        ),
      );
    }
    const focused =
      document.activeElement && this.tools.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.tools.replaceChildren(...parts);
    if (focused !== null)
      [...this.tools.querySelectorAll("button, select")].find((node) => node.textContent === focused)?.focus();
  }
}
