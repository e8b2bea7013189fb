// The run as its user thinks of it: images, then one box a stage, and the links that join them.

import { el, setAttribute, setText } from "./dom.js";
import { bytes, count, flops, number, percent } from "./format.js";
import { stageColour } from "./theme.js";

const MOODS = ["busy", "input", "output", "copy"];
const IN_WORDS = { busy: "computing", input: "waiting for input", output: "waiting for room", copy: "copying" };
const SPARK = { width: 160, height: 30, points: 80 };
const SVG = "http://www.w3.org/2000/svg";
const MAX_SLOTS = 6;
const STARVED = 0.1;

export class Pipeline {
  constructor(root) {
    this.root = root;
    this.stages = [];
    this.made = "";
  }

  draw(model) {
    if (!model.facts) return;
    const made = `${model.facts.stages} ${model.oneProcess}`;
    if (this.made !== made) this.make(model);
    this.made = made;
    this.drawFeed(model);
    for (const stage of this.stages) this.drawStage(stage, model);
  }

  make(model) {
    this.feed = this.box("Images", "");
    this.stages = model.stages.map((index) => this.makeStage(index, model));
    this.root.toggleAttribute("data-many", model.facts.stages > 5);
    this.root.replaceChildren(
      el("li", { class: "hop first" }, this.feed.node),
      ...this.stages.map((stage) => el("li", { class: "hop" }, stage.link.node, stage.node)),
    );
  }

  makeStage(index, model) {
    const cuts = model.setting("model.cuts") ?? [];
    const place = index <= cuts.length ? `to ${cuts[index - 1]}` : cuts.length ? `after ${cuts[cuts.length - 1]}` : "";
    const stage = this.box(`Stage ${index}`, place);
    stage.index = index;
    stage.spark = document.createElementNS(SVG, "svg");
    stage.line = document.createElementNS(SVG, "polyline");
    setAttribute(stage.spark, "viewBox", `0 0 ${SPARK.width} ${SPARK.height}`);
    setAttribute(stage.spark, "preserveAspectRatio", "none");
    setAttribute(stage.spark, "class", "spark");
    setAttribute(stage.spark, "aria-hidden", "true");
    for (const [name, value] of Object.entries({
      fill: "none",
      "stroke-width": 1.75,
      "vector-effect": "non-scaling-stroke",
      "stroke-linejoin": "round",
    })) {
      setAttribute(stage.line, name, value);
    }
    stage.spark.append(stage.line);
    stage.node.insertBefore(stage.spark, stage.facts);
    stage.link = this.makeLink();
    return stage;
  }

  makeLink() {
    const fill = el("span", {});
    const slots = el("span", { class: "slots", "aria-hidden": "true" });
    const rate = el("span", {});
    return {
      node: el("div", { class: "link" }, fill, slots, el("span", { class: "arrow", "aria-hidden": "true" }), rate),
      fill,
      slots,
      rate,
    };
  }

  box(title, place) {
    const mood = el("p", { class: "mood", text: "no step yet" });
    const troubles = el("p", { class: "troubles", hidden: true });
    const shares = el("div", { class: "shares", "aria-hidden": "true" });
    const parts = el("p", { class: "parts" });
    const facts = el("dl", { class: "facts" });
    const head = el(
      "p",
      { class: "box-title" },
      el("span", { text: title }),
      el("span", { class: "place", text: place, title: place }),
    );
    return {
      node: el("div", { class: "box" }, head, mood, troubles, shares, parts, facts),
      mood,
      troubles,
      shares,
      parts,
      facts,
      rows: new Map(),
    };
  }

  drawFeed(model) {
    const { feed } = this;
    const waits = model.now.feed_wait ?? null;
    const starved = waits !== null && waits > STARVED;
    setAttribute(feed.node, "data-mood", waits === null ? null : starved ? "input" : "busy");
    setText(
      feed.mood,
      waits === null ? "no step yet" : starved ? `keeps the run waiting ${percent(waits)}` : "keeps up",
    );
    this.drawShares(feed, waits === null ? null : { busy: 1 - waits, input: waits }, {
      busy: "of the time images were ready",
      input: "of the time the run waited for images",
    });
    const size = model.setting("data.image_size");
    this.fact(feed, "rate", "rate", model.now.images_per_second ? `${number(model.now.images_per_second)} img/s` : "–");
    this.fact(feed, "batch", "batch", count(model.setting("data.batch_size")));
    if (typeof size === "number") this.fact(feed, "size", "size", `${size} px`);
    this.fact(feed, "data", "data", String(model.setting("data.name") ?? "–"));
    setAttribute(feed.rows.get("data").parentNode, "class", "fact alone");
  }

