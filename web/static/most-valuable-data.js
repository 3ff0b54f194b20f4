/** <most-valuable-data endpoint token>: which training documents an answer came from.
 *
 *     <script type="module" src="https://whence.example/static/most-valuable-data.js"></script>
 *     <most-valuable-data endpoint="https://whence.example" token="whence_…"></most-valuable-data>
 *
 * Set the properties `prompt` and `response` (and `context`, `span`, `alternative` where
 * there are any); the answer is attributed as soon as both are there. A foreign page
 * may have any Content-Security-Policy that lets it load this script and ask the endpoint.
 *
 * Events, none of which bubbles: `attribution` (detail: the answer of the service), `document-open`
 * (detail: `{document_id, passage_id}`; prevented, no drawer opens), `error` (detail: a `Problem`),
 * `answer-words` (detail: the words of the answer that a document moved, as it was asked for in a
 * card, null once they are shown no longer; prevented, the card does not show the answer) and `whole`
 * (somebody went back from a part or a comparison to the whole answer).
 */

import { one } from "./common/dom.js";
import { permalink } from "./common/permalink.js";
import { Server } from "./common/server.js";
import { offerLink } from "./sidebar/link.js";
import { quality, scopeInWords } from "./sidebar/scope.js";
import { sheet, templates } from "./sidebar/assets.js";
import { AnswerWords } from "./sidebar/answer-words.js";
import { Drawer } from "./sidebar/drawer.js";
import { Explanations } from "./sidebar/explanations.js";
import { Refine } from "./sidebar/refine.js";
import { draw } from "./sidebar/result.js";
import { Shading } from "./sidebar/shading.js";
import { States } from "./sidebar/states.js";

/**
 * @typedef {import("./common/server.js").Attribution} Attribution
 * @typedef {import("./common/server.js").Hit} Hit
 * @typedef {import("./common/server.js").Info} Info
 * @typedef {import("./common/server.js").Question} Question
 * @typedef {import("./common/server.js").Span} Span
 * @typedef {import("./common/server.js").Message} Message
 * @typedef {{prompt: string, response: string, context: readonly Message[], span: ?Span,
 *   alternative: ?string}} Asked
 */

/** @type {Asked} */
const NOTHING = { prompt: "", response: "", context: [], span: null, alternative: null };
const PROPERTIES = [...Object.keys(NOTHING), "attribution"];
const HOME = new URL("..", import.meta.url);

/** The sidebar; see the module. */
export class MostValuableData extends HTMLElement {
  static observedAttributes = ["endpoint", "token"];

