/** Which tokens carry each influence: asked for behind the answer, as it costs another pass. */

import { strongHits } from "./result.js";

/**
 * @typedef {import("../common/server.js").Server} Server
 * @typedef {import("../common/server.js").Question} Question
 * @typedef {import("../common/server.js").Attribution} Attribution
 * @typedef {import("../common/server.js").Hit} Hit
 */

// The same answer was counted when it was given: asking for its parts is worth next to nothing more.
const COUNTED_ALREADY = { billable: false, weight: 1e-9 };

const FIRST = 3;

/** The explanations of one answer, no deeper than somebody wants to see. */
export class Explanations {
  #server;
  #question;
  #found;
  #signal;
  /** @type {?{depth: number, hits: Promise<Map<string, Hit>>}} */
  #asked = null;

  /**
   * @param {Server} server
   * @param {Question} question
   * @param {Attribution} found
   * @param {AbortSignal} signal
   */
  constructor(server, question, found, signal) {
    this.#server = server;
    this.#question = question;
    this.#found = found;
    this.#signal = signal;
    if (found.proponents[0]?.explanation) {
      this.#asked = { depth: Infinity, hits: Promise.resolve(byPassage(found)) };
    }
  }

  /** Those of the hits that stand out, by passage. */
  ofStrong() {
    return this.#upTo(this.#deepest);
  }

  /** The first few of each side, which are on the screen. */
  ofFirst() {
    return this.#upTo(Math.min(FIRST, this.#deepest || FIRST));
  }

  /** The rank of the last hit that stands out; 0: none does. */
  get #deepest() {
    return Math.max(0, ...strongHits(this.#found).map(({ rank }) => rank));
  }

  /** A hit with its tokens. @param {Hit} hit @returns {Promise<Hit>} */
  async of(hit) {
    if (hit.explanation) return hit;
    const explained = (await this.#upTo(hit.rank)).get(hit.passage_id);
    if (!explained) throw new Error("The index has changed since. Attribute the answer again.");
    return explained;
  }

  /** @param {number} rank @returns {Promise<Map<string, Hit>>} */
  #upTo(rank) {
    if (this.#asked === null || this.#asked.depth < rank) {
      const hits = this.#ask(rank);
      const asked = (this.#asked = { depth: rank, hits });
      hits.catch(() => {
        if (this.#asked === asked) this.#asked = null; // the next one tries again
      });
    }
    return this.#asked.hits;
  }

  /** @param {number} rank @returns {Promise<Map<string, Hit>>} */
  async #ask(rank) {
    const question = { ...this.#question, top_k: rank, explain: true, usage: COUNTED_ALREADY };
    return byPassage(await this.#server.attribute(question, this.#signal));
  }
}

/** @param {Attribution} found @returns {Map<string, Hit>} */
function byPassage({ proponents, opponents }) {
  return new Map([...proponents, ...opponents].map((hit) => [hit.passage_id, hit]));
}
