/** A table with its files. Whatever is in it comes from corpora and ledgers: text, never markup. */

import { copy, element, one } from "../common/dom.js";
import { count, percent, plain } from "../common/words.js";
import { addressOf, filters, viewName } from "./address.js";
import { file } from "./views.js";

/** @typedef {import("./views.js").Value} Value */

/** How some kinds are set. @type {Record<string, string>} */
const CLASSES = { number: "number", count: "number", share: "number", time: "time" };

/**
 * @param {import("./views.js").Table} table
 * @param {(problem: Error) => void} failed
 * @returns {HTMLElement}
 */
export function listed(table, failed) {
  const node = copy(document, "table");
  node.dataset.table = table.name;
  one(node, "h3").textContent = table.title;
  one(node, ".hint").textContent = table.says;
  one(node, ".scroll").setAttribute("aria-label", table.title);
  for (const { title, kind } of table.columns) {
    const cell = element("th", title, CLASSES[kind]);
    cell.setAttribute("scope", "col");
    one(node, "thead tr").append(cell);
  }
  const decimals = table.columns.map((_, place) => decimalsOf(table.rows.map((row) => row[place])));
  one(node, "tbody").append(...table.rows.map((row) => line(row, table.columns, decimals)));
  const none = table.rows.length === 0;
  one(node, ".empty").hidden = !none;
  one(node, ".scroll").hidden = none;
  one(node, ".files").hidden = none;
  one(node, ".count").textContent =
    table.rows.length < table.total
      ? `${table.rows.length} of ${count(table.total, "row")} are shown; a file has all.`
      : `${count(table.total, "row")}.`;
  for (const form of ["csv", "parquet"]) {
    const button = one(node, `[data-form=${form}]`);
    button.setAttribute("aria-label", `${table.title} as ${button.textContent}`);
    button.addEventListener("click", () => save(table.name, form, failed));
  }
  return node;
}

/** So many that the largest of a column shows five digits, and the points stand below each other. @param {Value[]} values */
function decimalsOf(values) {
  const numbers = values.filter((value) => typeof value === "number");
  if (numbers.every(Number.isInteger)) return 0;
  const largest = Math.max(...numbers.map(Math.abs));
  return Math.min(6, Math.max(0, 4 - Math.floor(Math.log10(largest))));
}

/** @param {Value[]} row @param {import("./views.js").Column[]} columns @param {number[]} decimals */
function line(row, columns, decimals) {
  const node = element("tr", "");
  columns.forEach(({ kind }, place) => {
    const cell = element("td", "", CLASSES[kind]);
    cell.dir = "auto";
    cell.append(content(row[place], kind, decimals[place]));
    node.append(cell);
  });
  return node;
}

/**
 * A value as people read it, documents and owners as links; a file has all its digits.
 * @param {Value} value
 * @param {string} kind Of a column or a fact.
 * @param {number} [decimals] Of a number; by default what it needs.
 * @returns {Node}
 */
export function content(value, kind, decimals) {
  const text = document.createTextNode(shown(value, kind, decimals));
  if (typeof value !== "string" || (kind !== "document" && kind !== "owner")) return text;
  const link = document.createElement("a");
  link.href = addressOf(kind, value);
  link.append(text);
  return link;
}

/** @param {Value} value @param {string} kind @param {number} [decimals] @returns {string} */
function shown(value, kind, decimals) {
  if (value === null) return kind === "owner" ? "(none)" : "–";
  if (typeof value !== "number") return value;
  if (kind === "share") return percent(value);
  return kind === "count" ? value.toLocaleString("en") : plain(value, decimals);
}

/** @param {string} table @param {string} form @param {(problem: Error) => void} failed */
async function save(table, form, failed) {
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await file(viewName(), table, form, filters()));
    link.download = `${table}.${form}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (problem) {
    failed(/** @type {Error} */ (problem));
  }
}
