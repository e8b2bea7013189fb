// The page: one model of the run, kept up to date by the connection, drawn by its parts at most once a frame.

import { repaint } from "./chart.js";
import { Configuration } from "./configuration.js";
import { Connection } from "./connection.js";
import { setText } from "./dom.js";
import { clock, duration } from "./format.js";
import { Happenings } from "./happenings.js";
import { Model } from "./model.js";
import { Overview } from "./overview.js";
import { Panels } from "./panels.js";
import { Pipeline } from "./pipeline.js";
import { setUpTheme } from "./theme.js";

const FRESHNESS_MS = 1000;
const find = (id) => document.getElementById(id);
const model = new Model();
const overview = new Overview(document);
const parts = [
  new Pipeline(find("pipeline")),
  new Panels(find("panels")),
  new Happenings(find("events"), find("events-count")),
  new Configuration(find("config"), find("config-find")),
];
let line = "loading";
let asked = false;

function draw() {
  asked = false;
  overview.draw(model, line);
  for (const part of parts) part.draw(model);
  freshness();
}

function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(draw);
}

/** How old what is shown is; it keeps counting when nothing comes. */
function freshness() {
  const last = model.now.time;
  let text = "";
  if (model.outcome !== null) text = `The run has ended (${model.outcome}); what it left on this page stays as it is.`;
  else if (line === "lost")
    text = `The run cannot be reached; this is how it stood${last ? ` at ${clock(last)}` : ""}.`;
  else if (last) text = `Last step ${duration(Math.max(Date.now() / 1000 - last, 0))} ago`;
  setText(find("freshness"), text);
}

const connection = new Connection(model, ask, (state) => {
  line = state;
  ask();
});

setUpTheme([...document.querySelectorAll("[data-theme-choice]")], () => {
  repaint();
  ask();
});
find("retry").addEventListener("click", () => {
  connection.failures = 0;
  connection.again();
});
setInterval(freshness, FRESHNESS_MS);
connection.load();
