/** One influence as a card, from <template id="influence">. Corpus text is never HTML. */

import { inUnits } from "../common/characters.js";
import { copy, element, one, outwardLink, safeAddress } from "../common/dom.js";
import { deepest, shaded, strongest } from "../common/heat.js";
import { certainty, count, meaning, nats, signed } from "../common/words.js";
import { templates } from "./assets.js";
import { bestSentence } from "./sentences.js";

/**
 * @typedef {import("../common/server.js").Hit} Hit
 * @typedef {{open: (hit: Hit) => void, words: (card: Card) => void,
 *   judge: (hit: Hit, verdict: string) => Promise<void>}} Actions What a card asks of the sidebar.
 */

/** A card, which learns later which of its tokens carry the influence. */
export class Card {
  #hit;
  #response;
  #actions;

  /**
   * @param {{hit: Hit, duplicates: Hit[]}} group
   * @param {number} largest The largest |relative influence| of this answer: the full length of a bar.
   * @param {string} response
   * @param {Actions} actions
   */
  constructor({ hit, duplicates }, largest, response, actions) {
    this.#hit = hit;
    this.#response = response;
    this.#actions = actions;
    this.node = copy(templates, "influence");
    this.#describe(largest);
    this.explain(hit);
    this.#fold(duplicates);
    one(this.node, ".open").addEventListener("click", () => actions.open(this.#hit));
    one(this.node, ".words").addEventListener("click", () => actions.words(this));
    for (const verdict of ["up", "down"]) {
      one(this.node, `.${verdict}`).addEventListener("click", () => this.#judge(verdict));
    }
  }

  /** What it shows. */
  get hit() {
    return this.#hit;
  }

  /** Whether its tokens are known. */
  get explained() {
    return this.#hit.tokens !== null;
  }

  /** Whether this is the card of a hit. @param {Hit} hit */
  shows(hit) {
    return hit.passage_id === this.#hit.passage_id;
  }

  /** Show the best sentence, its tokens shaded if they are known. @param {Hit} hit */
  explain(hit) {
    this.#hit = { ...this.#hit, tokens: hit.tokens, explanation: hit.explanation };
    const { text, start, relative_influence } = this.#hit;
    const parts = inUnits(text, hit.tokens ?? [], start);
    const sentence = bestSentence(text, parts, Math.sign(relative_influence));
    const shown = shaded(text, parts, deepest(parts), sentence.start, sentence.end);
    const before = text.slice(0, sentence.start).trim() ? ["… "] : [];
    const after = text.slice(sentence.end).trim() ? [" …"] : [];
    one(this.node, ".text").replaceChildren(...before, ...shown, ...after);
    if (hit.withheld) one(this.node, ".text").textContent = "The operator withholds this text.";
  }

  /** @param {number} largest */
  #describe(largest) {
    const hit = this.#hit;
    /** @param {string} selector @param {string} text */
    const put = (selector, text) => (one(this.node, selector).textContent = text);
    put(".rank span:last-child", String(hit.rank));
    put(".title", hit.title || hit.document_id);
    put(".score", signed(hit.relative_influence));
    put(".meaning", meaning(hit.relative_influence));
    put(".confidence", `${certainty(hit.confidence)} · ${nats(hit.influence)}`);
    one(this.node, ".open").setAttribute("aria-label", `Open the document ${hit.title || hit.document_id}`);
    provenance(one(this.node, ".provenance"), hit);
    one(this.node, "article").classList.add(hit.relative_influence < 0 ? "against" : "for");
    bar(one(this.node, ".bar"), hit.relative_influence, largest);
  }

  /** @param {Hit[]} duplicates */
  #fold(duplicates) {
    const list = one(this.node, ".duplicates");
    list.hidden = duplicates.length === 0;
    one(list, "summary").textContent = `${count(duplicates.length, "near-duplicate")} of this text`;
    one(list, "ol").append(
      ...duplicates.map((hit) => {
        const line = element("li", "");
        const button = element("button", hit.title || hit.document_id, "link");
        button.setAttribute("type", "button");
        button.addEventListener("click", () => this.#actions.open(hit));
        line.append(button, ` ${signed(hit.relative_influence)}${hit.owner ? `, ${hit.owner}` : ""}`);
        return line;
      }),
    );
  }

  /**
   * Tell which words of the answer its document moved.
   * @param {string} says
   * @param {boolean} on Whether they are shown now.
   * @param {?Hit} [hit] With the answer itself, shaded, where it is shaded nowhere else.
   */
  tellWords(says, on, hit = null) {
    one(this.node, ".words").setAttribute("aria-pressed", String(on));
    one(this.node, ".moved").hidden = false;
    one(this.node, ".moved .hint").textContent = says;
    one(this.node, ".moved .answer-text").replaceChildren(...(hit ? answerShaded(this.#response, hit) : []));
  }

  /** Tell it no longer. */
  hideWords() {
    this.tellWords("", false);
    one(this.node, ".moved").hidden = true;
  }

  /** @param {string} verdict */
  async #judge(verdict) {
    const said = one(this.node, ".said");
    said.hidden = false;
    try {
      await this.#actions.judge(this.#hit, verdict);
      for (const thumb of ["up", "down"]) {
        one(this.node, `.${thumb}`).setAttribute("aria-pressed", String(thumb === verdict));
      }
      said.textContent = "Noted, thank you.";
    } catch (problem) {
      said.textContent = `This was not noted: ${/** @type {Error} */ (problem).message}`;
    }
  }
}

/**
 * The answer with the words shaded that a document moved.
 * @param {string} response
 * @param {Hit} hit
 * @returns {Node[]}
 */
export function answerShaded(response, hit) {
  const parts = inUnits(response, hit.explanation?.response ?? []);
  return shaded(response, parts, deepest(parts));
}

/**
 * The strongest of these words in words.
 * @param {string} response
 * @param {Hit} hit
 */
export function movedInWords(response, hit) {
  const words = strongest(response, inUnits(response, hit.explanation?.response ?? []));
  return words ? `Most: ${words} nats.` : "It moved no word of it.";
}

/** A bar that grows from the middle: to the right for what helped, to the left for what hurt.
 * @param {HTMLElement} node
 * @param {number} value
 * @param {number} largest
 */
export function bar(node, value, largest) {
  node.classList.add(value < 0 ? "against" : "for");
  const share = largest > 0 ? Math.min(1, Math.abs(value) / largest) : 0;
  one(node, "span").style.setProperty("--share", String(share));
}

/**
 * Source, owner, licence and link of a document.
 * @param {HTMLElement} node
 * @param {{source: ?string, owner: ?string, licence: ?string, url: ?string}} document
 */
export function provenance(node, { source, owner, licence, url }) {
  const parts = [source, owner && `Owner: ${owner}`, licence && `Licence: ${licence}`];
  node.replaceChildren(...parts.filter(Boolean).map((part) => element("bdi", String(part))));
  const address = safeAddress(url);
  if (!address) return;
  const link = outwardLink(address, "Open the source");
  link.setAttribute("aria-label", "Open the source in a new tab");
  node.append(link);
}