  drawStage(stage, model) {
    const now = model.now.stages[stage.index];
    const shares = now?.shares ? Object.fromEntries(MOODS.map((mood, place) => [mood, now.shares[place]])) : null;
    const mood = shares ? MOODS.reduce((most, name) => (shares[name] > shares[most] ? name : most)) : null;
    setAttribute(stage.node, "data-mood", mood);
    const alarmed = model.now.alarms.filter((alarm) => alarm.stage === stage.index).map((alarm) => alarm.name);
    setAttribute(stage.node, "data-alarm", alarmed.length ? "" : null);
    const queued = model.setting("mode") === "sequential" && model.steps.length > 0;
    const later = queued ? "its turn comes later" : "no step yet";
    const state = mood ? `${IN_WORDS[mood]} ${percent(shares[mood])}` : now ? "not at work" : later;
    setText(stage.mood, state);
    stage.troubles.hidden = alarmed.length === 0;
    setText(stage.troubles, `Alarm: ${alarmed.join(", ")}`);
    this.drawShares(stage, shares, IN_WORDS);
    this.drawFacts(stage, now, model);
    this.drawSpark(stage, model);
    this.drawLink(stage, model);
  }

  drawFacts(stage, now, model) {
    const latest = now?.latest ?? {};
    this.fact(stage, "loss", "loss", this.loss(stage, now, model));
    const probe = latest["online:linear"] ?? latest["online:knn"];
    if (probe !== undefined) this.fact(stage, "probe", "probe", percent(probe, 1));
    if (latest["online:rankme"] !== undefined) this.fact(stage, "rank", "rank", number(latest["online:rankme"], 3));
    if (now?.flops_per_second) {
      this.fact(stage, "flops", "speed", flops(now.flops_per_second));
      if (now.mfu) this.fact(stage, "mfu", "of peak", percent(now.mfu, now.mfu < 0.1 ? 1 : 0));
    }
    if (now?.skipped) this.fact(stage, "skipped", "skipped", count(now.skipped));
    if (now?.restarts) this.fact(stage, "restarts", "restarts", count(now.restarts));
    const replicas = model.setting(`stages.${stage.index}.replicas`) ?? model.setting("replicas");
    if (replicas > 1) this.fact(stage, "replicas", "replicas", count(replicas));
  }

  /** That of the last step, or why there is none. */
  loss(stage, now, model) {
    if (model.setting(`stages.${stage.index}.frozen`)) return "frozen";
    const loss = now?.latest.loss;
    if (loss !== undefined) return number(loss, 4);
    if (now?.skipping) return "not finite";
    return model.has("loss", [stage.index]) ? "frozen" : "–";
  }

  drawShares(box, shares, words) {
    if (!shares) return;
    for (const [name, share] of Object.entries(shares)) {
      let bar = box.rows.get(`share ${name}`);
      if (!bar) {
        const text = el("span", {});
        const spoken = el("span", { class: "words", text: ` % ${words[name]}, ` });
        bar = { node: el("div", { class: `share ${name}` }), text };
        box.shares.append(bar.node);
        box.parts.append(
          el(
            "span",
            { title: words[name] },
            el("span", { class: `swatch ${name}`, "aria-hidden": "true" }),
            text,
            spoken,
          ),
        );
        box.rows.set(`share ${name}`, bar);
      }
      bar.node.style.width = `${100 * share}%`;
      setText(bar.text, count(100 * share));
    }
  }

  fact(box, key, label, value) {
    let row = box.rows.get(key);
    if (!row) {
      row = el("dd", {});
      box.facts.append(el("div", { class: "fact" }, el("dt", { text: label }), row));
      box.rows.set(key, row);
    }
    setText(row, value);
  }

  drawSpark(stage, model) {
    const values = model.column(stage.index, "loss") ?? [];
    const stride = Math.max(Math.ceil(values.length / SPARK.points), 1);
    const picked = values.filter((value, index) => value !== null && (values.length - 1 - index) % stride === 0);
    stage.line.setAttribute("stroke", stageColour(stage.index, model.facts.stages));
    if (picked.length < 2) return;
    const [low, high] = [Math.min(...picked), Math.max(...picked)];
    const points = picked.map((value, index) => {
      const x = (index / (picked.length - 1)) * SPARK.width;
      const y = SPARK.height - 3 - ((value - low) / (high - low || 1)) * (SPARK.height - 6);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    stage.line.setAttribute("points", points.join(" "));
  }

  /** The link into a stage: what waits on it, and what the stage before sends. */
  drawLink(stage, model) {
    const { link } = stage;
    if (model.oneProcess) return;
    const depth = model.setting("link.depth") ?? 0;
    const waiting = model.now.stages[stage.index]?.latest.queue_depth;
    const sent = model.now.stages[stage.index - 1]?.bytes_per_second;
    const inside = model.sharesProcess(stage.index);
    link.slots.hidden = inside;
    setText(link.rate, inside ? "same process" : sent ? bytes(sent, "/s") : "");
    setText(link.fill, inside || waiting === undefined ? "" : `${count(waiting)} of ${count(depth)}`);
    setAttribute(
      link.node,
      "title",
      inside || waiting === undefined
        ? null
        : `${count(waiting)} of at most ${count(depth)} batches wait at stage ${stage.index}`,
    );
    const slots = Math.min(depth, MAX_SLOTS);
    while (link.slots.children.length < slots) link.slots.append(el("i"));
    const full = depth ? Math.round((Math.min(waiting ?? 0, depth) / depth) * slots) : 0;
    [...link.slots.children].forEach((slot, index) => slot.classList.toggle("full", index < full));
  }
}
