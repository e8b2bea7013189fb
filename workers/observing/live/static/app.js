// The page: one model of the run, kept up to date by the connection, drawn by its parts at most once a frame.

import { onZoom, repaint, setZoom } from "./chart.js";
import { Configuration } from "./configuration.js";
import { Connection } from "./connection.js";
import { setText } from "./dom.js";
import { duration } from "./format.js";
import { Happenings } from "./happenings.js";
import { Model } from "./model.js";
import { Notice } from "./notice.js";
import { Overview } from "./overview.js";
import { Panels } from "./panels.js";
import { Pipeline } from "./pipeline.js";
import { setUpTheme } from "./theme.js";

const FRESHNESS_MS = 1000;
const find = (id) => document.getElementById(id);
const model = new Model();
const overview = new Overview(document);
const notice = new Notice(find("notice"));
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
  notice.draw(model, line);
  find("main").classList.toggle("empty", model.facts === null);
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
  overview.drawState(model, line);
  if (model.outcome !== null) setText(find("freshness"), "The run has ended; what it left on this page stays.");
  else setText(find("freshness"), last ? `Last step ${duration(model.since(last))} ago` : "");
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
find("unzoom").addEventListener("click", () => setZoom(null));
onZoom((part) => {
  find("unzoom").hidden = !part;
});
setInterval(freshness, FRESHNESS_MS);
connection.load();
