// The top of the page: which run, how it stands, the big numbers, and the alarms that are on.

import { el, setAttribute, setText } from "./dom.js";
import { clock, count, duration, number, percent } from "./format.js";

const STATES = {
  loading: "Loading",
  starting: "Starting",
  running: "Running",
  done: "Done",
  failed: "Failed",
  interrupted: "Interrupted",
  lost: "Not reachable",
};

export class Overview {
  constructor(root) {
    this.root = root;
    this.find = (id) => root.getElementById(id);
    this.figures = {};
    for (const [key, label] of [
      ["rate", "Images per second"],
      ["left", "Time left"],
      ["step", "Step"],
      ["epoch", "Epoch"],
      ["feed", "Waiting for images"],
    ]) {
      const value = el("span", { text: "–" });
      const unit = el("small", {});
      const below = el("p", { class: "below" });
      const name = el("p", { class: "label", text: label });
      const line = el("p", { class: "value" }, value, unit);
      this.find("figures").append(el("div", { class: "figure", "data-figure": key }, name, line, below));
      this.figures[key] = { name, value, unit, below };
    }
  }

  /** `line` is the state of the connection: loading, starting, live, ended or lost. */
  draw(model, line) {
    this.drawState(model, line);
    if (!model.facts) return;
    const { facts, now } = model;
    setText(this.find("run-name"), facts.name);
    document.title = `${facts.name} · Onward`;
    const about = [
      model.setting("mode"),
      model.oneProcess ? "one process" : `${model.setting("link.kind")} links`,
      model.setting("model.backbone"),
      `${facts.stages} ${facts.stages === 1 ? "stage" : "stages"}`,
      facts.path,
    ];
    setText(this.find("run-about"), about.filter((part) => typeof part === "string").join("  ·  "));
    this.drawFigures(facts, now, model);
    this.drawAlarms(now.alarms);
  }

  drawFigures(facts, now, model) {
    const done = now.step === undefined ? facts.start_step : now.step + 1;
    const share = facts.total_steps ? done / facts.total_steps : 0;
    const epochs = Math.ceil(facts.total_steps / Math.max(facts.steps_per_epoch, 1));
    const over = model.outcome !== null;
    this.set("rate", now.images_per_second ? number(now.images_per_second) : "–", "img/s", this.batch(model));
    if (over) {
      this.figures.left.name.textContent = "Ran for";
      this.set(
        "left",
        duration((now.time ?? facts.started) - facts.started),
        "",
        `ended ${clock(now.time ?? facts.started)}`,
      );
    } else {
      const eta = now.eta_seconds;
      const end = Number.isFinite(eta) && now.time ? `ends about ${clock(now.time + eta, false)}` : "";
      this.set("left", duration(eta), "", end);
    }
    this.set("step", count(done), `of ${count(facts.total_steps)}`, percent(share, 1));
    this.set(
      "epoch",
      count(Math.min((now.epoch ?? 0) + 1, epochs)),
      `of ${count(epochs)}`,
      `${count(facts.steps_per_epoch)} steps each`,
    );
    const advice = now.feed_wait > 0.1 ? "more data.workers may help" : "of the last 10 s";
    this.set("feed", percent(now.feed_wait), "", now.feed_wait === null ? "" : advice);
    const bar = this.find("progress");
    setAttribute(bar, "aria-valuenow", Math.round(100 * share));
    bar.firstElementChild.style.width = `${Math.min(100 * share, 100)}%`;
  }

  batch(model) {
    const size = model.setting("data.batch_size");
    return size ? `batches of ${count(size)}` : "";
  }

  set(key, value, unit, below) {
    const figure = this.figures[key];
    setText(figure.value, value);
    setText(figure.unit, unit);
    setText(figure.below, below);
  }

  drawState(model, line) {
    let state = "running";
    if (line === "starting") state = "starting";
    else if (model.outcome !== null) state = model.outcome.split(":")[0];
    else if (line === "lost") state = "lost";
    else if (!model.facts) state = "loading";
    if (!(state in STATES)) state = "done";
    const badge = this.find("state");
    setAttribute(badge, "data-state", state);
    setAttribute(badge, "title", model.outcome);
    setText(this.find("state-text"), STATES[state]);
    this.find("retry").hidden = line !== "lost";
  }

  /** Only what has changed is touched: the section is read out when it changes. */
  drawAlarms(alarms) {
    const section = this.find("alarms");
    const key = JSON.stringify(alarms);
    if (this.alarms === key) return;
    this.alarms = key;
    section.hidden = alarms.length === 0;
    section.replaceChildren(
      ...alarms.map((alarm) =>
        el(
          "div",
          { class: "alarm" },
          el("strong", { text: alarm.stage ? `Stage ${alarm.stage}: ${alarm.name}` : `Alarm: ${alarm.name}` }),
          el("span", { text: alarm.text }),
          el("time", { class: "quiet", text: `since ${clock(alarm.time)}` }),
        ),
      ),
    );
  }
}
