/** The HTTP API as the page and the sidebar use it; whatever goes wrong leaves as a `Problem`. */

/**
 * @typedef {{start: number, end: number, influence: number}} TokenInfluence Characters are code
 *   points; see `characters.js`.
 * @typedef {{tokens_elsewhere: number, response: TokenInfluence[],
 *   alternative: ?TokenInfluence[], response_elsewhere: number}} HitExplanation
 * @typedef {{rank: number, document_id: string, passage_id: string, influence: number,
 *   relative_influence: number, confidence: number, title: ?string, source: ?string,
 *   owner: ?string, licence: ?string, url: ?string, text: string, withheld: boolean, start: number,
 *   end: number, tokens: ?TokenInfluence[], explanation: ?HitExplanation}} Hit
 * @typedef {{owner: ?string, influence: number, share: number}} Owner
 * @typedef {{request_id: string, model: string, index: {id: string, version: string, exact: boolean},
 *   query: {tokens: number, loss_nats: number, measurement: string, stands_out: boolean,
 *   message: ?string}, proponents: Hit[], opponents: Hit[], owners: Owner[],
 *   timings_ms: Record<string, number>, cached: boolean}} Attribution
 * @typedef {{start: number, end: number}} Span
 * @typedef {{role: string, content: string}} Message
 * @typedef {{prompt: string, response: string, context?: readonly Message[], top_k?: number, ranking?: string, span?: Span,
 *   measurement?: string, alternative?: string, explain?: boolean,
 *   filter?: {owners?: string[], sources?: string[]},
 *   usage?: {billable: boolean, weight: number}}} Question
 * @typedef {{id: string, text: string, title: ?string, source: ?string, owner: ?string,
 *   licence: ?string, url: ?string, withheld: boolean,
 *   passages: {id: string, start: number, end: number}[]}} WholeDocument
 * @typedef {{model: string, index: {documents: number, passages: number, method: string,
 *   quality: {measure: string, value: number, low: number, high: number}[]}, expected_ms: ?number}} Info
 */

/** A failure in the server's own words (RFC 9457), or ours where no server answered. */
export class Problem extends Error {
  /** @param {{title?: string, detail?: string, status?: number, request_id?: string}} problem */
  constructor({ title, detail, status, request_id }) {
    super(detail || title || "The server gave no reason.");
    this.title = title || "The server could not do this";
    this.status = status;
    this.requestId = request_id;
  }
}

/** One server, asked with one key. */
export class Server {
  #base;
  #key;

  /**
   * @param {string} base Address of the service, with or without a `/` at its end.
   * @param {?string} key API key, if it wants one.
   */
  constructor(base, key) {
    this.#base = base.endsWith("/") ? base : `${base}/`;
    this.#key = key;
  }

  /**
   * Rank the training documents behind a response.
   * @param {Question} question
   * @param {AbortSignal} [signal]
   * @returns {Promise<Attribution>}
   */
  attribute(question, signal) {
    return this.json("attribute", { body: question, signal });
  }

  /**
   * An attribution that was made before.
   * @param {string} requestId
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  attribution(requestId, signal) {
    return this.json(`attributions/${encodeURIComponent(requestId)}`, { signal });
  }

  /**
   * A document as it was indexed.
   * @param {string} id
   * @param {AbortSignal} [signal]
   * @returns {Promise<WholeDocument>}
   */
  document(id, signal) {
    const path = id.split("/").map(encodeURIComponent).join("/");
    return this.json(`documents/${path}`, { signal });
  }

  /**
   * The models that answer.
   * @param {AbortSignal} [signal]
   * @returns {Promise<{data: {id: string}[]}>}
   */
  models(signal) {
    return this.json("v1/models", { signal });
  }

  /** What is being served. @returns {Promise<Info>} */
  info() {
    return this.json("info");
  }

  /**
   * Say whether a passage explains an answer.
   * @param {{request_id: string, document_id: string, passage_id: string, verdict: string}} verdict
   */
  feedback(verdict) {
    return this.json("feedback", { body: verdict });
  }

  /**
   * Send a request and have its answer, whatever its body; for what is not JSON.
   * @param {string} path
   * @param {{body?: unknown, signal?: AbortSignal}} [request]
   * @returns {Promise<Response>}
   */
  async send(path, { body, signal } = {}) {
    /** @type {Record<string, string>} */
    const headers = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    try {
      return await fetch(this.#base + path, {
        method: body === undefined ? "GET" : "POST",
        headers,
        signal,
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      throw unreachable(error);
    }
  }

  /**
   * Send a request and read its answer.
   * @param {string} path
   * @param {{body?: unknown, signal?: AbortSignal}} [request]
   * @returns {Promise<any>}
   */
  async json(path, request) {
    const answer = await this.send(path, request);
    if (!answer.ok) throw await refusal(answer);
    const body = await readable(answer);
    if (body === null && answer.status !== 204) throw unreadable(answer);
    return body;
  }
}

/**
 * Why a server refused, in its own words where it has any.
 * @param {Response} answer
 * @returns {Promise<Problem>}
 */
export async function refusal(answer) {
  const body = await readable(answer);
  // OpenAI's form of an error stands under /v1, RFC 9457's everywhere else.
  if (body?.error?.message) return new Problem({ detail: body.error.message, status: answer.status });
  return body === null ? unreadable(answer) : new Problem(body);
}

/**
 * A connection that failed; being cancelled is none.
 * @param {any} error
 * @returns {Error}
 */
export function unreachable(error) {
  if (error.name === "AbortError") return error;
  return new Problem({
    title: "No connection",
    detail: "The server could not be reached. Check that it is running, then try again.",
  });
}

/** @param {Response} answer @returns {Promise<any>} null where a proxy answered in HTML, say. */
function readable(answer) {
  return answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
}

/** @param {Response} answer */
function unreadable({ status }) {
  return new Problem({
    title: "Unreadable answer",
    detail: `The server answered with status ${status} and no readable body. Try again in a moment.`,
    status,
  });
}
