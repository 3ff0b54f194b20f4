/** A whole document in a drawer: where in it the influence sits, and which words it moved. */

import { inUnits } from "../common/characters.js";
import { copy, element, one } from "../common/dom.js";
import { deepest, shaded, strongest } from "../common/heat.js";
import { meaning, nats, signed } from "../common/words.js";
import { templates } from "./assets.js";
import { answerShaded, movedInWords, provenance } from "./card.js";

/**
 * @typedef {import("../common/server.js").Hit} Hit
 * @typedef {import("../common/server.js").WholeDocument} WholeDocument
 */

/** The drawer; a modal dialog, so that focus stays in it and goes back when it closes. */
export class Drawer {
  #dialog;
  /** @type {?{hit: Hit, response: string, document: ?WholeDocument}} */
  #open = null;

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.#dialog = dialog;
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside the sheet
    });
    dialog.addEventListener("close", () => (this.#open = null));
  }

  /**
   * Open a document; its text and its tokens come when they come.
   * @param {Hit} hit
   * @param {string} response
   * @param {() => Promise<WholeDocument>} document
   * @param {() => Promise<Hit>} explained
   */
  show(hit, response, document, explained) {
    const sheet = copy(templates, "document");
    one(sheet, "#drawer-title").textContent = hit.title || hit.document_id;
    provenance(one(sheet, ".provenance"), hit);
    const worth = `${signed(hit.relative_influence)}, ${nats(hit.influence)}`;
    one(sheet, ".worth-in-words").textContent = `${worth}: training on it ${meaning(hit.influence)}.`;
    one(sheet, ".close").addEventListener("click", () => this.#dialog.close());
    for (const side of ["in-document", "in-answer"]) {
      one(sheet, `.${side}`).addEventListener("click", () => this.#turnTo(side));
    }
    this.#dialog.replaceChildren(sheet);
    this.#dialog.showModal();
    const open = (this.#open = { hit, response, document: null });
    this.#load(open, document, explained);
  }

  /**
   * @param {{hit: Hit, response: string, document: ?WholeDocument}} open
   * @param {() => Promise<WholeDocument>} document
   * @param {() => Promise<Hit>} explained
   */
  async #load(open, document, explained) {
    this.#say("Fetching the document …");
    const [text, tokens] = await Promise.allSettled([document(), explained()].map((part, i) => part.then((got) => {
      if (this.#open !== open) return;
      if (i === 0) open.document = /** @type {WholeDocument} */ (got);
      else open.hit = /** @type {Hit} */ (got);
      this.#draw();
      if (open.hit.tokens === null) this.#say("Reading which words carry the influence …");
    })));
    if (this.#open !== open) return;
    if (text.status === "rejected") this.#fail(text.reason, () => this.#load(open, document, explained));
    else if (tokens.status === "rejected") this.#say(`No words are shaded: ${tokens.reason.message}`);
  }

  /** @param {string} side */
  #turnTo(side) {
    for (const button of this.#dialog.querySelectorAll(".sides button")) {
      button.setAttribute("aria-pressed", String(button.classList.contains(side)));
    }
    this.#draw();
  }

  #draw() {
    if (this.#open === null) return;
    const { hit, response, document } = this.#open;
    const place = one(this.#dialog, ".reading");
    if (one(this.#dialog, ".in-answer").getAttribute("aria-pressed") === "true") {
      const text = element("p", "", "answer-text");
      text.dir = "auto";
      text.append(...answerShaded(response, hit));
      place.replaceChildren(text);
      this.#say(hit.explanation ? movedInWords(response, hit) : "Reading which words it moved …");
    } else if (document !== null) {
      const text = document.withheld ? "The operator withholds this text." : document.text;
      const parts = inUnits(text, hit.tokens ?? []);
      place.replaceChildren(...passageIn(text, hit, parts));
      const words = strongest(text, parts);
      this.#say(words ? `Most: ${words} nats.` : "");
      place.querySelector(".passage")?.scrollIntoView({ block: "nearest" });
    }
  }

  /** @param {string} sentence */
  #say(sentence) {
    one(this.#dialog, ".strongest").textContent = sentence;
  }

  /** @param {Error} problem @param {() => void} retry */
  #fail(problem, retry) {
    const button = element("button", "Try again", "quiet small");
    button.addEventListener("click", retry);
    one(this.#dialog, ".reading").replaceChildren(element("p", problem.message), button);
    this.#say("");
  }
}

/**
 * A document with the passage set off from what is around it.
 * @param {string} text
 * @param {Hit} hit
 * @param {import("../common/heat.js").Part[]} parts
 */
function passageIn(text, hit, parts) {
  const [{ start, end } = { start: 0, end: 0 }] = inUnits(text, [{ start: hit.start, end: hit.end }]);
  const passage = element("div", "", "passage");
  passage.append(...shaded(text, parts, deepest(parts), start, end || text.length));
  const around = [text.slice(0, start), end ? text.slice(end) : ""].map((part) => element("div", part, "around"));
  return [around[0], passage, around[1]].filter((node) => node.textContent);
}
