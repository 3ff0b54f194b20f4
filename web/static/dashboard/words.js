/** Values as people read them; a file has them in all their digits. */

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
const COUNT = new Intl.NumberFormat("en");
const SHARE = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

/**
 * @param {?(number|string)} value
 * @param {string} kind Of a column or a fact.
 * @returns {string}
 */
export function shown(value, kind) {
  if (value === null || value === undefined) return kind === "owner" ? "(none)" : "–";
  if (typeof value !== "number") return value;
  return { share: SHARE, count: COUNT }[kind]?.format(value) ?? NUMBER.format(value);
}
