/** What the dashboard asks the server; whatever goes wrong leaves as a `Problem`. */

/**
 * @typedef {{name: string, title: string, kind: string}} Column
 * @typedef {{name: string, title: string, says: string, columns: Column[],
 *   rows: Array<Array<?(number|string)>>, total: number}} Table
 * @typedef {{name: string, title: string, says: string, plot: {data: object[], layout: object}}} Figure
 * @typedef {{title: string, value: ?(number|string), kind: string, says: string}} Fact
 * @typedef {{title: string, says: string, facts: Fact[], figures: Figure[], tables: Table[],
 *   text: ?string, missing: string[]}} View
 */

const KEY = "whence-key"; // as the page at / keeps it

/** A failure in the server's own words, or ours where no server answered. */
export class Problem extends Error {
  /** @param {{title?: string, detail?: string, status?: number}} problem */
  constructor({ title, detail, status }) {
    super(detail || "The server gave no reason.");
    this.title = title || "The view could not be drawn";
    this.status = status;
  }
}

/** Use an API key from now on; it is kept for this tab alone. @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/**
 * @param {string} name
 * @param {URLSearchParams} filters
 * @param {AbortSignal} signal
 * @returns {Promise<View>}
 */
export async function view(name, filters, signal) {
  return (await get(`dashboard/views/${name}?${filters}`, signal)).json();
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
  return (await get(`dashboard/views/${name}/${table}.${form}?${filters}`)).blob();
}

/** @param {string} path @param {AbortSignal=} signal */
async function get(path, signal) {
  const key = sessionStorage.getItem(KEY);
  let answer;
  try {
    answer = await fetch(path, { signal, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "No connection",
      detail: "The server could not be reached. Check that it is running, then try again.",
    });
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem({ status: answer.status, ...problem });
}
