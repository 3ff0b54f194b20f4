/** Text with its tokens shaded by their influence: how strongly by size, in what way by sign. */

import { element } from "./dom.js";
import { signed } from "./words.js";

/** @typedef {{start: number, end: number, influence: number}} Part In UTF-16 units of the text. */

export const FAINTEST = 0.08; // of the largest: below, a shade is noise to the eye

/**
 * @param {string} text
 * @param {readonly Part[]} parts Ordered and apart from each other.
 * @param {number} largest The |influence| of the deepest shade.
 * @param {number} [from] Unit of the first character that is shown.
 * @param {number} [to] One past the last.
 * @returns {Node[]}
 */
export function shaded(text, parts, largest, from = 0, to = text.length) {
  const nodes = [];
  let at = from;
  for (const { start, end, influence } of parts) {
    const first = Math.max(start, at);
    const last = Math.min(end, to);
    const heat = largest > 0 ? Math.abs(influence) / largest : 0;
    if (last <= first || heat < FAINTEST) continue;
    if (first > at) nodes.push(document.createTextNode(text.slice(at, first)));
    const mark = element("mark", text.slice(first, last), influence < 0 ? "against" : "for");
    mark.style.setProperty("--heat", heat.toFixed(3));
    nodes.push(mark);
    at = last;
  }
  if (at < to) nodes.push(document.createTextNode(text.slice(at, to)));
  return nodes;
}

/** The largest size among some parts. @param {readonly Part[]} parts */
export function deepest(parts) {
  return parts.reduce((most, { influence }) => Math.max(most, Math.abs(influence)), 0);
}

/**
 * The strongest words in words, for those who do not see shades: `Egypt (+3.2), of (−0.4)`.
 * @param {string} text
 * @param {readonly Part[]} parts
 * @param {number} [most]
 */
export function strongest(text, parts, most = 5) {
  return wholeWords(text, parts)
    .sort((a, b) => Math.abs(b.influence) - Math.abs(a.influence))
    .slice(0, most)
    .map(({ start, end, influence }) => `${bare(text.slice(start, end))} (${signed(influence, 1)})`)
    .join(", ");
}

/** A word without the signs around it. @param {string} word */
function bare(word) {
  return word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}%]+$/gu, "");
}

/** Tokens joined to the words that they are pieces of. @param {readonly Part[]} parts */
function wholeWords(/** @type {string} */ text, parts) {
  /** @type {Part[]} */
  const words = [];
  for (const part of parts) {
    const before = words.at(-1);
    const joined = before?.end === part.start && !/\s/.test(text.charAt(part.start));
    if (before && joined) {
      before.end = part.end;
      before.influence += part.influence;
    } else words.push({ ...part });
  }
  return words.filter(({ start, end }) => /[\p{L}\p{N}]/u.test(text.slice(start, end)));
}
