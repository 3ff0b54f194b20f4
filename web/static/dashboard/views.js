/** The views of the dashboard as the server gives them, and their tables as files. */

import { key } from "../common/key.js";
import { Server, refusal } from "../common/server.js";

/**
 * @typedef {?(number|string)} Value
 * @typedef {{name: string, title: string, kind: string}} Column
 * @typedef {{name: string, title: string, says: string, columns: Column[], rows: Value[][],
 *   total: number}} Table
 * @typedef {{name: string, title: string, says: string, plot: {data: object[], layout: object}}} Figure
 * @typedef {{title: string, value: Value, kind: string, says: string}} Fact
 * @typedef {{title: string, says: string, facts: Fact[], figures: Figure[], tables: Table[],
 *   text: ?string, missing: string[]}} View
 */

const server = () => new Server(new URL("./", document.baseURI).href, key());

/**
 * @param {string} name
 * @param {URLSearchParams} filters
 * @param {AbortSignal} signal
 * @returns {Promise<View>}
 */
export function view(name, filters, signal) {
  return server().json(`dashboard/views/${name}?${filters}`, { signal });
}

/**
 * A table as a file; asked with the key, which a plain link could not send.
 * @param {string} name
 * @param {string} table
 * @param {string} form
 * @param {URLSearchParams} filters
 * @returns {Promise<Blob>}
 */
export async function file(name, table, form, filters) {
  const answer = await server().send(`dashboard/views/${name}/${table}.${form}?${filters}`);
  if (!answer.ok) throw await refusal(answer);
  return answer.blob();
}
