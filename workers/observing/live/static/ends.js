// The number of its stage beside the end of every line, so that colour is not all that tells lines apart.

import { readable } from "./theme.js";

const LINE_HEIGHT = 11;

/** Draw them. `lines` are the series of `plot` in its order, each with `short` and `colour`; `font` is that of text. */
export function nameEnds(plot, lines, font) {
  const ends = lines.flatMap((line, place) => end(plot, line, place + 1)).sort((a, b) => a.y - b.y);
  const ratio = window.devicePixelRatio;
  const { top, height } = plot.bbox;
  const places = spread(
    ends.map(({ y }) => y),
    LINE_HEIGHT * ratio,
    top,
    top + height,
  );
  plot.ctx.save();
  plot.ctx.font = `600 ${font}`;
  plot.ctx.textBaseline = "middle";
  plot.ctx.textAlign = "left";
  ends.forEach(({ line, x }, index) => {
    plot.ctx.fillStyle = readable(line.colour);
    plot.ctx.fillText(line.short, x + 6 * ratio, places[index]);
  });
  plot.ctx.restore();
}

function end(plot, line, number) {
  const values = plot.data[number];
  const { min, max } = plot.scales.x;
  let index = values.length - 1;
  while (index >= 0 && (values[index] === null || plot.data[0][index] > max)) index -= 1;
  if (index < 0 || !line.short || plot.data[0][index] < min) return [];
  return [
    { line, x: plot.valToPos(plot.data[0][index], "x", true), y: plot.valToPos(values[index], "y", true) },
  ];
}

/** Places from `low` to `high`, `gap` apart at least, as near as can be to those that are `wanted`, which ascend. */
function spread(wanted, gap, low, high) {
  const pools = [];
  wanted.forEach((place, index) => {
    let pool = { sum: place - index * gap, count: 1 };
    while (pools.length > 0 && pools.at(-1).sum / pools.at(-1).count > pool.sum / pool.count) {
      const before = pools.pop();
      pool = { sum: before.sum + pool.sum, count: before.count + pool.count };
    }
    pools.push(pool);
  });
  const last = high - (wanted.length - 1) * gap;
  return pools
    .flatMap(({ sum, count }) => Array(count).fill(Math.max(Math.min(sum / count, last), low)))
    .map((place, index) => place + index * gap);
}
