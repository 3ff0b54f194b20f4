/** What an answer of the service is about, in words; and how good it is for this index. */

import { quoted } from "../common/words.js";

/**
 * @param {{response: string, span: ?{start: number, end: number}, alternative: ?string}} asked
 * @param {string} filter The filter in words; empty: none.
 * @returns {string} Empty where it is about the whole answer and all documents.
 */
export function scopeInWords({ response, span, alternative }, filter) {
  const part = span && [...response].slice(span.start, span.end).join("");
  const what = [
    alternative ? `Why ${quoted(part ?? response)} rather than ${quoted(alternative)}` : part && `Only ${quoted(part)}`,
    filter && `${alternative || part ? "among" : "Among"} documents of ${filter}`,
  ];
  return what.filter(Boolean).join(", ");
}

/** @param {number[]} values @returns {string} `0.52 (0.47 to 0.57)` */
function interval([value, low, high]) {
  return `${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

/** @type {[string, (figure: string) => string][]} Measures of an index and what they say of it. */
const SAYS = [
  [
    "lds",
    (figure) =>
      `it predicts the effect of retraining with a rank correlation (LDS) of ${figure}, where 1 would be perfect`,
  ],
  [
    "tail_patch",
    (figure) =>
      `one training step on the first proponents made answers likelier by ${figure} nats`,
  ],
  [
    "recall@1",
    (figure) => `a document known to state the answer came first in a share of ${figure} of questions`,
  ],
];

/**
 * What was measured of this index: the effect of retraining, of one step, and facts found again.
 * @param {import("../common/server.js").Info} info
 */
export function quality({ index }) {
  /** @param {string} name */
  const figure = (name) => {
    const found = index.quality.find(({ measure }) => measure === name);
    return found && interval([found.value, found.low, found.high]);
  };
  const said = SAYS.flatMap(([name, say]) => {
    const [asked, own] = [figure(name), figure(`own_${name}`)];
    if (asked) return [say(asked)];
    // A low bar, and not to be taken for one that questions in other words set.
    return own ? [`${say(own)}, asked for the second halves of its own passages`] : [];
  });
  const lds = figure("lds") ? "" : "How well it predicts retraining was not measured for this index.";
  return [said.length ? `On this index ${said.join("; ")}.` : "", lds].filter(Boolean).join(" ");
}
