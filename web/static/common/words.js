/** Numbers with their sign, and what they mean. A score is never shown bare. */

const MINUS = "\u2212";

/**
 * `0.3412` -> `+0.341`, `-1240.5` -> `−1,240.500`: always a sign, `digits` decimals.
 * @param {number} value
 */
export function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 ? MINUS : "+") + text.replace(/\d(?=(\d{3})+\.)/g, "$&,");
}

/** `942.61` -> `+942.6 nats`, on one line. @param {number} value */
export function nats(value) {
  return `${signed(value, 1)}\u00a0nats`;
}

/**
 * `-1240.512` -> `−1,240.5`: five digits that count, or so many decimals.
 * @param {number} value
 * @param {number} [decimals]
 */
export function plain(value, decimals) {
  const digits =
    decimals === undefined
      ? { maximumSignificantDigits: 5 }
      : { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return value.toLocaleString("en", digits).replace("-", MINUS);
}

/** `0.1234` -> `12.3 %`, on one line. @param {number} fraction */
export function percent(fraction) {
  return `${(100 * fraction).toFixed(1)}\u00a0%`;
}

/** From this confidence on a passage stands out of the index. */
export const STANDS_OUT = 0.95;

/**
 * What a confidence says about a passage: `0.998` -> `Stands out, confidence 99.8 %`.
 * @param {number} confidence
 */
export function certainty(confidence) {
  const verdict = confidence >= STANDS_OUT ? "Stands out" : "Does not stand out";
  // Never rounded to certainty: that is not what was measured.
  const shown = confidence > 0.9995 ? "above 99.9\u00a0%" : percent(confidence);
  return `${verdict}, confidence ${shown}`;
}

/** `1240` -> `1.2 s`, `85` -> `85 ms`. @param {number} milliseconds */
export function duration(milliseconds) {
  return milliseconds < 1000
    ? `${Math.round(milliseconds)} ms`
    : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** A time to wait, which is never told to the millisecond. @param {number} milliseconds */
export function seconds(milliseconds) {
  return milliseconds < 950 ? "a second" : `${Math.ceil(milliseconds / 1000)} seconds`;
}

/**
 * `1` -> `1 passage`, `1200` -> `1,200 passages`.
 * @param {number} number
 * @param {string} noun
 */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** What the sign of an influence says about the answer. @param {number} influence */
export function meaning(influence) {
  return influence < 0 ? "made this answer less likely" : "made this answer more likely";
}

/** A part of a text in quotation marks, cut where it is long. @param {string} text */
export function quoted(text) {
  const line = [...text.replace(/\s+/g, " ").trim()];
  return `“${line.length > 60 ? `${line.slice(0, 57).join("")}…` : line.join("")}”`;
}