  #asked = NOTHING;
  /** @type {?Attribution} */
  #given = null;
  /** @type {?Info} */
  #info = null;
  #running = new AbortController();
  #scheduled = false;
  #root = this.attachShadow({ mode: "open" });
  #states;
  #refine;
  #drawer;
  /** @type {?AnswerWords} */
  #words = null;

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [sheet];
    const template = /** @type {HTMLTemplateElement} */ (one(templates, "template#sidebar"));
    this.#root.append(document.importNode(template.content, true));
    this.#states = new States(one(this.#root, ".panel"));
    this.#refine = new Refine(one(this.#root, ".refine"), () => this.#ask());
    this.#drawer = new Drawer(one(this.#root, ".drawer"));
    one(this.#root, ".whole").addEventListener("click", () => {
      this.#refine.clear();
      Object.assign(this, { span: null, alternative: null });
      this.dispatchEvent(new CustomEvent("whole"));
    });
  }

  connectedCallback() {
    for (const name of PROPERTIES) {
      if (!Object.hasOwn(this, name)) continue; // set before this class was there
      const value = Reflect.get(this, name);
      Reflect.deleteProperty(this, name);
      Reflect.set(this, name, value);
    }
    this.#describe();
    this.#changed();
  }

  disconnectedCallback() {
    this.#running.abort();
    this.hideWords();
  }

  attributeChangedCallback() {
    if (!this.isConnected) return;
    this.#describe();
    this.#changed();
  }

  get prompt() {
    return this.#asked.prompt;
  }

  set prompt(prompt) {
    this.#set({ prompt });
  }

  get response() {
    return this.#asked.response;
  }

  set response(response) {
    this.#set({ response });
  }

  /** What was said before the prompt, oldest first. */
  get context() {
    return this.#asked.context;
  }

  set context(context) {
    this.#set({ context });
  }

  /** Code points [start, end) of the response to explain alone; null: all of it. */
  get span() {
    return this.#asked.span;
  }

  set span(span) {
    this.#set({ span });
  }

  /** The response rather than which this one was given; null: no comparison. */
  get alternative() {
    return this.#asked.alternative;
  }

  set alternative(alternative) {
    this.#set({ alternative });
  }

  /** An answer of the service that is there already: it is shown, and nothing is asked. */
  set attribution(/** @type {?Attribution} */ attribution) {
    this.#given = attribution;
    this.#changed();
  }

  /** Filter, ranking and depth that are chosen, for one who asks the service elsewhere. */
  get options() {
    return this.#refine.question;
  }

  /** Show no longer which words of the answer a document moved. */
  hideWords() {
    this.#words?.hide();
  }

  /** Show nothing, and be about nothing. */
  clear() {
    this.#set(NOTHING);
  }

  /**
   * Show that somebody else is at work on the response.
   * @param {string} what
   */
  wait(what) {
    this.#running.abort();
    this.hideWords();
    one(this.#root, ".scope").hidden = true;
    this.#states.working(what, null, null);
  }

  get #server() {
    return new Server(this.#address("").href, this.getAttribute("token"));
  }

  /** @param {string} path Below the endpoint; by default that is where this script is from. */
  #address(path) {
    const base = new URL(this.getAttribute("endpoint") || HOME, document.baseURI);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    return new URL(path, base);
  }

  /** @returns {Question} */
  get #question() {
    const { prompt, response, context, span, alternative } = this.#asked;
    return {
      prompt,
      response,
      ...(context.length > 0 && { context }),
      ...this.#refine.question,
      ...(span && { span }),
      ...(alternative && { measurement: "contrast", alternative }),
    };
  }

  /** @param {Partial<Asked>} part */
  #set(part) {
    this.#asked = { ...this.#asked, ...part };
    this.#changed();
  }

  /** Several properties that are set together are one question. */
  #changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (!this.isConnected) return;
      const given = this.#given;
      this.#given = null;
      if (given) this.#present(given);
      else this.#ask();
    });
  }

  /** Only the newest question counts: an older one is cancelled, also on the server. */
  async #ask() {
    this.#running.abort();
    const mine = (this.#running = new AbortController());
    this.hideWords();
    this.#tellScope();
    if (!this.#asked.prompt || !this.#asked.response) return this.#states.empty();
    const expected = this.#info?.expected_ms ?? null;
    this.#states.working("Tracing the answer back through the index", expected, () => {
      mine.abort();
      this.#states.empty();
    });
    try {
      const found = await this.#server.attribute(this.#question, mine.signal);
      if (this.#running === mine) this.#present(found);
    } catch (problem) {
      if (mine.signal.aborted) return;
      this.#states.error(/** @type {any} */ (problem), () => this.#ask());
      this.#tell("error", problem);
    }
  }

  /** @param {Attribution} found */
  #present(found) {
    this.#running.abort();
    this.#running = new AbortController();
    this.hideWords();
    const { response } = this.#asked;
    const server = this.#server;
    const explanations = new Explanations(server, this.#question, found, this.#running.signal);
    const words = new AnswerWords(
      response,
      (hit) => explanations.of(hit),
      (moved) => this.#tell("answer-words", moved),
    );
    this.#words = words;
    this.#refine.offer(found);
    this.#tellScope();
    const { view, cards, spoken } = draw(found, response, {
      choose: (owner) => this.#refine.chooseOwner(owner),
      words: (card) => words.toggle(card),
      judge: ({ document_id, passage_id }, verdict) =>
        server.feedback({ request_id: found.request_id, document_id, passage_id, verdict }),
      open: (hit) => {
        const { document_id, passage_id } = hit;
        if (!this.#tell("document-open", { document_id, passage_id })) return;
        const document = () => server.document(document_id);
        this.#drawer.show(hit, response, document, () => explanations.of(hit));
      },
      weakOpened: () => shading.first(),
    });
    const shading = new Shading(one(view, ".shading"), cards, explanations);
    this.#states.answer(view, spoken);
    offerLink(
      one(this.#root, ".share-link"),
      permalink(this.#address(""), { ...this.#asked, requestId: found.request_id }),
    );
    this.#tell("attribution", found);
    if (found.query.stands_out) shading.first();
    this.#describe(); // what recent answers took, and whether a server that was loading is there
  }

  /** The honest note: what was measured of this index, and where the method is told. */
  async #describe() {
    const methods = /** @type {HTMLAnchorElement} */ (one(this.#root, ".methods"));
    methods.href = this.#address("methods").href;
    this.#info = await this.#server.info().catch(() => this.#info);
    one(this.#root, ".quality").textContent = this.#info ? quality(this.#info) : "";
  }

  #tellScope() {
    const words = scopeInWords(this.#asked, this.#refine.inWords);
    one(this.#root, ".scope").hidden = words === "";
    one(this.#root, ".scope p").textContent = words;
    one(this.#root, ".share-link").replaceChildren();
  }

  /** @param {string} type @param {unknown} detail @returns {boolean} Whether nobody prevented it. */
  #tell(type, detail) {
    return this.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
  }
}

customElements.define("most-valuable-data", MostValuableData);
