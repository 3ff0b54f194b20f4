/** One question and its answer in the conversation, with what can be done with it. */

import { copy, element, one } from "../common/dom.js";
import { placed } from "../common/inline.js";
import { markdown } from "../common/markdown.js";
import { quoted } from "../common/words.js";
import { chooseByKey, placesOf, selectedSpan } from "./selection.js";
import { canShade, clearShades, shadeWords } from "./shades.js";

/**
 * @typedef {import("../common/server.js").Problem} Problem
 * @typedef {import("../common/server.js").Attribution} Attribution
 * @typedef {import("./chat.js").Message} Message
 * @typedef {import("./selection.js").Span} Span
 * @typedef {{trace: (turn: Turn, part: {span?: ?Span, alternative?: ?string}) => void,
 *   again: (turn: Turn) => void, unshade: () => void, edit: (turn: Turn, place: HTMLElement) => void,
 *   compare: (turn: Turn, place: HTMLElement) => void}} Actions
 */

/** A turn; its answer may still be on its way. */
export class Turn {
  response = "";
  /** @type {?Attribution} What came with the answer. */
  attribution = null;
  /** @type {?Span} */
  #chosen = null;
  #drawn = 0;

  /**
   * @param {string} prompt
   * @param {readonly Message[]} context What was said before.
   * @param {boolean} own Whether the answer is brought by the user.
   * @param {Actions} actions
   */
  constructor(prompt, context, own, actions) {
    this.prompt = prompt;
    this.context = context;
    this.own = own;
    this.node = copy(document, "turn");
    one(this.node, ".said").textContent = prompt;
    one(this.node, ".name").textContent = own ? "Your answer" : "Model";
    one(this.node, ".again").hidden = own;
    this.#answer.setAttribute("aria-busy", "true");
    this.#listen(actions);
  }

  get #answer() {
    return one(this.node, ".answer");
  }

  /** A piece of the answer has come. @param {string} text */
  append(text) {
    this.response += text;
    this.#drawn ||= requestAnimationFrame(() => {
      this.#drawn = 0;
      this.#draw();
    });
  }

  /** The answer is being written. @param {() => void} stop */
  writing(stop) {
    const state = copy(document, "writing");
    one(state, ".stop").addEventListener("click", stop);
    this.#show(state);
  }

  /** The answer is there. */
  done() {
    this.#draw();
    this.#answer.setAttribute("aria-busy", "false");
    one(this.node, ".tools").hidden = this.response === "";
    this.#show(null);
  }

  /** It will not come. @param {Problem} problem @param {() => void} retry */
  failed(problem, retry) {
    const state = copy(document, "failed");
    one(state, ".title").textContent = problem.title;
    one(state, ".detail").textContent = problem.message;
    one(state, ".retry").addEventListener("click", retry);
    this.done();
    this.#show(state);
  }

  /** Another text in the place of the answer. @param {string} response */
  replace(response) {
    this.response = response;
    this.attribution = null;
    one(this.node, ".edited").hidden = false;
    this.done();
  }

  /** Whether the sidebar is about this turn, and about which part of it. @param {?Span} span */
  selected(selected = true, span = null) {
    this.node.classList.toggle("selected", selected);
    one(this.node, ".trace").setAttribute("aria-pressed", String(selected && span === null));
    if (!selected) this.shade(null);
    if (!selected || !canShade) return;
    const places = span ? placesOf(this.#answer, this.response, [span]) : [];
    CSS.highlights.set("part", new Highlight(...places.map(({ range }) => range)));
  }

  /**
   * Shade the words of the answer that a document moved; null: none.
   * @param {?import("../sidebar/answer-words.js").AnswerWordsDetail} moved
   * @returns {boolean} Whether this browser can.
   */
  shade(moved) {
    if (!canShade) return false;
    const line = one(this.node, ".moved");
    line.hidden = moved === null;
    one(line, ".by").textContent = moved?.title ?? "";
    if (moved) shadeWords(this.#answer, this.response, moved.words);
    else clearShades();
    return true;
  }

  /** Bring the answer into view. */
  showAnswer() {
    this.#answer.scrollIntoView({ block: "nearest" });
  }

  /** The selection of the document has changed. */
  selectionChanged() {
    const span = selectedSpan(this.#answer, this.response);
    if (this.#answer.getAttribute("aria-busy") === "true") return;
    this.#chosen = span;
    one(this.node, ".part").hidden = span === null;
    if (span) {
      const part = [...this.response].slice(span.start, span.end).join("");
      one(this.node, ".part span").textContent = quoted(part);
    }
  }

  /** @param {Actions} actions */
  #listen(actions) {
    const part = one(this.node, ".part button");
    const attributePart = () => {
      // Asked anew: the browser tells of a change of the selection only after a while.
      const span = selectedSpan(this.#answer, this.response) ?? this.#chosen;
      if (span) actions.trace(this, { span });
      return span !== null;
    };
    part.addEventListener("pointerdown", (event) => event.preventDefault()); // keeps the selection
    part.addEventListener("click", attributePart);
    this.#answer.addEventListener("keydown", (event) => {
      const done = event.key === "Enter" ? attributePart() : chooseByKey(event, this.#answer);
      if (done) event.preventDefault();
    });
    one(this.node, ".trace").addEventListener("click", () => actions.trace(this, {}));
    one(this.node, ".moved button").addEventListener("click", () => {
      actions.unshade();
      this.#answer.focus({ preventScroll: true }); // the button is gone
    });
    one(this.node, ".again").addEventListener("click", () => actions.again(this));
    for (const what of /** @type {const} */ (["edit", "compare"])) {
      const button = one(this.node, `.${what}`);
      button.addEventListener("click", () => {
        const place = one(this.node, ".forms");
        const open = button.getAttribute("aria-expanded") === "false";
        this.closeForms();
        if (!open) return;
        button.setAttribute("aria-expanded", "true");
        actions[what](this, place);
      });
    }
  }

  /** Put the forms for editing and comparing away. */
  closeForms() {
    one(this.node, ".forms").replaceChildren();
    for (const button of this.node.querySelectorAll(".tools [aria-expanded]")) {
      button.setAttribute("aria-expanded", "false");
    }
  }

  #draw() {
    cancelAnimationFrame(this.#drawn);
    this.#drawn = 0;
    // What a user brings is shown as it is; what a model writes is Markdown.
    const nodes = this.own ? [plain(this.response)] : markdown(this.response);
    this.#answer.replaceChildren(...nodes);
  }

  /** @param {?HTMLElement} state */
  #show(state) {
    const place = one(this.node, ".answered > .state");
    place.hidden = state === null;
    place.replaceChildren(...(state ? [state] : []));
  }
}

/** @param {string} text */
function plain(text) {
  const node = element("p", "", "verbatim");
  node.append(placed(text, 0));
  return node;
}
