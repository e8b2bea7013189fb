// One sentence at the top where the page is not that of a run that goes on: what has happened, and what to do.

import { el, setAttribute } from "./dom.js";
import { clock } from "./format.js";

export class Notice {
  constructor(node) {
    this.node = node;
    this.shown = "";
  }

  /** `line` is the state of the connection: loading, starting, live, ended or lost. */
  draw(model, line) {
    const [kind, title, ...parts] = words(model, line);
    const key = JSON.stringify([kind, title, parts]);
    if (this.shown === key) return;
    this.shown = key;
    this.node.hidden = !kind;
    setAttribute(this.node, "data-kind", kind);
    if (!kind) this.node.replaceChildren();
    else this.node.replaceChildren(el("strong", { text: title }), el("span", {}, ...parts.map(sentence)));
  }
}

function sentence(part) {
  if (typeof part === "string") return el("span", { text: part });
  return el("span", { class: "quiet" }, el("code", { text: part.command }), ` ${part.does}`);
}

/** What kind of notice, its title, and its sentences; null where there is nothing to say. */
function words(model, line) {
  const report = { command: `onward report ${model.facts?.path}`, does: "makes one file of these plots." };
  if (model.outcome === "done") return ["done", "Done", report];
  if (model.outcome === "interrupted")
    return ["interrupted", "Interrupted", "The same command goes on from the last snapshot.", report];
  if (model.outcome !== null) return ["failed", "Failed", model.outcome.replace(/^failed: /, ""), report];
  if (line === "lost" && model.facts)
    return [
      "lost",
      "Not reachable",
      `This is how it stood at ${clock(model.now.time ?? model.facts.started)}.`,
      "The coordinator of the run has ended, is stopped, or the line to it is cut.",
    ];
  if (line === "lost") return ["lost", "Not reachable", "Nobody answers at this address. Is the run still there?"];
  if (line === "starting")
    return ["starting", "Starting", "The data set is being opened; everything appears here by itself."];
  return [null];
}
