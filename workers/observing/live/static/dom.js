// Elements without markup: whatever comes from the run is set as text, never parsed.

/** An element. `props` are attributes; `text` is its text; null and false leave an attribute out. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [kind, listener] of Object.entries(value)) node.addEventListener(kind, listener);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Set the text of `node` if it is another; an unchanged one costs no layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set an attribute if it is another; null takes it away. */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Buttons of which one is pressed: `choices` are [value, label] pairs. */
export function segments(label, choices, chosen, choose) {
  const group = el("div", { class: "segments", role: "group", "aria-label": label });
  for (const [value, name] of choices) {
    const button = el("button", { type: "button", text: name, "aria-pressed": String(value === chosen) });
    button.addEventListener("click", () => {
      for (const other of group.children) setAttribute(other, "aria-pressed", other === button);
      choose(value);
    });
    group.append(button);
  }
  return group;
}
