/** The HTTP API as the page uses it; whatever goes wrong leaves as a `Problem`. */

/**
 * @typedef {{rank: number, document_id: string, passage_id: string, influence: number,
 *   relative_influence: number, confidence: number, title: ?string, source: ?string,
 *   owner: ?string, licence: ?string, url: ?string, text: string, start: number, end: number}} Hit
 * @typedef {{owner: ?string, influence: number, share: number}} Owner
 * @typedef {{request_id: string, model: string, index: {id: string, version: string, exact: boolean},
 *   query: {tokens: number, loss_nats: number, stands_out: boolean, message: ?string},
 *   proponents: Hit[], opponents: Hit[], owners: Owner[], timings_ms: Object<string, number>,
 *   cached: boolean}} Attribution
 */

const KEY = "whence-key";

/** A failure in the server's own words (RFC 9457), or ours where no server answered. */
export class Problem extends Error {
  /** @param {{title?: string, detail?: string, status?: number, request_id?: string}} problem */
  constructor({ title, detail, status, request_id }) {
    super(detail || title || "The server gave no reason.");
    this.title = title || "The answer could not be attributed";
    this.status = status;
    this.requestId = request_id;
  }
}

/**
 * Rank the training documents behind a response.
 * @param {{prompt: string, response: string, top_k?: number, ranking?: string}} body
 * @param {AbortSignal} signal
 * @returns {Promise<Attribution>}
 */
export function attribute(body, signal) {
  return json("attribute", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** What is being served: model and index. */
export function info() {
  return json("info");
}

/** Use an API key from now on; it is kept for this tab alone. @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

async function json(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "No connection",
      detail: "The server could not be reached. Check that it is running, then try again.",
    });
  }
  // A proxy in between may answer in HTML: the status is then all that can be told.
  const body = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (answer.ok && body !== null) return body;
  throw new Problem(
    body ?? {
      title: "Unreadable answer",
      detail: `The server answered with status ${answer.status} and no readable body. Try again in a moment.`,
      status: answer.status,
    },
  );
}
