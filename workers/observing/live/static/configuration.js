// The resolved configuration, section by section, and a field to find a key in it.

import { el } from "./dom.js";

export class Configuration {
  constructor(root, field) {
    this.root = root;
    this.shown = null;
    field.addEventListener("input", () => this.filter(field.value.trim().toLowerCase()));
  }

  draw(model) {
    const config = model.facts?.config;
    if (!config || this.shown === config) return;
    this.shown = config;
    const own = Object.entries(config).filter(([, value]) => !isGroup(value));
    const groups = Object.entries(config).filter(([, value]) => isGroup(value));
    this.root.replaceChildren(
      section("run", "", own),
      ...groups.map(([name, value]) => section(name, `${name}.`, rows(value))),
    );
  }

  filter(text) {
    for (const part of this.root.children) {
      let found = 0;
      for (const key of part.querySelectorAll("dt")) {
        const value = key.nextElementSibling;
        const hit = `${key.dataset.path} ${value.textContent}`.toLowerCase().includes(text);
        key.hidden = value.hidden = !hit;
        found += hit;
      }
      part.hidden = found === 0;
    }
  }
}

function isGroup(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
}

/** Every setting below `group` with its dotted path. */
function rows(group, prefix = "") {
  return Object.entries(group).flatMap(([name, value]) =>
    isGroup(value) ? rows(value, `${prefix}${name}.`) : [[prefix + name, value]],
  );
}

function section(title, prefix, entries) {
  const list = el("dl", {});
  for (const [name, value] of entries)
    list.append(el("dt", { text: name, "data-path": prefix + name }), el("dd", { text: written(value) }));
  return el("section", {}, el("h3", { text: title }), list);
}

function written(value) {
  if (Array.isArray(value)) return `[${value.map(written).join(", ")}]`;
  if (value !== null && typeof value === "object") return JSON.stringify(value);
  return String(value);
}
