/** Numbers with their sign, and what they mean. A score is never shown bare. */

const MINUS = "\u2212";

/** `0.3412` -> `+0.341`, `-0.02` -> `−0.020`: always a sign, `digits` decimals. */
export function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 ? MINUS : "+") + text;
}

/** `0.1234` -> `12.3 %`. */
export function percent(fraction) {
  return `${fraction < 0 ? MINUS : ""}${Math.abs(100 * fraction).toFixed(1)} %`;
}

/** `1240` -> `1.2 s`, `85` -> `85 ms`. */
export function duration(milliseconds) {
  return milliseconds < 1000
    ? `${Math.round(milliseconds)} ms`
    : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** `1` -> `1 passage`, `1200` -> `1,200 passages`. */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** What the sign of an influence says about the answer. */
export function meaning(influence) {
  return influence < 0 ? "made this answer less likely" : "made this answer more likely";
}
