/** The sentence of a passage that carries most of its influence. */

/** @typedef {import("../common/heat.js").Part} Part */

const LONGEST = 420; // units that a card shows of a sentence; a line may be a megabyte

/**
 * @param {string} text
 * @param {readonly Part[]} parts The influences of its tokens; none: the first sentence.
 * @param {number} sign +1 for a proponent, -1 for an opponent.
 * @returns {{start: number, end: number}} Units of the text.
 */
export function bestSentence(text, parts, sign) {
  const sentences = [...new Intl.Segmenter(undefined, { granularity: "sentence" }).segment(text)]
    .flatMap(({ segment, index }) => lines(segment, index))
    .filter(({ start, end }) => text.slice(start, end).trim());
  let best = sentences[0] ?? { start: 0, end: text.length };
  let most = -Infinity;
  for (const sentence of sentences) {
    const carried = parts
      .filter(({ start }) => start >= sentence.start && start < sentence.end)
      .reduce((sum, { influence }) => sum + sign * influence, 0);
    if (carried > most) [best, most] = [sentence, carried];
  }
  return shortened(text, best, parts);
}

/** A sentence ends with its line, too. @param {string} segment @param {number} index */
function lines(segment, index) {
  const found = [];
  for (const line of segment.matchAll(/[^\n]+/g)) {
    found.push({ start: index + line.index, end: index + line.index + line[0].length });
  }
  return found;
}

/**
 * A sentence that is too long is cut around its strongest token.
 * @param {string} text
 * @param {{start: number, end: number}} sentence
 * @param {readonly Part[]} parts
 */
function shortened(text, { start, end }, parts) {
  if (end - start <= LONGEST) return { start, end };
  const within = parts.filter((part) => part.start >= start && part.start < end);
  const peak = within.reduce(
    (most, part) => (Math.abs(part.influence) > Math.abs(most.influence) ? part : most),
    { start, end: start, influence: 0 },
  );
  let from = Math.min(Math.max(start, peak.start - LONGEST / 2), end - LONGEST);
  const to = from + LONGEST;
  // Not between the two units of one character.
  if (/[\uDC00-\uDFFF]/.test(text.charAt(from))) from += 1;
  return { start: from, end: /[\uDC00-\uDFFF]/.test(text.charAt(to)) ? to - 1 : to };
}
