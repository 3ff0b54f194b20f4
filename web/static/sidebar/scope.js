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

/**
 * How well scores predict what retraining does (the linear datamodeling score).
 * @param {import("../common/server.js").Info} info
 */
export function quality({ index }) {
  const lds = index.quality.find(({ measure }) => measure === "lds");
  if (!lds) return "How well it predicts retraining was not measured for this index.";
  const [value, low, high] = [lds.value, lds.low, lds.high].map((number) => number.toFixed(2));
  return (
    `On this index it predicts the effect of retraining with a rank correlation (LDS) of ${value} ` +
    `(${low} to ${high}), where 1 would be perfect.`
  );
}
