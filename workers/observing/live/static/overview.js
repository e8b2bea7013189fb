// The top of the page: which run, how it stands, the big numbers, and the alarms that are on.

import { el, setAttribute, setText } from "./dom.js";
import { clock, count, duration, number, percent } from "./format.js";

const STATES = {
  loading: "Loading",
  starting: "Starting",
  running: "Running",
  finishing: "Finishing",
  stalled: "No step",
  done: "Done",
  failed: "Failed",
  interrupted: "Interrupted",
  lost: "Not reachable",
};

const LOST = { start: "start", restart: "restarts", repeat: "repeats" };

const STALLED_SECONDS = 60;
const STALLED_STEPS = 10;

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
      ["goodput", "Goodput"],
    ]) {
      const value = el("span", { text: "–" });
      const below = el("p", { class: "below" });
      const name = el("p", { class: "label", text: label });
      const line = el("p", { class: "value" }, value);
      this.find("figures").append(el("div", { class: "figure", "data-figure": key }, name, line, below));
      this.figures[key] = { name, value, below };
    }
  }

  /** `line` is the state of the connection: loading, starting, live, ended or lost. */
  draw(model, line) {
    this.drawState(model, line);
    if (!model.facts) return;
    const { facts, now } = model;
    setText(this.find("run-name"), facts.name);
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
    const done = Math.max((now.step ?? -1) + 1, facts.start_step);
    const share = facts.total_steps ? Math.min(done / facts.total_steps, 1) : 0;
    const part = percent(Math.floor(1000 * share) / 1000, 1);
    const over = model.outcome !== null;
    const standing = over ? this.find("state-text").textContent : part;
    document.title = `${standing} · ${facts.name} · Onward`;
    const epochs = Math.ceil(facts.total_steps / Math.max(facts.steps_per_epoch, 1));
    const headroom = now.headroom ?? null;
    // In the last seconds the pipeline has drained; the bound is of the whole run by then.
    const rate = over && headroom ? headroom.measured : now.images_per_second;
    this.set("rate", rate ? number(rate) : "–", headroom ? limits(headroom) : this.batch(model));
    this.drawHeadroom(headroom);
    if (over) {
      this.figures.left.name.textContent = "Ran for";
      this.set("left", duration(model.ended - facts.started), `ended ${clock(model.ended)}`);
    } else if (model.finishing) {
      this.set("left", "soon", "final weights and probes");
    } else {
      const eta = now.eta_seconds;
      const end = Number.isFinite(eta) && now.time ? `ends about ${clock(now.time + eta, false)}` : "";
      this.set("left", duration(eta), end);
    }
    this.set("step", count(done), `${part} of ${count(facts.total_steps)}`);
    this.set(
      "epoch",
      count(Math.min((now.epoch ?? 0) + 1, epochs)),
      `of ${count(epochs)}, ${count(facts.steps_per_epoch)} steps each`,
    );
    const measured = (now.feed_wait ?? null) !== null;
    const span = over ? "the whole run" : `the last ${duration(now.window)}`;
    const advice = now.feed_wait > 0.1 ? "more data.workers may help" : `of ${span}`;
    this.set("feed", percent(now.feed_wait), measured ? advice : "");
    this.set("goodput", percent(now.goodput?.ratio, 1), lost(now.goodput));
    setText(this.find("window"), now.window ? `shares of ${span}` : "");
    const bar = this.find("progress");
    setAttribute(bar, "aria-valuenow", Math.round(100 * share));
    bar.firstElementChild.style.width = `${Math.min(100 * share, 100)}%`;
  }

  /** How much of the bound is reached, and what the largest part of the rest goes to. */
  drawHeadroom(headroom) {
    const line = this.find("headroom");
    line.hidden = headroom === null;
    if (headroom === null) return;
    const { share, stages, reason } = headroom.bound;
    const many = stages.length > 1 ? "stages" : "stage";
    const alone = stages.length ? `${many} ${[stages[0], stages.at(-1)].slice(-stages.length).join("-")}` : "computing";
    setText(line, `${percent(share)} of what ${alone} alone would allow${reason ? `: ${reason}` : ""}`);
  }

  batch(model) {
    const size = model.setting("data.batch_size");
    return size ? `batches of ${count(size)}` : "";
  }

  set(key, value, below) {
    const figure = this.figures[key];
    setText(figure.value, value);
    setText(figure.below, below);
  }

  drawState(model, line) {
    let state = "running";
    if (line === "starting") state = "starting";
    else if (model.outcome !== null) state = model.outcome.split(":")[0];
    else if (line === "lost") state = "lost";
    else if (!model.facts) state = "loading";
    else if (model.finishing) state = "finishing";
    else if (this.silence(model) > 0) state = "stalled";
    if (!(state in STATES)) state = "done";
    const badge = this.find("state");
    setAttribute(badge, "data-state", state);
    setAttribute(badge, "title", model.outcome);
    const since = state === "stalled" ? ` for ${duration(this.silence(model))}` : "";
    setText(this.find("state-text"), STATES[state] + since);
    this.find("retry").hidden = line !== "lost";
  }

  /** Whole minutes, in seconds, without a step, where that is far longer than steps take; else 0. */
  silence(model) {
    if (!model.now.time || model.now.images_per_second === null) return 0;
    const usual = (model.column(0, "step_seconds") ?? []).findLast((seconds) => seconds !== null) ?? 0;
    const passed = model.since(model.now.time);
    return passed > Math.max(STALLED_SECONDS, STALLED_STEPS * usual) ? 60 * Math.floor(passed / 60) : 0;
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

/** What it could be at most, and what a model of the pipeline says. */
function limits(headroom) {
  const predicted = headroom.predicted?.images_per_second;
  const bound = `bound\u00a0${number(headroom.bound.images_per_second)}`;
  return predicted === undefined ? bound : `${bound} · predicted\u00a0${number(predicted)}`;
}

/** What the rest of the time went to, where it is half a second or more. */
function lost(goodput) {
  const causes = Object.entries(goodput?.lost ?? {}).filter(([, seconds]) => seconds >= 0.5);
  return causes.length ? `lost: ${causes.map(([cause, seconds]) => `${LOST[cause]} ${duration(seconds)}`).join(", ")}` : "";
}
