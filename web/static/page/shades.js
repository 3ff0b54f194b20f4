/** The words of an answer that a document moved, shaded where they stand in the conversation.
 *
 * Highlights of CSS leave the drawn answer as it is, so that what is selected in it stays. They know
 * no shades between, so there is one for each of a few depths of either sign.
 */

import { FAINTEST, deepest } from "../common/heat.js";
import { placesOf } from "./selection.js";

/** @typedef {import("../common/server.js").TokenInfluence} TokenInfluence */

const DEPTHS = 4; // as page.css has them
const NAMES = ["for", "against"].flatMap((sign) =>
  Array.from({ length: DEPTHS }, (_, i) => `${sign}-${i + 1}`),
);

/** Whether this browser has highlights. */
export const canShade = "highlights" in CSS;

/**
 * Shade these words of an answer, and those of no other.
 * @param {HTMLElement} body Where it is drawn.
 * @param {string} source
 * @param {readonly TokenInfluence[]} words
 */
export function shadeWords(body, source, words) {
  clearShades();
  const largest = deepest(words);
  for (const { part, range } of placesOf(body, source, words)) {
    const heat = Math.abs(part.influence) / largest;
    if (!(heat >= FAINTEST)) continue;
    const name = `${part.influence < 0 ? "against" : "for"}-${Math.ceil(heat * DEPTHS)}`;
    if (!CSS.highlights.has(name)) CSS.highlights.set(name, new Highlight());
    CSS.highlights.get(name)?.add(range);
  }
}

/** Shade nothing. */
export function clearShades() {
  for (const name of NAMES) CSS.highlights.delete(name);
}
