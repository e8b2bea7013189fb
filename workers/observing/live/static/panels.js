// Every chart of the page in its place: what it shows, in which unit, and the setting that turns it on.

import { bytes, count, number, percent, shareTick } from "./format.js";
import { Panel } from "./panel.js";
import { colour, stageColour } from "./theme.js";
import { Waits } from "./waits.js";

const WINDOW_SECONDS = 10; // as the server's shares
const byteTick = (value, apart, per) => bytes(value, per).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
const upward = (plot, low, high) => [0, high > 0 ? 1.08 * high : 1];

/** The series `name` of every stage that has it, as lines. */
function byStage(model, name, change = (values) => values) {
  return model.stages
    .filter((stage) => model.has(name, [stage]))
    .map((stage) => ({
      label: `stage ${stage}`,
      short: String(stage),
      colour: stageColour(stage, model.facts.stages),
      values: change(model.column(stage, name), stage),
    }));
}

/** As `byStage`, but one line where all stages have the same values. */
function together(model, name) {
  const lines = byStage(model, name);
  const same = lines.every((line) => line.values.every((value, index) => value === lines[0].values[index]));
  return lines.length > 1 && same ? [{ ...lines[0], label: "all stages", short: "", colour: colour("accent") }] : lines;
}

/** The series of the run as a whole. */
function ofRun(model, label, values, shade = "accent") {
  return values?.some((value) => value !== null) ? [{ label, short: "", colour: colour(shade), values }] : [];
}

/** Measured, predicted, and what the slowest stage alone would allow. */
const rates = (model) => [
  ...ofRun(model, "images/s", model.column(0, "images_per_second")),
  ...ofRun(model, "predicted", model.column(0, "predicted_images_per_second"), "good"),
  ...ofRun(model, "bound", model.column(0, "bound_images_per_second"), "quiet"),
];

/** `amounts` by the time they took, over the last seconds before every point: steps that are reported in one breath
 * would look as if they had taken none. Null where it is not known. */
function perSecond(model, amounts) {
  const { times } = model;
  const seconds = model.column(0, "step_seconds");
  if (!amounts || !seconds) return [];
  const known = (row) => amounts[row] !== null && seconds[row] !== null;
  const sums = [0, 0];
  const add = (row, sign) => {
    if (!known(row)) return;
    sums[0] += sign * amounts[row];
    sums[1] += sign * seconds[row];
  };
  let first = 0;
  return times.map((time, row) => {
    add(row, 1);
    while (first < row && Math.abs(time - times[first]) > WINDOW_SECONDS) add(first++, -1);
    return known(row) && sums[1] > 1e-6 ? Math.max(sums[0], 0) / sums[1] : null;
  });
}

/** A way to look at a panel: what to draw, and in which unit. `on`: whether it is being measured, by the settings. */
const view = (name, label, unit, lines, more = {}) => ({
  name,
  label,
  unit,
  lines,
  format: (value) => number(value, 4),
  ...more,
});
/** What the stages say, each for itself; what is not measured at every step is `sparse`. */
const measured = (name, label, unit, key, more) => view(name, label, unit, (model) => byStage(model, key), more);

const inPercent = { format: (value) => percent(value, 1), tick: shareTick };
const inBytes = { format: (value) => bytes(value), tick: byteTick, range: upward };
const online = (path) => (model) => Boolean(model.setting(`evaluation.online.${path}`));
const quality = { on: online("quality_every"), sparse: true };
const norms = { on: (model) => model.setting("metrics.norms_every") !== 0, sparse: true };

/** In a long run a point stands for several steps. */
const points = (model) => (model.stride > 1 ? `each point is the mean of ${count(model.stride)} steps` : "");
const termViews = (model) => [
  measured("total", "total", points(model), "loss"),
  ...model.names("term:").map((name) => measured(name, name.replaceAll("_", " "), points(model), `term:${name}`)),
];

const PANELS = [
  { title: "Loss", wide: true, height: 250, logarithmic: true, choices: "Term", views: termViews, hint: [] },
  {
    title: "Online probe accuracy",
    views: () => [
      measured("linear", "linear", "of the training images", "online:linear", {
        ...inPercent,
        on: online("linear"),
        sparse: true,
      }),
      measured("knn", "nearest neighbours", "of the training images", "online:knn", {
        ...inPercent,
        on: online("knn_bank"),
        sparse: true,
      }),
    ],
    hint: ["evaluation.online.linear=true", "evaluation.online.knn_bank=2048"],
  },
  {
    title: "Effective rank",
    views: () => [
      measured("rankme", "RankMe", "dimensions", "online:rankme", quality),
      measured("lidar", "LiDAR", "dimensions", "online:lidar", quality),
      measured("alpha", "alpha-ReQ", "exponent", "online:alpha", quality),
    ],
    hint: ["evaluation.online.quality_every=20"],
  },
  {
    title: "Collapse level",
    views: () => [measured("collapse", "", "0: collapsed", "online:collapse", { ...quality, range: upward })],
    hint: ["evaluation.online.quality_every=20"],
  },
  {
    title: "Throughput",
    views: () => [
      view("rate", "images", "images/s", rates, { range: upward }),
      view(
        "feed",
        "waiting for images",
        "share of time",
        (model) =>
          ofRun(
            model,
            "waiting for images",
            perSecond(model, model.column(0, "feed_wait_seconds")).map((share) =>
              share === null ? null : Math.min(share, 1),
            ),
          ),
        { ...inPercent, range: upward },
      ),
    ],
    hint: [],
  },
  { title: "Where the time of each stage goes", wide: true, waits: true, hint: [] },
  {
    title: "Norms",
    views: () => [
      measured("gradient", "gradient", "Euclidean norm", "gradient_norm", norms),
      measured("update", "update", "Euclidean norm", "update_norm", norms),
    ],
    hint: ["metrics.norms_every=10"],
    logarithmic: true,
  },
  {
    title: "Learning rate",
    views: () => [view("rate", "", "", (model) => together(model, "learning_rate"), { range: upward })],
    hint: [],
  },
  {
    title: "Links",
    views: () => [
      view(
        "bytes",
        "traffic",
        "sent to the next stage",
        (model) =>
          byStage(model, "link_bytes", (values) => perSecond(model, values)).filter(
            (line) => line.values.some((value) => value > 0),
          ),
        { ...inBytes, format: (value) => bytes(value, "/s"), tick: (value, apart) => byteTick(value, apart, "/s") },
      ),
      measured("queue", "queue", "batches that wait at a stage", "queue_depth", { range: upward }),
    ],
    hint: [],
  },
  {
    title: "Memory",
    views: () => [
      view("memory", "process", "resident", (model) => together(model, "memory_bytes"), inBytes),
      measured("cuda", "GPU", "allocated by PyTorch", "cuda_bytes", { ...inBytes, optional: true }),
      measured("cuda-peak", "GPU peak", "most that tensors took at once", "cuda_peak_bytes", {
        ...inBytes,
        optional: true,
      }),
    ],
    hint: [],
  },
];

export class Panels {
  constructor(root) {
    this.panels = PANELS.map((plan) => (plan.waits ? new Waits(plan) : new Panel(plan)));
    root.append(...this.panels.map((panel) => panel.node));
  }

  draw(model) {
    if (model.facts) for (const panel of this.panels) panel.draw(model);
  }
}
