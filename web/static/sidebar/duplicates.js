/** Near-duplicates among the hits of a side are folded under the strongest of them. */

/** @typedef {import("../common/server.js").Hit} Hit */

const WORDS = 3; // of a shingle
const ALIKE = 0.8; // share of shingles that two texts have in common

/**
 * @param {readonly Hit[]} hits Strongest first.
 * @returns {{hit: Hit, duplicates: Hit[]}[]} In the same order.
 */
export function folded(hits) {
  /** @type {{hit: Hit, duplicates: Hit[], shingles: Set<string>}[]} */
  const groups = [];
  for (const hit of hits) {
    const shingles = shinglesOf(hit.text);
    const group = groups.find((other) => !hit.withheld && alike(other.shingles, shingles));
    if (group) group.duplicates.push(hit);
    else groups.push({ hit, duplicates: [], shingles });
  }
  return groups.map(({ hit, duplicates }) => ({ hit, duplicates }));
}

/** @param {string} text */
function shinglesOf(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const last = Math.max(1, words.length - WORDS + 1);
  const found = new Set();
  for (let i = 0; i < last; i += 1) found.add(words.slice(i, i + WORDS).join(" "));
  return found;
}

/** @param {Set<string>} one @param {Set<string>} other Whether Jaccard's index says so. */
function alike(one, other) {
  let common = 0;
  for (const shingle of one) if (other.has(shingle)) common += 1;
  return common / (one.size + other.size - common) >= ALIKE;
}
