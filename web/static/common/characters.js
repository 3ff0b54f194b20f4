/** The server counts characters as code points, the browser as UTF-16 units; they part at 🌍. */

/**
 * How many code points the first `units` units hold.
 * @param {string} text
 * @param {number} units
 */
export function codePoints(text, units) {
  let points = 0;
  for (let unit = 0; unit < Math.min(units, text.length); points += 1) {
    unit += /** @type {number} */ (text.codePointAt(unit)) > 0xffff ? 2 : 1;
  }
  return points;
}

/**
 * Parts of a text that are given by code points, with units instead; in the order of their starts.
 * @template {{start: number, end: number}} Part
 * @param {string} text
 * @param {readonly Part[]} parts
 * @param {number} [from] Code point of the first character of `text`.
 * @returns {Part[]} Those that lie within the text, cut to it.
 */
export function inUnits(text, parts, from = 0) {
  const wanted = parts.flatMap(({ start, end }) => [start - from, end - from]);
  const units = unitsAt(text, wanted);
  return parts
    .map((part, i) => ({ ...part, start: units[2 * i], end: units[2 * i + 1] }))
    .filter(({ start, end }) => end > start)
    .sort((a, b) => a.start - b.start);
}

/**
 * Units before each of some code points, in one pass over the text.
 * @param {string} text
 * @param {number[]} points
 */
function unitsAt(text, points) {
  const units = new Array(points.length).fill(0);
  const order = points.map((point, i) => ({ point, i })).sort((a, b) => a.point - b.point);
  let unit = 0;
  let passed = 0;
  for (const { point, i } of order) {
    while (passed < point && unit < text.length) {
      unit += /** @type {number} */ (text.codePointAt(unit)) > 0xffff ? 2 : 1;
      passed += 1;
    }
    units[i] = unit;
  }
  return units;
}
