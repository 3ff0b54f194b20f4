/** The tokens that carry each influence are shaded behind the answer: first what is on the screen. */

import { element } from "../common/dom.js";

/**
 * @typedef {import("../common/server.js").Hit} Hit
 * @typedef {import("./card.js").Card} Card
 * @typedef {import("./explanations.js").Explanations} Explanations
 */

/** The shading of all cards of one answer, with a line that tells how it goes. */
export class Shading {
  #line;
  #cards;
  #explanations;

  /**
   * @param {HTMLElement} line
   * @param {readonly Card[]} cards
   * @param {Explanations} explanations
   */
  constructor(line, cards, explanations) {
    this.#line = line;
    this.#cards = cards;
    this.#explanations = explanations;
  }

  /** The first cards of each side, now; the others when somebody comes to one of them. */
  async first() {
    if (!(await this.#shade(() => this.#explanations.ofFirst()))) return;
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      this.#shade(() => this.#explanations.ofStrong());
    });
    for (const card of this.#cards) {
      if (!card.explained && card.node.closest(".strong")) observer.observe(card.node);
    }
  }

  /** @param {() => Promise<Map<string, Hit>>} ask @returns {Promise<boolean>} Whether it was done. */
  async #shade(ask) {
    this.#line.textContent = "Finding the words that carry it …";
    try {
      for (const hit of (await ask()).values()) {
        this.#cards.find((card) => card.shows(hit))?.explain(hit);
      }
      this.#line.textContent = "";
      return true;
    } catch (problem) {
      const again = /** @type {HTMLButtonElement} */ (element("button", "Try again", "link"));
      again.type = "button";
      again.addEventListener("click", () => this.#shade(ask));
      this.#line.replaceChildren(
        `No words are shaded: ${/** @type {Error} */ (problem).message} `,
        again,
      );
      return false;
    }
  }
}
