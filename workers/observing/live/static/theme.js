// Light or dark, as the system says or as the switch was set; and the colour of every stage.

const KEY = "onward-theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = [];
const probe = document.createElement("span");

// From the first stage to the last: a way from dark blue over teal to orange, which also differ in lightness, so that
// neighbours can be told apart by those who see red and green alike.
const RAMPS = {
  light: ["#27348b", "#1f77c9", "#12897d", "#6d8a17", "#c07d00", "#c4501b", "#8a2f5c"],
  dark: ["#8c9bff", "#4fb0ff", "#3fd0bd", "#b5d34a", "#ffc04d", "#ff8a5c", "#e77fb3"],
};

/** Wire up the switch; `changed` is called whenever colours have. */
export function setUpTheme(buttons, changed) {
  listeners.push(changed);
  const show = () => {
    const choice = chosen();
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    for (const listener of listeners) listener();
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      remember(button.dataset.themeChoice);
      show();
    });
  }
  system.addEventListener("change", show);
  probe.hidden = true;
  document.body.append(probe);
  show();
}

/** A colour of the style sheet by name, as a canvas takes it. */
export function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** The colour of stage `index` of `count`, counted from 1. */
export function stageColour(index, count) {
  const ramp = RAMPS[dark() ? "dark" : "light"];
  const span = count <= 4 ? [0, 1.5, 4, 5] : null;
  const at = span ? span[Math.min(index, 4) - 1] : ((index - 1) / Math.max(count - 1, 1)) * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  return mixed(ramp[low], ramp[low + 1], at - low);
}

/** `shade` as text: mixed with the colour of text until it can be read on a card (WCAG AA). */
export function readable(shade) {
  return `color-mix(in oklab, ${shade} ${dark() ? 100 : 80}%, ${colour("text")})`;
}

let picked = "auto";

function chosen() {
  return picked;
}

function remember(choice) {
  picked = choice;
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // Storage may be forbidden; then the choice lasts as long as the page.
  }
}

try {
  const kept = localStorage.getItem(KEY);
  if (["auto", "light", "dark"].includes(kept)) picked = kept;
} catch {
  picked = "auto";
}

function dark() {
  return picked === "dark" || (picked === "auto" && system.matches);
}

function mixed(from, to, share) {
  const parts = [1, 3, 5].map((place) => {
    const [a, b] = [from, to].map((text) => parseInt(text.slice(place, place + 2), 16));
    return Math.round(a + (b - a) * share);
  });
  return `rgb(${parts.join(" ")})`;
}
