/** Which words of the answer a document moved: those of one card at a time.
 *
 * Who has the answer on the screen may shade it there, told by the event `answer-words`; where nobody
 * does, the card shows the answer itself.
 */

import { movedInWords } from "./card.js";

/**
 * @typedef {import("../common/server.js").Hit} Hit
 * @typedef {import("../common/server.js").TokenInfluence} TokenInfluence
 * @typedef {import("./card.js").Card} Card
 * @typedef {{document_id: string, passage_id: string, title: string,
 *   words: readonly TokenInfluence[]}} AnswerWordsDetail
 */

/** The words of one answer that are shown, if any are. */
export class AnswerWords {
  /** @type {?Card} */
  #shown = null;
  #response;
  #explain;
  #tell;

  /**
   * @param {string} response
   * @param {(hit: Hit) => Promise<Hit>} explain
   * @param {(moved: ?AnswerWordsDetail) => boolean} tell Returns whether nobody has shaded the answer.
   */
  constructor(response, explain, tell) {
    this.#response = response;
    this.#explain = explain;
    this.#tell = tell;
  }

  /** Show the words that a card's document moved, or no longer. @param {Card} card */
  async toggle(card) {
    const off = this.#shown === card;
    this.hide();
    if (off) return;
    this.#shown = card;
    card.tellWords("Reading which words it moved …", true);
    try {
      const hit = await this.#explain(card.hit);
      if (this.#shown === card) this.#show(card, hit);
    } catch (problem) {
      if (this.#shown !== card) return;
      this.#shown = null;
      card.tellWords(/** @type {Error} */ (problem).message, false);
    }
  }

  /** Show none. */
  hide() {
    if (this.#shown === null) return;
    this.#shown.hideWords();
    this.#shown = null;
    this.#tell(null);
  }

  /** @param {Card} card @param {Hit} hit */
  #show(card, hit) {
    const { document_id, passage_id, title } = hit;
    const words = hit.explanation?.response ?? [];
    const alone = this.#tell({ document_id, passage_id, title: title || document_id, words });
    const says = movedInWords(this.#response, hit);
    card.tellWords(alone ? says : `Shaded in the answer. ${says}`, true, alone ? hit : null);
  }
}
