// What has happened beside the steps: alarms, restarts, snapshots and notes, the newest first.

import { el, setText } from "./dom.js";
import { clock, count } from "./format.js";

const WORDS = { alarm: "Alarm", cleared: "Cleared", restart: "Restart", snapshot: "Snapshot", note: "Note" };

export class Happenings {
  constructor(list, total) {
    this.list = list;
    this.total = total;
    this.shown = "";
  }

  draw(model) {
    const { events } = model;
    const shown = `${events.length} ${events.at(-1)?.time} ${model.id.split("-").pop()}`;
    if (!model.facts || this.shown === shown) return;
    this.shown = shown;
    const alarms = events.filter((event) => event.kind === "alarm").length;
    setText(
      this.total,
      events.length
        ? `${count(alarms)} ${alarms === 1 ? "alarm" : "alarms"}, ${count(events.length - alarms)} other`
        : "",
    );
    if (events.length === 0) {
      const hint = el(
        "p",
        { class: "hint" },
        el(
          "span",
          { text: "Nothing yet. Alarms, restarts and snapshots appear here; " },
          el("code", { text: "snapshots.every=100" }),
          " takes snapshots.",
        ),
      );
      this.list.replaceChildren(hint);
      return;
    }
    const head = el("tr", {}, ...["Time", "What", "Where", ""].map((text) => el("th", { scope: "col", text })));
    const rows = [...events].reverse().map((event) => this.row(event));
    this.list.replaceChildren(el("table", { class: "events" }, el("thead", {}, head), el("tbody", {}, ...rows)));
  }

  row(event) {
    const name = event.name && event.name !== event.kind ? `: ${event.name}` : "";
    const tag = el("span", {
      class: `tag ${event.kind === "alarm" ? "alarm-on" : event.kind}`,
      text: `${WORDS[event.kind] ?? event.kind}${name}`,
    });
    const where = [event.stage ? `stage ${event.stage}` : "", event.step === null ? "" : `step ${count(event.step)}`]
      .filter(Boolean)
      .join(", ");
    const time = el("time", {
      datetime: new Date(1000 * event.time).toISOString(),
      class: "quiet",
      text: clock(event.time),
    });
    return el(
      "tr",
      {},
      el("td", {}, time),
      el("td", {}, tag),
      el("td", { class: "quiet", text: where }),
      el("td", { text: event.text }),
    );
  }
}
